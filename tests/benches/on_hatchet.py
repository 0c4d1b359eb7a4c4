"""What the cluster's benchmark runs: the same functions as Scythe's experiments and as bare tasks of the SDK.

`python on_hatchet.py <slots>` serves the bare tasks.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta

from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry


class Input(ExperimentInputSpec):
    x: float


class Output(ExperimentOutputSpec):
    y: float


@ExperimentRegistry.Register()
def bench_noop(input_spec: Input) -> Output:
    return Output(y=2 * input_spec.x)


@ExperimentRegistry.Register()
def bench_nap(input_spec: Input) -> Output:
    time.sleep(input_spec.x)
    return Output(y=input_spec.x)


class BareInput(BaseModel):
    x: float


class Bare:
    """The same no-op as a task of the SDK on a worker of `slots` slots, and the two ways to run many of it."""

    def __init__(self, slots: int) -> None:
        self.hatchet = Hatchet()
        limit = timedelta(minutes=30)

        async def noop(given: BareInput, ctx: Context) -> dict[str, float]:
            return {"y": 2 * given.x}

        self.task = self.hatchet.task(
            name=f"bench_bare_noop_{slots}", input_validator=BareInput, execution_timeout=limit, schedule_timeout=limit
        )(noop)

    def _items(self, n: int) -> list:
        return [self.task.create_bulk_run_item(input=BareInput(x=float(i))) for i in range(n)]

    def gathered(self, n: int) -> float:
        """Seconds of `wait_for_result=False`, then one gather of all results."""

        async def run() -> None:
            refs = await self.task.aio_run_many(self._items(n), wait_for_result=False)
            await asyncio.gather(*(ref.aio_result() for ref in refs))

        began = time.perf_counter()
        asyncio.run(run())
        return time.perf_counter() - began

    def run_many(self, n: int) -> float:
        """Seconds of `aio_run_many`."""

        async def run() -> None:
            await self.task.aio_run_many(self._items(n))

        began = time.perf_counter()
        asyncio.run(run())
        return time.perf_counter() - began


if __name__ == "__main__":
    slots = int(sys.argv[1])
    bare = Bare(slots)
    bare.hatchet.worker(f"bench-bare-{slots}", slots=slots, workflows=[bare.task]).start()
