"""A table for people without Python: as CSV, or as a workbook of Excel with a second sheet that tells what the columns are.

Instants are those of UTC, without a zone, which Excel does not know. What has no cell (lists, nested values) is left out, and told.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import polars as pl
from polars import selectors

from scythe.define.typed import Named
from scythe.errors import ReadError, TransferError
from scythe.gather.run_files import schema_of_file
from scythe.names import ID_LEVELS
from scythe.reader.one_run import one_run, scan_run
from scythe.reader.verbs import AskedRun, AskedVersion
from scythe.record.find import name_of
from scythe.record.generations import catalog_of
from scythe.record.layout import RunKey
from scythe.record.manifest import renames_now
from scythe.settings import engine_settings, storage
from scythe.transfer.chosen import asked_of
from scythe.transfer.conditions import filtered, first_sentence
from scythe_catalog.storage.objects import Objects
from scythe_catalog.whole_files import whole

#: A sheet of Excel has so many rows, the names of the columns included, and so many columns.
_MOST_ROWS, _MOST_COLUMNS = 1_048_576, 16_384
#: A cell of it holds so many characters, each of two where UTF-16 has it in two, and so large whole and other numbers.
_MOST_CHARACTERS, _MOST_NUMBER, _MOST_FLOAT = 32_767, 2**53, 9.99999999999999e307
#: The first day that a cell holds, and the first on which it holds a time of the day, too.
_FIRST_DAY, _FIRST_TIME = dt.date(1900, 1, 1), dt.datetime(1900, 1, 2)  # noqa: DTZ001 - of a cell, which has none

#: How cells show what they hold. Excel counts times in days, and has no clock for those below 0; of numbers its own way shows small ones, too.
_FORMATS: dict[Any, str] = {
    pl.Duration: '[h]:mm:ss.000;-0.0########" days"', pl.Time: "hh:mm:ss.000", pl.Float32: "General", pl.Float64: "General",
}  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """A file that was written, its rows, and what was left out or changed."""

    path: Path
    rows: int
    #: The columns that have no cell.
    left_out: tuple[str, ...]
    #: The columns of which the zone was taken off.
    zoned: tuple[str, ...]
    #: The columns of which the microseconds were cut to milliseconds, as Excel has them.
    cut: tuple[str, ...] = ()


def write_sheet(
    experiment: Named,
    table: str,
    folder: Path,
    kind: Literal["csv", "xlsx"],
    version: AskedVersion = None,
    *,
    run: AskedRun = None,
    where: pl.Expr | str | None = None,
) -> Sheet:
    """Writes a table of one run into a folder, without the four identifiers of its rows; the file has the name of run and table.

    Raises:
        NotFoundError: there is no such run, table or column of the condition.
        TransferError: XlsxWriter is not installed, a sheet of Excel has not as many rows, no column has a cell, or the folder cannot be written.
        ReadError: the condition cannot be asked of the rows.
        StorageError: the root cannot be reached.
    """
    if kind == "xlsx" and find_spec("xlsxwriter") is None:
        raise TransferError("a workbook of Excel needs one more package: pip install xlsxwriter")
    objects, name = storage(), name_of(experiment)
    key, result = one_run(objects, name, version, run)
    frame, _ = scan_run(catalog_of(objects, engine_settings().catalog), objects, key, result, table, None, ids=True)
    condition = asked_of("all", "all", where).where
    if condition is not None:
        told, renamed = f"{table!r} of {key.path}", renames_now(objects, name).of(table)
        frame = filtered(frame, condition, f"the rows of {told}", told, renamed)
    plain, left_out, zoned = _plain(frame.drop(ID_LEVELS, strict=False))
    if not plain.collect_schema().names():
        raise TransferError(
            f"no column of {table!r} of {key.path} has a cell ({', '.join(left_out)}): download the run"
        )
    path = folder / f"{key.path.replace('/', '-')}-{table}.{kind}"
    cut: tuple[str, ...] = ()
    with _spoken(path), whole(path) as part:
        try:
            if kind == "csv":
                plain.with_columns(selectors.duration().dt.to_string("iso")).sink_csv(part)
                rows = plain.select(pl.len()).collect().item()
            else:
                frame, cut = _milliseconds(plain.collect())
                rows = frame.height
                notes = _notes(objects, key, table, result.tables[table].key) if result is not None else None
                _workbook(frame, part, table, notes)
        except (pl.exceptions.PolarsError, ValueError) as error:  # of PyIceberg, of a time without a zone, say
            if condition is None:
                raise
            raise ReadError(
                f"where= cannot be asked of the rows of {table!r} of {key.path}: {first_sentence(error)}"
            ) from error
    return Sheet(path, rows, left_out, zoned, cut)


def _plain(frame: pl.LazyFrame) -> tuple[pl.LazyFrame, tuple[str, ...], tuple[str, ...]]:
    schema = frame.collect_schema()
    left_out = [n for n, t in schema.items() if t.is_nested() or t == pl.Binary]
    zoned = [n for n, t in schema.items() if isinstance(t, pl.Datetime) and t.time_zone is not None]
    utc = [pl.col(n).dt.convert_time_zone("UTC").dt.replace_time_zone(None) for n in zoned]
    return frame.with_columns(utc).drop(left_out), tuple(left_out), tuple(zoned)


def _milliseconds(frame: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Instants, times of a day and durations as a cell has them, none of them of the next day; and the columns that had more digits."""
    ms = 1_000_000
    short = frame.with_columns(
        selectors.datetime().dt.truncate("1ms"),
        (selectors.time().cast(pl.Int64) // ms * ms).cast(pl.Time),
        (selectors.duration().cast(pl.Duration("us")).cast(pl.Int64) // 1000 * 1000).cast(pl.Duration("us")),
    )
    times = frame.select(selectors.datetime() | selectors.time() | selectors.duration()).columns
    return short, tuple(name for name in times if not frame[name].equals(short[name]))


@contextmanager
def _spoken(path: Path) -> Generator[None]:
    """What is wrong with a file that is written, in a sentence.

    Raises:
        TransferError: its folder cannot be made, its name is that of a folder, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:  # of Polars: it has a text alone
        where = f" ({error.filename})" if error.filename else ""
        raise TransferError(f"{path} cannot be written: {error.strerror or error}{where}") from error


def _workbook(frame: pl.DataFrame, path: Path, table: str, notes: pl.DataFrame | None) -> None:
    from xlsxwriter import Workbook

    if frame.height >= _MOST_ROWS:
        raise TransferError(
            f"the table {table!r} has {frame.height:,} rows, a sheet of Excel {_MOST_ROWS - 1:,} at most: write it as CSV, "
            "or fewer of its rows with where="
        )
    if frame.width > _MOST_COLUMNS:
        raise TransferError(
            f"the table {table!r} has {frame.width:,} columns, a sheet of Excel {_MOST_COLUMNS:,} at most: write it as CSV"
        )
    if cut := _cut(frame):
        raise TransferError(
            f"the column {cut!r} of the table {table!r} has values that a cell of Excel cannot show: more than "
            f"{_MOST_CHARACTERS:,} characters, whole numbers beyond {_MOST_NUMBER:,}, other numbers beyond {_MOST_FLOAT}, days before {_FIRST_DAY} "
            f"or instants before {_FIRST_TIME:%Y-%m-%d}: "
            "write it as CSV, or fewer of its rows with where="
        )
    title = f"table {table}"[:31] if table.lower() == "columns" else table[:31]
    named: Sequence[tuple[str, pl.DataFrame | None]] = ((title, frame), ("columns", notes))
    # A text that is an address stays that text: a link of Excel's shows another, and there are 65,530 of them at most.
    plainly = {"strings_to_formulas": False, "strings_to_urls": False, "nan_inf_to_errors": True}
    with Workbook(path, plainly) as book:
        for title, sheet in named:
            if sheet is not None:
                sheet.write_excel(book, worksheet=title, autofit=True, dtype_formats=_FORMATS)


def _cut(frame: pl.DataFrame) -> str | None:
    """The first column with a value that a cell of Excel would cut, or show as none."""
    texts = selectors.string()
    characters = texts.str.len_chars() + texts.str.count_matches(r"[\x{10000}-\x{10FFFF}]")
    numbers, floats = selectors.integer() | selectors.decimal(), selectors.float()
    found = frame.select(
        (characters > _MOST_CHARACTERS).any(),
        ((numbers > _MOST_NUMBER) | (numbers < -_MOST_NUMBER)).any(),
        (floats.is_finite() & (floats.abs() > _MOST_FLOAT)).any(),
        (selectors.date() < _FIRST_DAY).any(),
        (selectors.datetime() < _FIRST_TIME).any(),
    )
    return next((column.name for column in found if column.any()), None)


def _notes(objects: Objects, run: RunKey, table: str, key: str) -> pl.DataFrame:
    """Of each column its unit and its meaning, as the models tell them, by the name that it has now."""
    renames = renames_now(objects, run.experiment).of(table)
    schema = schema_of_file(objects, key).renamed(renames)
    rows = [(c.name, c.unit, c.doc) for c in schema if c.name not in ID_LEVELS]
    return pl.DataFrame(rows, {"column": pl.String, "unit": pl.String, "meaning": pl.String}, orient="row")


__all__ = ["Sheet", "write_sheet"]
