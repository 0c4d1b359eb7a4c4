"""Collects the rows of chunks as they come back: flushed to parts, shown to readers, gathered at the end.

A part has a name of its own, and its rows are shown under it: whatever is repeated after a crash
shows no row twice.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from obstore.exceptions import BaseError

from scythe.define.experiment import Experiment
from scythe.errors import CommitConflict, RunError, ScytheError, StorageError, StorageRefused
from scythe.gather.coverage import Coverage
from scythe.gather.error_kinds import ErrorKinds, News
from scythe.gather.error_limit import ErrorLimit
from scythe.gather.final import Gather, coverage_of
from scythe.gather.parts import Part, PartFile, Rows, parts_named, record_shown, stored_parts, write_part
from scythe.gather.publish import settle
from scythe.leaf.rows import ChunkResult
from scythe.record.generations import catalog_of
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, read_result
from scythe.terminal.console import tell
from scythe_catalog.errors import CatalogAway
from scythe_catalog.storage.objects import reason

_FIRST_FLUSH_SECONDS = 10.0
_FLUSH_SHARE = 0.02
_MAX_HELD_BYTES = 64 * 1024 * 1024
#: So many kinds of errors are told of while the work goes on; the result has them all.
_TOLD_KINDS = 50
#: What the names of parts end with whose rows others have counted.
_HANDED = "-handed"


class Collector:
    """The rows of one attempt on a run, or of one node of an attempt; its parts are named by `prefix`."""

    def __init__(
        self, plan: RunPlan, experiment: Experiment, attempt: int, *, prefix: str | None = None, show: bool = True
    ) -> None:
        self.plan, self.experiment, self.attempt = plan, experiment, attempt
        self.began = dt.datetime.now(dt.UTC)
        self.rows = self.errors = 0
        self._held = Rows()
        #: Those that others have counted.
        self._handed = Rows()
        self._prefix = f"{attempt:06d}" if prefix is None else prefix
        self._parts = 0
        #: A run whose inputs are run again is shown as it was until its new end: no input in two tables.
        self._shown = show and not plan.objects.exists(plan.key.result)
        #: Parts that readers of the catalog do not see yet.
        self._unshown: list[Part] = []
        #: What is in the parts that were taken up.
        self._before: Coverage | None = None
        self._next_flush = time.monotonic() + _FIRST_FLUSH_SECONDS
        self._kinds = ErrorKinds()
        self.limit = ErrorLimit(plan.max_errors, plan.inputs, plan.key.path)
        #: What is to be told about errors of a kind that had not been seen before; who tells it empties it.
        self.news: list[News] = []

    def add(self, result: ChunkResult, files: Iterable[PartFile] = ()) -> None:
        """Takes over the rows of a chunk and the files that hold more of them, and flushes what has been held long enough.

        Raises:
            TooManyErrors: more inputs failed than the run may have; the rows were taken over.
        """
        if not self.is_new(result.first):
            return
        self._held.add(result, files)
        self.rows += result.rows
        self.errors += result.errors
        for name, table in result.tables:
            if name == "errors":
                self.news += self._kinds.add(table)
        if self._held.bytes > _MAX_HELD_BYTES or self.is_due:
            self.flush()
        self.limit.check(result.rows, result.errors, self._kinds)

    @property
    def is_due(self) -> bool:
        """Whether something has waited long enough to be flushed; to be asked now and then while nothing comes in."""
        return time.monotonic() > self._next_flush and bool(self._held or self._handed or self._unshown)

    def take_up(self, prefix: str) -> None:
        """Goes on where others have died, whose parts' names begin so: what is in them is not taken over again."""
        own = stored_parts(self.plan, prefix=prefix)
        coverage = coverage_of(self.plan, own)
        self._before = coverage if own else None
        for part in own:
            if not part.name.endswith(_HANDED):
                self._count(part)
        self._unshown += own

    def add_part(self, part: Part) -> None:
        """Takes over a part that another process has written.

        Raises:
            TooManyErrors: more inputs failed than the run may have.
        """
        if not self.is_new(part.first):
            return
        self._count(part)
        self._unshown.append(part)
        if self.is_due:
            self.flush()
        self.limit.check_part(part.rows, part.errors, self._kinds)

    def account(self) -> dict[str, Any]:
        """How many inputs have come in and how those failed that did, as plain data for others."""
        told = {"news": self.news[:_TOLD_KINDS], "kinds": self._kinds.told(_TOLD_KINDS)}
        return {"rows": self.rows, "errors": self.errors, **told}

    def check_with(self, accounts: Sequence[Mapping[str, Any]]) -> None:
        """Looks at the limit with what others that work on the attempt tell of themselves.

        Raises:
            TooManyErrors: together more inputs have failed than the run may have.
        """
        rows, errors = (sum(account[name] for account in accounts) for name in ("rows", "errors"))
        kinds = ErrorKinds(self._kinds.told(), *(account.get("kinds", ()) for account in accounts))
        self.limit.check_with(rows, errors, kinds)

    def flush(self, *, show: bool = True) -> None:
        """Makes what is held survive this process, and with `show` visible to readers of the catalog."""
        started = time.monotonic()
        for rows, end in ((self._held, ""), (self._handed, _HANDED)):
            if rows:
                self._parts += 1
                self._unshown.append(write_part(self.plan, f"{self._prefix}-{self._parts:06d}{end}", rows))
                rows.clear()
        if show:
            self._show_if_it_goes()
        took = time.monotonic() - started
        self._next_flush = time.monotonic() + max(_FIRST_FLUSH_SECONDS, took / _FLUSH_SHARE)

    def hand_over(self, most: int) -> tuple[ChunkResult | None, list[str]]:
        """What is held, where it has `most` bytes at most, for another to hold; else it is made to survive this process.

        With it the names of the parts that readers do not see yet, for another to show.
        """
        small = None
        if not self._held.files and 0 < self._held.bytes + self._handed.bytes <= most:
            self._held.add(self._handed.joined())
            small = self._held.joined()
            self._held.clear()
            self._handed.clear()
        self.flush(show=False)
        parts, self._unshown = self._unshown, []
        return small, [part.name for part in parts]

    def take_over(self, small: Iterable[ChunkResult], names: Iterable[str]) -> None:
        """Holds the rows and shows the parts, when it is time to, that others have counted and handed over."""
        for result in small:
            if self.is_new(result.first):
                self._handed.add(result)
        self._unshown += parts_named(self.plan, names)
        if self._handed.bytes > _MAX_HELD_BYTES:
            self.flush()

    def keep(self, error: BaseException) -> None:
        """`flush`, where an error ends the work: that is what is told, and what keeps this from succeeding is a note on it."""
        try:
            self.flush()
        except Exception as second:  # noqa: BLE001 - it must not hide the first
            error.add_note(f"What was finished last could not be kept, and is run again by a resume: {second}")

    def is_new(self, sort_index: int | None) -> bool:
        """Whether an input is in none of the parts that were taken up."""
        return self._before is None or sort_index is None or not self._before.covers(sort_index)

    def _count(self, part: Part) -> None:
        self.rows += part.rows
        self.errors += part.errors

    def _show_if_it_goes(self) -> None:
        """Readers see rows before the end where the catalog takes them: what is stored is shown later else, at the end at last."""
        parts, self._unshown = self._unshown, []
        if not (self._shown and parts):
            return
        try:
            self._show(parts)
        except StorageRefused:
            raise
        except (StorageError, CommitConflict) as error:
            self._unshown = [*parts, *self._unshown]
            tell(f"{self.plan.key.path}: what is finished is stored, and cannot be shown yet: {error}")

    def _show(self, parts: Sequence[Part]) -> None:
        catalog = catalog_of(self.plan.objects, self.plan.catalog)
        # Small shards are joined at the end: until then no table names what lies in them.
        tables = {n: t for n, t in self.plan.tables.items() if not (self.plan.pack and n == "result_file_refs")}
        shown = [file for part in parts for file in part.files if file.table in tables]
        # Another try may have grouped them otherwise: no record is written over that of other parts.
        by = parts[0].name if len(parts) == 1 else f"{parts[0].name}-{len(parts)}-{parts[-1].name}"
        record_shown(self.plan.objects, self.plan.key, shown, by)
        for name, planned in tables.items():
            files = {
                f"{self.plan.key.path}/{part.name}": [f.data_file for f in part.files if f.table == name]
                for part in parts
            }
            if any(files.values()):
                table = catalog.table(self.plan.key.experiment, planned.catalog_table)
                if planned.ids.items() <= table.ids.items():  # else it was made anew since, and shows them at the end
                    table.append_each(files, self.plan.key.partition, wanted=self._goes_on)

    def _goes_on(self) -> bool:
        """Whether the run is there and has come to no end: another process may have brought it to one."""
        objects, key = self.plan.objects, self.plan.key
        return objects.exists(key.manifest) and not objects.exists(key.result)

    def finish(self) -> RunResult:
        """Gathers the run, once what is held would survive the death of this process.

        Raises:
            RunError: the gathering failed (a full disk, say); finished rows are kept as far as they can be.
            Superseded: a later process has taken up the run.
        """
        try:
            self.flush(show=False)
            return self._ended() or Gather(self.plan, self.experiment).finish(self.attempt, self.began)
        except (OSError, BaseError) as error:
            raise RunError(self._stopped_by(error)) from error

    def _stopped_by(self, error: BaseException) -> str:
        """What a run that storage has failed at its end is told to be, and the way out."""
        objects, key, what = self.plan.objects, self.plan.key, reason(error)
        if isinstance(error, CatalogAway):
            way_out = "See to it that its server runs, and that its settings are right"
        else:
            way_out = "Make room, or mend the folder" if objects.folder else "Mend what is wrong with the bucket"
        try:
            recorded = read_result(objects, key)
        except (OSError, BaseError, ScytheError):
            recorded = None
        if recorded is not None and recorded.attempt == self.attempt:
            return (
                f"the run {objects.uri(key.path)} is finished and can be read, but what lies beside its result cannot be "
                f"written: {what}. {way_out}, and resume the run"
            )
        return (
            f"the run {objects.uri(key.path)} cannot be gathered: {what}; what is committed stays readable. "
            f"{way_out}, and resume the run"
        )

    def _ended(self) -> RunResult | None:
        """What this very attempt has come to already: the process that wrote it died before it could tell."""
        result = read_result(self.plan.objects, self.plan.key)
        if result is None or result.attempt != self.attempt:
            return None
        settle(self.plan.objects, catalog_of(self.plan.objects, self.plan.catalog), self.plan.key)
        return result
