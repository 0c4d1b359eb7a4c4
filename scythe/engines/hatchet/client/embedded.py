"""The SDK's embedded engine: a Hatchet of this machine alone, with a worker of its own, both children of this process."""

from __future__ import annotations

import os
import subprocess
import time
from functools import cache

import cloudpickle

from scythe.define.experiment import Experiment
from scythe.engines.hatchet.connection import connect, on_loop
from scythe.engines.hatchet.fleet import active_workers, serves
from scythe.engines.hatchet.tasks import task_names
from scythe.engines.pool.processes import is_open, start_python
from scythe.engines.pool.travel import packed
from scythe.errors import SettingsError
from scythe.registry import ExperimentRegistry

_PROGRAM = "from scythe.worker import embedded_main; embedded_main({parent})"
_READY_SECONDS = 120.0
_LOOK_SECONDS = 0.2


def ensure_worker(experiment: Experiment) -> None:
    """Starts a worker for all experiments of this process, unless one serves this experiment already.

    Raises:
        SettingsError: it does not come up.
    """
    connect()
    names = task_names(experiment, single=False)
    worker = _worker().serving([e for e in ExperimentRegistry.experiments() if e.included is None])
    until = time.monotonic() + _READY_SECONDS
    while True:
        active = on_loop(active_workers()).result()
        if all(any(serves(w, name) for w in active) for name in names):
            return
        if worker.poll() is not None or time.monotonic() > until:
            raise SettingsError("the worker of the embedded Hatchet engine did not come up: see its output above")
        time.sleep(_LOOK_SECONDS)


class _Worker:
    """The worker of this process; started anew where its functions are others than before, or where it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._code = b""

    def serving(self, experiments: list[Experiment]) -> subprocess.Popen[bytes]:
        code = cloudpickle.dumps([(e.name, e.target, e.options) for e in experiments])
        if self._process is not None and self._process.poll() is None:
            if code == self._code:
                return self._process
            self._process.terminate()
            self._process.wait()
        self._code, self._process = code, self._start(packed(experiments))
        return self._process

    @staticmethod
    def _start(setup: bytes) -> subprocess.Popen[bytes]:
        process = start_python(
            _PROGRAM.format(parent=os.getpid()),
            stdin=subprocess.PIPE,
            stdout=2 if is_open(2) else subprocess.DEVNULL,  # what the caller prints stays the caller's
        )
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(setup)
        return process


@cache
def _worker() -> _Worker:
    return _Worker()
