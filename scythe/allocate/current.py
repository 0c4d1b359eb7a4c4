"""Whether what is about to run is what the caller sees: definitions that came again, and files that were changed since they were loaded."""

from __future__ import annotations

from scythe.define.again import is_updated
from scythe.define.code import edited_files
from scythe.define.experiment import Experiment
from scythe.engines.engine import Engine
from scythe.errors import AllocationError
from scythe.registry import ExperimentRegistry
from scythe.terminal.console import tell


def check_latest(experiment: Experiment) -> None:
    """Nothing where an experiment is the registered one of its name, or of another function.

    Raises:
        AllocationError: its function has been defined anew since: a cell was run again, or a module loaded anew.
    """
    latest = next((one for one in ExperimentRegistry.experiments() if one.name == experiment.name), experiment)
    mine, now = experiment.target, latest.target
    if (
        mine is now
        or is_updated(mine, now)
        or (mine.__module__, mine.__qualname__) != (now.__module__, now.__qualname__)
    ):
        return
    name = mine.__qualname__
    raise AllocationError(
        f"{name} has been defined anew since this BaseExperiment was made, which would run the one of before: make it again, "
        f"BaseExperiment({name})"
    )


def tell_edited(experiment: Experiment, engine: Engine) -> None:
    """Says which files of the project were changed since this process has loaded them, where a run takes them in one of both states."""
    if engine.runs_code == "theirs":
        return  # they say where it is another
    here = engine.runs_code == "loaded"
    if files := edited_files(experiment, here=here):
        loaded = (
            "what was loaded" if here else "what is there now, and calls in this process what was loaded: load it anew"
        )
        tell(f"{', '.join(map(str, files))}: edited since this process has loaded the code; the run takes {loaded}")


__all__ = ["check_latest", "tell_edited"]
