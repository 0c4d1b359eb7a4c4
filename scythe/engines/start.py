"""Which engine runs a run, by its name: Scythe's own, and those that other packages bring. Runs nothing itself."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from scythe.define.code import values_set
from scythe.define.experiment import Experiment
from scythe.engines.engine import Engine, Launch, RunRef
from scythe.engines.options import EngineOptions, LocalOptions
from scythe.engines.pool.processes import fill_standard_handles
from scythe.errors import AllocationError, RunError, SettingsError
from scythe.names import meant
from scythe.record.attempt_plan import last_attempt_planned, load_attempt_plan
from scythe.record.attempts import attempts, latest_attempt
from scythe.record.manifest import record_trigger
from scythe.record.plan import RunPlan
from scythe.settings import engine_settings, first_process
from scythe_catalog.plugins import known

#: The group of entry points by which a package brings an engine.
GROUP = "scythe.engines"
_OWN: Mapping[str, str] = MappingProxyType({
    "inline": "scythe.engines.inline:InlineEngine",
    "local": "scythe.engines.local:LocalEngine",
    "hatchet": "scythe.engines.hatchet.client.engine:HatchetEngine",
    "slurm": "scythe.engines.slurm.engine:SlurmEngine",
})  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """An engine, and what it is told of a run."""

    engine: Engine
    options: EngineOptions | None = None

    def check(self, experiment: Experiment, *, inputs: int, single: bool, workers: int | None) -> None:
        """Nothing, where a run of this experiment can be taken now; asked before anything is written.

        Raises:
            SettingsError: it cannot be reached, or does not take the options.
            AllocationError: it cannot run this experiment.
        """
        if self.engine.runs_code != "loaded":
            _check_values(experiment, self.engine)
        self.engine.check_ready(experiment, single=single)
        self.engine.check_options(self.options, inputs=inputs, workers=workers)


def _check_values(experiment: Experiment, engine: Engine) -> None:
    """Nothing where other processes, which load the modules of the project by themselves, have the values that this one has.

    Raises:
        AllocationError: a value was set after its module was loaded, or is made of the arguments of this program, which workers elsewhere
            do not have.
    """
    if found := values_set(experiment, of_script=not engine.sends_scripts(), of_arguments=engine.runs_code == "theirs"):
        raise AllocationError(
            f"{experiment.name} reads values that its workers would not have, for they load their modules anew: "
            f'{"; ".join(map(str, found))}. Make it an input field, or write it into the module; with engine="inline" the function has it as '
            "it is here"
        )


def choose(
    asked: str | EngineOptions | None,
    experiment: Experiment,
    plan: RunPlan | None = None,
    *,
    workers: int | None = None,
) -> Chosen:
    """The engine that a caller asks for, or else the one of the settings, and its options for an experiment.

    Options that the caller gives win over those with which the run of this plan was last started, and both over those of
    `Register(engine_options=...)`.

    Raises:
        SettingsError: there is no such engine, or it has no such options.
        AllocationError: it cannot run the experiment, or two numbers of workers are given.
        RunError: this process was forked from one that had used Scythe.
    """
    _check_process()
    if isinstance(asked, LocalOptions) and workers is not None and asked.workers not in (None, workers):
        raise AllocationError(f"workers={workers} and LocalOptions(workers={asked.workers}): give one of them")
    needed = experiment.needs_engine
    name = asked.engine if isinstance(asked, EngineOptions) else asked or needed or engine_settings().engine
    engine = engine_named(name)
    if needed not in (None, name):
        raise AllocationError(
            f"{experiment.task_name!r} is a task of {needed.capitalize()}'s: it runs with engine={needed!r} alone"
        )
    registered = experiment.options.engine_options.get(name)
    last = engine.last_options(plan) if plan is not None else None
    return Chosen(engine, _options(engine, registered, last, asked if isinstance(asked, EngineOptions) else None))


def _options(engine: Engine, *told: Any) -> EngineOptions | None:
    """What is told, what comes later winning; None where nothing is."""
    given: dict[str, Any] = {}
    for options in told:
        if options is not None:
            given |= options.model_dump(exclude_unset=True) if isinstance(options, EngineOptions) else dict(options)
    if all(options is None for options in told):
        return None
    if engine.options is None:
        raise SettingsError(f"the engine {engine.name!r} has no options, got {given}")
    try:
        return engine.options.model_validate(given)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"options of the engine {engine.name!r}: {found}") from error


def options_told(name: str, told: Iterable[str]) -> EngineOptions:
    """Options of an engine as texts, `mem=32G`; lists and tables as JSON, `setup=["module load energyplus"]`, as settings have them.

    Raises:
        SettingsError: there is no such engine, or it has no such options.
    """
    engine, given = engine_named(name), dict[str, Any]()
    fields = engine.options.model_fields if engine.options is not None else {}
    for text in told:
        option, is_told, value = text.partition("=")
        if not is_told or option not in fields:
            there = f"it has {', '.join(fields)}" if fields else "it has none"
            raise SettingsError(
                f"{text!r} is no option of the engine {name!r}{meant(option, list(fields))}: write NAME=VALUE; {there}"
            )
        given[option] = value
        kind = fields[option].annotation
        if {get_origin(one) for one in (kind, *get_args(kind))} & {tuple, list, dict}:  # or none of it
            try:
                given[option] = json.loads(value)
            except ValueError as error:
                raise SettingsError(
                    f"the option {option}={value!r} of the engine {name!r} is no JSON: {error}"
                ) from None
    found = _options(engine, given)
    assert found is not None
    return found


def _check_process() -> None:
    if first_process() != os.getpid():
        raise RunError(
            f"this process was forked from process {first_process()}, which had used Scythe already: the threads of its "
            'libraries are not in it. Start it with multiprocessing.get_context("spawn") (or "forkserver")'
        )
    fill_standard_handles()  # before a file is opened: in a daemon it would get the number of a standard stream


@cache
def engine_named(name: str) -> Engine:
    """The engine of a name: one of Scythe's own, or of the entry points `scythe.engines`.

    Raises:
        SettingsError: there is none; the message lists those that are there.
    """
    found = known(GROUP, _OWN)
    if name not in found:
        raise SettingsError(f"there is no engine {name!r}: use {' or '.join(map(repr, found))}")
    return found[name].load()()


def engine_of(plan: RunPlan) -> Engine:
    """The engine that works, or has worked, on a run; raises SettingsError where it is not installed here."""
    last, planned = latest_attempt(plan.objects, plan.key), last_attempt_planned(plan.objects, plan.key)
    if planned > (last.number if last is not None else 0):  # it waits for its turn on a cluster
        return engine_named(load_attempt_plan(plan.objects, plan.key, planned).engine)
    if last is not None and last.packs and not last.alive:
        last = next((one for one in reversed(attempts(plan.objects, plan.key)) if not one.packs), None)
    return engine_named(last.engine if last is not None else plan.engine)


def start(chosen: Chosen, work: Launch) -> RunRef:
    """A reference to the started run; with `inline` it is over already.

    Raises:
        RunError: another process works on the run.
    """
    plan = work.plan
    if not chosen.engine.names_runs and plan.workflow_run_id is None:  # allocated for an engine that does
        plan = replace(plan, workflow_run_id=record_trigger(plan.objects, plan.key, str(uuid.uuid4())))
    return chosen.engine.start(replace(work, plan=plan, options=chosen.options))
