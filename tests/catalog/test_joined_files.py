"""Parquet files joined by their bytes: what every reader sees is what it saw in the files before."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scythe_catalog.iceberg.datafile import DataFileWriter, StoredFile
from scythe_catalog.iceberg.footer import Footer, footer_length
from scythe_catalog.iceberg.joined import JoinedFile
from scythe_catalog.storage.objects import Objects

COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[object]]] = {
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "small": (pa.uint8(), st.integers(0, 255)),
    "real": (pa.float64(), st.floats()),
    "text": (pa.string(), st.sampled_from(["", "a", "ä" * 40, "z"])),
    "raw": (pa.binary(), st.binary(max_size=5)),
    "truth": (pa.bool_(), st.booleans()),
    "zoned": (
        pa.timestamp("us", "UTC"),
        st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC)),
    ),
    "day": (pa.date32(), st.dates()),
    "money": (pa.decimal128(12, 3), st.integers(-(10**9), 10**9).map(lambda n: Decimal(n) / 1000)),
    "list": (pa.list_(pa.int32()), st.lists(st.none() | st.integers(-9, 9), max_size=3)),
    "struct": (
        pa.struct([("a", pa.int16()), ("b", pa.string())]),
        st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.none() | st.just("q")}),
    ),
    "map": (pa.map_(pa.string(), pa.float32()), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9), max_size=2)),
    "never": (pa.int32(), st.none()),
}
SCHEMA = pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items()])


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(1, 30))
    columns = [
        pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind)
        for kind, values in COLUMNS.values()
    ]
    return pa.table(columns, schema=SCHEMA)


def encoded(table: pa.Table, **how: object) -> io.BytesIO:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, **how) as writer:
        for start in range(0, table.num_rows, 10):
            writer.write_table(table.slice(start, 10))
    return sink


def joined(path: Path, schema: pa.Schema, *files: io.BytesIO) -> Path:
    file = JoinedFile(path)
    for one in files:
        file.append(one)
    file.close(encoded(schema.empty_table()).getvalue())
    return path


def told(statistics: pq.Statistics | None) -> object:
    return statistics.to_dict() if statistics is not None else None


@settings(max_examples=40)
@given(
    parts=st.lists(tables(), min_size=1, max_size=4),
    how=st.fixed_dictionaries({
        "compression": st.sampled_from(["zstd", "none", "snappy"]),
        "write_page_index": st.booleans(),
        "use_dictionary": st.booleans(),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "write_page_checksum": st.just(True),
    }),
)  # fmt: skip
def test_a_joined_file_reads_as_its_parts_do_one_after_the_other(
    tmp_path_factory: pytest.TempPathFactory, parts: list[pa.Table], how: dict[str, object]
) -> None:
    files = [encoded(part, **how) for part in parts]
    path = joined(tmp_path_factory.mktemp("joined") / "whole.pq", SCHEMA, *files)
    whole = pa.concat_tables(parts)

    read = pq.ParquetFile(path, page_checksum_verification=True)
    assert read.read().cast(SCHEMA).to_pydict().__repr__() == whole.to_pydict().__repr__()  # NaN is NaN there
    assert pl.read_parquet(path).equals(pl.concat([pl.read_parquet(one.getvalue()) for one in files]))
    alone = [pq.read_metadata(one).row_group(g) for one in files for g in range(pq.read_metadata(one).num_row_groups)]
    for number, before in enumerate(alone):
        after = read.metadata.row_group(number)
        assert after.num_rows == before.num_rows
        for c in range(before.num_columns):
            assert repr(told(after.column(c).statistics)) == repr(told(before.column(c).statistics))


def test_each_reader_sees_the_same_with_a_filter_and_the_index_of_pandas(tmp_path: Path) -> None:
    objects = Objects.at(tmp_path)
    schema = pa.schema([("sort_index", pa.int64()), ("x", pa.float64())])
    table = pa.table({"sort_index": range(3000), "x": [i % 7 - 3.5 if i % 11 else float("nan") for i in range(3000)]})
    stored: list[StoredFile] = []
    for number, start in enumerate((0, 1000)):
        with DataFileWriter(objects, f"part{number}.pq", schema, None) as writer:
            writer.write(table.slice(start, 1000))
        told = writer.describe()
        assert told.nans is not None
        stored.append(StoredFile(f"part{number}.pq", told.rows, told.nans))

    with DataFileWriter(objects, "whole.pq", schema, {"sort_index": 1, "x": 2}, index=["sort_index"]) as writer:
        writer.copy(stored[0])
        writer.copy(stored[1])
        writer.write(table.slice(2000, 500))
        writer.write(table.slice(2500))
    path = tmp_path / "whole.pq"

    assert writer.describe().nans == {"sort_index": 0, "x": 273} or writer.describe().nans == {"x": 273}
    assert writer.describe().rows == pq.read_metadata(path).num_rows == 3000
    assert [f.metadata[b"PARQUET:field_id"] for f in pq.read_schema(path)] == [b"1", b"2"]
    assert pd.read_parquet(path).index.name == "sort_index"
    low = duckdb.sql(
        f"select count(*), min(sort_index) from read_parquet('{path}') where sort_index >= 1500 and x < 0"
    ).fetchone()
    found = pl.scan_parquet(path).filter((pl.col("sort_index") >= 1500) & (pl.col("x") < 0)).collect()
    wanted = table.filter((pc.field("sort_index") >= 1500) & (pc.field("x") < 0))
    assert low == (wanted.num_rows, wanted["sort_index"][0].as_py())
    assert found["sort_index"].to_list() == wanted["sort_index"].to_pylist()
    assert sorted(p.name for p in tmp_path.rglob("*.pq")) == ["part0.pq", "part1.pq", "whole.pq"]


def test_a_footer_that_is_not_changed_is_written_as_it_was_whatever_is_in_it() -> None:
    raw = encoded(SCHEMA.empty_table(), write_page_index=True, store_decimal_as_integer=True).getvalue()
    length = footer_length(raw[-8:])

    assert Footer(raw[-8 - length : -8]).to_bytes() == raw[-8 - length :]


def test_more_row_groups_than_their_numbers_can_count_are_read(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int8())])
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema) as writer:
        for n in range(100):
            writer.write_table(pa.table({"n": pa.array([n], pa.int8())}))

    path = joined(tmp_path / "many.pq", schema, *[sink] * 330)

    assert pq.read_metadata(path).num_row_groups == 33_000
    assert pl.read_parquet(path)["n"].to_list() == list(range(100)) * 330


@pytest.mark.parametrize("raw", [b"PAR1 no file at all", b"short"])
def test_what_is_no_parquet_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    file = JoinedFile(tmp_path / "whole.pq")
    with pytest.raises((ValueError, OSError)):
        file.append(io.BytesIO(raw))
    file.abandon()
