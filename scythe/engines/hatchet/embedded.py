"""The SDK's embedded engine: a Hatchet of this machine alone, with a worker of its own, both children of this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import cache

import cloudpickle

from scythe.engines.hatchet.client import connect, on_loop
from scythe.engines.hatchet.fleet import active_workers, serves
from scythe.engines.hatchet.tasks import task_names
from scythe.errors import SettingsError
from scythe.registry import Experiment, ExperimentRegistry

_PROGRAM = "import sys; sys.path[:] = {path!r}; from scythe.worker import embedded_main; embedded_main({parent})"
_READY_SECONDS = 120.0
_LOOK_SECONDS = 0.2


def ensure_worker(experiment: Experiment) -> None:
    """Starts a worker for all experiments of this process, unless one serves this experiment already.

    Raises:
        SettingsError: it does not come up.
    """
    connect()
    names = task_names(experiment, single=False)
    worker = _start(tuple(e.name for e in ExperimentRegistry.experiments() if e.included is None))
    until = time.monotonic() + _READY_SECONDS
    while True:
        active = on_loop(active_workers()).result()
        if all(any(serves(w, name) for w in active) for name in names):
            return
        if worker.poll() is not None or time.monotonic() > until:
            raise SettingsError("the worker of the embedded Hatchet engine did not come up: see its output above")
        time.sleep(_LOOK_SECONDS)


@cache
def _start(names: tuple[str, ...]) -> subprocess.Popen[bytes]:
    experiments = [e for e in ExperimentRegistry.experiments() if e.name in names]
    program = _PROGRAM.format(path=sys.path, parent=os.getpid())
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=2,  # what the caller prints stays the caller's
        start_new_session=True,
    )
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(cloudpickle.dumps(experiments))
    return process
