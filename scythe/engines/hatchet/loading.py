"""What a worker needs of a run before it can work on it, loaded once and kept for the next task.

Checks that the worker's code is the code that the run was allocated with.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace

from scythe.engines.hatchet.tasks import Pointer
from scythe.engines.local import pool_job
from scythe.engines.serve import Prepared
from scythe.errors import RunError
from scythe.layout import RunKey
from scythe.manifest import schema_hash
from scythe.packing import Packing
from scythe.plan import RunPlan
from scythe.registry import Experiment
from scythe.turns import TurnPlan, load_turn
from scythe_catalog.objects import Objects

_KEPT = 16


@dataclass(frozen=True)
class Loaded:
    """One turn on a run, as a worker sees it."""

    turn: TurnPlan
    prepared: Prepared


class Loader:
    """The turns that the tasks of a worker belong to; each is loaded once, however many tasks ask for it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, int, str], asyncio.Task[Loaded]] = OrderedDict()

    async def turn(self, payload: Pointer, experiment: Experiment) -> Loaded:
        """The turn that a task belongs to; raises what `load_plan` does."""
        name = (payload.root, payload.run, payload.turn, payload.run_id)
        if name not in self._kept:
            self._kept[name] = asyncio.ensure_future(asyncio.to_thread(_load, payload, experiment))
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        loading = self._kept[name]
        try:
            return await asyncio.shield(loading)
        except BaseException:
            if loading.done():  # what failed may succeed for the next task
                self._kept.pop(name, None)
            raise


def _load(payload: Pointer, experiment: Experiment) -> Loaded:
    plan = replace(load_plan(payload.root, payload.key, experiment), workflow_run_id=payload.run_id)
    parts = f"{payload.turn:06d}-leaf"
    run = Prepared(plan, experiment, pool_job(plan, experiment, parts), Packing(plan, parts))
    return Loaded(load_turn(plan.objects, payload.key, payload.turn), run)


def load_plan(root: str, key: RunKey, experiment: Experiment) -> RunPlan:
    """The plan of a run that this worker is to work on.

    Raises:
        RunError: the run is not in the worker's storage, or was allocated with other schemas.
    """
    objects = Objects(root)
    try:
        plan = RunPlan.from_json(objects.read(key.plan))
    except FileNotFoundError:
        raise RunError(
            f"this worker does not find the run {key.path} in {root}: allocation and workers need the same storage "
            "(a bucket: SCYTHE_STORAGE_BUCKET, or a file system that all of them share)"
        ) from None
    mine = schema_hash(experiment)
    if mine != plan.schema_sha256:
        raise RunError(
            f"this worker's code of {experiment.name!r} has other input or output models than the run {key.path} was "
            f"allocated with (schema {mine[:12]}, allocated {plan.schema_sha256[:12]}): "
            "start the workers again with the code of the allocation, or allocate a new version"
        )
    return replace(plan, root=root)
