"""The reference to a run on Slurm: looks into its folder, and asks the queue gently. Anybody who sees both can have one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from scythe.engines.card import run_html
from scythe.engines.engine import Launch
from scythe.engines.slurm import commands
from scythe.engines.slurm.folder import Folder
from scythe.engines.slurm.opened import log_of, log_tail
from scythe.engines.slurm.submission import taken_up
from scythe.engines.waiting import waiting
from scythe.errors import NotFoundError, RunCancelled, RunError, ScytheError, TooManyErrors
from scythe.gather.error_limit import stopped
from scythe.record.attempt_plan import last_attempt_left, last_attempt_planned, load_failure, store_failure
from scythe.record.attempts import ask_to_cancel, check_free, latest_attempt, store_time
from scythe.record.plan import RunPlan
from scythe.record.results import RunResult, read_result
from scythe_catalog.redaction import redacted

_FIRST_LOOK, _LONGEST_LOOK = 0.2, 2.0
#: Slurm's controller is asked so often at most, and less often where nothing changes [s].
_FIRST_ASK, _LONGEST_ASK = 10.0, 60.0
#: For so long what a job has written may not be seen here: a network's file system remembers what was not there.
_PATIENCE = 60.0
_LEAVE_SECONDS = 10.0
#: So long an attempt may be planned and nothing of it submitted yet [s]; whoever was to do it is dead then.
_SUBMIT_SECONDS = 60.0
#: For so long jobs that were cancelled are waited for, and so often they are looked at [s].
_CANCEL_SECONDS, _CANCEL_LOOK_SECONDS = 60.0, 5.0
#: So much longer than a look takes it is waited until the next.
_SHARE = 10.0


class Queue:
    """What the queue says of a run's jobs, asked for now and then."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._next, self._pause = 0.0, _FIRST_ASK
        self._seen: list[commands.Queued] | None = None
        #: How many inputs had ended when it was asked last: where more have, what it said then is over.
        self._done: int | None = None
        self._silence: str | None = None
        #: Since when it is known to have none.
        self.empty_since: float | None = None
        #: For how long to look then for what they have come to [s].
        self.patience = _PATIENCE

    def _patience(self) -> float:
        """A gather job that failed has come to nothing: there is nothing to be looked for."""
        rounds = self._folder.rounds()
        state = commands.state(rounds[-1].gather) if rounds else commands.UNKNOWN
        return _PATIENCE if state in (commands.UNKNOWN, "COMPLETED", *commands.LIVING) else 0.0

    def look(self, done: int | None = None) -> str | None:
        """What the jobs are at, in a sentence, where `done` inputs have ended; None where that is not known, or where they run."""
        now = time.monotonic()
        if now >= self._next:
            try:
                numbers = [number for jobs in self._folder.rounds()[-2:] for number in jobs.numbers]
                found = commands.queue(numbers) if numbers else []
            except RunError as error:  # it is asked again
                self._silence = f"Slurm does not answer: {error}"
            else:
                self._silence, self._done = None, done
                self._pause = _FIRST_ASK if found != self._seen else min(2 * self._pause, _LONGEST_ASK)
                self._seen = found
                if found:
                    self.empty_since = None
                elif self.empty_since is None:
                    self.empty_since, self.patience = now, self._patience()
            self._next = now + (min(self._pause, _FIRST_ASK) if self.empty_since is not None else self._pause)
        return self._silence or (told(self._seen) if done == self._done else None)


def told(jobs: list[commands.Queued] | None) -> str | None:
    """Jobs in the queue, in a sentence, as long as none of them runs."""
    if not jobs or any(job.state == "RUNNING" for job in jobs):
        return None
    first = next((job for job in jobs if job.reason != "Dependency"), jobs[0])
    return f"Slurm job {first.id} is {first.told}"


