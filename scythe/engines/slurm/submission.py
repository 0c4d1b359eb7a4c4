"""Submits an attempt, or another round of it: a job array that works, and behind it a job that gathers."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from scythe.define.code import Code
from scythe.define.experiment import Experiment
from scythe.engines.engine import Launch
from scythe.engines.options import SlurmOptions
from scythe.engines.pool.processes import interpreter_flags
from scythe.engines.slurm import commands
from scythe.engines.slurm.folder import Folder, Jobs
from scythe.errors import RunError
from scythe.record.attempt_plan import AttemptPlan, store_failure
from scythe.record.format import dump
from scythe.record.plan import RunPlan
from scythe.record.provenance import record
from scythe.settings import engine_settings
from scythe.terminal.console import tell

_NAME_CHARACTERS = 60
#: What is of the caller alone.
_NOT_OF_JOBS = ("SCYTHE_SLURM_", "SCYTHE_HATCHET_", "SCYTHE_WORKER", "SCYTHE_ENGINE")
#: Elements, where nobody says how many: sites limit how many jobs one may have, and one may ask for more.
_MANY = 1000
#: For so long it is waited whether who submitted an array submits its gather job, too [s].
_ADOPT_SECONDS, _ADOPT_LOOK_SECONDS = 15.0, 1.0


def submit_attempt(work: Launch, options: SlurmOptions, number: int) -> Folder:
    """Submits an attempt on a run, by its number.

    Raises:
        RunError: Slurm refuses, or another process has just taken up the run.
    """
    plan, experiment = work.plan, work.experiment
    code = Code(None) if engine_settings().any_code else work.code
    attempt = AttemptPlan(
        number, list(work.open_ranges), work.show, code.sha256, max_errors=plan.max_errors, engine="slurm"
    )
    if not plan.objects.create(plan.key.attempt_plan(number), dump(asdict(attempt))):
        raise taken_up(plan)
    record(plan.objects, plan.key, experiment, "slurm", number, code, work.stored)
    folder = Folder(plan.objects, plan.key, number)
    folder.store_options(options, work.workers, work.options)
    try:
        submit_round(folder, plan, experiment, options, work.workers, attempt.n)
    except RunError as error:
        said = f"Slurm does not take the run {plan.key.path}: {error}; it is stored: resume it later"
        store_failure(plan.objects, plan.key, number, said)
        folder.forget_options()  # they may be what it does not take
        raise RunError(said) from error
    return folder


def taken_up(plan: RunPlan) -> RunError:
    """What is said to the slower one of two that go on with a run at the same time."""
    return RunError(f"the run {plan.key.path} has just been taken up by another process: wait for it")


def submit_round(
    folder: Folder,
    plan: RunPlan,
    experiment: Experiment,
    options: SlurmOptions,
    asked: int | None,
    still_open: int,
    *,
    behind: Collection[str] = (),
) -> Jobs:
    """Submits jobs for what is open of an attempt; the gather job `behind` other jobs as well.

    Raises:
        RunError: Slurm refuses.
    """
    folder.logs.mkdir(parents=True, exist_ok=True)
    wanted = elements = elements_of(still_open, asked, options) if still_open else 0
    why = ""
    while True:
        array = None
        try:
            if elements:
                array = _submit_array(folder, plan, experiment, options, elements)
            before = [*([array] if array is not None else []), *behind]
            gather = _submit_gather(folder, plan, experiment, options, before)
            break
        except RunError as error:
            if array is not None:
                commands.cancel([array])
            if elements <= 1 or not commands.is_too_many(error):
                raise
            elements, why = elements * 3 // 4, str(error)
    if elements < wanted:
        tell(f"Scythe: {elements:,} elements are submitted, not {wanted:,}, which Slurm does not take: {why}")
    jobs = Jobs(array, gather, elements, still_open)
    folder.add_round(jobs)
    return jobs


def elements_of(inputs: int, asked: int | None, options: SlurmOptions) -> int:
    """How many elements serve so many inputs."""
    return min(asked or _MANY, -(-inputs // options.cpus), commands.largest_array())


def adopt(folder: Folder, plan: RunPlan, experiment: Experiment, array: str, elements: int, still_open: int) -> None:
    """Submits the gather job of an array, by one of its elements, where nobody else has: who submitted the array was killed between the two.

    Raises:
        RunError: Slurm refuses; some sites take no jobs from nodes.
    """
    deadline = time.monotonic() + _ADOPT_SECONDS
    while all(jobs.array != array for jobs in folder.rounds()):
        if time.monotonic() > deadline:
            gather = _submit_gather(folder, plan, experiment, folder.options()[0], [array])
            folder.add_round(Jobs(array, gather, elements, still_open))
        else:
            time.sleep(_ADOPT_LOOK_SECONDS)


def _submit_array(folder: Folder, plan: RunPlan, experiment: Experiment, options: SlurmOptions, elements: int) -> str:
    limit = f"%{options.array_limit}" if options.array_limit is not None else ""
    logs = str(folder.logs).replace("%", "%%")
    told = [
        f"--array=0-{elements - 1}{limit}", f"--cpus-per-task={options.cpus}", f"--output={logs}/element-%a.log",
        f"--signal=B:USR1@{options.warn_seconds}", *_common(), *commands.flags(options),
    ]  # fmt: skip
    return commands.submit(_script(folder, plan, experiment, options, "element"), told, _job_name(plan))


def _submit_gather(
    folder: Folder, plan: RunPlan, experiment: Experiment, options: SlurmOptions, before: Collection[str]
) -> str:
    after = [f"--dependency=afterany:{':'.join(before)}"] if before else []
    logs = str(folder.logs).replace("%", "%%")
    told = [*after, f"--output={logs}/gather.log", *_common(), *commands.flags(options, devices=False)]
    return commands.submit(_script(folder, plan, experiment, options, "gather"), told, _job_name(plan))


def _common() -> list[str]:
    return [f"--chdir={Path.cwd()}", "--open-mode=append", "--ntasks=1", "--nodes=1"]


def _script(folder: Folder, plan: RunPlan, experiment: Experiment, options: SlurmOptions, what: str) -> str:
    """The script of a job: the caller's interpreter with its flags, paths and arguments, and a sentence where they are not there."""
    python, root = options.python or sys.executable, plan.objects.folder
    lines = ["#!/bin/bash", *_checked(options.setup)]
    if root is not None:
        seen, over = shlex.quote(str(root / plan.key.plan)), shlex.quote(str(root / folder.over("")))
        where = shlex.quote(
            f"does not see {root}, where the run lies: SCYTHE_STORAGE_ROOT must be on a file system that all nodes share"
        )
        deleted = shlex.quote(str(root / plan.key.tombstone))
        lines.append(
            f"[ -e {deleted} ] && {{ echo {shlex.quote(f'Scythe: the run {plan.key.path} was deleted')}; exit 0; }}"
        )
        lines.append(f'[ -e {seen} ] || {{ echo "Scythe: $(hostname)" {where} >&2; exit 97; }}')
        if what == "element":
            lines.append(f'[ -e {over}"$SLURM_ARRAY_JOB_ID" ] && exit 0')
    missing = shlex.quote(
        f"has no {python}: install the environment where all nodes see it, or name theirs: SlurmOptions(python=..., setup=[...])"
    )
    lines.append(
        f'command -v {shlex.quote(python)} >/dev/null || {{ echo "Scythe: $(hostname)" {missing} >&2; exit 98; }}'
    )
    lines.append(f"export PYTHONPATH={shlex.quote(os.pathsep.join(_paths()))}${{PYTHONPATH:+:$PYTHONPATH}}")
    # Some clusters give a job nothing of the caller's environment: what says where things lie, and what limits inputs have, goes along by itself.
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(_settings().items())]
    arguments = [what, plan.objects.root, plan.key.path, str(folder.number), experiment.source or "", *sys.argv]
    command = [python, *interpreter_flags(), "-m", "scythe.engines.slurm", *arguments]
    lines.append(f"exec {shlex.join(command)}")
    return "\n".join(lines) + "\n"


