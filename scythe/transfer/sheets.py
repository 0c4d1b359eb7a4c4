"""A table for people without Python: as CSV, or as a workbook of Excel with a second sheet that tells what the columns are.

Instants are those of UTC, without a zone, which Excel does not know. What has no cell (lists, nested values) is left out, and told.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import polars as pl
from polars import selectors

from scythe.define.bookkeeping import ErrorRow
from scythe.define.typed import Named
from scythe.errors import NotFoundError, ReadError, TransferError
from scythe.gather.run_files import schema_of_file
from scythe.names import ID_LEVELS
from scythe.reader.one_run import one_run, scan_run
from scythe.reader.shown import gone_file
from scythe.reader.verbs import AskedRun, AskedVersion
from scythe.record.find import name_of
from scythe.record.generations import catalog_of
from scythe.record.layout import RunKey
from scythe.record.manifest import renames_now
from scythe.record.results import RunResult
from scythe.settings import engine_settings, storage
from scythe.transfer.chosen import asked_of
from scythe.transfer.conditions import filtered, first_sentence, missing, unknown
from scythe_catalog.storage.objects import Objects
from scythe_catalog.whole_files import whole

Kind = Literal["csv", "xlsx"]

_KEY = "sort_index"
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


def write_sheets(
    experiment: Named,
    folder: Path,
    wanted: Sequence[tuple[str, Kind]],
    version: AskedVersion = None,
    *,
    run: AskedRun = None,
    where: pl.Expr | str | None = None,
) -> list[Sheet]:
    """Writes tables of one run into a folder, without the four identifiers of their rows: all of them, or none where one cannot be.

    Args:
        experiment: A name (with or without `scythe_experiment_`) or the registered function.
        folder: Where the files go; each has the name of run and table.
        wanted: Each table, and as what it is written.
        version: As `read` takes it.
        run: As `read` takes it.
        where: The rows: a condition of the columns of `scalars` chooses the inputs of which each table has its rows, those that failed, too,
            where it asks of their fields alone; one that names other columns is asked of the table itself.

    Raises:
        NotFoundError: there is no such run, table or column of the condition.
        TransferError: XlsxWriter is not installed, a sheet of Excel has not as many rows, no column has a cell, or the folder cannot be written.
        ReadError: the condition cannot be asked of the rows.
        StorageError: the root cannot be reached.
    """
    if any(kind == "xlsx" for _, kind in wanted) and find_spec("xlsxwriter") is None:
        raise TransferError("a workbook of Excel needs one more package: pip install xlsxwriter")
    of = _OfRun(storage(), *one_run(storage(), name_of(experiment), version, run))
    condition = asked_of("all", "all", where).where
    planned = [_Planned.of(of, table, kind, folder, condition) for table, kind in dict.fromkeys(wanted)]
    with ExitStack() as files:  # each has its name once all are whole
        return [one.written(files) for one in planned]


@dataclass(frozen=True)
class _OfRun:
    """The tables of a run, and their rows that a condition takes."""

    objects: Objects
    key: RunKey
    result: RunResult | None

    def rows(self, table: str, condition: pl.Expr | None) -> pl.LazyFrame:
        frame = self._scan(table)
        if condition is None:
            return frame
        if table != "scalars" and (inputs := self._inputs(table, frame, condition)) is not None:
            return frame.join(inputs, on=_KEY, how="semi", maintain_order="left")
        return self._filtered(table, frame, condition)

    def notes(self, table: str) -> pl.DataFrame | None:
        """Of each column its unit and its meaning, as the models tell them, by the name that it has now."""
        if self.result is None:
            return None
        schema = schema_of_file(self.objects, self.result.tables[table].key).renamed(self._renamed(table))
        rows = [(c.name, c.unit, c.doc) for c in schema if c.name not in ID_LEVELS]
        return pl.DataFrame(rows, {"column": pl.String, "unit": pl.String, "meaning": pl.String}, orient="row")

    def _inputs(self, table: str, frame: pl.LazyFrame, condition: pl.Expr) -> pl.LazyFrame | None:
        """The `sort_index` of each input that a condition takes; None where it is to be asked of the table itself.

        Raises:
            NotFoundError: it names columns that neither has.
        """
        try:
            scalars = self._scan("scalars")
        except NotFoundError:  # it was left out of a download
            return None
        lacking = unknown(scalars, condition, self._renamed("scalars"))
        if lacking is not None:
            own = unknown(frame, condition, self._renamed(table))
            if own is None:
                return None
            if own != lacking:
                raise NotFoundError(
                    f"where= names columns of two tables of {self.key.path}: 'scalars' has not {lacking!r}, {table!r} has not {own!r}; "
                    "ask of one of them"
                )
            there = [name for one in (frame, scalars) for name in one.collect_schema().names()]
            what = f"where= names a column that neither {table!r} nor 'scalars' of {self.key.path} has:"
            raise NotFoundError(missing(what, own, list(dict.fromkeys(there))))
        found = [self._filtered("scalars", scalars, condition)]
        with suppress(NotFoundError):
            errors = self._scan("errors").drop(ErrorRow._fields, strict=False)
            found += [self._filtered("errors", errors, condition)]
        return pl.concat([one.select(_KEY) for one in found])

    def _scan(self, table: str) -> pl.LazyFrame:
        catalog = catalog_of(self.objects, engine_settings().catalog)
        return scan_run(catalog, self.objects, self.key, self.result, table, None, ids=True)[0]

    def _filtered(self, table: str, frame: pl.LazyFrame, condition: pl.Expr) -> pl.LazyFrame:
        told = f"{table!r} of {self.key.path}"
        return filtered(frame, condition, f"the rows of {told}", told, self._renamed(table))

    def _renamed(self, table: str) -> Mapping[str, str]:
        return renames_now(self.objects, self.key.experiment).of(table)


@dataclass(frozen=True)
class _Planned:
    """A file that can be written, as far as that is known without its rows."""

    of_run: _OfRun
    table: str
    kind: Kind
    #: Where it goes, its rows as cells have them, and what its `Sheet` tells.
    path: Path
    rows: pl.LazyFrame
    left_out: tuple[str, ...]
    zoned: tuple[str, ...]
    has_condition: bool

    @classmethod
    def of(cls, of: _OfRun, table: str, kind: Kind, folder: Path, condition: pl.Expr | None) -> _Planned:
        plain, left_out, zoned = _plain(of.rows(table, condition).drop(ID_LEVELS, strict=False))
        if not plain.collect_schema().names():
            raise TransferError(
                f"no column of {table!r} of {of.key.path} has a cell ({', '.join(left_out)}): download the run"
            )
        path = folder / f"{of.key.path.replace('/', '-')}-{table}.{kind}"
        return cls(of, table, kind, path, plain, left_out, zoned, condition is not None)

    def written(self, files: ExitStack) -> Sheet:
        """Writes it; it gets its name when `files` are closed."""
        files.enter_context(_spoken(self.path))
        part = files.enter_context(whole(self.path))
        cut: tuple[str, ...] = ()
        try:
            if self.kind == "csv":
                self.rows.with_columns(selectors.duration().dt.to_string("iso")).sink_csv(part)
                count = self.rows.select(pl.len()).collect().item()
            else:
                frame, cut = _milliseconds(self.rows.collect())
                count = frame.height
                _workbook(frame, part, self.table, self.of_run.notes(self.table))
        except FileNotFoundError as error:
            raise gone_file(self.of_run.objects, self.of_run.key, self.of_run.result, self.table) or error from error
        except (pl.exceptions.PolarsError, ValueError) as error:  # of PyIceberg, of a time without a zone, say
            if not self.has_condition:
                raise
            raise ReadError(
                f"where= cannot be asked of the rows of {self.table!r} of {self.of_run.key.path}: {first_sentence(error)}"
            ) from error
        return Sheet(self.path, count, self.left_out, self.zoned, cut)


def _plain(frame: pl.LazyFrame) -> tuple[pl.LazyFrame, tuple[str, ...], tuple[str, ...]]:
    schema = frame.collect_schema()
    left_out = [n for n, t in schema.items() if t.is_nested() or t == pl.Binary]
    zoned = [n for n, t in schema.items() if isinstance(t, pl.Datetime) and t.time_zone is not None]
    utc = [pl.col(n).dt.convert_time_zone("UTC").dt.replace_time_zone(None) for n in zoned]
    return frame.with_columns(utc).drop(left_out), tuple(left_out), tuple(zoned)


def _milliseconds(frame: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Instants, times of a day and durations as a cell has them, none of them of the next day; and the columns that had more digits."""
    ms = 1_000_000
    micros = selectors.duration().cast(pl.Duration("us")).cast(pl.Int64)
    short = frame.with_columns(
        selectors.datetime().dt.truncate("1ms"),
        (selectors.time().cast(pl.Int64) // ms * ms).cast(pl.Time),
        (micros.abs() // 1000 * 1000 * micros.sign()).cast(pl.Duration("us")),  # towards 0: digits are cut
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


__all__ = ["Sheet", "write_sheets"]
