"""`TableSchema`: the one compiled schema that every boundary uses.

Gives the Arrow schema (Parquet, Iceberg) and a JSON document, and reads
itself back from either. Never looks at a model: `compile` does that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from scythe_catalog.errors import SchemaError
from scythe_catalog.memo import cached_property
from scythe_catalog.schema.kinds import Kind, kind_from_json, kind_of_arrow

#: Key of the JSON document in the metadata of an Arrow or Parquet schema and of an Iceberg table.
SCHEMA_KEY = "scythe.schema"
#: Key of a field's metadata that names its kind where the Arrow type alone does not say it.
KIND_KEY = "scythe.kind"


@dataclass(frozen=True)
class Column:
    """One column: its name, type, nullability, and what people should know about it."""

    name: str
    kind: Kind
    nullable: bool = False
    doc: str | None = None
    unit: str | None = None
    #: Declared limits: any of ge, gt, le, lt, min_length, max_length, pattern.
    bounds: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def arrow(self) -> pa.Field:
        """The Arrow field, with `doc` and `unit` as field metadata."""
        notes = {k: v for k, v in (("doc", self.doc), ("unit", self.unit)) if v}
        return pa.field(self.name, self.kind.storage, self.nullable, notes or None)

    def to_json(self) -> dict[str, Any]:
        """The column as plain JSON; bounds that are not JSON are given as text."""
        data: dict[str, Any] = {"name": self.name, "nullable": self.nullable, **self.kind.to_json()}
        if self.doc:
            data["doc"] = self.doc
        if self.unit:
            data["unit"] = self.unit
        if self.bounds:
            data["bounds"] = {k: v if isinstance(v, int | float | str) else str(v) for k, v in self.bounds.items()}
        return data


@dataclass(frozen=True)
class TableSchema:
    """An ordered set of columns."""

    columns: tuple[Column, ...]

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Column:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {c.name: c for c in self.columns}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(c.name for c in self.columns)

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema, carrying this schema's JSON in its metadata."""
        return pa.schema([c.arrow for c in self.columns], {SCHEMA_KEY: json.dumps(self.to_json())})

    def select(self, names: Iterable[str]) -> TableSchema:
        """These columns, in the order given."""
        return TableSchema(tuple(self[name] for name in names))

    def without(self, names: Iterable[str]) -> TableSchema:
        """All columns but these."""
        dropped = set(names)
        return TableSchema(tuple(c for c in self.columns if c.name not in dropped))

    def plus(self, columns: Iterable[Column]) -> TableSchema:
        """These columns behind the present ones; a name that is there already is an error."""
        added = tuple(columns)
        for column in added:
            if column.name in self:
                raise SchemaError(f"column {column.name!r} stands twice")
        return TableSchema(self.columns + added)

    def renamed(self, names: Mapping[str, str]) -> TableSchema:
        """The same columns, those of some names (old -> new) under new ones.

        Raises:
            SchemaError: it has a column of a new name already.
        """
        for old, new in names.items():
            if old in self and new in self:
                raise SchemaError(f"{old!r} cannot be called {new!r}: there is a column of that name")
        return TableSchema(tuple(replace(c, name=names.get(c.name, c.name)) for c in self.columns)) if names else self

    def relaxed(self) -> TableSchema:
        """The same columns, all nullable."""
        return TableSchema(tuple(replace(c, nullable=True) for c in self.columns))

    def to_json(self) -> list[dict[str, Any]]:
        """The schema as plain JSON, one object a column."""
        return [c.to_json() for c in self.columns]

    @classmethod
    def from_json(cls, data: Iterable[Mapping[str, Any]]) -> TableSchema:
        """The schema that `to_json` wrote."""
        return cls(
            tuple(
                Column(c["name"], kind_from_json(c), c["nullable"], c.get("doc"), c.get("unit"), c.get("bounds", {}))
                for c in data
            )
        )

    @classmethod
    def from_arrow(cls, schema: pa.Schema) -> TableSchema:
        """The schema in an Arrow schema's metadata, or else one derived from its types.

        Raises:
            SchemaError: a type that no Iceberg table can hold, named with its column.
        """
        stored = (schema.metadata or {}).get(SCHEMA_KEY.encode())
        if stored is not None:
            return cls.from_json(json.loads(stored))
        columns: list[Column] = []
        for f in schema:
            try:
                told = (f.metadata or {}).get(KIND_KEY.encode())
                kind = kind_from_json(json.loads(told)) if told is not None else kind_of_arrow(f.type)
                columns.append(Column(f.name, kind, True))
            except SchemaError as error:
                raise SchemaError(f"column {f.name!r}: {error}") from error
        return cls(tuple(columns))
