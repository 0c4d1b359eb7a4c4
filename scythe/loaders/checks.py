"""What is asked of a dataset, held against the columns that its runs have: refused by name before any row is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import polars as pl

from scythe.errors import InputError, NotFoundError, ReadError
from scythe.loaders.groups import Columns, File, Frame, Group, option_like
from scythe.loaders.pinned.run import ROW_TABLES, PinnedRun
from scythe.names import RESERVED_TABLES, meant
from scythe.reader.choices import merged
from scythe.reader.many_runs import PARTITION_COLUMNS
from scythe.reader.one_run import check_came
from scythe_catalog.schema import Column, TableSchema, clashes, mixed_meanings, mixed_units
from scythe_catalog.schema import kinds as k

_WAYS_OUT = {
    "text": "give it as a field of an Enum or Literal, or leave it out",
    "date": "make it a number in the function, or in an output (days since a day, the hour of the year)",
    "list": "put it into a file (`File(column)`) or a dataframe (`Frame(table, columns)`)",
}


def check_groups(
    groups: Mapping[str, Group], runs: Sequence[PinnedRun], where: pl.Expr | None
) -> dict[str, tuple[Stands, ...]]:
    """What the columns of each group stand for, where the runs have what is asked for; of files nothing.

    Raises:
        NotFoundError: a column or dataframe that none of them has; the message names the nearest.
        InputError: a column that is no number, no file, or not the same in all of them.
        ReadError: `where` asks for one that holds other values in one run than in another.
    """
    found = dict[str, tuple[Stands, ...]]()
    for name, group in groups.items():
        match group:
            case Columns(names):
                choices = {column: categories(runs, column, name) for column in names}
                there = {c: columns_of(runs, c) for c in names}
            case File(column):
                check_file(runs, column, name)
                choices, there = {}, {}
            case Frame():
                check_frame(runs, group, name)
                choices, tables = dict.fromkeys(group.columns), [columns_there(run, group) for run in runs]
                there = {c: [table[c] for table in tables if c in table] for c in choices}
        found[name] = tuple(Stands(c, choices[c], unit_of(there[c]), _means_of(there[c])) for c in choices)
    if where is not None:
        asked_by(where, runs)
    return found


def check_file(runs: Sequence[PinnedRun], column: str, group: str) -> None:
    """Nothing where a column holds files in a run at least.

    Raises:
        NotFoundError: none has it.
        InputError: it holds something else.
    """
    check_column(runs, column, group)
    there = [(run, found) for run in runs if (found := run.column_of(column)) is not None]
    if not any(found.kind.is_file for _, found in there):
        raise no_file(there[0][0], column, group)


def no_file(run: PinnedRun, column: str, group: str) -> InputError:
    """That a column of a run holds no files."""
    return InputError(f"{group}: {column!r} of {run.key.path} is no file: leave File() off, {group}={column!r}")


def check_frame(runs: Sequence[PinnedRun], group: Frame, name: str) -> None:
    """Nothing where a run at least has a dataframe with such columns, of one unit in all runs.

    Raises:
        NotFoundError: none has.
        InputError: a column has another unit in one run than in another.
    """
    found = [columns_there(run, group) for run in runs]
    if runs and not any(len(there) == len(group.columns) for there in found):
        frame_columns(runs[-1], group)
    _check_alike([TableSchema(tuple(there.values())) for there in found], name)


def frame_columns(run: PinnedRun, group: Frame, runs: Sequence[PinnedRun] = ()) -> list[pl.Expr]:
    """The columns of a dataframe that a group asks for of a run, one of some, by the names by which it does.

    Raises:
        NotFoundError: the run has no such dataframe, or it no such column.
    """
    check_came(run.key, run.result, group.table)
    way = ': leave its inputs out with missing="drop"' if len(runs) > 1 else ""
    if group.table not in run.schemas:
        frames = sorted(table for table in run.schemas if table not in RESERVED_TABLES)
        raise NotFoundError(
            f"{run.key.path} has no dataframe {group.table!r}{near(group.table, frames)}{_elsewhere(run)}{way}"
        )
    there, known = columns_there(run, group), run.schemas[group.table].names
    for column in group.columns:
        if column not in there:
            raise NotFoundError(
                f"the dataframe {group.table!r} of {run.key.path} has no column {column!r}{near(column, known)}{way}"
            )
    return [pl.col(run.named_in(group.table, column)).alias(column) for column in group.columns]


def columns_there(run: PinnedRun, group: Frame) -> dict[str, Column]:
    """Those of a group's columns that the dataframe of a run has, by the names by which they are asked for."""
    schema = run.schemas.get(group.table)
    names = {column: run.named_in(group.table, column) for column in group.columns}
    return {c: replace(schema[now], name=c) for c, now in names.items() if now in schema} if schema is not None else {}