class SlurmRef:
    """A run that is submitted, or goes on."""

    hatchet = None

    def __init__(self, plan: RunPlan, folder: Folder, *, quiet: bool = False) -> None:
        self.plan, self._folder, self._quiet = plan, folder, quiet
        self._queue = Queue(folder)

    @property
    def workflow_run_id(self) -> str | None:
        return self.plan.workflow_run_id

    def result(self, timeout: float | None = None) -> RunResult:
        with waiting(self.plan, quiet=self._quiet) as shown:
            for pause, found in self._looks(timeout):
                if found is not None:
                    return shown.over(found)
                began = time.monotonic()
                shown.look(self._queue.look)
                time.sleep(max(pause, _SHARE * (time.monotonic() - began)))  # of many elements much is to be read
        raise AssertionError

    async def aio_result(self) -> RunResult:
        for pause, found in self._looks(None):
            if found is not None:
                return found
            await asyncio.to_thread(self._queue.look)
            await asyncio.sleep(pause)
        raise AssertionError

    def cancel(self) -> None:
        result = read_result(self.plan.objects, self.plan.key)
        if result is None or result.attempt < self._folder.number:
            ask_to_cancel(self.plan.objects, self.plan.key)
            cancel_jobs(self.plan)

    def _repr_html_(self) -> str:
        return run_html(self.plan.objects, self.plan.key)

    def _looks(self, timeout: float | None) -> Iterator[tuple[float, RunResult | None]]:
        """How long to wait until the next look, and what this one has found.

        Raises:
            RunError: the run comes to no end.
            RunCancelled: it was cancelled.
            TimeoutError: it takes longer.
        """
        objects, key, number = self.plan.objects, self.plan.key, self._folder.number
        began, pause, since = time.monotonic(), _FIRST_LOOK, None
        while True:
            last = latest_attempt(objects, key)
            left = last is None or last.number != number or last.ended
            result = read_result(objects, key)
            if result is not None and result.attempt >= number:
                since = since or time.monotonic()
                if left or time.monotonic() - since > _LEAVE_SECONDS:
                    yield 0.0, result
            elif objects.exists(key.cancelled) and (self._queue.empty_since is not None or left):
                _end_record(self.plan, self._folder)
                raise RunCancelled(f"the run {key.path} was cancelled; what was finished is kept")
            elif last_attempt_planned(objects, key) > number:
                raise RunError(f"another process has taken up the run {key.path}: wait for that")
            elif (said := load_failure(objects, key)) is not None and left:
                kind = TooManyErrors if said.startswith(stopped(key.path)) else RunError
                raise kind(said)
            elif (empty := self._queue.empty_since) is not None and time.monotonic() - empty > self._queue.patience:
                why = _ended(self._folder)
                _end_record(self.plan, self._folder, why)
                raise RunError(f'the run {key.path} comes to no end: {why}. Go on with: scythe resume "{key.path}"')
            if timeout is not None and time.monotonic() - began > timeout:
                raise TimeoutError(f"the run {key.path} is not finished after {timeout:g} seconds; it goes on")
            yield pause, None
            pause = min(
                1.5 * pause, _LONGEST_LOOK, max(0.2, (timeout - (time.monotonic() - began)) if timeout else 9.0)
            )


def attached(plan: RunPlan) -> SlurmRef | None:
    """The reference to what of a run is in the queue; None where nothing is.

    Raises:
        RunError: Slurm does not answer.
    """
    folder = _newest(plan)
    if folder is None:
        return None
    last = latest_attempt(plan.objects, plan.key)
    began = last is not None and last.number >= folder.number
    if (last is not None and last.ended) if began else load_failure(plan.objects, plan.key) is not None:
        return None  # it is over, and its gather job about to leave the queue
    until = time.monotonic() + _CANCEL_SECONDS
    while _in_queue(folder):
        if not plan.objects.exists(plan.key.cancelled):
            return SlurmRef(plan, folder)
        if time.monotonic() > until:
            raise RunError(
                f"the run {plan.key.path} was cancelled, and its jobs are in the queue still: try again in a while"
            )
        time.sleep(_CANCEL_LOOK_SECONDS)
    _end_record(plan, folder, _came_to_nothing(plan, folder))
    return None


def next_attempt(work: Launch) -> int:
    """The number of the next attempt, of which one process alone can make a plan.

    Raises:
        RunError: another process has taken up the run since this one looked, or Slurm does not answer.
    """
    plan = work.plan
    planned, last = last_attempt_planned(plan.objects, plan.key), check_free(plan.objects, plan.key)
    if planned > (last.number if last is not None else 0) and load_failure(plan.objects, plan.key) is None:
        folder = Folder(plan.objects, plan.key, planned)
        _, written = plan.objects.read_dated(plan.key.attempt_plan(planned))
        about_to = not folder.rounds() and store_time(plan.objects) - written < _SUBMIT_SECONDS
        if about_to or _in_queue(folder):
            raise taken_up(plan)
    left = last_attempt_left(plan.objects, plan.key) if work.after is not None else 0
    return max(planned, last.number if last is not None else 0, left) + 1


