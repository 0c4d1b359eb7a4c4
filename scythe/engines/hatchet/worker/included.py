"""The scatter node of an included Hatchet task: it triggers that task once for each input, and makes rows of what it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from scythe.base import ExperimentInputSpec
from scythe.engines.hatchet.connection import connect
from scythe.engines.hatchet.errors import CameToNothing, ReturnedNothing, told
from scythe.engines.hatchet.exact import Unsent, message_bytes, payload_of
from scythe.engines.hatchet.worker.children import Child, Outcome
from scythe.engines.hatchet.worker.scatter import WorkingNode
from scythe.engines.hatchet.worker.threads import in_thread
from scythe.errors import OutputError, RunCancelled, RunError, WorkerCrashed
from scythe.leaf.leaf import Leaf
from scythe.scatter_gather import Node
from scythe_catalog.schema import arrow_to_models

_BLOCK = 500


class ForeignNode(WorkingNode):
    """A node whose leaves are runs of a task that is not Scythe's; those that Hatchet cancels or gives up keep no other from its end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        experiment = self.loaded.prepared.experiment
        assert experiment.included is not None
        self._task = connect().stubs.task(
            name=experiment.included.name,
            input_validator=dict,  # as it is sent: JSON has not all numbers
            output_validator=dict,  # as it comes: a run that was cancelled has none
        )
        #: Of the inputs of which Hatchet has cancelled the run, or given it up: they have no row.
        self._without_row: list[BaseException] = []
        #: Those whose workers were lost, beside others: each is run once more, with no other of this node beside it.
        self._suspects: list[int] | None = []

    async def run(self) -> None:
        await super().run()
        try:
            await self._run_suspects()
        except BaseException:
            await self._give_up()
            if not self.stopping.is_set:  # else the next try of this node finds its children by their keys
                await self.children.cancel()
            raise
        if not self._without_row:
            return
        await self._give_up()
        run, count = self.payload.run, len(self._without_row)
        if await self._is_cancelled():
            raise RunCancelled(f"the run {run} was cancelled; what was finished is kept")
        raise RunError(
            f"{count:,} of the inputs of {run} came to nothing, the first because {told(self._without_row[0])}. What is finished is "
            "kept: `scythe resume` runs the others"
        )

    async def _run_suspects(self) -> None:
        """Runs each input whose workers were lost on its own: which of those that they had has taken them down, nobody knows."""
        suspects, self._suspects = self._suspects or [], None
        for row in suspects:
            (payload,) = await asyncio.to_thread(self._payloads, [row])
            assert not isinstance(payload, Unsent), "it was sent before"
            await self.children.trigger(self._task, [Child(f"alone-{row}", payload, tag=row)])
            while self.children:
                await self._collect()
        if suspects:
            await self._tell(last=True)

    async def _trigger(self, leaves: Iterable[tuple[str, range]]) -> None:
        wanted = [(key, int(self.loaded.attempt.rows(inputs)[0])) for key, inputs in leaves]
        for start in range(0, len(wanted), _BLOCK):
            block = wanted[start : start + _BLOCK]
            payloads = await asyncio.to_thread(self._payloads, [row for _, row in block])
            unsent: dict[int, Outcome] = {
                row: payload for (_, row), payload in zip(block, payloads, strict=True) if isinstance(payload, Unsent)
            }
            if unsent:
                await in_thread(lambda found=unsent: self._keep(found))
            children = [
                Child(key, payload, tag=row)
                for (key, row), payload in zip(block, payloads, strict=True)
                if not isinstance(payload, Unsent)
            ]
            await self.children.trigger(self._task, children)

    def _payloads(self, rows: list[int]) -> list[dict[str, Any] | Unsent]:
        """What the task is sent for some rows, which may be in any order; why nothing of those that cannot be sent."""
        most = message_bytes()

        def payload(spec: ExperimentInputSpec) -> dict[str, Any] | Unsent:
            try:
                return payload_of(spec, most)
            except Unsent as error:
                return error

        return [payload(spec) for spec in self._specs(rows)]

    def _specs(self, rows: list[int]) -> list[ExperimentInputSpec]:
        run, order = self.loaded.prepared, sorted(rows)
        with Leaf(run.plan, run.experiment) as leaf:
            found = arrow_to_models(leaf.inputs(np.array(order, np.int64)), run.plan.schemas(run.experiment).input)
        by_row = dict(zip(order, found, strict=True))
        return [by_row[row] for row in rows]

    async def _accept(self, arrived: list[tuple[Any, Outcome]]) -> None:
        nodes = [(tag, outcome) for tag, outcome in arrived if isinstance(tag, Node)]
        leaves = sorted((row, outcome) for row, outcome in arrived if not isinstance(row, Node))
        if self._suspects is not None:
            self._suspects += [row for row, outcome in leaves if isinstance(outcome, WorkerCrashed)]
            leaves = [(row, outcome) for row, outcome in leaves if not isinstance(outcome, WorkerCrashed)]
        ended = {row: outcome for row, outcome in leaves if not isinstance(outcome, CameToNothing)}
        if any(isinstance(outcome, ReturnedNothing) for outcome in ended.values()) and await self._is_cancelled():
            ended = {row: outcome for row, outcome in ended.items() if not isinstance(outcome, ReturnedNothing)}
        if ended:
            await in_thread(lambda: self._keep(ended))
        if nodes:
            await super()._accept(nodes)
        self._without_row += [why for row, why in leaves if row not in ended and isinstance(why, BaseException)]

    async def _is_cancelled(self) -> bool:
        """Whether the run was cancelled: a child that was cancelled as it came to its end has returned nothing, too."""
        plan = self.loaded.prepared.plan
        return await asyncio.to_thread(plan.objects.exists, plan.key.cancelled)

    def _keep(self, outcomes: dict[int, Outcome]) -> None:
        """Makes rows of what the runs returned, by row of `specs.pq`, as if the function had run here."""
        run, experiment = self.loaded.prepared, self.loaded.prepared.experiment
        name, output = experiment.name, experiment.output_model
        rows = np.array(list(outcomes), np.int64)
        with Leaf(run.plan, run.experiment) as leaf:
            found = leaf.inputs(rows).column("sort_index").to_pylist()
        new = [self.collector.is_new(i) for i in found]
        order = iter([outcome for outcome, wanted in zip(outcomes.values(), new, strict=True) if wanted])

        def returned(_: ExperimentInputSpec) -> Any:
            outcome = next(order)
            if isinstance(outcome, ReturnedNothing):
                raise OutputError(f"{name} returned nothing, where {output.__name__} is due")
            if isinstance(outcome, Unsent | WorkerCrashed):
                raise outcome
            if isinstance(outcome, BaseException):
                raise _raised(outcome)
            return output.model_validate(outcome)

        if any(new):
            with Leaf(run.plan, replace(run.experiment, target=returned)) as leaf:
                self.collector.add(leaf.run(rows[new]))


def _raised(outcome: BaseException) -> OutputError:
    """The exception that a task failed with, by the name of its class, with its message and the traceback of its worker; it is not tried again here."""
    (first, *_) = getattr(outcome, "exceptions", None) or (outcome,)
    kind, trace = getattr(first, "exc_type", ""), getattr(first, "trace", "")
    if not (isinstance(kind, str) and kind.isidentifier()):
        return OutputError(told(outcome))
    error: OutputError = type(kind, (OutputError,), {"__module__": "builtins"})(told(outcome))
    if trace:
        error.add_note(trace)
    return error
