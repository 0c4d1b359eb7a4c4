"""Starts the open inputs of a run on the engine that its plan names. The one place that knows all engines."""

from __future__ import annotations

from collections.abc import Iterable

from scythe.engines.jobs import RunRef
from scythe.errors import SettingsError
from scythe.plan import RunPlan
from scythe.registry import Experiment

ENGINES = ("inline", "local")


def check_engine(name: str) -> str:
    """The name of an engine, if there is one of this name.

    Raises:
        SettingsError: there is none.
    """
    if name not in ENGINES:
        raise SettingsError(f"there is no engine {name!r}: use {' or '.join(map(repr, ENGINES))}")
    return name


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
    """
    match check_engine(engine):
        case "inline":
            from scythe.engines.inline import run_inline

            return run_inline(plan, experiment, open_ranges, show=show)
        case _:
            from scythe.engines.local import run_local

            return run_local(plan, experiment, open_ranges, workers, show=show)