def _check_alike(schemas: Iterable[TableSchema], group: str) -> None:
    """Nothing where each column has one unit, and categories that mean the same in all.

    Raises:
        InputError: one has not.
    """
    schemas = [*schemas]
    for name, told in mixed_meanings(schemas).items():
        raise InputError(
            f"{group}: {name!r} has categories that mean something else, by version ({told}): take runs of one version"
        )
    for name, units in mixed_units(schemas).items():
        raise InputError(
            f"{group}: {name!r} is in [{'], ['.join(units)}], by version: take runs of one version, or bring them to one unit first"
        )


def asked_by(where: pl.Expr, runs: Sequence[PinnedRun]) -> list[str]:
    """The columns that an expression asks for.

    Raises:
        NotFoundError: one that is not there.
        InputError: one that has another unit in one run than in another.
        ReadError: one that holds other values in one run than in another.
    """
    asked = where.meta.root_names()
    if where.meta.has_multiple_outputs():  # pl.all() and selectors: of inputs and outputs
        asked += [name for run in runs for name in run.schemas["scalars"].names]
    asked = list(dict.fromkeys(asked))
    for name in asked:
        if name in PARTITION_COLUMNS and not any(run.table_of(name) for run in runs):
            continue  # the run itself tells
        check_column(runs, name, "where")
        there = [found for run in runs if (found := run.column_of(name)) is not None]
        for one, other in pairwise(there):
            if told := clashes(TableSchema((one,)), TableSchema((other,))):
                raise ReadError(f"where= asks for {name!r}, and runs differ in it: {told[0]}: take runs of one version")
    return asked


def categories(runs: Sequence[PinnedRun], column: str, group: str) -> tuple[str, ...] | None:
    """The values of a column that is shown one-hot, in the model's order; None of a number.

    Raises:
        NotFoundError: no run has such a column.
        InputError: it is no number.
    """
    check_column(runs, column, group)
    found: list[str] = []
    number: PinnedRun | None = None
    for run in runs:
        there = run.column_of(column)
        if there is None:
            continue
        dtype = pl.Series([], dtype=there.kind.polars()).dtype
        if isinstance(dtype, pl.Enum):
            found = merged(found, dtype.categories)
        elif not (dtype.is_numeric() or isinstance(dtype, pl.Boolean | pl.Null)):
            way_out = f"it is a file: scythe.File({column!r})" if there.kind.is_file else _way_out(dtype)
            raise InputError(f"{group}: {column!r} is no number but {dtype}: {way_out}")
        elif dtype != pl.Null:
            number = run
    if found and number is not None:
        raise InputError(
            f"{group}: {column!r} is one of {', '.join(found)} in some runs, and a number in {number.key.path}: take runs of one version"
        )
    return tuple(found) or None


class Stands(NamedTuple):
    """What a column of a group stands for: its name, the choices of one that is one-hot, its unit."""

    column: str
    choices: tuple[str, ...] | None
    unit: str | None
    #: What its choices mean, each by its name, where they tell.
    means: Mapping[str, str] = {}

    @property
    def shown(self) -> tuple[str, ...]:
        """What its columns of the array are called."""
        return (self.column,) if self.choices is None else tuple(f"{self.column}={c}" for c in self.choices)


def check_same_meaning(before: Mapping[str, Sequence[Stands]], now: Mapping[str, Sequence[Stands]]) -> None:
    """Nothing where the columns of each group stand for the same as before, or are of another number, which shapes tell.

    Raises:
        InputError: as many stand for others, or one is in another unit, or has a choice that means something else: who has trained on them would take one for the other.
    """
    for name, were in before.items():
        are = now[name]
        for one, other in zip(were, are, strict=True):
            if one.unit != other.unit and None not in (one.unit, other.unit):
                raise InputError(
                    f"{name}: {one.column!r} was in [{one.unit}], and is in [{other.unit}] now: what was trained on {name!r} would take one for "
                    "the other. Give it its unit back, or make a new dataset and train anew"
                )
            for choice, meaning in other.means.items():
                if one.means.get(choice, meaning) != meaning:
                    raise InputError(
                        f"{name}: {choice!r} of {one.column!r} was {one.means[choice]}, and is {meaning} now: what was trained on {name!r} would "
                        "take one for the other. Give it its value back, or make a new dataset and train anew"
                    )
        shown = [[text for one in side for text in one.shown] for side in (were, are)]
        if len(shown[0]) != len(shown[1]) or shown[0] == shown[1]:
            continue
        first = next((p for p in zip(were, are, strict=True) if p[0].choices and p[1].choices and p[0] != p[1]), None)
        if first is not None and len(first[0].choices or ()) == len(first[1].choices or ()):
            what = f"the choices of {first[0].column!r}"
            shown = [[*(one.choices or ())] for one in first]
        else:
            what = "its columns"
        raise InputError(
            f"{name}: {what} were {', '.join(shown[0])}, and are {', '.join(shown[1])} now, in this order: what was trained "
            f"on {name!r} would take one for the other. Put the model's choices back in their order, or make a new dataset and train anew"
        )


