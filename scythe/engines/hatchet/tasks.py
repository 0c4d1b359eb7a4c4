"""The Hatchet tasks of an experiment: their names, inputs, limits and labels. Runs nothing.

Two tasks an experiment: the leaf, a plain task, and the scatter node, a durable one. A worker
registers one kind only: one that mixes them gets its slots refilled about once a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from scythe.define.experiment import Experiment, ExperimentOptions
from scythe.durations import seconds_of
from scythe.errors import RegistrationError
from scythe.record.layout import RunKey
from scythe.settings import timeouts

if TYPE_CHECKING:
    from hatchet_sdk import DesiredWorkerLabel, Hatchet
    from hatchet_sdk.runnables.workflow import Standalone

#: The engine gives up a task of which it has heard nothing for so long. It looks for those every 30 seconds at least.
LIMIT = timedelta(seconds=80)
SCATTER_PREFIX = "scythe_scatter_gather_"
#: Label of a leaf worker: how many functions it runs at once.
SLOTS_LABEL = "scythe_slots"
#: Label of a worker: its name, for `Register(worker=...)`.
NAME_LABEL = "scythe_worker"
#: Label of a worker: which process it is.
PROCESS_LABEL = "scythe_process"
#: Labels of a worker: what its machine has, "yes" or "no".
MACHINE_LABELS = ("high_memory", "high_cpu", "has_gpu")
#: Key of a task's metadata: which run it belongs to.
RUN_KEY = "scythe_run"
#: Which attempt on that run it belongs to; the value stays as it was when attempts were called turns.
ATTEMPT_KEY = "scythe_turn"
#: The same, of the root alone; the engine takes several keys of a search as alternatives, so one must do.
ROOT_KEY = "scythe_root"

#: How long a task may wait for a worker where nobody has set a limit.
_FOREVER = timedelta(days=365)
#: A task that a stopping worker hands back is a retry to Hatchet. Without a backoff: the engine looks at those
#: that wait for one about twice a minute only. What ends a task after few tries is said where its exception is settled.
_RETRIES = 200


class Pointer(BaseModel):
    """What every task of Scythe is given: which attempt on which run it belongs to, never the inputs themselves."""

    root: str
    run: str
    #: The number of the attempt, by the name that it has on its way to a worker.
    turn: int
    #: The run's identifier: that of its first trigger, where a resumed run has several. The root finds it out.
    run_id: str = ""

    @property
    def key(self) -> RunKey:
        """The run."""
        return RunKey(*self.run.split("/"))


class LeafInput(Pointer):
    """Which inputs a leaf runs."""

    #: First, last + 1 and step, counted among the open inputs of the attempt.
    inputs: tuple[int, int, int] = (0, 1, 1)
    #: A run of one has no scatter node: its leaf gathers it.
    single: bool = False


class ScatterInput(Pointer):
    """Which node of the run's tree it is."""

    path: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tasks:
    """An experiment's two tasks, as one client knows them."""

    leaf: Standalone[LeafInput, dict[str, Any]]
    scatter: Standalone[ScatterInput, dict[str, Any]]


async def _nowhere(payload: Any, context: Any) -> dict[str, Any]:
    raise NotImplementedError("this process triggers tasks; it does not run them")


def declare(
    hatchet: Hatchet,
    experiment: Experiment,
    leaf: Callable[[LeafInput, Any], Awaitable[dict[str, Any]]] = _nowhere,
    scatter: Callable[[ScatterInput, Any], Awaitable[dict[str, Any]]] = _nowhere,
) -> Tasks:
    """The tasks of an experiment; a process that only triggers them gives no functions.

    Hatchet's own limit of time counts from the hand-over and would kill whole chunks: ours count from the start of the
    function, or of the node, and this one is put off as long as a worker has the task.
    """
    options, limits = experiment.options, timeouts()
    config: dict[str, Any] = {"retries": _RETRIES}
    fixed = set(options.task_config) & {*config, "name", "input_validator", "execution_timeout"}
    if fixed:
        raise RegistrationError(f"{experiment.name}: Scythe sets {', '.join(sorted(fixed))} of its Hatchet task itself")
    waiting = options.schedule_timeout
    described = options.description or (experiment.target.__doc__ or "").strip().split("\n")[0] or None
    leaf_task = hatchet.task(
        name=leaf_name(experiment),
        description=described,
        input_validator=LeafInput,
        schedule_timeout=timedelta(seconds=seconds_of(waiting)) if waiting else limits.experiment_schedule or _FOREVER,
        execution_timeout=LIMIT,
        desired_worker_labels=desired_labels(options),
        **{**config, **options.task_config},
    )(leaf)  # pyright: ignore[reportCallIssue, reportArgumentType]
    scatter_task = hatchet.durable_task(
        name=scatter_name(experiment),
        description=f"Scatter and gather of {experiment.name}",
        input_validator=ScatterInput,
        schedule_timeout=limits.scatter_gather_schedule or _FOREVER,
        execution_timeout=LIMIT,
        eviction_policy=None,
        **config,
    )(scatter)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return Tasks(leaf_task, scatter_task)  # pyright: ignore[reportArgumentType]


def task_names(experiment: Experiment, *, single: bool) -> list[str]:
    """The tasks that workers must have for a run; a run of one has no scatter node."""
    if experiment.included is not None:
        return [leaf_name(experiment), *([] if experiment.included.is_workflow else [scatter_name(experiment)])]
    return [leaf_name(experiment), *([] if single else [scatter_name(experiment)])]


def leaf_name(experiment: Experiment) -> str:
    """`scythe_experiment_<name>`, without the spaces that Hatchet does not take."""
    return experiment.task_name.replace(" ", "_")


def scatter_name(experiment: Experiment) -> str:
    """The name of the scatter node's task."""
    return f"{SCATTER_PREFIX}{experiment.name}".replace(" ", "_")


def desired_labels(options: ExperimentOptions) -> list[DesiredWorkerLabel]:
    """The labels that a worker must have; a plain value must be equal."""
    from hatchet_sdk import DesiredWorkerLabel

    plain = required_labels(options)
    wanted = [v.model_copy(update={"key": name}) for name, v in _given(options) if isinstance(v, DesiredWorkerLabel)]
    return [*wanted, *(DesiredWorkerLabel(key=name, value=value, required=True) for name, value in plain.items())]


def required_labels(options: ExperimentOptions) -> dict[str, str | int]:
    """Those of the labels that a worker must have which are plain values."""
    labels = {name: _label(name, value) for name, value in _given(options) if isinstance(value, str | int)}
    return {**labels, **({NAME_LABEL: options.worker} if options.worker is not None else {})}


def _given(options: ExperimentOptions) -> list[tuple[str, Any]]:
    return [(getattr(key, "value", key), wanted) for key, wanted in (options.desired_worker_labels or {}).items()]


def _label(name: str, value: str | int) -> str | int:
    """A worker tells of its machine in words."""
    if name in MACHINE_LABELS and not isinstance(value, str):
        return "yes" if value else "no"
    return int(value) if isinstance(value, bool) else value


def metadata(run: str, attempt: int, *, root: bool) -> dict[str, str]:
    """What every task of an attempt carries, by which a run is found and cancelled as a whole."""
    return {RUN_KEY: run, ATTEMPT_KEY: str(attempt), ROOT_KEY: run if root else ""}  # else a child has its parent's
