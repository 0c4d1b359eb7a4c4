"""The leaf task: runs its inputs in the worker's pool of processes and returns their rows, or where they lie."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from hatchet_sdk import Context

from scythe.define.experiment import Experiment
from scythe.engines.hatchet.errors import settle
from scythe.engines.hatchet.tasks import LeafInput
from scythe.engines.hatchet.worker.alive import kept_alive
from scythe.engines.hatchet.worker.careful import MOVES, CarefulLeaf
from scythe.engines.hatchet.worker.loading import Loaded, Loader, as_root, is_gone
from scythe.engines.hatchet.worker.stopping import Stopping
from scythe.engines.hatchet.worker.threads import in_thread
from scythe.engines.pool.server import Server
from scythe.gather.collect import Collector
from scythe.gather.parts import Part
from scythe.gather.payload import Payload
from scythe.record.lease import Lease


def leaf_function(
    experiment: Experiment, server: Server, loader: Loader, stopping: Stopping
) -> Callable[[LeafInput, Any], Awaitable[dict[str, Any]]]:
    """The function of an experiment's leaf task on this worker."""

    async def leaf(payload: LeafInput, context: Context) -> dict[str, Any]:
        try:
            async with kept_alive(context):
                if payload.single:
                    return await _single(payload, context)
                loaded = await loader.attempt(payload, experiment)
                return {"pieces": await _run(payload, context, loaded)}
        except Exception as error:
            await settle(error, context, partial(is_gone, payload))
            raise

    async def _run(payload: LeafInput, context: Context, loaded: Loaded) -> list[Payload]:
        log = _log_to(context, experiment)
        if context.retry_count >= MOVES:
            return await CarefulLeaf(payload, loaded, server, stopping, log, context.retry_count).run()
        task = server.submit(loaded.prepared, loaded.attempt.rows(range(*payload.inputs)), log)
        try:
            return await stopping.unless(asyncio.wrap_future(task.future))
        except BaseException:
            server.cancel(task)
            raise

    async def _single(payload: LeafInput, context: Context) -> dict[str, Any]:
        async def collect(payload: LeafInput, loaded: Loaded, _: Lease) -> Collector:
            packed = await _run(payload, context, loaded) if loaded.attempt.n else []
            return await in_thread(lambda: _collected(loaded, packed))

        return await as_root(payload, context, loader, experiment, collect)

    return leaf


def _collected(loaded: Loaded, packed: list[Payload]) -> Collector:
    run = loaded.prepared
    collector = Collector(run.plan, run.experiment, loaded.attempt.number, show=False)
    for one in packed:
        found = run.payloads.decode(one)
        if isinstance(found, Part):
            collector.add_part(found)
        else:
            collector.add(found)
    return collector


def _log_to(context: Context, experiment: Experiment) -> Callable[[logging.LogRecord], None]:
    """Sends what a function logs into Hatchet's log of its task."""
    if not experiment.options.overwrite_log_method:
        return lambda _: None
    return lambda record: context.log(record.getMessage())
