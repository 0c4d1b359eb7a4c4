"""An element of the job array: claims open inputs, runs them on the cores that it has, and stores their rows.

It may be killed at any moment: what it had not stored by then is open again, for others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from scythe.define.code import Code
from scythe.define.experiment import Experiment
from scythe.engines.driving import Driver
from scythe.engines.pool.chunks import ChunkQueue
from scythe.engines.pool.pool import Chunk, Pool
from scythe.engines.slurm import commands
from scythe.engines.slurm.folder import (
    BEAT_SECONDS,
    DEAD_SECONDS,
    NOTHING_STORED,
    Beat,
    Folder,
    Gone,
    Ticket,
    suspects,
    tried_alone,
)
from scythe.engines.slurm.opened import death_of, open_rows, state_of
from scythe.engines.slurm.submission import adopt
from scythe.errors import RunError, Superseded, TooManyErrors
from scythe.gather.collect import Collector
from scythe.leaf.leaf import Leaf
from scythe.record.attempt_plan import AttemptPlan, accounts, last_attempt_planned, load_failure, store_failure
from scythe.record.format import dump
from scythe.record.lease import Lease
from scythe.record.plan import RunPlan
from scythe.terminal.console import tell
from scythe_catalog.memo import cached_property

_STEP_SECONDS = 0.2
#: So long the inputs of one claim are to last: far longer than a claim takes.
_CLAIM_SECONDS = 15.0
#: And longer where many claim [s for each].
_CLAIM_SECONDS_EACH = 0.05
#: For how long a count of the living elements is believed.
_LIVING_SECONDS = 15.0
#: How often the errors of all elements are counted together, for each of them [s].
_ERRORS_SECONDS = 2.0
#: An input that took more than this share of an element's whole time does not fit into it.
_LONG = 0.8


class Element:
    """The work of one element on an attempt."""

    def __init__(self, plan: RunPlan, attempt: AttemptPlan, experiment: Experiment, code: Code, folder: Folder) -> None:
        self._plan, self._attempt, self._experiment, self._folder = plan, attempt, experiment, folder
        self._code = code
        self._objects, self._key = plan.objects, plan.key
        self._began = time.monotonic()
        self._workers = int(os.environ.get("SLURM_CPUS_PER_TASK") or 1)
        job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])
        index, restart = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")), os.environ.get("SLURM_RESTART_COUNT", "0")
        self._me = Beat(
            f"{array}_{index}-{restart}", job, array, index, socket.gethostname(), began=time.time(), log_at=_log_size()
        )
        self._stopped_by: int | None = None
        #: Whether it is written down which inputs run, before they do, and what they print.
        self._careful = False
        self._printed = list[str | None]()
        self._next_beat = self._next_count = self._next_count_of_living = 0.0
        self._living = 1
        #: Whether what it runs was claimed by nobody before.
        self._is_fresh = True
        self._told = (0, 0)
        #: What is counted in parts that this element has stored.
        self._stored: Mapping[str, Any] = NOTHING_STORED
        self._mine: list[Ticket] = []

    def serve(self) -> None:
        """Works until nothing is left that nobody works on, or it is told to stop.

        Raises:
            RunError: what is wrong is outside of the user's function.
            TooManyErrors: more inputs failed than the run may have.
        """
        if self._objects.exists(self._folder.over(self._me.array)):
            return
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._stop)
        shared = ("slurm", int(self._me.array))
        try:
            with Lease(
                self._objects,
                self._key,
                "slurm",
                run=f"slurm {self._attempt.number}",
                number=self._attempt.number,
                shared_by=shared,
            ) as lease:
                self._work(lease)
        except Superseded as error:
            tell(f"Scythe: {error}")
        except TooManyErrors as error:
            store_failure(self._objects, self._key, self._attempt.number, str(error))
            tell(f"Scythe: {error}")

    def _work(self, lease: Lease) -> None:
        number = self._attempt.number
        self._collector = Collector(self._plan, self._experiment, number, prefix=self._name, show=False)
        with Leaf(self._plan, self._experiment) as leaf, Pool(self._workers) as pool:
            self._pool, self._lease = pool, lease
            chunks = ChunkQueue((), self._workers)
            self._driver = Driver(
                self._plan, self._experiment, self._code, self._collector, pool, chunks, leaf, before=self._about_to_run
            )
            try:
                self._tell()  # whoever sees a claim of it sees that it lives
                self._bury_earlier_selves()
                while self._goes_on and (self._fresh() or self._lost()):
                    pass
                self._let_the_others_be()
            except BaseException as error:
                self._blame_the_long()
                self._collector.keep(error)
                if isinstance(error, RunError) and not isinstance(error, TooManyErrors | Superseded):
                    self._folder.note_problem(str(error))
                raise
            finally:
                self._blame_the_long()
                self._flush()
                self._tell(ended=True)

    # --- what is claimed ----------------------------------------------------------------------------

    def _fresh(self) -> bool:
        """Runs open inputs that nobody had claimed, as long as there are any; whether there were."""
        took, more, self._is_fresh = False, True, True
        self._driver.chunks = ChunkQueue((), self._workers, self._plan.chunk)
        while self._goes_on:
            hungry = self._pool.hungry(self._driver.chunks.depth)
            if more and hungry and not self._driver.chunks.remaining:
                size = partial(self._size, hungry)
                ticket = self._folder.take(self._me.element, self._attempt.n, size, self._driver.chunks.seconds)
                more = ticket is not None
                if ticket is not None:
                    took = True
                    self._mine.append(ticket)
                    self._driver.chunks.extend(self._attempt.rows(range(ticket.start, ticket.stop)))
            if not self._driver.is_busy:
                break
            self._step()
        if self._goes_on:
            self._all_done()
        return took

    def _size(self, hungry: int, left: int, each: float | None) -> int:
        """Inputs of the next claim: a short while's work, and so many that all elements end together."""
        if self._plan.chunk is not None:
            return self._plan.chunk * hungry
        if each is None:
            return hungry
        now = time.monotonic()
        if now > self._next_count_of_living:
            self._living, self._next_count_of_living = max(1, self._folder.living()), now + _LIVING_SECONDS
        fair = left // (2 * self._living) + 1
        lasts = _CLAIM_SECONDS + _CLAIM_SECONDS_EACH * self._living
        return max(hungry, min(fair, int(lasts * self._workers / max(each, 1e-9))))

    def _lost(self) -> bool:
        """Runs inputs that elements had claimed which are dead; whether there were any."""
        beats = {beat.element: beat for beat in self._folder.beats()}
        gone = {one.element for one in self._folder.gone()}
        lost = [ticket for ticket in self._folder.unfinished() if self._is_dead(ticket, beats, gone)]
        taken: list[Ticket] = []
        for ticket in lost:  # a few, for others may come for the rest
            if len(taken) < self._workers and self._folder.retake(ticket, self._me.element):
                taken.append(ticket)
        if not taken:
            return False
        self._mine += taken
        still_open = open_rows(self._plan, self._attempt)
        rows = np.concatenate([self._rows_of(ticket) for ticket in taken])
        rows = rows[np.isin(rows, still_open)]
        died = self._folder.gone()
        alone, tries = suspects(died, rows.tolist()), tried_alone(died)
        condemned = [row for row in alone if tries[row] > self._experiment.options.retries]
        blamed = {one.element for one in died if one.is_blamed}
        careful = any(ticket.element in blamed for ticket in taken)
        self._run(rows[~np.isin(rows, alone)], careful=careful)
        for row in alone:
            if row not in condemned:
                self._run(np.array([row]), careful=True)
        if self._goes_on and not condemned:  # those are the gather job's to record
            self._all_done()
        return True

    def _is_dead(self, ticket: Ticket, beats: Mapping[str, Beat], gone: set[str]) -> bool:
        """Whether who has claimed a ticket works on it no more; that is recorded then."""
        if ticket.element == self._me.element:
            return False
        known = beats.get(ticket.element)
        if known is None:
            return self._folder.age(ticket) > DEAD_SECONDS
        restarted = known.array == self._me.array and known.index == self._me.index
        if known.ended or ticket.element in gone:
            return True
        if not restarted and self._folder.age(ticket) < DEAD_SECONDS:
            return False
        state = "REQUEUED" if restarted else state_of(self._folder, known)
        if state in commands.LIVING:  # it stands still, or is about to begin again
            return False
        self._folder.bury(death_of(known, state))
        gone.add(known.element)
        return True

    def _rows_of(self, ticket: Ticket) -> np.ndarray:
        return np.asarray(self._attempt.rows(range(ticket.start, ticket.stop)), np.int64)

    def _run(self, rows: np.ndarray, *, careful: bool) -> None:
        """Runs these inputs; careful, it is written down which ones run before they do."""
        if not len(rows) or not self._goes_on:
            return
        self._is_fresh = False
        self._driver.chunks = ChunkQueue((), self._workers, 1 if careful else self._plan.chunk)
        self._driver.chunks.extend(rows)
        self._careful = careful
        while self._driver.is_busy and self._goes_on:
            self._step()
        self._careful = False

    def _about_to_run(self, work: Chunk) -> None:
        if self._careful:
            self._tell(next_rows=[int(row) for row in work.rows])

    def _all_done(self) -> None:
        """Stores all rows, and says of each claim that it is done."""
        self._flush()
        for ticket in self._mine:
            self._folder.done(ticket)
        self._mine.clear()

    def _let_the_others_be(self) -> None:
        """Cancels elements that have not begun: nothing is left for them."""
        if self._goes_on and self._objects.create(self._folder.over(self._me.array), b""):
            with contextlib.suppress(RunError):  # they find out themselves
                commands.cancel([self._me.array], waiting=True)
            elements = int(os.environ.get("SLURM_ARRAY_TASK_COUNT", "1"))
            try:
                adopt(self._folder, self._plan, self._experiment, self._me.array, elements, self._attempt.n)
            except RunError as error:
                tell(
                    f'Scythe: nobody gathers the run, and Slurm takes no job from here ({error}): scythe resume "{self._key.path}"'
                )

    # --- while it works -----------------------------------------------------------------------------

    def _step(self) -> None:
        self._lease.check()
        self._driver.step(_STEP_SECONDS)
        now = time.monotonic()
        if now > self._next_beat or self._has_printed(now):
            self._tell()
            self._next_beat = now + BEAT_SECONDS
            if load_failure(self._objects, self._key) is not None:
                self._stopped_by = signal.SIGTERM
            if last_attempt_planned(self._objects, self._key) > self._attempt.number:
                raise Superseded(f"the run {self._key.path} was taken up by another process", None)
        if now > self._next_count and self._plan.max_errors is not None:
            others = accounts(self._objects, self._key, f"{self._attempt.number:06d}-")
            others.pop(self._name, None)
            self._collector.check_with([*others.values()])
            self._next_count = now + _ERRORS_SECONDS * max(5, len(others))
        if self._collector.is_due:
            lowest = self._driver.lowest
            self._flush()
            if self._is_fresh and lowest is not None:
                self._done_below(lowest)

    def _done_below(self, row: int) -> None:
        """Says of claims that are done that they are: all of their rows lie below one that has not come back."""
        for ticket in [one for one in self._mine if int(self._attempt.rows(range(one.stop - 1, one.stop))[0]) < row]:
            self._folder.done(ticket)
            self._mine.remove(ticket)

    @cached_property
    def _name(self) -> str:
        """By which its parts and its account are known."""
        return f"{self._attempt.number:06d}-{self._me.element}"

    def _tell(self, *, next_rows: Sequence[int] = (), ended: bool = False) -> None:
        rows = {} if ended else self._at_work(next_rows)
        self._printed = self._kept_of(rows) if self._careful else []
        beat = replace(self._me, rows=[*rows], since=[*rows.values()], exact=self._careful, ended=ended)
        self._folder.beat(replace(beat, told=time.time(), printed=self._printed))
        self._give_account()

    def _at_work(self, next_rows: Sequence[int]) -> dict[int, float]:
        """The inputs that run, each with when it began; careful, those that wait behind them, too, with 0."""
        now = time.time()
        found = {row: now - seconds for row, seconds in self._pool.at_work().items()}
        if (
            self._careful
        ):  # a process says that it is at an input when it has begun: one that was given out may have begun since
            for row in (*self._driver.given_rows, *next_rows):
                found.setdefault(row, now if len(found) < self._workers else 0.0)
        return dict(sorted(found.items()))

    def _kept_of(self, rows: Mapping[int, float]) -> list[str | None]:
        """What the only one of these inputs that has begun has printed until now: it would be lost with this element."""
        begun = [row for row, began in rows.items() if began]
        printed = self._pool.printed(begun[0]) if len(begun) == 1 else None
        return [printed.stdout, printed.stderr, printed.log] if printed is not None else []

    def _has_printed(self, now: float) -> bool:
        """Whether an input that may kill this element has printed more since that was told; asked the more rarely the longer it runs."""
        at_work = self._pool.at_work() if self._careful else {}
        told_for = now - self._next_beat + BEAT_SECONDS
        return told_for > max(at_work.values(), default=told_for) / 2 and self._kept_of(at_work) != self._printed

    def _give_account(self) -> None:
        """Tells what is counted, and how much of it is stored, where that has changed."""
        done = (self._collector.rows + self._collector.errors, self._stored["rows"] + self._stored["errors"])
        if done != self._told:
            self._told = done
            account = {**self._collector.account(), "stored": {**self._stored}}
            self._objects.write(f"{self._key.progress}/{self._name}.json", dump(account))
            self._collector.news.clear()

    def _flush(self) -> None:
        """Stores what has come in."""
        self._collector.flush(show=False)
        account = self._collector.account()
        self._stored = {name: account[name] for name in NOTHING_STORED}
        self._give_account()

    def _bury_earlier_selves(self) -> None:
        """Of an element that was requeued: what it was before is dead, whatever it has told last."""
        gone = {one.element for one in self._folder.gone()}
        for beat in self._folder.beats():
            is_same = (beat.array, beat.index) == (self._me.array, self._me.index)
            if is_same and beat.element != self._me.element and not beat.ended and beat.element not in gone:
                self._folder.bury(death_of(beat, "REQUEUED"))

    @property
    def _goes_on(self) -> bool:
        return self._stopped_by is None

    def _stop(self, number: int, _: object) -> None:
        self._stopped_by = number

    def _blame_the_long(self) -> None:
        """Where the time limit ends it: an input that took most of it would do so the next time, too."""
        if self._stopped_by != signal.SIGUSR1:
            return
        whole, now = time.monotonic() - self._began, time.time()
        long = {row: now - seconds for row, seconds in self._pool.at_work().items() if seconds > _LONG * whole}
        if long:
            printed = self._kept_of(long)
            self._folder.bury(Gone(self._me.element, "TIMEOUT", [*long], True, [*long.values()], now, printed))


def _log_size() -> int:
    """How long the file is that this process prints to [bytes]; 0 where it is none."""
    with contextlib.suppress(OSError, ValueError):
        found = os.fstat(1)
        return found.st_size if stat.S_ISREG(found.st_mode) else 0
    return 0


__all__ = ["Element"]
