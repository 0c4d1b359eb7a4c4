"""Columns that no value has told the type of: they bind nobody, and every reader takes the files that have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.iceberg.datafile import DataFile, DataFileWriter, stored_field_ids
from scythe_catalog.iceberg.scan import scan
from scythe_catalog.iceberg.tables import Table
from scythe_catalog.schema import Column, Severity, TableSchema, clashes, compare, joined, united
from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.kinds import kind_from_json, known_part
from scythe_catalog.storage.objects import Objects

NONE, NUMBER, TEXT = k.Unknown(), k.Float(), k.Str()
RUN = Column("run", k.Str(), True)


def struct(**members: k.Kind) -> k.Struct:
    return k.Struct(tuple(k.Member(name, kind, True) for name, kind in members.items()))


def schema(**kinds: k.Kind) -> TableSchema:
    return TableSchema(tuple(Column(name, kind, True) for name, kind in kinds.items()))


PAIRS = [
    (NONE, NUMBER),
    (k.List(NONE), k.List(NUMBER)),
    (k.Map(TEXT, NONE), k.Map(TEXT, NUMBER)),
    (struct(a=NONE, b=TEXT), struct(a=NUMBER, b=TEXT)),
    (k.List(struct(a=k.List(NONE))), k.List(struct(a=k.List(NUMBER)))),
    (struct(b=TEXT), struct(b=TEXT, a=NONE)),
]


@pytest.mark.parametrize(("unknown", "known"), PAIRS)
def test_what_is_unknown_changes_nothing_clashes_with_nothing_and_gives_way(unknown: k.Kind, known: k.Kind) -> None:
    one, other = schema(n=TEXT, v=unknown), schema(n=TEXT, v=known)

    assert compare(one, other).severity is compare(other, one).severity is Severity.IDENTICAL
    assert clashes(one, other) == clashes(other, one) == []
    assert united(one, other) == united(other, one)
    assert united(one, other)["v"].kind == joined(unknown, known) == joined(known, unknown)


def test_a_column_of_nulls_that_comes_or_goes_is_no_change() -> None:
    with_one, without = schema(n=TEXT, v=k.List(NONE)), schema(n=TEXT)

    assert compare(with_one, without).severity is compare(without, with_one).severity is Severity.IDENTICAL
    assert compare(schema(n=TEXT, v=k.List(NONE)), schema(n=TEXT, v=NUMBER)).severity is Severity.BREAKING


@pytest.mark.parametrize("kind", [kind for pair in PAIRS for kind in pair])
def test_a_kind_with_something_unknown_in_it_comes_back_from_its_json(kind: k.Kind) -> None:
    assert kind_from_json(kind.to_json()) == kind


def test_the_known_part_of_a_kind_leaves_out_what_nobody_has_told() -> None:
    assert known_part(struct(a=NONE, b=struct(c=NONE), d=k.List(struct(e=NONE, f=TEXT)))) == struct(
        d=k.List(struct(f=TEXT))
    )
    assert known_part(k.Map(TEXT, k.List(NONE))) is None


def write(
    objects: Objects, table: Table, columns: TableSchema, rows: dict[str, list[Any]], run: str
) -> tuple[Table, DataFile]:
    with DataFileWriter(objects, f"{run}.pq", columns.arrow, table.ids) as writer:
        writer.write(pa.table({c.name: pa.array(rows[c.name], c.kind.storage) for c in columns}))
    file = writer.describe(table.iceberg.schema())
    return table.append([file], {"run": run}, key=run), file


def test_every_reader_takes_the_files_of_runs_before_and_after_a_type_is_told(tmp_path: Path, duck: Any) -> None:
    objects, catalog = Objects.at(f"file://{tmp_path}"), Catalog(f"file://{tmp_path}/catalog")
    untold = schema(n=k.Int(), v=NONE, l=k.List(NONE), s=struct(a=NONE, b=k.Int()))
    told = schema(n=k.Int(), v=NUMBER, l=k.List(TEXT), s=struct(a=k.Duration(), b=k.Int()))
    table = catalog.ensure("space", "t", untold, [RUN])

    table, file = write(objects, table, untold, {"n": [1], "v": [None], "l": [[]], "s": [{"a": None, "b": 2}]}, "r1")

    assert [f.name for f in table.iceberg.schema().fields] == ["n", "s", "run"]
    assert scan(table, {}).collect().to_dicts() == [{"n": 1, "v": None, "l": None, "s": {"a": None, "b": 2}}]
    assert table.iceberg.scan().to_arrow().to_pylist() == [{"n": 1, "s": {"b": 2}, "run": "r1"}]
    shown = f"SELECT * FROM iceberg_scan('{table.iceberg.location().removeprefix('file://')}') ORDER BY n"
    assert duck.execute(shown).fetchall() == [(1, {"b": 2}, "r1")]
    assert pd.read_parquet(file.uri.removeprefix("file://"))["v"].isna().tolist() == [True]

    table = catalog.ensure("space", "t", told, [RUN])
    table, _ = write(objects, table, told, {"n": [3], "v": [1.5], "l": [["x"]], "s": [{"a": 7, "b": 4}]}, "r2")
    table, late = write(objects, table, untold, {"n": [5], "v": [None], "l": [[]], "s": [{"a": None, "b": 6}]}, "r3")

    ids = stored_field_ids(pq.read_schema(late.uri.removeprefix("file://")))
    assert {path for path, i in ids.items() if i in table.ids.values()} == {"n", "s", "s.b"}
    rows = scan(table, {}).sort("n").collect().select("n", "v", pl.col("l").list.len(), pl.col("s").struct.field("b"))
    assert rows.rows() == [(1, None, None, 2), (3, 1.5, 1, 4), (5, None, None, 6)]
    found = sorted(table.iceberg.scan().to_arrow().to_pylist(), key=lambda row: row["n"])
    assert [(r["n"], r["v"], r["s"]) for r in found] == [
        (1, None, {"b": 2, "a": None}), (3, 1.5, {"b": 4, "a": 7}), (5, None, {"b": 6, "a": None}),
    ]  # fmt: skip
    assert [(row[0], row[1]["b"]) for row in duck.execute(shown).fetchall()] == [(1, 2), (3, 4), (5, 6)]
