"""The tables are Iceberg's and the files are Parquet: others read them, without a line of Scythe.

The data files carry pandas' index metadata and Iceberg's field ids, and lack the partition columns.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from pydantic import AwareDatetime, BaseModel, Field
from pyiceberg.table import StaticTable

from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.iceberg.datafile import DataFileWriter
from scythe_catalog.schema import Column, compile_model, models_to_arrow
from scythe_catalog.schema.kinds import Str, Timestamp
from scythe_catalog.storage.objects import Objects


class Wall(BaseModel):
    u: float
    layers: list[str]


class Row(BaseModel):
    experiment_id: str
    sort_index: int
    load: float | None
    glazing: Literal["single", "double"]
    built: dt.date
    started: AwareDatetime
    cost: Annotated[Decimal, Field(max_digits=9, decimal_places=2)]
    wall: Wall
    prices: list[float]
    shares: dict[str, float]


INDEX = ["experiment_id", "sort_index"]
STARTED = dt.datetime(2026, 1, 2, 3, 4, 5, 678, dt.UTC)
RUNS = [dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.datetime(2026, 1, 3, 4, 5, 6, tzinfo=dt.UTC)]
VERSIONS = ["v1.0.0", "v1.1.0"]


def row(experiment: str, i: int) -> Row:
    """The i-th row of an experiment."""
    return Row(
        experiment_id=experiment,
        sort_index=i,
        load=None if i == 1 else i * 1.5,
        glazing="double" if i % 2 else "single",
        built=dt.date(2000, 1, 1 + i),
        started=STARTED,
        cost=Decimal(i) / 4,
        wall=Wall(u=i / 2, layers=["brick"] * i),
        prices=[float(i)] * i,
        shares={"a": i / 10},
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a table of two partitions: three rows in two files, and two rows in one."""
    folder = tmp_path_factory.mktemp("readers") / "root"
    objects = Objects.at(folder)
    compiled = compile_model(Row)
    partition = [
        Column("version", Str()),
        Column("run_datetime", Timestamp(aware=True)),
    ]
    table = Catalog(objects.uri("catalog")).ensure("seed", "scalars", compiled.schema, partition)

    def file(key: str, rows: list[BaseModel]) -> Any:
        with DataFileWriter(objects, key, compiled.schema.arrow, table.ids, index=INDEX) as writer:
            writer.write(models_to_arrow(rows, compiled))
        return writer.describe(table.iceberg.schema())

    where = [{"version": v, "run_datetime": r} for v, r in zip(VERSIONS, RUNS, strict=True)]
    table.append([file("seed/a/old.pq", [row("a", 9)])], where[0], key="old")
    table.replace(
        [file("seed/a/scalars.pq", [row("a", 0), row("a", 1)]), file("seed/a/more.pq", [row("a", 2)])], where[0]
    )
    table.append([file("seed/b/scalars.pq", [row("b", 0), row("b", 1)])], where[1], key="b")
    return folder


@pytest.fixture(scope="module")
def metadata(root: Path) -> str:
    """The newest metadata file of the table."""
    folder = root / "catalog" / "seed" / "scalars" / "metadata"
    return str(folder / f"v{int((folder / 'version-hint.text').read_text())}.metadata.json")


EXPECTED = [
    {**row(e, i).model_dump(), "version": version, "run_datetime": run}
    for (e, n), version, run in zip([("a", 3), ("b", 2)], VERSIONS, RUNS, strict=True)
    for i in range(n)
]


def test_a_data_file_has_field_ids_and_no_partition_columns(root: Path) -> None:
    schema = pq.read_schema(root / "seed" / "a" / "scalars.pq")
    assert schema.names == list(Row.model_fields)
    ids = [f.metadata[b"PARQUET:field_id"] for f in schema]
    assert len(set(ids)) == len(ids)
    assert b"PARQUET:field_id" in schema.field("wall").type.field("u").metadata
    assert b"PARQUET:field_id" in schema.field("prices").type.value_field.metadata
    assert b"PARQUET:field_id" in schema.field("shares").type.item_field.metadata


