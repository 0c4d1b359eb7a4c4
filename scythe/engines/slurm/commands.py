"""Slurm's commands and words: how jobs are submitted, looked at and cancelled, and what their states mean.

Another scheduler would be a file like this one. Knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scythe.engines.options import SlurmOptions
from scythe.errors import RunError, SettingsError

_ANSWER_SECONDS = 60.0
#: Slurm may send a signal before a time limit so much earlier than it was told [s].
_EARLY_SECONDS = 60
#: The ends of a job in which its inputs have no part: they are run again, and that does not count as a try.
BLAMELESS = frozenset(
    {"CANCELLED", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REQUEUED", "SPECIAL_EXIT", "COMPLETED", "DEADLINE"}
)
#: What `sbatch` is told by Scythe itself, or what would keep it from answering.
_OWN = frozenset(
    {
        "array", "chdir", "clusters", "cpus-per-task", "dependency", "error", "export", "job-name", "nodes", "ntasks", "open-mode",
        "help", "output", "parsable", "quiet", "signal", "test-only", "usage", "verbose", "version", "wait", "wrap",
    }
)  # fmt: skip
_PLAIN = ("account", "partition", "qos", "reservation", "constraint", "nodelist", "time", "mem")
_OF_DEVICES = ("gpus", "gres")
#: What some reasons mean that are not said in plain words: https://slurm.schedmd.com/squeue.html (job reason codes).
_WORDS = {
    "Priority": "others are before it",
    "Resources": "it waits for free resources",
    "Dependency": "it waits for the others",
    "JobArrayTaskLimit": "as many run as array_limit allows",
    "BeginTime": "it was put off for a moment",
    "PartitionTimeLimit": "its time is longer than the partition allows",
    "PartitionDown": "the partition is down",
    "ReqNodeNotAvail": "a node that it needs is reserved, or down",
    "AssocGrpCPUMinutesLimit": "the account has used up its CPU time",
    "QOSMaxJobsPerUserLimit": "as many of your jobs run as the QOS allows",
    "AssocMaxJobsLimit": "as many of your jobs run as your account allows",
}


@dataclass(frozen=True)
class Queued:
    """A job, or the waiting elements of an array, as the queue shows it."""

    id: str
    state: str
    reason: str
    start: dt.datetime | None

    @property
    def told(self) -> str:
        """What it is at, for people."""
        words = f", {_WORDS[known]}" if (known := self.reason.partition(",")[0]) in _WORDS else ""
        when = f", starts about {self.start:%H:%M}" if self.start is not None else ""
        if self.start is not None and self.start.date() != dt.datetime.now().date():  # noqa: DTZ005 - the cluster's local time
            when = f", starts about {self.start:%Y-%m-%d %H:%M}"
        why = f" ({self.reason})" if self.reason not in ("", "None") and self.state == "PENDING" else ""
        return f"{self.state.lower()}{why}{words if why else ''}{when if self.state == 'PENDING' else ''}"


def check_there() -> None:
    """Nothing where Slurm's commands are.

    Raises:
        SettingsError: there is no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise SettingsError(
            "the engine 'slurm' needs sbatch, which is not on this machine's PATH: start the run from a login node of the cluster"
        )


def flags(options: SlurmOptions, *, devices: bool = True) -> list[str]:
    """What `sbatch` is told of a job; without `devices` no GPU is asked for.

    Raises:
        SettingsError: an option that is Scythe's own to set.
    """
    names = (*_PLAIN, *(_OF_DEVICES if devices else ()))
    told = [f"--{name}={value}" for name in names if (value := getattr(options, name)) is not None]
    for name, value in options.sbatch.items():
        plain = name.lstrip("-").replace("_", "-")
        if any(own.startswith(plain) for own in _OWN):  # sbatch takes what a name begins with for it
            raise SettingsError(f"sbatch={{{name!r}: ...}} is what Scythe tells sbatch itself: leave it out")
        flag = f"--{plain}"
        told += [flag] if value is True else [] if value is False else [f"{flag}={value}"]
    return told


def submit(script: str, told: Sequence[str], name: str) -> str:
    """Submits a job; its number. To its name a mark is added, by which the queue finds this very submission.

    Raises:
        RunError: Slurm refuses it; with its own message.
    """
    name = f"{name}-{secrets.token_hex(4)}"
    try:
        answer = _run(["sbatch", "--parsable", f"--job-name={name}", *told], script)
    except RunError:
        # A busy controller may have taken the job, and its answer be lost.
        with contextlib.suppress(RunError):
            if taken := _run(["squeue", "--noheader", "--format=%F", "--states=all", f"--name={name}"]).split():
                return taken[0]
        raise
    number = answer.strip().rpartition("\n")[2].partition(";")[0]
    if not number.isdigit():
        raise RunError(f"sbatch says no number of a job, but {answer.strip()!r:.200}")
    return number


def check(told: Sequence[str]) -> None:
    """Nothing where Slurm would take such a job.

    Raises:
        SettingsError: it would not; with its own message.
    """
    try:
        _run(["sbatch", "--test-only", *told], "#!/bin/sh\n")
    except RunError as error:
        fewer = ". Ask for fewer (workers=), or for no number: then there are as many as it takes"
        raise SettingsError(f"Slurm does not take such a job: {error}{fewer if is_too_many(error) else ''}") from None


def is_too_many(error: RunError) -> bool:
    """Whether Slurm refuses a job because one may not have so many at once: its other words are the same for jobs that are too long."""
    return re.search(r"Submit\w*Limit", str(error)) is not None


