"""What a run came to: `result.json`, written last, whose existence says that the run is finished."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import BaseModel

from scythe.errors import RunDamaged
from scythe.record.format import FORMAT, parse_as
from scythe.record.layout import MANIFEST, RunKey, no_plan_left
from scythe.terminal.cards import Card, html, own_names
from scythe.terminal.console import plain
from scythe.terminal.notebook import link_to
from scythe_catalog.storage.objects import Objects

_SHOWN_KINDS, _SHOWN_CHARACTERS = 3, 300


class TableResult(BaseModel):
    """One table of a finished run."""

    uri: str
    #: Its data file, below the root; it never changes.
    key: str
    #: Its table in the catalog.
    catalog_table: str
    columns: list[str]
    rows: int
    bytes: int
    #: Whether it has columns, or parts of columns, that no row tells the type of: the catalog does not hold these.
    untold: bool = False


#: The last line of what pydantic says of a value.
_PYDANTIC_PAGE = r"\n\s*For further information visit \S+"


class ErrorKind(BaseModel):
    """Errors that are alike: of one class, from one place, with messages that differ in their values alone.

    Attributes:
        exception_type: The class.
        place: File, line and function where it was raised; empty where it was not raised in code of yours.
        message: The first one's message.
        count: How many inputs failed so.
        first: The lowest `sort_index` of them.
    """

    exception_type: str
    place: str
    message: str
    count: int
    first: int

    @property
    def name(self) -> str:
        """The name of the class, without its module."""
        return self.exception_type.rpartition(".")[2]

    def __str__(self) -> str:
        line = " ".join(re.sub(_PYDANTIC_PAGE, "", self.message).split())
        if len(line) > _SHOWN_CHARACTERS:  # what was found stands at the end of many
            line = f"{line[: _SHOWN_CHARACTERS // 2]} … {line[3 - _SHOWN_CHARACTERS // 2 :]}"
        return f"{self.name} {line} ({self.count:,})"


def kinds_told(kinds: Sequence[ErrorKind]) -> list[str]:
    """The first of some kinds, a line each."""
    more = ["…"] if len(kinds) > _SHOWN_KINDS else []
    return [str(kind) for kind in kinds[:_SHOWN_KINDS]] + more


class RunResult(BaseModel):
    """What `ref.result()` gives: what a run came to.

    Attributes:
        experiment_id: `experiment/version/datetime` of the run.
        workflow_run_id: Identifier of the run, as in its manifest.
        uris: Table name -> URI of its Parquet file.
        inputs: How many inputs there were.
        rows: How many of them came to results.
        errors: How many of them failed.
        error_kinds: Those by their kind, the most frequent first.
        seconds: How long was worked on the run, all attempts together; of one that was killed until its last sign of life.
        finished: When that was, in UTC.
        attempt: Which attempt on the run it was: 1, or that of a resume or retry.
        tables: Table name -> its file, columns, number of rows and bytes.
        gather: Name of the gather that wrote the files; None of those of earlier versions of Scythe.
        left_out: Of a run that was downloaded without them: table name -> URI of its file where it came from.
        owners: The runs, by their `experiment_id`, in whose folders output files lie that reused rows name.
        format: Of the file that holds this.

    Examples:
        >>> result = scythe.open_run("simulate_energy").result
        >>> result.inputs, result.rows, result.errors
        (3, 3, 0)
        >>> pl.read_parquet(result.uris["scalars"])["heating"].to_list()
        [40.0, 20.0, 10.0]
    """

    experiment_id: str
    workflow_run_id: str | None
    uris: dict[str, str]
    inputs: int
    rows: int
    errors: int
    seconds: float
    finished: datetime
    attempt: int
    tables: dict[str, TableResult]
    gather: str | None = None
    error_kinds: list[ErrorKind] = []
    left_out: dict[str, str] = {}
    owners: list[str] = []
    format: int = FORMAT

    @property
    def errors_told(self) -> str:
        """How many inputs failed, and of which kinds, in a line.

        Examples:
            >>> scythe.open_run("simulate_energy").result.errors_told
            '0 errors'
        """
        kinds = "; ".join(self.kinds_told)
        return f"{self.errors:,} error{'' if self.errors == 1 else 's'}" + (f": {kinds}" if kinds else "")

    @property
    def kinds_told(self) -> list[str]:
        """The most frequent kinds of errors, a line each.

        Examples:
            >>> scythe.open_run("simulate_energy").result.kinds_told
            []
        """
        return kinds_told(self.error_kinds)

    def __dir__(self) -> list[str]:
        return own_names(super().__dir__())

    def _repr_html_(self) -> str:
        return result_html(self)

    def __repr__(self) -> str:
        counts = f"{self.rows:,} rows, {self.errors_told} in {self.seconds:.3g} s"
        return plain(f"<RunResult {self.experiment_id}: {counts}; {', '.join(self.tables)}>")

    __str__ = __repr__


def result_html(result: RunResult) -> str:
    """The card of a result: what it tells by itself."""
    tables = result.tables.values()
    folder = next((table.uri.removesuffix(table.key) + result.experiment_id for table in tables), None)
    link = link_to(folder, MANIFEST) if folder is not None else None
    card = Card(
        result.experiment_id, "finished", result.inputs, result.rows, result.errors, f"{result.seconds:,.3g} s",
        result.kinds_told, folder=folder, link=link,
    )  # fmt: skip
    return html(card)


def finished_result(objects: Objects, key: RunKey) -> RunResult | None:
    """The result of a run that is there; None of one that is half deleted, too, of which the manifest goes first.

    Raises:
        RunDamaged: it is no result any more, or is gone.
        FormatError: it was written by a later Scythe.
    """
    looks: list[Callable[[], bool | bytes | None]] = [lambda: objects.exists(key.manifest), lambda: _raw(objects, key)]
    is_there, raw = objects.each(lambda look: look(), looks)
    if is_there and raw is None:
        check_not_lost(objects, key)
    return _parsed(objects, key, raw) if is_there and isinstance(raw, bytes) else None


def check_not_lost(objects: Objects, key: RunKey) -> None:
    """Nothing where a run without a result has never had one, or is being deleted: `final/` shows its tables once it is there.

    Raises:
        RunDamaged: it has lost it.
    """
    shown = objects.files(key.final("").rpartition("/")[0])
    if shown and not objects.exists(key.result) and objects.exists(key.manifest):
        gone, way = objects.uri(key.result), f"let `scythe resume {key.path}` run its inputs anew"
        if not objects.exists(key.plan):  # without which nothing goes on with it
            gone, way = f"{gone} (and the run's plan, {objects.uri(key.plan)})", no_plan_left(key)
        raise RunDamaged(
            f"{gone} is gone, and the run was finished: put it back (was the root copied by half?), or {way}"
        )


def read_result(objects: Objects, key: RunKey) -> RunResult | None:
    """The result of a run, with URIs below the root as it is now; None while the run is not finished.

    Raises:
        RunDamaged: it is no result any more.
        FormatError: it was written by a later Scythe.
    """
    raw = _raw(objects, key)
    return None if raw is None else _parsed(objects, key, raw)


def _raw(objects: Objects, key: RunKey) -> bytes | None:
    try:
        return objects.read(key.result)
    except FileNotFoundError:
        return None


def _parsed(objects: Objects, key: RunKey, raw: bytes) -> RunResult:
    return located(objects, parse_result(raw, objects.uri(key.result)))


def located(objects: Objects, result: RunResult) -> RunResult:
    """The same result with the URIs of its files as they lie below a root."""
    tables = {n: table.model_copy(update={"uri": objects.uri(table.key)}) for n, table in result.tables.items()}
    return result.model_copy(update={"tables": tables, "uris": {n: table.uri for n, table in tables.items()}})


def parse_result(raw: bytes, where: str) -> RunResult:
    """A result as it is stored; `where` names it in errors.

    Raises:
        RunDamaged: it is no result any more.
        FormatError: it was written by a later Scythe.
    """
    return parse_as(RunResult, raw, where)