def _checked(setup: Sequence[str]) -> Generator[str]:
    """The lines of shell that come first, each of which has to end well: rows would come from whatever is there without it."""
    waiting: list[str] = []
    for line in setup:
        waiting.append(line)
        whole = "\n".join(waiting)
        if len(setup) > 1 and not _is_complete(whole):  # as `if ...; then`, which goes on in the next one
            continue
        yield whole
        told = shlex.quote(
            f"the line of setup {whole!r:.200} ended with an error, and nothing was run: mend it, or let it end well (… || true)"
        )
        yield f'[ $? -eq 0 ] || {{ echo "Scythe: $(hostname)": {told} >&2; exit 96; }}'
        waiting.clear()
    yield from waiting


def _is_complete(lines: str) -> bool:
    with suppress(OSError):
        return subprocess.run(["bash", "-n", "-c", lines], stderr=subprocess.DEVNULL, check=False).returncode == 0
    return True


def _paths() -> list[str]:
    """Where the caller's modules come from, beside its interpreter's own places."""
    own = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    paths = [str(Path(path or ".").resolve()) for path in sys.path if Path(path or ".").is_dir()]
    return [path for path in dict.fromkeys(paths) if not any(path.startswith(f"{place}/") for place in own)]


def _settings() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("SCYTHE_") and not name.startswith(_NOT_OF_JOBS)
    }


def _job_name(plan: RunPlan) -> str:
    return f"scythe-{plan.key.experiment}-{plan.key.version}"[:_NAME_CHARACTERS].replace(" ", "_")


__all__ = ["adopt", "elements_of", "submit_attempt", "submit_round", "taken_up"]
