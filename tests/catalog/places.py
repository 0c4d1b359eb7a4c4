"""Catalogs of every sort for the tests of what a catalog promises: a disk, a bucket, SQLite, Postgres."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, create_model

from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.iceberg.datafile import DataFile, DataFileWriter
from scythe_catalog.iceberg.scan import scan
from scythe_catalog.iceberg.tables import Table
from scythe_catalog.schema import Column, TableSchema, compile_model, models_to_arrow
from scythe_catalog.schema.kinds import Str
from scythe_catalog.storage.objects import Objects

SPACE, NAME = "experiment", "scalars"
_names = itertools.count()


class Row(BaseModel):
    number: int
    text: str | None = None


PARTITION = [Column("version", Str()), Column("run", Str())]
V1: dict[str, Any] = {"version": "v1.0.0", "run": "r1"}
V2: dict[str, Any] = {"version": "v2.0.0", "run": "r1"}


def schema_of(**fields: Any) -> TableSchema:
    """The schema of a model with these fields."""
    return compile_model(create_model("Model", **{n: (a, ...) for n, a in fields.items()})).schema


@dataclass
class Place:
    """A catalog, and the objects that data files of its tables are written to."""

    catalog: Catalog
    objects: Objects

    def table(self) -> Table:
        """The table of all these tests, fresh from the catalog."""
        return self.catalog.table(SPACE, NAME)

    def ensure(self, schema: TableSchema | None = None, properties: dict[str, str] | None = None) -> Table:
        """The same, made where it is not."""
        return self.catalog.ensure(SPACE, NAME, schema or compile_model(Row).schema, PARTITION, properties)

    def file(self, key: str, rows: list[BaseModel]) -> DataFile:
        """A data file of the table, as a writer would describe it."""
        table = self.table()
        with DataFileWriter(self.objects, f"data/{key}.pq", table.schema.arrow, table.ids) as writer:
            writer.write(models_to_arrow(rows, compile_model(type(rows[0]))).select(table.schema.names))
        return writer.describe(table.iceberg.schema())

    def numbers(self, partition: dict[str, Any] = V1, column: str = "number") -> list[Any]:
        """What a column of a partition holds, sorted."""
        return sorted(scan(self.table(), partition).collect()[column].to_list())


def made_place(
    sort: str, request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch, prefix: str = "root"
) -> Place:
    """An empty catalog; PyIceberg's configuration names those that lie in a database."""
    if sort == "s3":
        objects = Objects.at(f"s3://{request.getfixturevalue('bucket')}/{prefix}")
        return Place(Catalog(objects.uri("catalog")), objects)
    objects = Objects.at(folder / prefix)
    warehouse = objects.uri("catalog")
    if sort == "folder":
        return Place(Catalog(warehouse), objects)
    name = f"{sort}{next(_names)}"  # PyIceberg's configuration is per name, and so is Scythe's catalog of it
    postgres = request.getfixturevalue("postgres") if sort == "postgres" else None
    settings = f"PYICEBERG_CATALOG__{name.upper()}__"
    monkeypatch.setenv(f"{settings}TYPE", "sql")
    monkeypatch.setenv(f"{settings}URI", postgres or f"sqlite:///{folder / 'catalog.db'}")
    monkeypatch.setenv(f"{settings}WAREHOUSE", warehouse)
    # PyIceberg reads its environment once, when it is imported.
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", fresh_configuration())
    return Place(Catalog(warehouse, name), objects)


def drop_before_the_next_commit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process would, once this one has made what it is about to commit."""
    catalog = type(place.catalog.iceberg)
    commit_table = catalog.commit_table

    def drop_first(self: Any, *arguments: Any) -> Any:
        monkeypatch.setattr(catalog, "commit_table", commit_table)
        place.catalog.drop(SPACE, NAME)
        return commit_table(self, *arguments)

    monkeypatch.setattr(catalog, "commit_table", drop_first)


def fresh_configuration() -> Any:
    """PyIceberg's configuration as a process that starts now would read it."""
    from pyiceberg.utils.config import Config

    return Config()
