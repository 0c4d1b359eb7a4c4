"""Every input is in exactly one leaf, leaves are as large as they should be, and rows travel in a task's output unharmed."""

from __future__ import annotations

import contextlib
import heapq
import json
import math
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.gather.parts import Part
from scythe.gather.payload import Payload, Payloads
from scythe.leaf.leaf import Leaf
from scythe.leaf.rows import ChunkResult
from scythe.record.attempt_plan import AttemptPlan, load_attempt_plan, load_shape, store_attempt_plan, store_shape
from scythe.record.layout import RunKey
from scythe.record.plan import RunPlan
from scythe.registry import ExperimentRegistry, experiment_of
from scythe.scatter_gather import LEAF_SECONDS, Node, RecursionMap, Shape, choose
from scythe_catalog.storage.objects import Objects

TASK_OUTPUT_BYTES = 4 * 1024 * 1024
FAR_BELOW = 1024 * 1024


# --- the tree ---------------------------------------------------------------------------------------


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, Shape]:
    n = draw(st.integers(0, 300))
    chunk = draw(st.integers(1, 60))
    return n, Shape(
        factor=draw(st.integers(1, 9)),
        max_depth=draw(st.integers(0, 4)),
        probes=draw(st.integers(0, n)),
        chunk=chunk,
        smallest=draw(st.integers(1, chunk)),
        slots=draw(st.integers(1, 100)),
    )


def bases(shape: Shape, n: int) -> Iterator[Node]:
    """The nodes of a tree that have leaves."""
    waiting = [shape.root(n)]
    while waiting:
        node = waiting.pop()
        children = shape.children(node)
        waiting += children
        if not children:
            yield node


@given(shapes())
def test_no_node_but_the_root_has_fewer_than_ten_leaves(case: tuple[int, Shape]) -> None:
    n, shape = case

    assert all(len(list(shape.leaves(node))) >= 10 for node in bases(shape, n) if node.path)


@given(shapes())
def test_each_input_is_a_probe_or_in_exactly_one_leaf(case: tuple[int, Shape]) -> None:
    n, shape = case

    taken = [i for node in bases(shape, n) for leaf in shape.leaves(node) for i in leaf]

    assert sorted([*range(shape.probes), *taken]) == list(range(n))


@given(shapes())
def test_no_leaf_is_empty_or_larger_than_a_chunk(case: tuple[int, Shape]) -> None:
    n, shape = case

    assert all(1 <= len(leaf) <= shape.chunk for node in bases(shape, n) for leaf in shape.leaves(node))


@given(n=st.integers(1, 500), factor=st.integers(1, 12), depth=st.integers(0, 5))
def test_node_k_of_f_takes_every_fth_input_of_its_parent_from_the_kth(n: int, factor: int, depth: int) -> None:
    tree = RecursionMap(factor=factor, max_depth=depth)
    waiting = [Node(n)]
    while waiting:
        node = waiting.pop()
        children = node.children(tree)
        for k, child in enumerate(children):
            assert list(child.inputs) == list(node.inputs)[k::factor]
            assert child.path == (*node.path, k)
            assert Node.at(n, child.path, factor) == child
        waiting += children


@given(n=st.integers(0, 500), factor=st.integers(1, 12), depth=st.integers(0, 5))
def test_a_node_has_leaves_where_its_inputs_are_few_or_the_depth_is_reached(n: int, factor: int, depth: int) -> None:
    tree = RecursionMap(factor=factor, max_depth=depth)
    waiting = [Node(n)]
    while waiting:
        node = waiting.pop()
        children = node.children(tree)
        assert (not children) == (len(node.inputs) <= factor or len(node.path) == depth)
        assert len(children) in (0, factor)
        waiting += children


@pytest.mark.parametrize(
    "wrong", [{"factor": 0}, {"factor": -1}, {"factor": 2, "max_depth": -1}, {"factor": 2, "depth": 1}, {}]
)
def test_a_recursion_map_has_a_factor_of_at_least_one(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        RecursionMap(**wrong)  # pyright: ignore[reportArgumentType]


def test_a_recursion_map_is_ten_levels_deep_unless_told_otherwise() -> None:
    assert RecursionMap(factor=3).max_depth == 10


# --- sizes ------------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 400),
    chunk=st.integers(1, 50),
    factor=st.integers(1, 6),
    depth=st.integers(0, 3),
    slots=st.integers(1, 64),
)
def test_the_callers_chunk_is_the_size_of_all_leaves_but_a_nodes_last(
    n: int, chunk: int, factor: int, depth: int, slots: int
) -> None:
    shape = choose(n, 0, None, slots, RecursionMap(factor=factor, max_depth=depth), chunk)

    for node in bases(shape, n):
        *full, last = [len(leaf) for leaf in shape.leaves(node)] or [1]
        assert set(full) <= {chunk}
        assert last <= chunk


