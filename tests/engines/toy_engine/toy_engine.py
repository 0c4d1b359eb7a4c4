"""An engine as another package would bring it: threads, each of which serves a chunk of a run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from scythe.define.experiment import Experiment
from scythe.engines.engine import Engine, FinishedRef, Launch
from scythe.engines.options import EngineOptions
from scythe.engines.pool.chunks import ChunkQueue
from scythe.errors import AllocationError
from scythe.gather.collect import Collector
from scythe.leaf.leaf import Leaf
from scythe.record.lease import Lease
from scythe.record.provenance import record


class ToyOptions(EngineOptions):
    engine: ClassVar[str] = "toy"

    chunk: int = 3


class ToyEngine(Engine):
    name = "toy"
    options = ToyOptions

    def check_ready(self, experiment: Experiment, *, single: bool) -> None:
        if experiment.wants_tempdir:
            raise AllocationError(f"the toy engine gives {experiment.name!r} no tempdir")

    def start(self, work: Launch) -> FinishedRef:
        plan, experiment = work.plan, work.experiment
        told = work.options if isinstance(work.options, ToyOptions) else ToyOptions()
        with (
            Lease(plan.objects, plan.key, self.name, taken=lambda n: record(plan.objects, plan.key, experiment, self.name, n, work.code, work.stored)) as lease,
            Leaf(plan, experiment) as leaf,
            ThreadPoolExecutor(1) as thread,
        ):  # fmt: skip
            collector = Collector(plan, experiment, lease.number, show=work.show)
            chunks = ChunkQueue(work.open_ranges, 1, told.chunk)
            while (chunk := chunks.next()) is not None:
                collector.add(thread.submit(leaf.run, chunk.rows).result())
                lease.check()
            return FinishedRef(collector.finish())
