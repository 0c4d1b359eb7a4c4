"""The worker of a cluster: serves the experiments of this process to a Hatchet engine.

Leaves and scatter nodes are served by two SDK workers in two processes, whatever is asked for: the
leaves by the calling process, the scatter nodes by a child of it (or by the calling process where it
serves nothing else).
"""

from __future__ import annotations

import contextlib
import enum
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from scythe.define.experiment import Experiment
from scythe.engines.pool.cores import cpus
from scythe.engines.pool.processes import start_python
from scythe.engines.pool.travel import packed
from scythe.errors import RegistrationError, SettingsError
from scythe.registry import ExperimentRegistry, experiment_of
from scythe.settings import read
from scythe.terminal.console import tell
from scythe_catalog.loading import uncollected

_PROGRAM = "from scythe.worker import scatter_main; scatter_main({parent})"
#: After how long a scatter process that died is started again, at first and at last: its engine may be gone for good.
_AGAIN_SECONDS, _LONGEST_SECONDS = 2.0, 60.0
_STOP_SECONDS = 20.0
_MANY_CORES = 8


class ScytheWorkerLabel(enum.StrEnum):
    """Labels by which an experiment asks for workers: `Register(desired_worker_labels={...: True})`.

    The labels of a worker are "yes" or "no"; True and False stand for them.

    Attributes:
        HIGH_MEMORY: A machine with much memory: `SCYTHE_WORKER_HIGH_MEMORY=true` where its worker starts.
        HIGH_CPU: One with many cores: `SCYTHE_WORKER_HIGH_CPU=true`.
        HAS_GPU: One with a GPU: `SCYTHE_WORKER_HAS_GPU=true`.

    Examples:
        >>> from scythe import ExperimentRegistry
        >>> from scythe.worker import ScytheWorkerLabel
        >>> @ExperimentRegistry.Register(desired_worker_labels={ScytheWorkerLabel.HAS_GPU: True})
        ... def simulate_daylight(input_spec: BuildingInput) -> BuildingOutput:
        ...     return BuildingOutput(heating=0)
    """

    HIGH_MEMORY = "high_memory"
    HIGH_CPU = "high_cpu"
    HAS_GPU = "has_gpu"

    @property
    def worker_label(self) -> dict[str, str]:
        """What asks for this one label: `Register(desired_worker_labels=ScytheWorkerLabel.HAS_GPU.worker_label)`.

        Examples:
            >>> from scythe.worker import ScytheWorkerLabel
            >>> ScytheWorkerLabel.HAS_GPU.worker_label
            {'has_gpu': 'yes'}
        """
        return {self.value: "yes"}


def _default_slots() -> int:
    """The cores, less one for the worker itself where there are many."""
    cores = cpus()
    return cores - 1 if cores >= _MANY_CORES else cores


