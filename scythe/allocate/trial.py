"""What trying a few inputs came to, and its text: a line a field, a column an input, so that many fields can be read. Runs nothing."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scythe.terminal.console import plain

if TYPE_CHECKING:
    import polars as pl

_SHOWN_FIELDS = 40
_SHOWN_FILES = 10
_SHOWN_LINES = 5
_WIDTH = 24
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


@dataclass(frozen=True)
class Estimate:
    """What all inputs would come to, by those that were tried.

    Attributes:
        inputs: How many there are.
        seconds: How long they would take on this machine, all its processes together [s].
        workers: How many processes that is.
        bytes: How large tables and files would be at most: tables are compressed when they are stored.

    Examples:
        >>> from scythe import BaseExperiment
        >>> specs = pl.DataFrame({"r_value": [2.0, 4.0, 8.0, 9.0]})
        >>> BaseExperiment(simulate_energy).try_out(specs, n=2).estimate.inputs
        4
    """

    inputs: int
    seconds: float
    workers: int
    bytes: int


@dataclass(frozen=True, repr=False)
class Trial:
    """What a few inputs came to; shows itself as text, in a notebook too.

    Attributes:
        experiment: The name of the experiment.
        inputs: The inputs that were tried, one row each: `sort_index` (the row among all) and their fields.
        outputs: The outputs of those that did not fail, by `sort_index`.
        tables: The other tables: dataframes of the function, `result_file_refs`, and `logs` (what was printed).
        errors: Those that failed: `sort_index`, class and text of the exception, traceback.
        tasks: Of each `sort_index` the seconds in the function, and the peak memory of its process [MB].
        files: Size in bytes of each output file.
        units: Type and unit of each field of inputs and outputs, in words.
        estimate: What all inputs would come to.

    Examples:
        >>> from scythe import BaseExperiment
        >>> trial = BaseExperiment(simulate_energy).try_out(pl.DataFrame({"r_value": [2.0, 4.0, 8.0]}), n=2)
        >>> trial.inputs["r_value"].to_list(), trial.outputs.height, trial.errors.height
        ([2.0, 8.0], 2, 0)
    """

    experiment: str
    inputs: pl.DataFrame
    outputs: pl.DataFrame
    tables: Mapping[str, pl.DataFrame]
    errors: pl.DataFrame
    tasks: pl.DataFrame
    files: Mapping[Path, int]
    units: Mapping[str, str]
    estimate: Estimate

    def __repr__(self) -> str:
        return text_of(self)

    def _repr_html_(self) -> str:
        return f'<pre style="font-family:monospace;line-height:1.4">{html.escape(text_of(self))}</pre>'


def text_of(trial: Trial) -> str:
    """What a person reads of a trial."""
    return "\n".join(_lines(trial))


def _lines(trial: Trial) -> Iterator[str]:
    estimate, failed = trial.estimate, trial.errors.height
    yield f"{trial.experiment}: {trial.inputs.height:,} of {estimate.inputs:,} inputs tried, {failed:,} failed"
    yield ""
    yield from _side_by_side(trial)
    levels = set(trial.inputs.columns)
    for name in sorted(trial.tables.keys() - {"result_file_refs", "logs"}):
        table = trial.tables[name]
        yield ""
        yield f"{name}: {table.height:,} rows"
        yield from (f"  {column}: {dtype}" for column, dtype in table.schema.items() if column not in levels)
    if "logs" in trial.tables:
        yield ""
        yield "printed"
        for row in trial.tables["logs"].rows(named=True):
            for text in (row["stdout"], row["stderr"], row["log"]):
                yield from (f"  #{row['sort_index']}  {line}" for line in _last_lines(text))
    if trial.files:
        yield ""
        yield f"files: {len(trial.files):,}, {size(sum(trial.files.values()))}"
        yield from (f"  {size(count):>9}  {path}" for path, count in list(trial.files.items())[:_SHOWN_FILES])
    for index, kind, message, traceback in trial.errors.rows():
        yield ""
        yield plain(f"input {index} failed: {kind}: {message}")
        yield plain(traceback).rstrip()
    yield ""
    processes = f"{estimate.workers} process{'es' * (estimate.workers > 1)}"
    yield (
        f"all {estimate.inputs:,} inputs: about {_duration(estimate.seconds)} on {processes} of this machine, "
        f"and at most {size(estimate.bytes)}"
    )


def _side_by_side(trial: Trial) -> Iterator[str]:
    """Inputs, outputs and what they cost, a line a field."""
    order = trial.inputs["sort_index"].to_list()
    lines = [["", "", *(f"#{i}" for i in order)]]
    for title, frame in (("inputs", trial.inputs), ("outputs", trial.outputs), ("cost", trial.tasks)):
        rows = {row["sort_index"]: row for row in frame.to_dicts()}
        names = [name for name in frame.columns if name != "sort_index"]
        lines.append([title])
        for name in names[:_SHOWN_FIELDS]:
            unit = {"seconds": "[s]", "peak_memory": "[MB]"}.get(name, "") if title == "cost" else trial.units[name]
            lines.append([f"  {name}", unit, *(_cell(rows[i][name]) if i in rows else "failed" for i in order)])
        if len(names) > _SHOWN_FIELDS:
            lines.append([f"  … and {len(names) - _SHOWN_FIELDS:,} more"])
    yield from aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines whose cells stand below each other: the first two to the left, the others to the right."""
    full = [line for line in lines if len(line) > 1]
    widths = [max(len(line[i]) for line in full) for i in range(len(full[0]))]
    for line in lines:
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=False))]
        yield "  ".join(cells).rstrip()


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return str(value)
        case float():
            return f"{value:,.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:,.4g}"
        case int():
            return f"{value:,}"
        case dt.datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S")
        case _:
            text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
            return text if len(text) <= _WIDTH else text[: _WIDTH // 2] + "…" + text[1 - _WIDTH // 2 :]


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    found = next(((unit, factor) for unit, factor in _UNITS if count >= factor), None)
    return f"{count:,} B" if found is None else f"{count / found[1]:,.1f} {found[0]}"


def _last_lines(text: str | None) -> list[str]:
    lines = plain(text or "").splitlines()
    return (["…"] if len(lines) > _SHOWN_LINES else []) + lines[-_SHOWN_LINES:]


def _duration(seconds: float) -> str:
    for unit, factor in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:,.0f} {unit}"
    return f"{seconds:,.0f} seconds" if seconds >= 1.5 else "a second or less"
