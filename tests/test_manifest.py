"""The YAML of a run says what it was given, whatever that is; and making a run costs no more than its columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import create_model

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.record.manifest import dump_yaml, load_yaml
from scythe.registry import ExperimentRegistry
from scythe_catalog.schema import TableSchema

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


class Wall(ExperimentInputSpec):
    x: int


class Heat(ExperimentOutputSpec):
    y: int


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=12,
    )
)
@example({"\x85": "next line"})
@example({"no": "yes", "1": "1e3", "~": "0x1", "": " "})
def test_yaml_gives_back_what_was_written_with_either_of_its_readers(data: Any) -> None:
    raw = dump_yaml(data, sort_keys=False)

    assert repr(load_yaml(raw, "a file")) == repr(data)
    assert repr(yaml.safe_load(raw)) == repr(data)


def test_a_note_of_any_text_is_the_note_of_the_run(root: Path) -> None:
    @ExperimentRegistry.Register()
    def heat(spec: Wall) -> Heat:
        return Heat(y=spec.x)

    note = "with a next line\x85and\u2028others\tand 'quotes': #"
    BaseExperiment(heat).allocate(pl.DataFrame({"x": [1]}), engine="inline", note=note)

    assert scythe.list_runs("heat")["note"].to_list() == [note]


@pytest.mark.parametrize("columns", [10, 200])
def test_the_schema_of_a_table_is_read_as_often_for_many_columns_as_for_few(
    root: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    many: Any = create_model("Many", __base__=ExperimentOutputSpec, **{f"y{i}": (float, ...) for i in range(columns)})

    def wide(spec: Wall) -> ExperimentOutputSpec:
        return many(**{f"y{i}": i for i in range(columns)})

    wide.__annotations__["return"] = many
    ExperimentRegistry.Register()(wide)
    read: list[int] = []
    whole = TableSchema.from_json
    monkeypatch.setattr(TableSchema, "from_json", lambda data: (read.append(1), whole(data))[1])

    BaseExperiment(wide).allocate(pl.DataFrame({"x": [1]}), engine="inline")

    assert 0 < len(read) < 60
