"""Slurm as an engine of Scythe: it submits, attaches, cancels, and says what the queue says."""

from __future__ import annotations

from dataclasses import replace

from pydantic_settings import BaseSettings, SettingsConfigDict

from scythe.define.experiment import Experiment
from scythe.engines.engine import Engine, Launch, RunRef
from scythe.engines.options import EngineOptions, SlurmOptions
from scythe.engines.slurm import commands
from scythe.engines.slurm.folder import last_folder
from scythe.engines.slurm.ref import SlurmRef, attached, cancel_jobs, next_attempt, outlook, printed
from scythe.engines.slurm.submission import elements_of, submit_attempt
from scythe.errors import AllocationError
from scythe.record.plan import RunPlan
from scythe.settings import read


class _Settings(BaseSettings, SlurmOptions):  # pyright: ignore[reportIncompatibleVariableOverride] - pydantic's own way
    """The same options by the environment: `SCYTHE_SLURM_PARTITION`; lists and mappings as JSON."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_SLURM_", env_ignore_empty=True)


class SlurmEngine(Engine):
    """A cluster that has Slurm."""

    name = "slurm"
    options = SlurmOptions

    def check_ready(self, experiment: Experiment, *, single: bool) -> None:
        commands.check_there()
        if experiment.source is None:
            raise AllocationError(
                f"{experiment.name!r} was typed into a notebook or a shell: the jobs need a file that they can load. "
                "Put models and function into a module, and import it"
            )

    def check_options(self, options: EngineOptions | None, *, inputs: int, workers: int | None) -> None:
        asked = merged(options)
        commands.check_time(asked)
        # As many elements as are asked for; where nobody asks, as many as Slurm takes.
        array = [f"--array=0-{elements_of(inputs, workers, asked) - 1}"] if workers is not None and inputs else []
        commands.check([*array, "--ntasks=1", f"--cpus-per-task={asked.cpus}", *commands.flags(asked)])

    def last_options(self, plan: RunPlan) -> EngineOptions | None:
        before = last_folder(plan.objects, plan.key)
        return before.told() if before is not None else None

    def start(self, work: Launch) -> RunRef:
        number, before = next_attempt(work), last_folder(work.plan.objects, work.plan.key)
        if work.workers is None and before is not None:
            work = replace(work, workers=before.options()[1])
        return SlurmRef(work.plan, submit_attempt(work, merged(work.options), number), quiet=work.quiet)

    def attach(self, plan: RunPlan) -> RunRef | None:
        return attached(plan)

    def cancel(self, plan: RunPlan) -> None:
        cancel_jobs(plan)

    def printed(self, plan: RunPlan, part: str) -> str:
        return printed(plan, part)

    def outlook(self, plan: RunPlan) -> str | None:
        return outlook(plan)


def merged(options: EngineOptions | None) -> SlurmOptions:
    """Options as they were given, and what they leave out as the settings say.

    Raises:
        SettingsError: a setting makes no sense.
    """
    told = read(_Settings).model_dump(exclude_unset=True)
    given = options.model_dump(exclude_unset=True) if options is not None else {}
    return SlurmOptions.model_validate({**told, **given})


__all__ = ["SlurmEngine", "merged"]
