"""One SDK worker in this process: the leaves of its experiments, or their scatter nodes, never both.

Serves until it is told to stop, and then hands back what it has.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from scythe.define.code import Code, read_code
from scythe.define.experiment import Experiment
from scythe.engines.hatchet.connection import check, connect, on_loop
from scythe.engines.hatchet.fleet import active_workers
from scythe.engines.hatchet.sdk import listens_lightly
from scythe.engines.hatchet.tasks import NAME_LABEL, PROCESS_LABEL, SLOTS_LABEL, Tasks, declare
from scythe.engines.hatchet.worker.foreign import guard, writes_exactly
from scythe.engines.hatchet.worker.included import ForeignNode
from scythe.engines.hatchet.worker.leaves import leaf_function
from scythe.engines.hatchet.worker.loading import Loader
from scythe.engines.hatchet.worker.scatter import WorkingNode, scatter_function
from scythe.engines.hatchet.worker.stopping import Stopping
from scythe.engines.pool.server import Server
from scythe.registry import ExperimentRegistry
from scythe.terminal.console import tell

#: Tasks that a leaf worker is handed before a process is free for them: the next is there when one ends.
_HANDED_AHEAD = 2
_LOOK_SECONDS = 0.5
_LOOK_TIMEOUT = 10.0


def serve_leaves(
    experiments: Sequence[Experiment],
    workflows: Sequence[Any],
    name: str,
    slots: int,
    labels: dict[str, int | str],
    *,
    on_stop: Callable[[], None] | None = None,
) -> None:
    """Runs leaves, `slots` functions at once, until the process is told to stop, which `on_stop` hears of too."""
    check(connect())
    logging.getLogger("scythe.experiment").setLevel(logging.INFO)
    loader, stopping = Loader(_codes(experiments)), Stopping()
    server = Server(slots, on_failure=_stop_worker)
    tasks = [
        declare(connect(), e, leaf=leaf_function(e, server, loader, stopping)).leaf
        for e in experiments
        if e.included is None
    ]
    guard(workflows)
    for task in ExperimentRegistry.included():
        if hasattr(task, "_task"):
            writes_exactly(task)
    labels = {**labels, NAME_LABEL: name, SLOTS_LABEL: slots}
    _say_when_listed(labels, f"{_listed(experiments)}; {slots} function{'s' if slots > 1 else ''} at once", stopping)
    try:
        _serve(f"{name}-leaf", {"slots": slots * _HANDED_AHEAD}, labels, [*tasks, *workflows], stopping, on_stop)
    finally:
        server.close()


def serve_scatter(experiments: Sequence[Experiment], name: str, slots: int) -> None:
    """Runs scatter nodes, `slots` at once, until the process is told to stop."""
    check(connect())
    loader, stopping = Loader(_codes(experiments)), Stopping()
    declared: dict[str, Tasks] = {}
    for experiment in experiments:
        if experiment.included is not None and experiment.included.is_workflow:
            continue
        kind = WorkingNode if experiment.included is None else ForeignNode
        function = scatter_function(experiment, lambda e=experiment: declared[e.name], loader, stopping, kind)
        declared[experiment.name] = declare(connect(), experiment, scatter=function)
    scatter = [tasks.scatter for tasks in declared.values()]
    labels: dict[str, int | str] = {NAME_LABEL: name}
    _say_when_listed(labels, f"{_listed(experiments)}; scatter nodes", stopping)
    _serve(f"{name}-scatter", {"durable_slots": slots}, labels, scatter, stopping)


def _listed(experiments: Sequence[Experiment]) -> str:
    return ", ".join(e.name for e in experiments) or "no experiments"


def _say_when_listed(labels: dict[str, int | str], what: str, stopping: Stopping) -> None:
    """Says what this process serves as soon as clients find it: when the engine lists it. Adds a label to know it by."""
    process = labels[PROCESS_LABEL] = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def look() -> None:
        while not stopping.is_set:
            with contextlib.suppress(Exception):  # it is asked again
                for worker in on_loop(active_workers()).result(_LOOK_TIMEOUT):
                    if any(label.key == PROCESS_LABEL and label.value == process for label in worker.labels or []):
                        tell(f"Scythe worker {labels[NAME_LABEL]} serves {what}")
                        return
            time.sleep(_LOOK_SECONDS)

    threading.Thread(target=look, daemon=True, name="scythe-listed").start()


def _codes(experiments: Sequence[Experiment]) -> dict[str, Code]:
    """The code that this process has just loaded; the files may change while it serves."""
    return {e.name: read_code(e) for e in experiments}


def _stop_worker() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(
    name: str,
    slots: dict[str, int],
    labels: dict[str, int | str],
    workflows: Sequence[Any],
    stopping: Stopping,
    on_stop: Callable[[], None] | None = None,
) -> None:
    with warnings.catch_warnings():
        # The worker takes labels as a dict, and warns of labels that are one.
        warnings.simplefilter("ignore", DeprecationWarning)
        worker = connect().worker(name, labels=labels, workflows=list(workflows), **slots)  # pyright: ignore[reportArgumentType]
    listens_lightly(worker)
    gc.freeze()  # what has been loaded stays: neither collections nor the end of the process look at it again
    for number in (signal.SIGTERM, signal.SIGINT):
        _tell_first(number, stopping, on_stop)
    worker.start()


def _tell_first(number: signal.Signals, stopping: Stopping, on_stop: Callable[[], None] | None) -> None:
    """Has our tasks hand back their work when the SDK's own handler waits for them."""
    before = signal.getsignal(number)

    def handle(signum: int, frame: Any) -> None:
        stopping.set()
        if on_stop is not None:
            on_stop()
        if callable(before):
            before(signum, frame)

    signal.signal(number, handle)
