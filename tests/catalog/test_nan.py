"""Filters find NaN over Iceberg as they do over the files: readers prune by statistics, which NaN has no place in."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel
from pyiceberg.expressions import IsNaN, NotNaN
from pyiceberg.table import StaticTable

from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.iceberg.datafile import DataFileWriter, read_description
from scythe_catalog.schema import Column, compile_model, models_to_arrow
from scythe_catalog.schema.kinds import Str
from scythe_catalog.storage.objects import Objects

NAN = float("nan")
FILES = [[1.0, 2.0], [NAN, 3.0, None], [NAN, NAN], [None], [float("inf"), -0.0], [2.5, NAN, 4.0, 5.0]]
FILTERS = ["isnan(load)", "load > 2.5", "load >= 'NaN'::DOUBLE", "load <> 1", "load < 2", "NOT isnan(load)", "load IS NULL", "load = 0"]  # fmt: skip


class Load(BaseModel):
    n: int
    load: float | None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of one partition and six files."""
    folder = tmp_path_factory.mktemp("nan") / "root"
    objects = Objects.at(folder)
    compiled = compile_model(Load)
    partition = [Column("version", Str())]
    table = Catalog(objects.uri("catalog")).ensure("seed", "scalars", compiled.schema, partition)
    files: list[Any] = []
    for i, loads in enumerate(FILES):
        with DataFileWriter(objects, f"seed/{i}.pq", compiled.schema.arrow, table.ids) as writer:
            for half in (loads[:1], loads[1:]):
                writer.write(models_to_arrow([Load(n=i, load=v) for v in half], compiled))
        files.append(writer.describe(table.iceberg.schema()))
        assert read_description(objects, f"seed/{i}.pq", table.iceberg.schema()).statistics == files[-1].statistics
    table.replace(files, {"version": "v1.0.0"})
    return folder


@pytest.mark.parametrize("condition", FILTERS)
def test_duckdb_finds_the_same_rows_over_iceberg_and_over_the_files(root: Path, duck: Any, condition: str) -> None:
    def found(source: str) -> list[tuple[Any, ...]]:
        return duck.execute(f"SELECT n, load::VARCHAR FROM {source} WHERE {condition} ORDER BY ALL").fetchall()

    assert found(f"iceberg_scan('{root}/catalog/seed/scalars')") == found(f"read_parquet('{root}/seed/*.pq')")


def _metadata(root: Path) -> str:
    folder = root / "catalog" / "seed" / "scalars" / "metadata"
    return str(folder / f"v{int((folder / 'version-hint.text').read_text())}.metadata.json")


def test_pyiceberg_finds_them(root: Path) -> None:
    table = StaticTable.from_metadata(_metadata(root))
    assert table.scan(row_filter=IsNaN("load")).to_arrow()["n"].to_pylist() == [1, 2, 2, 5]
    assert sorted(table.scan(row_filter=NotNaN("load")).to_arrow().filter(pl_not_null())["n"].to_pylist()) == [
        0,
        0,
        1,
        4,
        4,
        5,
        5,
        5,
    ]


def pl_not_null() -> Any:
    import pyarrow.compute as pc

    return pc.field("load").is_valid()


def test_polars_finds_them(root: Path) -> None:
    over_iceberg, over_files = pl.scan_iceberg(_metadata(root)), pl.scan_parquet(root / "seed" / "*.pq")
    for condition in (pl.col("load").is_nan(), pl.col("load") > 2.5, pl.col("load") == NAN, pl.col("load") < 2):
        one, other = (f.filter(condition).select("n", "load").collect() for f in (over_iceberg, over_files))
        assert one.sort("n", "load").equals(other.sort("n", "load"), null_equal=True)


def test_they_are_counted_and_bounds_that_pass_over_them_are_left_out(root: Path) -> None:
    files = StaticTable.from_metadata(_metadata(root)).inspect.files().sort_by("file_path").to_pylist()
    counts = [dict(f["nan_value_counts"]) for f in files]
    assert [c[2] for c in counts] == [0, 1, 2, 0, 0, 1]
    assert [2 in dict(f["upper_bounds"]) for f in files] == [True, False, False, False, True, False]
