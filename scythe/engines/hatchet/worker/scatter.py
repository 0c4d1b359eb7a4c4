"""The scatter/gather node: triggers its children, awaits them all at once, and collects their rows.

The root plans first: a few inputs run alone and measure; the shape of the rest is stored before
its nodes and leaves are triggered, so that a root that is moved to another worker finds the same
children by their keys. The root gathers the run in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from hatchet_sdk import DurableContext
from hatchet_sdk.runnables.contextvars import ctx_durable_context
from obstore.exceptions import BaseError

from scythe.define.experiment import Experiment
from scythe.engines.hatchet.errors import ends, settle, told
from scythe.engines.hatchet.fleet import node_slots, slots_for
from scythe.engines.hatchet.tasks import LeafInput, ScatterInput, Tasks, metadata
from scythe.engines.hatchet.worker.alive import kept_alive
from scythe.engines.hatchet.worker.children import Child, Children, Outcome
from scythe.engines.hatchet.worker.loading import Loaded, Loader, NodeCollector, as_root, is_gone
from scythe.engines.hatchet.worker.stopping import Stopping
from scythe.engines.hatchet.worker.threads import in_thread
from scythe.errors import RunCancelled, RunError
from scythe.gather.error_limit import FIRST_INPUTS
from scythe.gather.parts import Part
from scythe.gather.payload import INLINE_BYTES, Payload
from scythe.leaf.rows import ChunkResult
from scythe.record.attempt_plan import accounts, load_given_up, load_shape, store_given_up, store_shape
from scythe.record.layout import RunKey
from scythe.record.lease import Lease
from scythe.scatter_gather import Node, RecursionMap, Shape, choose
from scythe.settings import timeouts
from scythe_catalog.storage.objects import Objects

T = TypeVar("T")

_log = logging.getLogger(__name__)

_MAX_PROBES = 64
_PROBE_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_PROGRESS_SECONDS = 2.0


def scatter_function(
    experiment: Experiment,
    tasks: Callable[[], Tasks],
    loader: Loader,
    stopping: Stopping,
    node_class: type[WorkingNode],
) -> Callable[[ScatterInput, Any], Awaitable[dict[str, Any]]]:
    """The function of an experiment's scatter task on this worker."""

    longest = timeouts().scatter_gather_execution

    async def scatter(payload: ScatterInput, context: DurableContext) -> dict[str, Any]:
        # The SDK would log each call of a durable task by its order, and refuse a retry whose order differs;
        # the keys of our children say which they are, in whatever order they are asked for.
        ctx_durable_context.set(None)
        try:
            work = _root(payload, context) if not payload.path else _inner(payload, context)
            async with kept_alive(context), _limit(longest):
                return await stopping.unless(asyncio.ensure_future(work))
        except Exception as error:
            await settle(error, context, partial(is_gone, payload))
            raise

    async def _root(payload: ScatterInput, context: DurableContext) -> dict[str, Any]:
        async def collect(payload: ScatterInput, loaded: Loaded, lease: Lease) -> NodeCollector:
            node = node_class(payload, tasks(), loaded, stopping, context.retry_count, lease)
            await node.take_up()
            if loaded.attempt.n:
                await node.run()
            return node.collector

        return await as_root(payload, context, loader, experiment, collect)

    async def _inner(payload: ScatterInput, context: DurableContext) -> dict[str, Any]:
        loaded = await loader.attempt(payload, experiment)
        node = node_class(payload, tasks(), loaded, stopping, context.retry_count)
        if await node.is_given_up():
            return {"parts": []}
        await node.take_up()
        await node.run()
        return await in_thread(node.hand_over)

    return scatter


@contextlib.asynccontextmanager
async def _limit(limit: dt.timedelta | None) -> AsyncGenerator[None]:
    """Ends a node that lasts longer than the user allows; raises RunError."""
    clock = asyncio.timeout(limit.total_seconds() if limit is not None else None)
    try:
        async with clock:
            yield
    except TimeoutError as error:
        if limit is None or not clock.expired():
            raise
        raise RunError(
            f"a scatter node took longer than the {limit.total_seconds():g} s that "
            "SCYTHE_TIMEOUT_SCATTER_GATHER_EXECUTION allows where it ran; what is finished is kept: "
            "set a longer limit for the workers, and resume the run"
        ) from error