def columns_of(runs: Sequence[PinnedRun], column: str) -> list[Column]:
    """What a column is in the runs that have it."""
    return [found for run in runs if (found := run.column_of(column)) is not None]


def unit_of(columns: Iterable[Column]) -> str | None:
    """The unit of a column, as some runs have it; None where none tells any."""
    return next((column.unit for column in columns if column.unit), None)


def _means_of(columns: Iterable[Column]) -> dict[str, str]:
    """What the choices of a column mean, as its runs tell, which all tell the same."""
    return {
        name: means for c in columns if isinstance(c.kind, k.Category | k.Str) for name, means in c.kind.means.items()
    }


def are_truths(runs: Sequence[PinnedRun], column: str) -> bool:
    """Whether a column has truth values in all runs that have it."""
    found = {pl.Series([], dtype=there.kind.polars()).dtype for run in runs if (there := run.column_of(column)) is not None}  # fmt: skip
    return pl.Boolean() in found and found <= {pl.Boolean(), pl.Null()}


def check_column(runs: Sequence[PinnedRun], column: str, group: str) -> None:
    """Nothing where a run at least has such a column, and it has one unit in all, and one meaning.

    Raises:
        NotFoundError: none has; the message names the nearest.
        InputError: it has another unit in one run than in another, or is a file output of one and a value of another.
    """
    if not any(run.table_of(column) for run in runs):
        if column not in RESERVED_TABLES and any(column in run.schemas for run in runs):
            raise NotFoundError(f"{group}: {column!r} is a dataframe: scythe.Frame({column!r}, [its columns])")
        frames = sorted(
            {table for run in runs for table in run.schemas if table not in RESERVED_TABLES and run.has(table, column)}
        )
        if frames:
            raise NotFoundError(
                f"{group}: {column!r} is a column of the dataframe {frames[0]!r}, which has rows of its own: "
                f"scythe.Frame({frames[0]!r}, [{column!r}])"
            )
        known = sorted(
            {n for run in runs for t, schema in run.schemas.items() if t in ROW_TABLES for n in schema.names}
        )
        elsewhere = next(filter(None, map(_elsewhere, runs)), "")
        raise NotFoundError(
            f"{group}: there is no column {column!r}{near(column, known)}{option_like(group)}{elsewhere}"
        )
    files = [run for run in runs if run.has("result_file_refs", column) and not run.has("scalars", column)]
    others = [run for run in runs if run.has("scalars", column)]
    if files and others:
        raise InputError(
            f"{group}: {column!r} is a file output of {files[0].key.path}, and a value of {others[0].key.path}: take runs of one version"
        )
    there = [found for run in runs if (found := run.column_of(column)) is not None]
    _check_alike((TableSchema((replace(found, name=column),)) for found in there), group)


def _elsewhere(run: PinnedRun) -> str:
    """For a message: where columns of a run may be that are not known here; empty where all are known."""
    if run.result is None:
        return f"; of {run.key.path}, which is not finished, there are no files and dataframes yet"
    left = [table for table in ROW_TABLES if table in run.result.left_out]
    if not left:
        return ""
    return (
        f"; it may be one of {' or '.join(left)}, which was left out when the run was downloaded; it lies at "
        f"{run.result.left_out[left[0]]}: download {run.key.path} again, with tables='all'"
    )


def _way_out(dtype: pl.DataType) -> str:
    if dtype.is_temporal():
        return _WAYS_OUT["date"]
    return _WAYS_OUT["text" if dtype == pl.String else "list"]


def near(name: str, known: Sequence[str]) -> str:
    """For a message: which name was meant by one that is not there, or which there are."""
    return meant(name, known) or (f"; there are {', '.join(known)}" if known else "; there is none")


__all__ = [
    "Stands",
    "are_truths",
    "asked_by",
    "categories",
    "check_column",
    "check_file",
    "check_frame",
    "check_groups",
    "check_same_meaning",
    "columns_there",
    "frame_columns",
    "near",
    "no_file",
]
