"""What nodes hand up to one another is counted once and gathered once, however often one of them begins anew."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.engines.engine import FinishedRef, Launch
from scythe.engines.hatchet.worker.scatter import WorkingNode
from scythe.engines.inline import InlineEngine
from scythe.errors import RunError
from scythe.gather.collect import Collector
from scythe.gather.payload import INLINE_BYTES, Payloads
from scythe.leaf.leaf import Leaf
from scythe.record.generations import catalog_of
from scythe.record.lease import Lease
from scythe.registry import ExperimentRegistry
from scythe_catalog.errors import CatalogAway


class Wall(ExperimentInputSpec):
    x: int


class Heat(ExperimentOutputSpec):
    y: int
    text: str = ""


def heat(spec: Wall) -> Heat:
    if spec.x % 7 == 3:
        raise ValueError("no such wall")
    return Heat(y=2 * spec.x, text="." * (100_000 if spec.x >= 1000 else 0))


_numbers = itertools.count()


def run_by(start: Callable[[Launch], FinishedRef], inputs: range) -> str:
    """Runs an experiment that is worked on as a test says; its name."""
    name = f"heat{next(_numbers)}"
    ExperimentRegistry.Register(name=name, retries=0)(heat)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InlineEngine, "start", lambda self, work: start(work))
        BaseExperiment(name).allocate(pl.DataFrame({"x": list(inputs)}), engine="inline")
    return name


def take(node: Collector, payloads: Payloads, handed: list[Any], parts: list[str]) -> None:
    """What a node does with the answer of one below it."""
    loaded = SimpleNamespace(prepared=SimpleNamespace(payloads=payloads))
    working: Any = SimpleNamespace(loaded=loaded, collector=node, _measured=None)
    WorkingNode._take(working, [], handed, parts)


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # each run has a name of its own
@given(data=st.data())
def test_rows_that_are_handed_up_are_counted_once_and_gathered_once(root: Path, data: st.DataObject) -> None:
    nodes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4), label="inputs of each node")
    own = data.draw(st.integers(0, 4), label="inputs of the root")
    total = sum(nodes) + own

    def start(work: Launch) -> FinishedRef:
        with Lease(work.plan.objects, work.plan.key, "inline") as lease, Leaf(work.plan, work.experiment) as leaf:
            answers, at = [], own
            payloads = Payloads(work.plan, f"{lease.number:06d}-leaf")
            for k, count in enumerate(nodes):
                node = Collector(work.plan, work.experiment, lease.number, prefix=f"{lease.number:06d}-node-{k}-a")
                for i in range(at, at + count):
                    node.add(leaf.run(range(i, i + 1)))
                    if data.draw(st.booleans(), label="flush"):
                        node.flush()
                most = data.draw(st.sampled_from([0, INLINE_BYTES]), label="bytes that travel")
                small, parts = node.hand_over(most)
                assert node.rows + node.errors == count
                answers.append(([payloads.encode(small)] if small is not None else [], parts))
                at += count
            for life in range(data.draw(st.integers(1, 3), label="how often the root begins")):
                prefix = f"{lease.number:06d}-node-root-"
                node = Collector(work.plan, work.experiment, lease.number, prefix=f"{prefix}{life}")
                node.take_up(prefix)
                for i in range(own):
                    node.add(leaf.run(range(i, i + 1)))
                for handed, parts in data.draw(st.permutations(answers), label="order"):
                    take(node, payloads, handed, parts)
                    if data.draw(st.booleans(), label="flush"):
                        node.flush()
                assert node.rows + node.errors == own
            return FinishedRef(node.finish())

    name = run_by(start, range(total))
    good = [x for x in range(total) if x % 7 != 3]
    assert scythe.read(name)["y"].to_list() == [2 * x for x in good]
    assert scythe.read(name, table="errors")["x"].to_list() == [x for x in range(total) if x % 7 == 3]
    assert scythe.read(name, table="tasks")["sort_index"].to_list() == list(range(total))


def test_rows_of_a_node_that_are_too_many_to_travel_are_shown_while_the_run_goes_on(root: Path) -> None:
    shown = list[Any]()

    def start(work: Launch) -> FinishedRef:
        with Lease(work.plan.objects, work.plan.key, "inline") as lease, Leaf(work.plan, work.experiment) as leaf:
            payloads = Payloads(work.plan, f"{lease.number:06d}-leaf")
            below = Collector(work.plan, work.experiment, lease.number, prefix=f"{lease.number:06d}-node-0-a")
            below.add(leaf.run(range(2)))
            small, parts = below.hand_over(10 * INLINE_BYTES)
            assert small is not None
            packed = payloads.encode(small)
            assert "part" in packed
            node = Collector(work.plan, work.experiment, lease.number, prefix=f"{lease.number:06d}-node-root-a")
            take(node, payloads, [packed], parts)
            node.flush()
            key = work.plan.key
            shown.append(scythe.read(key.experiment, key.version, run=key.folder)["sort_index"].to_list())
            table = catalog_of(work.plan.objects).table(key.experiment, work.plan.tables["scalars"].catalog_table)
            assert len(table.files(key.partition)) == 1, "others read by the catalog"
            assert node.rows + node.errors == 0
            return FinishedRef(node.finish())

    name = run_by(start, range(1000, 1002))
    assert shown == [[0, 1]]
    assert scythe.read(name)["y"].to_list() == [2000, 2002]


@pytest.mark.parametrize(
    ("error", "way_out"),
    [
        (CatalogAway("the catalog 'lab' cannot be reached"), "See to it that its server runs"),
        (OSError(28, "No space left on device"), "Make room, or mend the folder"),
    ],
)
def test_what_keeps_a_run_from_its_end_is_told_with_what_mends_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, way_out: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("scythe.gather.collect.Gather.finish", fails)
    ExperimentRegistry.Register(retries=0)(heat)
    with pytest.raises(RunError, match=f"cannot be gathered: .*{way_out}"):
        BaseExperiment(heat).allocate(pl.DataFrame({"x": [1]}), engine="inline")
