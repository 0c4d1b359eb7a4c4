"""What tells two inputs of a version apart: the values of their fields, and the content and name of their files. Pure.

NaN equals NaN, -0.0 equals 0.0, the entries of a map have no order. A file whose content nobody has recorded equals nothing,
not even itself.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from scythe.leaf.input_files import InputFile
from scythe.names import ID_LEVELS
from scythe_catalog.compute import pc
from scythe_catalog.memo import cached_property

#: For each file field, what tells the content of each of its values; None where that is not known.
FileIdentities = Mapping[str, Mapping[str, str | None]]

#: Inputs of fewer rows are read whole, rather than a column at a time.
_FEW = 100_000


def file_identity(file: InputFile, seen_as: str) -> str | None:
    """What tells an input file from others: its content and the name that the function sees (it may look at it); of one that
    stays where it is, its address and what its server said. None where neither is recorded.
    """
    if file.sha256 is not None:
        return f"{file.sha256}/{seen_as}"
    if file.tag is None and file.size is None:
        return None
    return f"{file.uri} {file.tag} {file.size}"


class Specs:
    """The inputs of a run as they are stored, a column at a time.

    Attributes:
        rows: How many.
        telling: The columns that tell inputs apart, sorted: all but the identifiers and computed features.
    """

    def __init__(
        self,
        schema: pa.Schema,
        rows: int,
        read: Callable[[Sequence[str]], pa.Table],
        files: FileIdentities,
        fields: Iterable[str],
        computed: Iterable[str] = (),
        *,
        addresses: bool = False,
    ) -> None:
        self.rows, self._read, self._files = rows, read, files
        if addresses:
            self._files = {name: {uri: told or uri for uri, told in of.items()} for name, of in files.items()}
        self.telling = sorted({*schema.names} - {*ID_LEVELS, *computed})
        #: Columns that take long to be made.
        self._costly: dict[str, pl.Series] = {}
        #: What holds the values beyond the fields.
        self._json = {*self.telling} - {*fields}

    @classmethod
    def of(
        cls,
        table: pa.Table,
        files: FileIdentities,
        fields: Iterable[str],
        computed: Iterable[str] = (),
        *,
        addresses: bool = False,
    ) -> Specs:
        """Inputs in memory, of a model with these `fields`; with `addresses` a file of which no more is known is told by its address."""
        return cls(table.schema, table.num_rows, table.select, files, fields, computed, addresses=addresses)

    @cached_property
    def _few(self) -> pa.Table | None:
        return self._read(self.telling) if self.rows < _FEW else None

    def _column(self, name: str) -> pa.ChunkedArray:
        return (self._few if self._few is not None else self._read([name])).column(name)

    def canonical(self, name: str) -> pl.Series:
        """A column in a form in which equal values are equal to Polars; nulls where it is not there."""
        if name not in self._costly:
            found = self._canonical(name)
            if name not in self._files and name not in self._json and not isinstance(found.dtype, pl.List | pl.Struct):
                return found
            self._costly[name] = found
        return self._costly[name]

    def _canonical(self, name: str) -> pl.Series:
        if name not in self.telling:
            return pl.Series(name, [None] * self.rows, pl.String)
        column = self._column(name)
        if name in self._files:
            return _mapped(pl.Series(name, column), self._files[name])
        if name in self._json:
            return with_sorted_json(pl.Series(name, column))
        if _has_map(column.type):
            column = pa.chunked_array([_without_maps(chunk) for chunk in column.chunks], _mapless(column.type))
        series = pl.Series(name, column)
        return series + 0.0 if series.dtype.is_float() else series

    def identities(self, salt: int = 0) -> Identities:
        """What tells each input from others; with another salt, other numbers."""
        numbers = np.zeros(self.rows, np.uint64)
        unknown = np.zeros(self.rows, bool)
        for name in self.telling:
            values, seed = self.canonical(name), zlib.crc32(f"{salt} {name}".encode())
            if name in self._files:
                unknown |= values.is_null().to_numpy() & self._column(name).is_valid().to_numpy()
            # A null is as if the column were not there.
            there = values.is_not_null().to_numpy() if values.null_count() else None
            _mix(numbers, values.hash(seed).to_numpy(), there)
        return Identities(numbers, unknown)


def with_sorted_json(texts: pl.Series) -> pl.Series:
    """Texts of JSON in a form in which equal values are equal."""
    return _mapped(texts, {text: _sorted_json(text) for text in texts.drop_nulls().unique()})


def _sorted_json(text: str) -> str:
    """The same JSON in a form that equal values share."""
    values = json.loads(text, parse_float=lambda number: float(number) + 0.0)
    return json.dumps(values, sort_keys=True)


def _mapped(values: pl.Series, identities: Mapping[str, str | None]) -> pl.Series:
    known = pl.DataFrame(
        {"_": list(identities), "told": list(identities.values())}, {"_": pl.String, "told": pl.String}
    )
    frame = pl.DataFrame({"_": values.cast(pl.String)}).join(known, on="_", how="left", maintain_order="left")
    return frame["told"].alias(values.name)


@dataclass(frozen=True)
class Identities:
    """A number for each input, equal where the inputs are equal (and, once in 10^19, where they are not)."""

    numbers: np.ndarray
    #: Those that equal nothing: a file of theirs is not known.
    unknown: np.ndarray


#: An odd number whose bits are even: the fraction of the golden ratio.
_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mix(numbers: np.ndarray, hashes: np.ndarray, there: np.ndarray | None) -> None:
    """Takes the hashes of one more column into the numbers of the rows that have a value in it; the order of columns counts."""
    mixed = numbers if there is None else numbers[there]
    with np.errstate(over="ignore"):
        mixed *= _STEP
        mixed ^= hashes if there is None else hashes[there]
    if there is not None:
        numbers[there] = mixed


# --- maps -------------------------------------------------------------------------------------------


def without_maps(values: pl.Series) -> pl.Series:
    """The same values, in which lists of entries stand in place of maps, in the order of their keys: equal ones are equal to Polars."""
    if not values.dtype.is_nested():
        return values
    found = values.to_arrow()
    return pl.Series(values.name, _without_maps(found)) if _has_map(found.type) else values


def _has_map(dtype: pa.DataType) -> bool:
    return pa.types.is_map(dtype) or any(_has_map(dtype.field(i).type) for i in range(dtype.num_fields))


def _mapless(dtype: pa.DataType) -> pa.DataType:
    """The type with lists of entries in place of maps."""
    if pa.types.is_map(dtype):
        return pa.list_(pa.struct([("key", dtype.key_type), ("value", _mapless(dtype.item_type))]))
    if pa.types.is_list(dtype):
        return pa.list_(_mapless(dtype.value_type))
    if pa.types.is_struct(dtype):
        return pa.struct([(field.name, _mapless(field.type)) for field in dtype])
    return dtype


def _without_maps(array: pa.Array) -> pa.Array:
    """The values with lists of entries in place of maps, sorted by their keys."""
    if not _has_map(array.type):
        return array
    if pa.types.is_struct(array.type):
        columns = [_without_maps(column) for column in array.flatten()]
        return pa.StructArray.from_arrays(columns, [field.name for field in array.type], mask=array.is_null())
    offsets = array.offsets.to_numpy()
    first, last, counts = int(offsets[0]), int(offsets[-1]), np.diff(offsets)
    if pa.types.is_map(array.type):
        keys, values = array.keys.slice(first, last - first), array.items.slice(first, last - first)
        entries = pa.table({"row": np.repeat(np.arange(len(array)), counts), "key": keys})
        order = pc.sort_indices(entries, sort_keys=[("row", "ascending"), ("key", "ascending")])
        inner = pa.StructArray.from_arrays([keys.take(order), _without_maps(values).take(order)], ["key", "value"])
    else:
        inner = _without_maps(array.values.slice(first, last - first))
    return pa.ListArray.from_arrays(pa.array(offsets - first, pa.int32()), inner, mask=array.is_null())
