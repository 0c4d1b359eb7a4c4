"""The workers and runs of an engine: looked up, and cancelled. Triggers none."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from scythe.engines.hatchet.connection import connect
from scythe.engines.hatchet.errors import CameToNothing, told_in
from scythe.engines.hatchet.tasks import ROOT_KEY, RUN_KEY, SLOTS_LABEL, Tasks
from scythe.errors import WorkerCrashed
from scythe.record.layout import RunKey

if TYPE_CHECKING:
    from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus
    from hatchet_sdk.clients.rest.models.worker import Worker

_DEFAULT_SLOTS = 8
_DEFAULT_NODE_SLOTS = 1000
_BULK = 500
_ANSWER_SECONDS = 15.0
#: The engine lists a worker as active while its heartbeat is younger than 5 s, and the SDK beats every 4: on a busy
#: machine a worker drops out of the list for a moment.
_BEATS_WITHIN_SECONDS = 6.0
_LOOK_SECONDS = 0.5
#: The clocks of allocation and engine may differ by so much.
_CLOCKS = dt.timedelta(hours=1)


async def active_workers() -> list[Worker]:
    """The workers that are connected now."""
    found = await connect().workers.aio_list()
    return [w for w in found.rows or [] if w.status == "ACTIVE"]


def serves(worker: Worker, name: str) -> bool:
    """Whether a worker has a task of this name."""
    wanted = connect().config.apply_namespace(name).lower()
    return any(a.split(":")[0] == wanted for a in worker.actions or [])


async def workers_for(name: str, *, patient: bool) -> list[Worker]:
    """The workers that are connected now; with `patient`, looked at again until one of them has the task `name`."""
    until = time.monotonic() + _BEATS_WITHIN_SECONDS
    while True:
        workers = await active_workers()
        if not patient or any(serves(w, name) for w in workers) or time.monotonic() > until:
            return workers
        await asyncio.sleep(_LOOK_SECONDS)


async def slots_for(tasks: Tasks) -> int:
    """How many functions of an experiment can run at once on the workers that are connected now."""
    return sum(map(_slots, await _serving(tasks.leaf.name))) or _DEFAULT_SLOTS


async def node_slots(tasks: Tasks) -> int:
    """How many scatter nodes of an experiment can wait at once on the workers that are connected now."""
    return sum(map(_limit, await _serving(tasks.scatter.name))) or _DEFAULT_NODE_SLOTS


async def _serving(name: str) -> list[Worker]:
    """The workers that are connected now and have a task; none where they cannot be asked for."""
    try:
        return [w for w in await active_workers() if serves(w, name)]
    except Exception:  # noqa: BLE001 - a guess is good enough where only gRPC gets through
        return []


def _slots(worker: Worker) -> int:
    labels = {label.key: label.value for label in worker.labels or []}
    if SLOTS_LABEL in labels:
        return int(labels[SLOTS_LABEL] or 0)
    return _limit(worker)


def _limit(worker: Worker) -> int:
    """How many tasks a worker takes at once."""
    return sum(config.limit for config in (worker.slot_config or {}).values())


async def cancel_runs(ids: list[str]) -> None:
    """Cancels runs of the engine by their identifiers."""
    from hatchet_sdk import BulkCancelReplayOpts

    for start in range(0, len(ids), _BULK):
        await connect().runs.aio_bulk_cancel(BulkCancelReplayOpts(ids=ids[start : start + _BULK]))


async def cancel_all(run: RunKey) -> None:
    """Cancels everything of a run of Scythe that is queued or running."""
    with suppress(TypeError):  # where nothing is left, the engine answers null, and the SDK asks for its length
        await connect().runs.aio_bulk_cancel_by_filters_with_pagination(
            sleep_time=0, since=run.moment - _CLOCKS, additional_metadata={RUN_KEY: run.path}, statuses=_unfinished()
        )


async def unfinished_triggers(run: RunKey, known: Iterable[str]) -> list[str]:
    """Those root runs of a run of Scythe that are queued or running: among `known`, and found by their metadata."""
    runs = connect().runs
    found = await runs.aio_list_with_pagination(
        since=run.moment - _CLOCKS,
        additional_metadata={ROOT_KEY: run.path},
        statuses=_unfinished(),
        include_payloads=False,
    )
    listed = [str(r.workflow_run_external_id) for r in found]
    asked = [r for r in known if r not in listed]
    states = await asyncio.gather(*map(runs.aio_get_status, asked), return_exceptions=True)
    return [*listed, *(r for r, state in zip(asked, states, strict=True) if state in _unfinished())]


async def is_over(run_id: str) -> bool:
    """Whether the engine knows a run of its own, and that it is over."""
    try:
        return await connect().runs.aio_get_status(run_id) not in _unfinished()
    except Exception:  # noqa: BLE001 - it knows of a run a moment after it was triggered
        return False


async def why_nothing(run_id: str) -> CameToNothing | WorkerCrashed:
    """What is said of a run of the engine that came to nothing, without an exception of its own; whether each worker that had it was lost."""
    said: str | None = None
    with suppress(Exception):  # an engine that cannot be asked knows no better
        found = await asyncio.wait_for(connect().runs.aio_get(run_id), _ANSWER_SECONDS)
        said = next((task.error_message for task in found.tasks if task.error_message), None)
    if said is None:
        return CameToNothing("it was cancelled in Hatchet, or waited too long for a worker")
    if "maximum reassignment count" in said:
        return WorkerCrashed(
            f"each worker that had it was lost ({said}): does it take the whole worker down, by its memory say?"
        )
    return CameToNothing(told_in(said))


def exists(run_id: str) -> bool | None:
    """Whether the engine has a run, a new one too; None where it does not say. Takes seconds for one that is not there."""
    import grpc

    try:
        connect().runs.get_details(run_id)
    except grpc.RpcError as error:
        return False if error.code() == grpc.StatusCode.NOT_FOUND else None  # pyright: ignore[reportAttributeAccessIssue]
    return True


def _unfinished() -> list[V1TaskStatus]:
    from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus

    return [V1TaskStatus.QUEUED, V1TaskStatus.RUNNING]