def check_time(options: SlurmOptions) -> None:
    """Nothing where an element has time to work before it is warned of its time limit.

    Raises:
        SettingsError: it has not: Slurm may warn a minute early.
    """
    limit = _seconds(options.time) if options.time is not None else None  # 0 is none
    if limit and limit <= options.warn_seconds + _EARLY_SECONDS:
        raise SettingsError(
            f"time={options.time!r} leaves an element nothing beside warn_seconds={options.warn_seconds} and the {_EARLY_SECONDS} s "
            "by which Slurm may warn early: give it more"
        )


def _seconds(text: str) -> int | None:
    """A time limit as `sbatch` takes it [s]; None of one without an end, or of what Slurm is to judge itself."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if found is None:
        return None
    days, *parts = (int(part) if part is not None else None for part in found.groups())
    given = [part for part in parts if part is not None]
    if days is not None:  # days-hours, days-hours:minutes, ...
        hours, minutes, seconds = (*given, 0, 0)[:3]
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    match given:
        case [minutes]:
            return minutes * 60
        case [minutes, seconds]:
            return minutes * 60 + seconds
        case [hours, minutes, seconds]:
            return (hours * 60 + minutes) * 60 + seconds
        case _:
            return None


def largest_array() -> int:
    """How many elements an array may have, as the cluster says; 1001 where it does not."""
    with contextlib.suppress(RunError):
        told = _run(["scontrol", "show", "config"])
        if found := re.findall(
            r"^MaxArraySize\s*=\s*(\d+)|^SchedulerParameters\s*=.*\bmax_array_tasks=(\d+)", told, re.MULTILINE
        ):
            return min(int(size or tasks) for size, tasks in found)
    return 1001


def queue(jobs: Iterable[str]) -> list[Queued]:
    """Those of some jobs that are in the queue, waiting elements of an array together; empty where none is.

    Raises:
        RunError: Slurm does not answer.
    """
    try:
        answer = _run(["squeue", "--noheader", "--format=%i|%T|%r|%S", f"--jobs={','.join(jobs)}"])
    except RunError as error:
        if "Invalid job id" in str(error):  # none of them is known any more
            return []
        raise
    lines = [line.split("|") for line in answer.splitlines() if line.count("|") == 3]
    return [Queued(job, state, reason, _moment(start)) for job, state, reason, start in lines]


#: What `state` gives where nobody can tell any more, or now.
UNKNOWN = "UNKNOWN"
#: The states of a job, or an element, that is not over.
LIVING = frozenset(
    {"PENDING", "RUNNING", "SUSPENDED", "STOPPED", "COMPLETING", "CONFIGURING", "RESIZING", "SIGNALING", "STAGE_OUT"}
)


def state(job: str) -> str:
    """The state of a job, or how it ended (`OUT_OF_MEMORY`, `TIMEOUT`); an element is named by array and index, `12_3`."""
    with contextlib.suppress(RunError):
        found = _run(["scontrol", "--oneliner", "show", "job", job])
        if (said := re.search(r"JobState=(\S+)", found)) is not None:
            return said[1]
    with contextlib.suppress(RunError):
        told = _run(["sacct", "--noheader", "--parsable2", "--allocations", "--format=State", f"--jobs={job}"]).split()
        if told:
            return told[0]
    return UNKNOWN


def end_of(job: str) -> float | None:
    """When a job that is over, or an element, ended [s since 1970]; None where nobody can tell any more."""
    asked = (
        (["scontrol", "--oneliner", "show", "job", job], r"EndTime=(\S+)"),
        (["sacct", "--noheader", "--parsable2", "--allocations", "--format=End", f"--jobs={job}"], r"(\S+)"),
    )
    for command, pattern in asked:
        with contextlib.suppress(RunError):
            said = re.search(pattern, _run(command))
            if said is not None and (moment := _moment(said[1])) is not None:
                return moment.timestamp()
    return None


def cancel(jobs: Sequence[str], *, waiting: bool = False) -> None:
    """Cancels jobs, with `waiting` only what of them has not begun; such that are over do no harm.

    Raises:
        RunError: Slurm does not answer.
    """
    try:
        _run(["scancel", *(["--state=PENDING"] if waiting else []), *jobs])
    except RunError as error:
        if "Invalid job id" not in str(error):
            raise


def _moment(text: str) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return None


def _environment() -> dict[str, str]:
    """Without what a user's profile tells Slurm's commands to leave out, and without what a job that submits has of its own."""
    kept = ("SLURM_CONF", "SLURM_TIME_FORMAT")
    return {
        n: v
        for n, v in os.environ.items()
        if n in kept or not n.startswith(("SLURM_", "SQUEUE_", "SCANCEL_", "SACCT_"))
    }


def _run(command: Sequence[str], script: str | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            input=script,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # a path, or an argument, is any bytes
            timeout=_ANSWER_SECONDS,
            check=False,
            env=_environment(),
        )
    except FileNotFoundError:
        raise RunError(f"there is no {command[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise RunError(f"{command[0]} has not answered for {_ANSWER_SECONDS:g} s") from None
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        raise RunError("; ".join(said) or f"{command[0]} ended with exit code {done.returncode}")
    return done.stdout


__all__ = [
    "BLAMELESS",
    "LIVING",
    "UNKNOWN",
    "Queued",
    "cancel",
    "check",
    "check_there",
    "check_time",
    "end_of",
    "flags",
    "is_too_many",
    "largest_array",
    "queue",
    "state",
    "submit",
]