class ScytheWorkerConfig(BaseSettings):
    """What a worker serves and how much at once; each setting is also `SCYTHE_WORKER_<NAME>`.

    Attributes:
        name: Its name in Hatchet's dashboard and for `Register(worker=...)`; `scythe-<host>` by default.
        slots: How many functions run at once, each in a process of its own; the cores, less one from eight on.
        durable_slots: How many scatter nodes wait at once; they cost next to nothing.
        high_memory: Label of the machine.
        high_cpu: Label of the machine.
        has_gpu: Label of the machine.
        does_fan: Whether it serves scatter nodes.
        does_leaf: Whether it serves leaves.

    Raises:
        pydantic.ValidationError: a setting makes no sense.

    Examples:
        >>> from scythe.worker import ScytheWorkerConfig
        >>> config = ScytheWorkerConfig(slots=16, high_memory=True)
        >>> config.slots, config.durable_slots
        (16, 1000)
    """

    model_config = SettingsConfigDict(env_prefix="SCYTHE_WORKER_", env_ignore_empty=True)

    name: str = Field(default_factory=lambda: f"scythe-{socket.gethostname()}")
    slots: int = Field(default_factory=_default_slots, ge=1)
    durable_slots: int = Field(default=1000, ge=1)
    high_memory: bool = False
    high_cpu: bool = False
    has_gpu: bool = False
    does_fan: bool = True
    does_leaf: bool = True

    @property
    def labels(self) -> dict[str, int | str]:
        """The labels of its leaves' worker: name -> "yes" or "no".

        Examples:
            >>> from scythe.worker import ScytheWorkerConfig
            >>> ScytheWorkerConfig(has_gpu=True).labels
            {'high_memory': 'no', 'high_cpu': 'no', 'has_gpu': 'yes'}
        """
        return {label.value: "yes" if getattr(self, label.value) else "no" for label in ScytheWorkerLabel}

    def start(
        self, experiments: Iterable[Any] | None = None, additional_workflows: Iterable[Any] | None = None
    ) -> None:
        """Serves until the process is told to stop (SIGTERM, Ctrl-C); what is not finished is handed back then.

        In a script, after the import of the modules that register experiments, and below `if __name__ == "__main__":`, that is
        `ScytheWorkerConfig(slots=16).start()`.

        Args:
            experiments: Functions, classes or names of experiments; all that are registered if not given.
            additional_workflows: Workflows and tasks of Hatchet, served beside the leaves, as is what was included.

        Raises:
            SettingsError: the engine cannot be reached, refuses the token, or is too old; or neither leaves nor scatter nodes
                are to be served.
            RegistrationError: there is no experiment to serve.
            NotFoundError: one of `experiments` is not registered.

        Examples:
            >>> from scythe.worker import ScytheWorkerConfig
            >>> ScytheWorkerConfig(does_fan=False, does_leaf=False).start([simulate_energy])
            Traceback (most recent call last):
            scythe.errors.SettingsError: a worker with SCYTHE_WORKER_DOES_FAN=false and ... serves nothing
        """
        if not (self.does_fan or self.does_leaf):
            raise SettingsError(
                "a worker with SCYTHE_WORKER_DOES_FAN=false and SCYTHE_WORKER_DOES_LEAF=false serves nothing"
            )
        served = (
            [experiment_of(e) for e in experiments] if experiments is not None else ExperimentRegistry.experiments()
        )
        workflows = [*(additional_workflows or ()), *ExperimentRegistry.included()]
        if not (served or workflows):
            raise RegistrationError(
                "there is no experiment to serve: no module that was imported registers one with @ExperimentRegistry.Register()"
            )
        self._announce()
        with uncollected():
            from scythe.engines.hatchet.worker.process import serve_leaves, serve_scatter

        if not self.does_leaf:
            serve_scatter(served, self.name, self.durable_slots)
            return
        scatter = _Scatter(served, self.name, self.durable_slots) if self.does_fan and served else None
        try:
            stop = scatter.tell if scatter is not None else None
            serve_leaves(served, workflows, self.name, self.slots, self.labels, on_stop=stop)
        finally:
            if scatter is not None:
                scatter.stop()

    def _announce(self) -> None:
        from scythe.engines.hatchet.connection import check, connect

        check(connect())
        tell(f"Scythe worker {self.name} connects to the Hatchet engine at {connect().config.host_port}")


def worker_config(**given: Any) -> ScytheWorkerConfig:
    """The worker's settings as the environment says now, and what is given here; raises SettingsError."""
    return read(ScytheWorkerConfig, **{k: v for k, v in given.items() if v is not None})


class _Scatter:
    """The child process that serves scatter nodes, started again whenever it dies."""

    def __init__(self, experiments: list[Experiment], name: str, slots: int) -> None:
        self._setup = packed([*experiments, name, slots])
        self._stopped = threading.Event()
        self._process = self._start()
        threading.Thread(target=self._watch, daemon=True, name="scythe-scatter").start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = start_python(
            _PROGRAM.format(parent=os.getpid()),
            stdin=subprocess.PIPE,
            env={**os.environ, "HATCHET_CLIENT_WORKER_HEALTHCHECK_ENABLED": "false"},  # its port is its parent's
        )
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(self._setup)
        return process

    def _watch(self) -> None:
        pause = _AGAIN_SECONDS / 2
        while not self._stopped.is_set():
            began = time.monotonic()
            self._process.wait()
            lived = time.monotonic() - began
            pause = _AGAIN_SECONDS if lived > _LONGEST_SECONDS else min(2 * pause, _LONGEST_SECONDS)
            if not self._stopped.wait(pause):
                # It died before it had read what it is to serve, or this machine has no room for a process now.
                with contextlib.suppress(OSError):
                    self._process = self._start()
        self._process.send_signal(signal.SIGTERM)  # one that was started while it was told to end

    def tell(self) -> None:
        """Tells it to hand back its nodes and to end."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Waits until it is gone."""
        self.tell()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()


def embedded_main(parent: int) -> None:
    """Serves experiments as the child of a process that has the embedded engine; ends when that does."""
    experiments = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    worker_config().start(experiments)


def scatter_main(parent: int) -> None:
    """Serves scatter nodes as the child of a worker; ends when that does."""
    *experiments, name, slots = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    with uncollected():
        from scythe.engines.hatchet.worker.process import serve_scatter

    serve_scatter(experiments, name, slots)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_SECONDS)
    os._exit(1)


__all__ = ["ScytheWorkerConfig", "ScytheWorkerLabel"]
