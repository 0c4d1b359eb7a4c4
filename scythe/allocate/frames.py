"""Frames of pandas, Polars and Arrow as the catalog's checks take them. Checks nothing but that columns are alike.

Columns of Python objects stay Python objects where Arrow's inference would change them: it gives each
dict the keys of its neighbours, cuts instants among days, and takes numbers among durations for microseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import time
from functools import partial
from pathlib import PurePath
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pydantic import AliasChoices, AliasPath, BaseModel

from scythe.errors import InputError, SchemaError
from scythe.leaf.dataframes import within_64_bits
from scythe.leaf.pandas_frames import typed_column, unheld
from scythe.names import ID_LEVELS
from scythe_catalog.schema import Frame, aliases, arrow_table, families, mixture

#: Sorts of objects that Arrow types as they are.
_PLAIN = {"truth values", "numbers", "text", "bytes", "instants", "instants with a time zone", "days", "times of day", "durations"}  # fmt: skip


def frame_of(frame: Any) -> Frame | None:
    """The columns of a pandas or Polars table or of what speaks Arrow (a named pandas index included), None for anything else.

    Raises:
        InputError: a column that stands twice, or holds values of unlike types.
    """
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if polars is not None and isinstance(frame, polars.DataFrame | polars.LazyFrame):
        return _of_polars(frame.lazy().collect(), polars)
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        return _of_pandas(frame, pandas)
    table = arrow_table(frame)
    return None if table is None else Frame(table.replace_schema_metadata(None))


#: What Polars reads a file by, by how its name ends.
_READERS = {
    ".csv": "read_csv",
    ".json": "read_json",
    ".ndjson": "read_ndjson",
    ".jsonl": "read_ndjson",
    ".xlsx": "read_excel",
}


def written_as_table(specs: Any, model: type[BaseModel]) -> str | None:
    """The line by which what is no table becomes one: a dict, the path of a file, an array; None for anything else."""
    match specs:
        case dict():
            values = cast("list[Any]", list(specs.values()))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            columns = any(isinstance(v, Iterable) and not isinstance(v, str | bytes | dict) for v in values)
            return "pl.DataFrame(specs), a table of these columns" if columns else "[specs], a list of one dict"
        case str() | PurePath():
            reader = _READERS.get(PurePath(specs).suffix.lower(), "read_parquet")
            return f"pl.{reader}({str(specs)!r})"
        case np.ndarray() if specs.dtype.names is None:
            fields = [n for n in model.model_fields if n not in ID_LEVELS]
            width = specs.shape[1] if specs.ndim == 2 else 1
            return f"pl.DataFrame(specs, schema={fields[:width]!r}), with a name for each column"
        case np.ndarray():
            return "pl.DataFrame(specs)"
        case _:
            return None


def frame_of_dicts(rows: Sequence[Mapping[Any, Any]], model: type[BaseModel]) -> Frame:
    """The columns of dicts, one an input: where some of them lack a field, the model gives its default.

    Raises:
        InputError: a key that is not text, values of unlike types, or a field without a default that some of them lack.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = names or [name for name in model.model_fields if name not in ID_LEVELS][:1]  # all of them are empty
    if odd := [name for name in names if not isinstance(name, str)]:
        raise InputError(f"the specs are dicts, and {odd[0]!r} is one of their keys: keys are names of fields, as text")
    columns: dict[str, list[Any]] = {}
    gaps: dict[str, list[int]] = {}
    unknown = _unknown(names, model)
    for name in names:
        columns[name] = [row.get(name) for row in rows]
        lacking = [i for i, row in enumerate(rows) if name not in row]
        if lacking and name in unknown:  # it is refused as such, whoever has it
            continue
        if lacking and not _has_default(name, model):
            raise InputError(
                f"{name}: {len(lacking):,} of {len(rows):,} dicts lack it (the first at position {lacking[0]}), "
                "and it has no default: give it in all of them"
                + "".join(f"; {other}: is not a field of {model.__name__}" for other in unknown)
            )
        gaps |= {name: lacking} if lacking else {}
        _refuse_mixture(name, columns[name])
    return Frame(pa.table({}), columns, lacking=gaps)


def _unknown(names: Sequence[str], model: type[BaseModel]) -> list[str]:
    """Those of some names under which the model takes nothing."""
    known: set[str] = set()
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        known |= {name, *aliases(field), *(str(c.path[0]) for c in choices if isinstance(c, AliasPath))}
    return [name for name in names if name not in known]


def _has_default(name: str, model: type[BaseModel]) -> bool:
    """Whether the field of a name, or of an alias, need not be given."""
    found = [field for own, field in model.model_fields.items() if name in (own, *aliases(field))]
    return name not in ID_LEVELS and bool(found) and not found[0].is_required()