@given(shapes())
def test_leaves_get_smaller_towards_the_end_of_a_node_but_not_too_small(case: tuple[int, Shape]) -> None:
    n, shape = case

    for node in bases(shape, n):
        sizes = [len(leaf) for leaf in shape.leaves(node)]
        assert sizes == sorted(sizes, reverse=True)
        assert all(size >= min(shape.smallest, shape.chunk) for size in sizes[:-1])


@given(n=st.integers(1, 5000), slots=st.integers(1, 64), chunk=st.integers(1, 300))
@example(n=1023, slots=8, chunk=300)
def test_all_slots_finish_together(n: int, slots: int, chunk: int) -> None:
    smallest = max(1, chunk // 8)
    shape = Shape(factor=1, max_depth=0, probes=0, chunk=chunk, smallest=smallest, slots=slots)

    ends = [0] * slots
    for leaf in shape.leaves(shape.root(n)):  # handed out in order to whoever is free, at one second an input
        heapq.heapreplace(ends, ends[0] + len(leaf))

    assert max(ends) <= math.ceil(n / slots) + smallest + 1


@given(
    n=st.integers(1, 2_000_000),
    probes=st.integers(0, 64),
    seconds=st.floats(1e-9, 1e4),
    slots=st.integers(1, 5000),
)
def test_a_chosen_leaf_lasts_as_long_as_it_should(n: int, probes: int, seconds: float, slots: int) -> None:
    shape = choose(n, min(n, probes), seconds, slots, None, None)
    longest = max(LEAF_SECONDS, slots / 25)

    assert 1 <= shape.smallest <= shape.chunk <= 16 * 1024
    assert shape.chunk == 1 or shape.chunk * seconds <= longest * (1 + 1e-9)
    assert shape.chunk == 16 * 1024 or (shape.chunk + 1) * seconds > longest * (1 - 1e-9)
    assert shape.slots == slots
    assert shape.probes == min(n, probes)


def test_inputs_that_take_longer_than_was_waited_for_get_a_leaf_each() -> None:
    assert choose(1000, 16, None, 8, None, None).chunk == 1


@given(n=st.integers(1, 2_000_000), seconds=st.floats(1e-6, 100), slots=st.integers(1, 64))
def test_a_chosen_tree_has_one_node_until_its_leaves_are_too_many_for_one(n: int, seconds: float, slots: int) -> None:
    shape = choose(n, 0, seconds, slots, None, None)
    leaves = math.ceil(n / shape.chunk)

    assert 1 <= shape.factor <= 64
    assert (shape.max_depth == 0) == (leaves <= 2000)
    assert shape.factor == 64 or leaves / shape.factor <= 2000


@given(
    seconds=st.one_of(st.none(), st.floats(1e-6, 100)),
    factor=st.integers(1, 100),
    depth=st.integers(0, 10),
    chunk=st.integers(1, 10**6),
)
def test_what_the_caller_has_chosen_stays(seconds: float | None, factor: int, depth: int, chunk: int) -> None:
    tree = RecursionMap(factor=factor, max_depth=depth)

    shape = choose(10**6, 0, seconds, 8, tree, chunk)

    assert (shape.tree, shape.chunk, shape.smallest) == (tree, chunk, chunk)


# --- the plan of an attempt --------------------------------------------------------------------------


@st.composite
def open_ranges(draw: st.DrawFn) -> list[tuple[int, int]]:
    edges = sorted(draw(st.sets(st.integers(0, 300), min_size=2, max_size=20)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@given(open_ranges(), st.data())
def test_open_inputs_are_counted_through_all_open_ranges(ranges: list[tuple[int, int]], data: st.DataObject) -> None:
    attempt = AttemptPlan(1, ranges)
    rows = [row for start, stop in ranges for row in range(start, stop)]
    start = data.draw(st.integers(0, len(rows)))
    inputs = range(start, data.draw(st.integers(start, len(rows))), data.draw(st.integers(1, 7)))

    assert attempt.n == len(rows)
    assert [int(row) for row in attempt.rows(inputs)] == [rows[i] for i in inputs]


@given(open_ranges(), shapes())
def test_the_leaves_of_an_attempt_take_each_open_row_once(
    ranges: list[tuple[int, int]], case: tuple[int, Shape]
) -> None:
    attempt = AttemptPlan(1, ranges)
    shape = Shape(**{**vars(case[1]), "probes": min(case[1].probes, attempt.n)})

    leaves = [leaf for node in bases(shape, attempt.n) for leaf in shape.leaves(node)]
    taken = [int(row) for inputs in (range(shape.probes), *leaves) for row in attempt.rows(inputs)]

    assert sorted(taken) == [row for start, stop in ranges for row in range(start, stop)]


def test_an_attempt_and_its_shape_are_read_as_they_were_stored(root: Path) -> None:
    objects, key = Objects.at(root), RunKey("e", "v1.0.0", "2026-01-01_00-00-00")
    attempt, shape = AttemptPlan(3, [(0, 5), (7, 9)], show=False), Shape(4, 2, 3, 100, 12, 8)

    assert load_shape(objects, key, 3) is None
    store_attempt_plan(objects, key, attempt)
    store_shape(objects, key, 3, shape)

    assert load_attempt_plan(objects, key, 3) == attempt
    assert load_shape(objects, key, 3) == shape
    assert load_shape(objects, key, 4) is None


# --- what a task returns ----------------------------------------------------------------------------


class Load(ExperimentInputSpec):
    size: int = 0
    rows: int = 0
    message: int = -1
    kind: str = "plain"


class Carried(ExperimentOutputSpec):
    text: str


def carry(spec: Load) -> Carried:
    if spec.message >= 0:
        raise ValueError("é" * spec.message)
    frames: dict[str, Any] = {}
    if spec.kind == "empty":
        frames["series"] = pl.DataFrame({"t": []}, schema={"t": pl.Float64})
    elif spec.kind == "categories":
        frames["series"] = pl.DataFrame({"c": ["a", "b", "a"]}, schema={"c": pl.Categorical})
    elif spec.kind == "arrow dictionary":
        frames["series"] = pa.table({"c": pa.array(["a", "b", None]).dictionary_encode()})
    elif spec.kind == "nested":
        frames["series"] = pl.DataFrame({"l": [[1, 2], []], "s": [{"a": 1}, None]})
    elif spec.rows:
        frames["series"] = pl.DataFrame({"t": [float(i) for i in range(spec.rows)], "i": range(spec.rows)})
    return Carried(text="x" * spec.size, dataframes=frames)


KINDS: dict[str, dict[str, Any]] = {
    "small": {"size": 3},
    "long text": {"size": 200_000},
    "frame": {"rows": 5},
    "large frame": {"rows": 100_000},
    "error": {"message": 10},
    "huge error": {"message": 5_000_000},
    "empty frame": {"kind": "empty"},
    "categories": {"kind": "categories"},
    "dictionary": {"kind": "arrow dictionary"},
    "nested": {"kind": "nested"},
    "long error": {"message": 20_000},
}


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Leaf, RunPlan]]:
    """A run with one input of each kind, and its leaf."""
    before = dict(ExperimentRegistry._experiments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path_factory.mktemp("payloads") / "root"))
        ExperimentRegistry.Register(retries=0)(carry)
        specs = [Load(experiment_id="", sort_index=i, **k) for i, k in enumerate(KINDS.values())]
        with contextlib.suppress(ValueError):
            BaseExperiment(carry).allocate(specs, engine="inline")
        run = scythe.open_run("carry")
        plan = RunPlan.load(run.objects, run.key)
        with Leaf(plan, experiment_of(carry)) as leaf:
            yield leaf, plan
    ExperimentRegistry._experiments.clear()
    ExperimentRegistry._experiments.update(before)