def test_pyiceberg_reads_the_table(metadata: str) -> None:
    table = StaticTable.from_metadata(metadata)
    rows = sorted(table.scan().to_arrow().to_pylist(maps_as_pydicts="strict"), key=in_order)
    assert [plain(r) for r in rows] == EXPECTED
    assert table.scan(row_filter="version == 'v1.1.0'").to_arrow().num_rows == 2
    (task,) = table.scan(row_filter="version == 'v1.1.0'").plan_files()
    assert task.file.file_path.endswith("seed/b/scalars.pq")
    assert list(table.scan(row_filter="version == 'v1.0.0' and sort_index > 5").plan_files()) == []


def test_polars_reads_the_table(metadata: str) -> None:
    frame = pl.scan_iceberg(metadata).collect()
    assert [plain(r) for r in sorted(frame.to_dicts(), key=in_order)] == EXPECTED
    assert pl.scan_iceberg(metadata).filter(pl.col("version") == "v1.1.0").collect().height == 2
    only = pl.scan_iceberg(metadata).filter(pl.col("run_datetime") == RUNS[0]).select("sort_index").collect()
    assert sorted(only["sort_index"]) == [0, 1, 2]


def test_polars_opens_no_file_of_another_partition(root: Path, metadata: str) -> None:
    other = root / "seed" / "b" / "scalars.pq"
    hidden = other.rename(other.with_suffix(".hidden"))
    try:
        mine = pl.scan_iceberg(metadata).filter(pl.col("version") == "v1.0.0").collect()
        assert sorted(mine["sort_index"]) == [0, 1, 2]
        with pytest.raises(FileNotFoundError):
            pl.scan_iceberg(metadata).collect()
    finally:
        hidden.rename(other)


def test_pandas_reads_the_same_file_with_its_multiindex(root: Path) -> None:
    frame = pd.read_parquet(root / "seed" / "a" / "scalars.pq")
    assert isinstance(frame.index, pd.MultiIndex)
    assert frame.index.names == INDEX
    assert frame.index.tolist() == [("a", 0), ("a", 1)]
    assert list(frame.columns) == [name for name in Row.model_fields if name not in INDEX]
    assert frame["load"].isna().tolist() == [False, True]
    assert frame.loc[("a", 0), "load"] == 0.0
    assert frame["glazing"].tolist() == ["single", "double"]
    assert frame["started"].dt.tz is not None
    assert frame["started"].tolist() == [pd.Timestamp(STARTED)] * 2
    assert frame["wall"].tolist()[0]["u"] == 0.0
    assert pd.read_parquet(root / "seed" / "b" / "scalars.pq", columns=["load"]).index.tolist() == [("b", 0), ("b", 1)]


def test_duckdb_reads_the_table_by_its_folder(root: Path, duck: Any) -> None:
    folder = root / "catalog" / "seed" / "scalars"
    found = duck.execute(f"SELECT * FROM iceberg_scan('{folder}') ORDER BY experiment_id, sort_index")
    names = [d[0] for d in found.description]
    rows = [plain(dict(zip(names, r, strict=True))) for r in found.fetchall()]
    assert rows == EXPECTED
    counted = duck.execute(f"SELECT version, count(*) FROM iceberg_scan('{folder}') GROUP BY 1 ORDER BY 1").fetchall()
    assert counted == [("v1.0.0", 3), ("v1.1.0", 2)]
    one = duck.execute(
        f"SELECT sort_index FROM iceberg_scan('{folder}') WHERE version = 'v1.1.0' AND load > 1"
    ).fetchall()
    assert one == []


def in_order(values: dict[str, Any]) -> tuple[Any, ...]:
    """A key to sort rows by."""
    return values["experiment_id"], values["sort_index"]


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """A row as the model would dump it, whichever reader's containers it came in."""
    shares = values["shares"]
    if isinstance(shares, list):
        shares = {pair["key"]: pair["value"] for pair in shares}
    ordered = {name: values[name] for name in [*Row.model_fields, "version", "run_datetime"]}
    return {**ordered, "shares": dict(shares)}