def _of_polars(frame: Any, polars: Any) -> Frame:
    objects = {name: frame[name].to_list() for name, dtype in frame.schema.items() if dtype == polars.Object}
    for name, values in objects.items():
        _refuse_mixture(name, values)
    try:
        return Frame(within_64_bits(frame.drop(list(objects))).to_arrow(), objects)
    except SchemaError as error:
        raise InputError(str(error)) from error


def _of_pandas(frame: Any, pandas: Any) -> Frame:
    if frame.columns.nlevels > 1:
        raise InputError(f"the frame has columns of {frame.columns.nlevels} levels: flatten them first")
    if any(name is not None for name in frame.index.names):
        levels = [str(name) if name is not None else f"level_{i}" for i, name in enumerate(frame.index.names)]
        _refuse_twins([*levels, *map(str, frame.columns)])
        frame = frame.reset_index(names=levels)
    elif not pandas.api.types.is_integer_dtype(frame.index.dtype) and len(frame):
        raise InputError(
            f"the frame has an index without a name, of {frame.index.dtype} such as {frame.index[0]!r}, which is no field: name it "
            "(`.rename_axis('site')`), or drop it (`.reset_index(drop=True)`)"
        )
    names = [str(name) for name in frame.columns]
    _refuse_twins(names)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    objects: dict[str, list[Any]] = {}
    gaps: set[str] = set()
    for i, name in enumerate(names):
        series = frame.iloc[:, i]
        found: pa.Array | pa.ChunkedArray | list[Any]
        if series.dtype == object:
            found, has_gaps = _of_objects(name, series.tolist(), pandas)
        else:
            has_gaps = isinstance(series.dtype, np.dtype | pandas.SparseDtype) and series.dtype.kind == "f"
            found = _typed(name, series, partial(typed_column, series, nan=has_gaps))
        gaps |= {name} if has_gaps else set()
        if isinstance(found, list):
            objects[name] = found
        else:
            columns[name] = found
    return Frame(pa.table(columns), objects, frozenset(gaps), is_pandas=True)


def _of_objects(name: str, values: list[Any], pandas: Any) -> tuple[pa.Array | pa.ChunkedArray | list[Any], bool]:
    """Arrow where that types the objects as they are, else the objects; and whether NaN may mean nothing."""
    values = [None if v is None or v is pandas.NA or v is pandas.NaT else v for v in values]
    if not {*map(type, values)}.isdisjoint((np.datetime64, np.timedelta64)):
        values = [None if isinstance(v, np.datetime64 | np.timedelta64) and np.isnat(v) else v for v in values]
    of_pandas = not {*map(type, values)}.isdisjoint((pandas.Timestamp, pandas.Timedelta))
    if of_pandas and (said := _unheld(name, values)) is not None:  # Arrow drops their nanoseconds
        raise InputError(said)
    found = families(values)
    has_gaps = "numbers" in found and any(isinstance(v, float) and v != v for v in values)  # noqa: PLR0124 - NaN
    if has_gaps and found != {"numbers"}:
        values = [None if isinstance(v, float) and v != v else v for v in values]  # noqa: PLR0124 - NaN
        has_gaps = False
    found = _refuse_mixture(name, values)
    zoned = "times of day" in found and any(isinstance(v, time) and v.tzinfo is not None for v in values)
    if not found <= _PLAIN or zoned:  # Arrow would drop a zone without a word
        return values, False
    texts = [str(v) if isinstance(v, PurePath) else v for v in values] if found == {"text"} else values
    return _typed(name, values, partial(_array, texts)), has_gaps


def _array(values: list[Any]) -> pa.Array | pa.ChunkedArray:
    if np.longdouble in {*map(type, values)}:  # Arrow rounds those that stand behind others
        raise TypeError("NumPy's longest floats")
    return pa.array(values, from_pandas=False)


def _refuse_mixture(name: str, values: Sequence[Any]) -> set[str]:
    """The sorts of values, of which there is one at most."""
    mixed = mixture(values)
    if mixed is not None:
        raise InputError(f"{name}: the column holds values of unlike types, {mixed}: make them one type")
    return families(values)


def _typed(
    name: str, values: Iterable[Any], make: Callable[[], pa.Array | pa.ChunkedArray]
) -> pa.Array | pa.ChunkedArray:
    try:
        return make()
    except OverflowError as error:
        raise InputError(f"{name}: the column holds whole numbers beyond 64 bits ({error})") from error
    except (pa.ArrowException, ValueError, TypeError, ArithmeticError) as error:
        raise InputError(_unheld(name, values) or f"{name}: the column cannot be read: {error}") from error


def _unheld(name: str, values: Iterable[Any]) -> str | None:
    """Which value of a column no table holds, with its row and the way out; None where it is none of those known."""
    odd = unheld(values, f"frame[{name!r}]")
    return None if odd is None else f"{name}: {odd[1]!r} in row {odd[0]} {odd[2]}"


def _refuse_twins(names: Sequence[str]) -> None:
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]
    if twice:
        raise InputError(
            f"the column {twice[0]!r} stands twice in the frame (as it does after concat or merge): rename one"
        )