def sent(pieces: list[Payload]) -> list[Payload]:
    """What comes out of a task whose output this is; it is far below the limit."""
    text = json.dumps({"pieces": pieces})
    assert len(text) < FAR_BELOW < TASK_OUTPUT_BYTES
    return json.loads(text)["pieces"]


def rows_of(plan: RunPlan, *found: ChunkResult | Part) -> dict[str, list[pl.DataFrame]]:
    """All rows by table, one frame a schema."""
    rows: dict[tuple[str, str], list[pl.DataFrame]] = {}
    for one in found:
        if isinstance(one, Part):
            tables = [(f.table, pq.read_table(_path(plan, f.key))) for f in one.files]
        else:
            tables = one.tables
        for name, table in tables:
            frame = pl.DataFrame(table)
            rows.setdefault((name, str(frame.schema)), []).append(frame)
    merged: dict[str, list[pl.DataFrame]] = {}
    for (name, _), frames in sorted(rows.items()):
        whole = pl.concat(frames)
        if whole.height:
            merged.setdefault(name, []).append(whole.sort("sort_index", maintain_order=True))
    return merged


def _path(plan: RunPlan, key: str) -> Path:
    return Path(plan.root.removeprefix("file://")) / key


def run_leaf(leaf: Leaf, *kinds: str) -> ChunkResult:
    return leaf.run(np.array(sorted(list(KINDS).index(k) for k in kinds)))