def _end_record(plan: RunPlan, folder: Folder, why: str | None = None) -> None:
    """Says of an attempt that it is over, and why: nothing of it is in the queue any more, and nobody was left to say so.

    Who may not write there, or cannot for want of room, is told how the run stands all the same.
    """
    last = latest_attempt(plan.objects, plan.key)
    with suppress(OSError, ScytheError):
        if last is None or last.number < folder.number:  # no job came so far that it could begin
            if why is not None and load_failure(plan.objects, plan.key) is None:
                store_failure(plan.objects, plan.key, folder.number, why)
        elif last.number == folder.number and last.engine == "slurm" and not last.ended:
            where = f"{plan.key.attempts}/{last.number:06d}.json"
            plan.objects.write(where, replace(last, ended=True, reason=why or "").to_json())


def _came_to_nothing(plan: RunPlan, folder: Folder) -> str | None:
    """How the jobs of an attempt ended that have left the queue; None where it is at its end, or why it is not is known."""
    objects, key = plan.objects, plan.key
    last, result = latest_attempt(objects, key), read_result(objects, key)
    if last is not None and last.number >= folder.number and (last.number, last.engine) != (folder.number, "slurm"):
        return None  # another engine has gone on with it since
    if (result is not None and result.attempt >= folder.number) or objects.exists(key.cancelled):
        return None
    if load_failure(objects, key) is not None:
        return None
    if commands.state(folder.rounds()[-1].gather) in ("COMPLETED", *commands.LIVING):
        return None  # what it has written is about to be seen
    return _ended(folder)


def _ended(folder: Folder) -> str:
    """How the last gather job of an attempt ended."""
    rounds = folder.rounds()
    if not rounds:
        return "its submission was cut short"
    state = commands.state(rounds[-1].gather)
    state = "gone from the queue" if state == commands.UNKNOWN else state
    lines = [line for line in log_tail(folder, None).strip().splitlines() if line.strip()]
    said = f", and said last: {redacted(lines[-1])}" if lines else ""
    hint = ""
    if not folder.beats() and not lines and not log_tail(folder, 0):
        hint = f"; no job has written to {folder.logs}: do all nodes see this folder?"
    return f"its gather job {rounds[-1].gather} is {state}{said}{hint}"


def cancel_jobs(plan: RunPlan) -> None:
    """Cancels what of a run is in the queue; raises RunError where Slurm does not answer."""
    folder = _newest(plan)
    numbers = [number for jobs in folder.rounds() for number in jobs.numbers] if folder is not None else []
    if numbers:
        commands.cancel(numbers)


def outlook(plan: RunPlan) -> str | None:
    """What the queue says of a run of which nothing goes on; where its jobs are gone from there, how they ended."""
    folder = _newest(plan)
    if folder is None:
        return None
    try:
        queued = _in_queue(folder)
    except RunError as error:
        return f"Slurm cannot be asked about it: {error}"
    if queued or (why := _came_to_nothing(plan, folder)) is None:
        return told(queued)
    return f'nothing works on it any more: {why}. Go on with: scythe resume "{plan.key.path}"'


def printed(plan: RunPlan, part: str) -> str:
    """What an element, by its number, or the job `gather` of the newest attempt has printed.

    Raises:
        NotFoundError: there is none such.
    """
    folder = _newest(plan)
    if folder is None:
        raise NotFoundError(f"the run {plan.key.path} was never submitted to Slurm")
    most = max((jobs.elements for jobs in folder.rounds()), default=0)
    if part != "gather" and not (part.isascii() and part.isdigit() and int(part) < most):
        raise NotFoundError(f"{plan.key.path} has no element {part!r}: it has 0 to {most - 1}, and 'gather'")
    where = log_of(folder, None if part == "gather" else int(part))
    try:
        return where.read_text(errors="replace")
    except FileNotFoundError:
        raise NotFoundError(
            f"{where} is not there: the job has not begun, or its node does not see the folder"
        ) from None


def _newest(plan: RunPlan) -> Folder | None:
    number = last_attempt_planned(plan.objects, plan.key)
    folder = Folder(plan.objects, plan.key, number)
    return folder if number and folder.rounds() else None


def _in_queue(folder: Folder) -> list[commands.Queued]:
    numbers = [number for jobs in folder.rounds()[-2:] for number in jobs.numbers]
    return commands.queue(numbers) if numbers else []


__all__ = ["SlurmRef", "attached", "cancel_jobs", "next_attempt", "outlook", "printed", "told"]
