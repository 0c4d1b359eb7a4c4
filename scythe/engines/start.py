"""Starts the open inputs of a run on the engine that its plan names. The one place that knows all engines."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from dataclasses import replace

from scythe.define.experiment import Experiment
from scythe.engines.engine import RunRef
from scythe.engines.pool.processes import fill_standard_handles
from scythe.errors import AllocationError, RunError, SettingsError
from scythe.record.attempts import latest_attempt
from scythe.record.manifest import record_trigger
from scythe.record.plan import RunPlan
from scythe.settings import first_process

ENGINES = ("inline", "local", "hatchet")


def check_engine(name: str) -> str:
    """The name of an engine, if there is one of this name.

    Raises:
        SettingsError: there is none.
        RunError: this process was forked from one that had used Scythe.
    """
    if first_process() != os.getpid():
        raise RunError(
            f"this process was forked from process {first_process()}, which had used Scythe already: the threads of its "
            'libraries are not in it. Start it with multiprocessing.get_context("spawn") (or "forkserver")'
        )
    fill_standard_handles()  # before a file is opened: in a daemon it would get the number of a standard stream
    if name not in ENGINES:
        raise SettingsError(f"there is no engine {name!r}: use {' or '.join(map(repr, ENGINES))}")
    return name


def check_ready(engine: str, experiment: Experiment, *, single: bool) -> None:
    """Nothing, where an engine can take a run of this experiment now; asked before anything is written.

    Raises:
        SettingsError: the engine cannot be reached.
        AllocationError: none of its workers has the experiment; or it cannot be sent to worker processes.
    """
    if engine == "local":
        from scythe.engines.pool.travel import check_travels

        check_travels(experiment)
    if engine == "hatchet":
        from scythe.engines.hatchet.client.trigger import check_cluster

        check_cluster(experiment, single=single)


def attach(engine: str, plan: RunPlan) -> RunRef | None:
    """The reference to a run that an engine still has, None where it has nothing that goes on."""
    if engine != "hatchet":
        return None
    from scythe.engines.hatchet.client.trigger import attached

    return attached(plan)


def cancel(plan: RunPlan) -> None:
    """Tells the engine of a run to stop; the others see it by the mark in the run's folder."""
    last = latest_attempt(plan.objects, plan.key)
    if (last.engine if last is not None else plan.engine) == "hatchet":
        from scythe.engines.hatchet.client.trigger import cancel_run

        cancel_run(plan)


def outlook(plan: RunPlan) -> str | None:
    """Why nothing of a run goes on, as far as its engine says; None where nothing is known to be wrong."""
    last = latest_attempt(plan.objects, plan.key)
    if (last.engine if last is not None else plan.engine) != "hatchet" or "HATCHET_CLIENT_TOKEN" not in os.environ:
        return None
    from scythe.engines.hatchet.client.outlook import outlook as of_cluster

    return of_cluster(plan)


def start(
    plan: RunPlan,
    experiment: Experiment,
    open_ranges: Iterable[tuple[int, int]],
    *,
    engine: str,
    workers: int | None,
    show: bool = True,
) -> RunRef:
    """A reference to the started run; with `inline` it is over already.

    With `show` finished rows are shown to readers while the run goes on.

    Raises:
        RunError: another process works on the run.
        SettingsError: there is no such engine.
        AllocationError: it cannot run a task of Hatchet's.
    """
    check_engine(engine)
    if experiment.included is not None and engine != "hatchet":
        raise AllocationError(
            f"{experiment.included.name!r} is a task of Hatchet's: it runs with engine='hatchet' alone"
        )
    if engine != "hatchet" and plan.workflow_run_id is None:  # allocated for a cluster, whose run names it
        plan = replace(plan, workflow_run_id=record_trigger(plan.objects, plan.key, str(uuid.uuid4())))
    match engine:
        case "inline":
            from scythe.engines.inline import run_inline

            return run_inline(plan, experiment, open_ranges, show=show)
        case "hatchet":
            from scythe.engines.hatchet.client.trigger import run_hatchet

            return run_hatchet(plan, experiment, open_ranges, show=show)
        case _:
            from scythe.engines.local import run_local

            return run_local(plan, experiment, open_ranges, workers, show=show)