def same(left: dict[str, list[pl.DataFrame]], right: dict[str, list[pl.DataFrame]]) -> None:
    assert left.keys() == right.keys()
    for name, frames in left.items():
        for a, b in zip(frames, right[name], strict=True):
            assert_frame_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_of_an_input_come_out_of_a_task_as_they_went_in(carried: tuple[Leaf, RunPlan], kind: str) -> None:
    leaf, plan = carried
    payloads, result = Payloads(plan, "000001-leaf"), run_leaf(leaf, kind)

    (packed,) = sent(payloads.merged([payloads.encode(result)]))
    found = payloads.decode(packed)

    assert (found.rows, found.errors) == (result.rows, result.errors)
    assert found.first == result.first == list(KINDS).index(kind)
    same(rows_of(plan, found), rows_of(plan, result))
    assert packed["seconds"] == pytest.approx(rows_of(plan, result)["tasks"][0]["seconds"].sum())


def test_the_rows_of_a_few_inputs_travel_between_processes_without_those_of_others() -> None:
    many = pa.table({"text": [f"{i:100}" for i in range(10_000)], "nested": [[{"n": i}] for i in range(10_000)]})
    dictionary = many.slice(10, 30).select(["text"]).cast(pa.schema([("text", pa.dictionary(pa.int8(), pa.string()))]))
    few = many.slice(5000, 3).replace_schema_metadata({"kept": "yes"})
    result = ChunkResult(3, 1, [("scalars", few), ("mine", dictionary), ("mine", few.slice(0, 0))])

    data = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    found = pickle.loads(data)

    assert len(data) < 10_000
    assert (found.rows, found.errors) == (3, 1)
    assert [name for name, _ in found.tables] == ["scalars", "mine", "mine"]
    for (_, there), (_, here) in zip(found.tables, result.tables, strict=True):
        assert there.schema.equals(here.schema, check_metadata=True)
        assert there.equals(here)


def test_few_rows_travel_in_the_output_and_many_as_a_part_of_the_run(carried: tuple[Leaf, RunPlan]) -> None:
    leaf, plan = carried
    payloads = Payloads(plan, "000001-leaf")

    inline = payloads.encode(run_leaf(leaf, "small", "frame", "error"))
    part = payloads.encode(run_leaf(leaf, "small", "large frame", "error"))

    assert "part" not in inline
    assert part["part"].startswith("000001-leaf-")
    assert plan.objects.exists(f"{plan.key.parts}/{part['part']}.json")
    assert len(json.dumps(part)) < 1000


def test_the_same_rows_encoded_twice_are_two_parts(carried: tuple[Leaf, RunPlan]) -> None:
    leaf, plan = carried
    payloads, result = Payloads(plan, "000001-leaf"), run_leaf(leaf, "large frame")

    assert payloads.encode(result)["part"] != payloads.encode(result)["part"]


def test_a_schema_of_the_users_own_travels_with_its_rows(carried: tuple[Leaf, RunPlan]) -> None:
    leaf, plan = carried
    payloads, result = Payloads(plan, "000001-leaf"), run_leaf(leaf, "frame", "nested", "empty frame")

    found = payloads.decode(json.loads(json.dumps(payloads.encode(result))))

    assert isinstance(found, ChunkResult)
    before, after = ([t.schema for n, t in r.tables if n == "series"] for r in (result, found))
    assert len(before) == 3
    assert all(a.equals(b, check_metadata=True) for a, b in zip(after, before, strict=True))


@settings(max_examples=10)
@given(st.lists(st.sampled_from(["small", "frame", "error", "nested", "long error", "large frame"]), max_size=30))
def test_the_pieces_of_a_task_are_far_below_the_limit_together(carried: tuple[Leaf, RunPlan], kinds: list[str]) -> None:
    leaf, plan = carried
    payloads = Payloads(plan, "000001-leaf")
    results = [run_leaf(leaf, kind) for kind in kinds]

    pieces = sent(payloads.merged([payloads.encode(result) for result in results]))
    found = [payloads.decode(piece) for piece in pieces]

    same(rows_of(plan, *found), rows_of(plan, *results))
    assert sum(f.rows for f in found) == sum(r.rows for r in results)
    assert sum(f.errors for f in found) == sum(r.errors for r in results)


def test_hundreds_of_pieces_are_merged_into_one(carried: tuple[Leaf, RunPlan]) -> None:
    leaf, plan = carried
    payloads = Payloads(plan, "000001-leaf")
    incompressible = random.Random(0)
    pieces: list[Payload] = []
    for _ in range(300):
        result = run_leaf(leaf, "error")
        noise = "".join(chr(incompressible.randrange(33, 127)) for _ in range(3000))
        name, table = next((n, t) for n, t in result.tables if n == "errors")
        at = table.schema.get_field_index("exception_message")
        noisy = table.set_column(at, table.schema.field(at), pa.array([noise]))
        result.tables = [(n, noisy if n == name else t) for n, t in result.tables]
        pieces.append(payloads.encode(result))

    (packed,) = sent(payloads.merged(pieces))

    assert payloads.decode(packed).errors == 300
    assert packed["errors"] == 300
