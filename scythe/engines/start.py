"""Starts the open inputs of a run on the engine that its plan names. The one place that knows all engines."""

from __future__ import annotations

from collections.abc import Iterable

from scythe.engines.jobs import RunRef
from scythe.errors import SettingsError
from scythe.plan import RunPlan
from scythe.registry import Experiment


def start(
    plan: RunPlan, experiment: Experiment, open_ranges: Iterable[tuple[int, int]], *, engine: str, workers: int | None
) -> RunRef:
    """A reference to the started run; with `inline` it is over already.

    Raises:
        RunError: another process works on the run.
        SettingsError: there is no such engine.
    """
    match engine:
        case "inline":
            from scythe.engines.inline import run_inline

            return run_inline(plan, experiment, open_ranges)
        case "local":
            from scythe.engines.local import run_local

            return run_local(plan, experiment, open_ranges, workers)
        case _:
            raise SettingsError(f"there is no engine {engine!r}: use 'inline' or 'local'")