@dataclass
class WorkingNode:
    """One node at work."""

    payload: ScatterInput
    tasks: Tasks
    loaded: Loaded
    stopping: Stopping
    #: How often the node was tried before.
    tries: int
    #: The root's lease of the run: it hears of a cancellation.
    lease: Lease | None = None

    def __post_init__(self) -> None:
        run, attempt = self.loaded.prepared, self.loaded.attempt
        self._name = f"{attempt.number:06d}-node-{'_'.join(map(str, self.payload.path)) or 'root'}"
        # A try that the engine has given up may not know it yet: each names its parts for itself.
        prefix = f"{self._name}-{uuid.uuid4().hex[:8]}"
        # How many inputs may fail holds for the whole tree: its root counts.
        plan = replace(run.plan, max_errors=None) if self.payload.path else run.plan
        self.collector = NodeCollector(plan, run.experiment, attempt.number, prefix=prefix, show=attempt.show)
        self._progress = f"{run.plan.key.progress}/{self._name}.json"
        self._told = 0.0
        #: Which of the nodes right below are awaited, and of which this node runs the leaves itself.
        self._nodes: frozenset[int] = frozenset()
        self._given_up: frozenset[int] = frozenset()
        self.children = Children(metadata(self.payload.run, self.payload.turn, root=False))
        #: Of the probes: worker process -> start and seconds of each that it ran; None where nothing is measured.
        self._measured: dict[str, list[tuple[float, float]]] | None = None

    async def take_up(self) -> None:
        """Goes on where an earlier try of this node has ended: its parts are there already."""
        await in_thread(lambda: self.collector.take_up(f"{self._name}-"))

    def hand_over(self) -> dict[str, Any]:
        """What an inner node returns: its rows where they are few, and the parts that hold the others."""
        small, parts = self.collector.hand_over(INLINE_BYTES)
        payloads = self.loaded.prepared.payloads
        return {"pieces": [payloads.encode(small)] if small is not None else [], "parts": parts}

    # --- planning -----------------------------------------------------------------------------------

    async def _shape(self) -> Shape:
        """The shape of the attempt: the stored one, or one from what the first inputs took."""
        plan, attempt = self.loaded.prepared.plan, self.loaded.attempt
        shape = await asyncio.to_thread(load_shape, plan.objects, plan.key, attempt.number)
        if shape is not None and self.payload.path:
            return shape  # the root's probes are the root's alone
        if shape is None:
            slots = await slots_for(self.tasks)
            least = FIRST_INPUTS if plan.max_errors == "alike" else 0  # they tell whether all fail alike, too
            probes = 0 if plan.chunk else min(attempt.n, max(2 * slots, least), _MAX_PROBES)
            shape = Shape(factor=1, max_depth=0, probes=probes, chunk=0, smallest=0, slots=slots)
            await asyncio.to_thread(store_shape, plan.objects, plan.key, attempt.number, shape)
        seconds = await self._probe(shape.probes) if shape.probes else None
        if not shape.chunk:
            tree = RecursionMap(factor=plan.factor, max_depth=plan.max_depth or 0) if plan.factor else None
            shape = choose(attempt.n, shape.probes, seconds, shape.slots, tree, plan.chunk)
            if shape.waiting(attempt.n) >= await node_slots(self.tasks):
                shape = shape.flat()  # nodes that wait would take the slots that the nodes below them need
            await asyncio.to_thread(store_shape, plan.objects, plan.key, attempt.number, shape)
        return shape

    async def _probe(self, probes: int) -> float | None:
        """Runs the first inputs alone; how long one takes, or has taken by now where they take long."""
        measured = self._measured = defaultdict(list)
        await self._trigger((f"probe-{i}", range(i, i + 1)) for i in range(probes))
        since: float | None = None
        while self.children:
            await self._collect()
            waited = time.monotonic() - since if since is not None else 0.0
            if waited > _PROBE_SECONDS:
                arrived = [s for runs in measured.values() for _, s in runs]
                return (sum(arrived) + waited * len(self.children)) / probes
            if since is None and (len(self.children) < probes or await self.children.any_runs()):
                since = time.monotonic()
        self._measured = None
        return _mean_seconds(measured)

    # --- children -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Triggers the node's children and collects all that they come to; what has come stays where that fails."""
        try:
            shape = await self._shape()
            node = shape.root(self.loaded.attempt.n)
            for k in self.payload.path:
                node = node.child(k, shape.factor)
            below = shape.children(node)
            if below:
                self._given_up = await self._in_store(load_given_up, self.payload.path)
                await self._trigger_nodes(below)
                await self._trigger_leaves_of(shape, below)
            else:
                await self._trigger((f"leaf-{i}", inputs) for i, inputs in enumerate(shape.leaves(node)))
            while self.children:
                await self._collect()
                if self._nodes and await self.children.all_queue():
                    await self._go_alone()
                    await self._trigger_leaves_of(shape, below)
                if self.collector.is_due:
                    await in_thread(self.collector.flush)
                if await self._tell() and below:
                    await self._check_tree()
            await self._tell(last=True)
            if below:
                await self._check_tree()
        except BaseException as error:
            await self._give_up()
            cancelled = isinstance(error, asyncio.CancelledError) and not self.stopping.is_set
            if cancelled or ends(error, self.tries):  # else the next try of this node finds its children by their keys
                await self.children.cancel()
            raise

    async def _go_alone(self) -> None:
        """Gives up the nodes below, so that the node needs no slot but its own: those that there are all wait.

        Runs that wait for slots which only other waiting runs hold would stand still for ever.
        """
        where = "/".join(map(str, self.payload.path)) or "the root"
        _log.warning(
            "%s: no slot is free for the nodes below %s, which runs their leaves itself: "
            "SCYTHE_WORKER_DURABLE_SLOTS says how many nodes may wait at once",
            self.payload.run, where,
        )  # fmt: skip
        self._given_up |= self._nodes
        await self._in_store(store_given_up, self.payload.path, self._given_up)
        await self.children.drop()
        self._nodes = frozenset()

    async def is_given_up(self) -> bool:
        """Whether a node above runs this one's leaves itself, or has ended without it."""
        path = self.payload.path

        def look(objects: Objects, key: RunKey, number: int, path: tuple[int, ...]) -> bool:
            return any(k in load_given_up(objects, key, number, path[:i]) for i, k in enumerate(path))

        return await self._in_store(look, path)

    async def _in_store(self, look: Callable[..., T], path: tuple[int, ...], *more: Any) -> T:
        plan = self.loaded.prepared.plan
        return await asyncio.to_thread(look, plan.objects, plan.key, self.payload.turn, path, *more)

    async def _trigger_leaves_of(self, shape: Shape, below: list[Node]) -> None:
        """Triggers the leaves of those nodes below that were given up."""
        for k in sorted(self._given_up):
            await self._trigger((f"node-{k}-leaf-{i}", inputs) for i, inputs in enumerate(shape.leaves(below[k])))

    async def _trigger(self, leaves: Iterable[tuple[str, range]]) -> None:
        p = self.payload
        leaf = LeafInput(root=p.root, run=p.run, turn=p.turn, run_id=p.run_id)
        wanted = (
            Child(key, leaf.model_copy(update={"inputs": (inputs.start, inputs.stop, inputs.step)}))
            for key, inputs in leaves
        )
        await self.children.trigger(self.tasks.leaf, wanted)

    async def _trigger_nodes(self, below: list[Node]) -> None:
        """Triggers the nodes below but those that were given up."""
        self._nodes = frozenset(range(len(below))) - self._given_up
        wanted = (
            Child(f"node-{k}", self.payload.model_copy(update={"path": below[k].path}), tag=below[k])
            for k in sorted(self._nodes)
        )
        await self.children.trigger(self.tasks.scatter, wanted)

    async def _collect(self) -> None:
        """Takes over what has come in, after waiting a moment for it.

        Raises:
            RunError: a child failed.
            RunCancelled: the run was cancelled.
        """
        if self.lease is not None and self.lease.cancelled.is_set():
            raise RunCancelled(f"the run {self.payload.run} was cancelled; what was finished is kept")
        arrived = await self.children.arrived(_LOOK_SECONDS)
        if arrived:
            await self._accept(arrived)

    async def _accept(self, arrived: list[tuple[Any, Outcome]]) -> None:
        packed: list[Payload] = []
        handed: list[Payload] = []
        parts: list[str] = []
        failed: RunError | None = None
        for tag, output in arrived:
            if isinstance(output, BaseException):
                failed = failed or RunError(f"a task of {self.payload.run} failed: {told(output)}")
            elif isinstance(tag, Node):
                handed += output.get("pieces", ())
                parts += output["parts"]
                self._nodes -= {tag.path[-1]}
            else:
                packed += output["pieces"]
        await in_thread(lambda: self._take(packed, handed, parts))
        if failed is not None:
            raise failed

    def _take(self, packed: list[Payload], handed: list[Payload], parts: list[str]) -> None:
        decode = self.loaded.prepared.payloads.decode
        found_below = [decode(one) for one in handed]
        written = [found.name for found in found_below if isinstance(found, Part)]  # too many rows to travel, after all
        small = [found for found in found_below if isinstance(found, ChunkResult)]
        self.collector.take_over(small, [*parts, *written])
        for one in packed:
            found = decode(one)
            if isinstance(found, Part):
                self.collector.add_part(found)
            else:
                self.collector.add(found)
            if self._measured is not None:
                _measure(found, one["seconds"], self._measured)

    async def _give_up(self) -> None:
        """Keeps what has come, and waits for nothing more."""
        self.children.leave()
        with contextlib.suppress(OSError, BaseError, asyncio.CancelledError):
            await in_thread(self.collector.flush)

    async def _check_tree(self) -> None:
        """Counts what all nodes below tell of themselves.

        Raises:
            TooManyErrors: together more inputs have failed than the run may have.
        """
        plan = self.loaded.prepared.plan
        if plan.max_errors is None or self.payload.path:
            return
        nodes = self._name.removesuffix("root")
        with contextlib.suppress(OSError, BaseError):  # they are looked at again
            told = await asyncio.to_thread(accounts, plan.objects, plan.key, nodes)
            others = [name for name in told if name != self._name]
            # The inputs of a node that was given up come in anew, by the root's own leaves.
            again = tuple(f"{nodes}{k}_" for k in self._given_up)
            self.collector.check_with([told[name] for name in others if not f"{name}_".startswith(again)])

    async def _tell(self, *, last: bool = False) -> bool:
        """Writes how far the node is, for those who wait for it; whether it was time to do so."""
        if not last and time.monotonic() - self._told < _PROGRESS_SECONDS:
            return False
        self._told = time.monotonic()
        with contextlib.suppress(OSError, BaseError):  # who sees less is no reason to fail
            account = json.dumps(self.collector.account()).encode()
            await asyncio.to_thread(self.loaded.prepared.plan.objects.write, self._progress, account)
        return True


def _measure(found: ChunkResult | Part, seconds: float, into: dict[str, list[tuple[float, float]]]) -> None:
    """Notes what a probe, a single input, took, and where it ran; of a part its process is not looked up."""
    tasks = None if isinstance(found, Part) else next((t for name, t in found.tables if name == "tasks"), None)
    if tasks is None:
        into[""].append((0.0, seconds))
    else:
        into[tasks.column("worker")[0].as_py()].append((tasks.column("start")[0].as_py().timestamp(), seconds))


def _mean_seconds(measured: dict[str, list[tuple[float, float]]]) -> float | None:
    """Mean seconds of a probe; the first that a process ran is left out where it ran more: it may have imported."""
    warm = [s for runs in measured.values() for _, s in sorted(runs)[1:]]
    found = warm or [s for runs in measured.values() for _, s in runs]
    return sum(found) / len(found) if found else None
