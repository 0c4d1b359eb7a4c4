"""What a worker needs of a run before it can work on it, loaded once and kept for the next task; how a root begins and ends.

Checks that the worker's code is the code that the attempt was started with.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hatchet_sdk import Context

from scythe.define.code import Code
from scythe.define.experiment import Experiment
from scythe.engines.hatchet.tasks import Pointer
from scythe.engines.hatchet.worker.threads import in_thread, lease_of
from scythe.engines.pool.job import pool_job
from scythe.engines.pool.server import Prepared
from scythe.errors import RunError, ScytheError, Superseded
from scythe.gather.collect import Collector
from scythe.gather.parts import Part
from scythe.gather.payload import Payloads
from scythe.gather.publish import settle
from scythe.record.attempt_plan import AttemptPlan, load_attempt_plan
from scythe.record.attempts import latest_attempt
from scythe.record.generations import catalog_of
from scythe.record.layout import RunKey, version_record
from scythe.record.lease import Lease
from scythe.record.manifest import record_trigger, schema_hash
from scythe.record.plan import RunPlan
from scythe.record.provenance import difference, short
from scythe.record.results import read_result
from scythe_catalog.storage.objects import Objects

P = TypeVar("P", bound=Pointer)

_KEPT = 16


@dataclass(frozen=True)
class Loaded:
    """One attempt on a run, as a worker sees it."""

    attempt: AttemptPlan
    prepared: Prepared


class Loader:
    """The attempts that the tasks of a worker belong to; each is loaded once, however many tasks ask for it.

    `codes` says which code the worker has loaded, by the names of experiments.
    """

    def __init__(self, codes: Mapping[str, Code]) -> None:
        self._codes = codes
        self._kept: OrderedDict[tuple[str, str, int, str], asyncio.Task[Loaded]] = OrderedDict()

    async def attempt(self, payload: Pointer, experiment: Experiment) -> Loaded:
        """The attempt that a task belongs to.

        Raises:
            RunError: the run is not in the worker's storage, or the worker's code is another than the run's.
        """
        name = (payload.root, payload.run, payload.turn, payload.run_id)
        if name not in self._kept:
            self._kept[name] = asyncio.ensure_future(asyncio.to_thread(self._load, payload, experiment))
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

    def _load(self, payload: Pointer, experiment: Experiment) -> Loaded:
        plan = replace(find_plan(payload.root, payload.key), workflow_run_id=payload.run_id)
        attempt = load_attempt_plan(plan.objects, payload.key, payload.turn)
        plan = replace(plan, max_errors=attempt.max_errors)
        code = self._codes[experiment.name]
        _check(plan, attempt, experiment, code)
        parts = f"{payload.turn:06d}-leaf"
        job = pool_job(plan, experiment, code, parts)
        return Loaded(attempt, Prepared(plan, experiment, job, Payloads(plan, parts)))


def find_plan(root: str, key: RunKey) -> RunPlan:
    """The plan of a run, as this worker finds it.

    Raises:
        RunError: the run is not in the worker's storage.
    """
    objects = Objects.at(root)
    try:
        return replace(RunPlan.from_json(objects.read(key.plan)), root=root)
    except FileNotFoundError:
        raise RunError(
            f"this worker does not find the run {key.path} in {root}: allocation and workers need the same storage "
            "(a bucket: SCYTHE_STORAGE_BUCKET, or a file system that all of them share)"
        ) from None


def _check(plan: RunPlan, attempt: AttemptPlan, experiment: Experiment, code: Code) -> None:
    """Nothing where a worker's code is that of the attempt.

    Raises:
        RunError: it has other schemas, or other code.
    """
    mine, name, worker = schema_hash(experiment), experiment.name, f"the worker on {socket.gethostname()}"
    if mine != plan.schema_sha256:
        raise RunError(
            f"{worker} has other input or output models of {name!r} than the run {plan.key.path} was "
            f"allocated with (schema {mine[:12]}, allocated {plan.schema_sha256[:12]}): "
            "start the workers again with the code of the allocation, or allocate a new version"
        )
    was_sent = (
        code.sha256 is None and experiment.target.__module__ == "__main__"
    )  # by the caller itself, to its embedded engine
    if attempt.code not in (None, code.sha256) and not was_sent:
        started = f"the run {plan.key.path} was started with"
        raise RunError(
            (
                f"{worker} has other code of {name!r} than {started} (code {short(code.sha256)}, started with {short(attempt.code)}{difference(plan.objects, plan.key, attempt.number, code)})"
                if code.sha256 is not None
                else f"{worker} has no source of {name!r}: whether that is what {started} cannot be told"
            )
            + ": start the workers again with the code that you have, and resume the run; or allow any code with SCYTHE_ANY_CODE=true where you start it"
        )


def is_gone(payload: Pointer) -> bool:
    """Whether the run of a task was deleted, or its folder is not there any more; False where that cannot be seen."""
    objects, key = Objects.at(payload.root), payload.key
    with contextlib.suppress(OSError, ScytheError):
        if objects.exists(key.tombstone):
            return True
        # A share that is not mounted for a moment has no runs either, and no versions.
        return objects.exists(version_record(key.experiment, key.version)) and not objects.exists(key.manifest)
    return False


def is_done(plan: RunPlan, attempt: int) -> bool:
    """Whether an attempt has published its result."""
    result = read_result(plan.objects, plan.key)
    return result is not None and result.attempt >= attempt


def is_left(plan: RunPlan, attempt: int) -> bool:
    """Whether an attempt has published its result, and the process that did so has given the run back."""
    last = latest_attempt(plan.objects, plan.key)
    return (last is None or last.ended) and is_done(plan, attempt)


def settle_result(plan: RunPlan) -> None:
    """Publishes a result that is there: the process that wrote it may have died before."""
    settle(plan.objects, catalog_of(plan.objects, plan.catalog), plan.key)


async def as_root(
    payload: P,
    context: Context,
    loader: Loader,
    experiment: Experiment,
    collect: Callable[[P, Loaded, Lease], Awaitable[Collector]],
) -> dict[str, Any]:
    """What the root of an attempt returns: it alone has the run's lease, and ends the attempt with what `collect` gives.

    Its root is run again where its answer did not reach the engine: an attempt that is over is only published.
    """
    plan = await asyncio.to_thread(find_plan, payload.root, payload.key)
    if await in_thread(lambda: is_left(plan, payload.turn)):
        return {"finished": payload.run}
    try:
        async with lease_of(plan, context.workflow_run_id, payload.turn) as lease:
            run_id = await asyncio.to_thread(record_trigger, plan.objects, plan.key, context.workflow_run_id)
            payload = payload.model_copy(update={"run_id": run_id})
            loaded = await loader.attempt(payload, experiment)
            if await in_thread(lambda: is_done(plan, payload.turn)):
                await in_thread(lambda: settle_result(plan), last=True)
            else:
                collector = await collect(payload, loaded, lease)
                collector.began -= dt.timedelta(seconds=lease.before)
                await in_thread(collector.finish, last=True)
    except Superseded as error:
        return {"superseded": error.owner}
    return {"finished": payload.run}


class NodeCollector(Collector):
    """The rows of a node, which may have been suspended while another has taken its place and published the run.

    What comes too late for the result is not shown beside it; and who finds that it has been takes it back.
    """

    def _show(self, parts: Sequence[Part]) -> None:
        if is_done(self.plan, self.attempt):
            return
        super()._show(parts)
        if is_done(self.plan, self.attempt):
            settle_result(self.plan)
