"""The lease of a run: one process at a time works on it, and shows with a heartbeat that it lives. Runs nothing itself."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from obstore.exceptions import BaseError

from scythe.errors import FormatError, RunCancelled, RunDamaged, RunError, ScytheError, Superseded
from scythe.record.attempt_plan import last_attempt_left
from scythe.record.attempts import INTERRUPTED, Attempt, check_free, check_newest
from scythe.record.format import parse_as
from scythe.record.layout import RunKey
from scythe_catalog.processes import start_of, this_system
from scythe_catalog.redaction import redacted
from scythe_catalog.storage.objects import Objects

_LOOK_SECONDS = 1.0
_BEAT_SECONDS = 5.0
_LONGEST_REASON = 300


class Lease:
    """This process's exclusive attempt on a run: taken on entry, kept alive by a thread, ended on exit.

    With `run` and `number`, a run of a cluster's engine takes the attempt that it was triggered for, or
    takes up again what it had before it was moved to this process. `taken` is told the number of an attempt that is new.

    With `shared_by`, a host and a number for people to find them by, many processes have the attempt of `run` and `number`
    together: whoever finds it quiet beats for all, and only the one that says `is_last` ends it. With `packs` it runs no inputs.
    With `after`, the newest attempt that the caller knew of when it looked at the run (0: none), a later one is not followed.

    Raises:
        RunError: another process works on the run, or has worked on it since the attempt `after`.
        RunCancelled: the run of a cluster's engine was cancelled before it began.
        Superseded: another run of the engine has this attempt.
    """

    def __init__(
        self,
        objects: Objects,
        key: RunKey,
        engine: str,
        *,
        run: str | None = None,
        number: int | None = None,
        taken: Callable[[int], None] | None = None,
        shared_by: tuple[str, int] | None = None,
        packs: bool = False,
        after: int | None = None,
    ) -> None:
        self._objects, self._key = objects, key
        self._over = threading.Event()
        self.cancelled = threading.Event()
        #: Set when a later process has taken up the run: this one stood still for too long.
        self.superseded = threading.Event()
        self.number = 0
        self.is_last = shared_by is None
        self._is_shared = shared_by is not None
        #: When one of those that share the attempt has beaten last, by the store's clock, as of the last look.
        self._beaten_at = 0.0
        #: So long others had worked on the attempt, as far as they told, before it was moved to this process [s].
        self.before = 0.0
        self._started, now = time.monotonic(), time.time()
        host, pid = shared_by or (socket.gethostname(), os.getpid())
        self._attempt = Attempt(
            0, engine, host, pid, now, heart=f"scythe-heartbeat-{uuid.uuid4().hex}", run=run, packs=packs,
            system=this_system(), start=0 if shared_by else start_of(pid) or 0, began=now,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._beat, daemon=True, name=self._attempt.heart)
        self._thread.start()  # before there is a record: one without a heart counts for nothing
        try:
            self._take(after) if number is None else self._take_up(number)
            if taken is not None:
                taken(self.number)
        except BaseException:
            self.end()
            raise

    def _take(self, after: int | None) -> None:
        last = check_free(self._objects, self._key)
        number = last.number + 1 if last is not None else 1
        if after is not None:
            if number > after + 1:
                raise RunError(
                    f"another process has worked on the run {self._key.path} while this one began: look at it once more"
                )
            number = max(number, last_attempt_left(self._objects, self._key) + 1)
        if not self._objects.create(self._record_key(number), self._record(number)):
            raise RunError(f"the run {self._key.path} has just been taken up by another process: wait for it")
        self.number = number

    def _take_up(self, number: int) -> None:
        if self._objects.exists(self._key.cancelled):  # before it began: who waits for the end must not see a beginning
            raise RunCancelled(f"the run {self._key.path} was cancelled")
        if not self._objects.create(self._record_key(number), self._record(number)):
            there = self._record_key(number)
            known = parse_as(Attempt, self._objects.read(there), self._objects.uri(there))
            if known.run != self._attempt.run:
                raise Superseded(f"the run {self._key.path} is worked on by {known.run or known.engine}", known.run)
            began = known.began or self._attempt.began  # that of the process that took it up first
            if self._is_shared:
                self._attempt = replace(self._attempt, began=began)
            else:
                self._attempt = replace(self._attempt, began=began, tries=known.tries + 1)
                self.before = known.worked
            self._objects.write(self._record_key(number), self._record(number))
        self.number = number

    def _record_key(self, number: int) -> str:
        return f"{self._key.attempts}/{number:06d}.json"

    def _record(self, number: int, ended: bool = False, reason: str = "") -> bytes:
        now = time.time()
        worked = now - self._attempt.began if self._is_shared else self.before + time.monotonic() - self._started
        return replace(self._attempt, number=number, beat=now, ended=ended, worked=worked, reason=reason).to_json()

    def _beat(self) -> None:
        beaten = time.monotonic()
        while not self._over.wait(_BEAT_SECONDS if self._is_shared else _LOOK_SECONDS):
            with contextlib.suppress(OSError, BaseError):  # a look that failed is made up for by the next
                if self._objects.exists(self._key.cancelled):
                    self.cancelled.set()
                if self.number and (self._is_quiet() if self._is_shared else time.monotonic() - beaten > _BEAT_SECONDS):
                    if self._objects.exists(self._record_key(self.number + 1)):
                        self.superseded.set()
                        return  # its last beat is long ago, and stays so
                    self._keep()
                    beaten = time.monotonic()

    def _keep(self, ended: bool = False, reason: str = "") -> None:
        """Writes the record while it is this process's; raises as `_is_ours` does."""
        if self._is_ours():
            self._objects.write(self._record_key(self.number), self._record(self.number, ended, reason))

    def _is_ours(self) -> bool:
        """Whether the record is still this process's: a later try of a cluster's run may have taken it up, or ended it.

        Between this look and the writing there is a moment in which a later try may come: it writes its own again.

        Raises:
            FileNotFoundError: it is gone; the run was deleted.
        """
        if self._is_shared or self._attempt.run is None:  # one process has the number of another engine's attempt
            return True
        there = self._record_key(self.number)
        raw = self._objects.read(there)
        try:
            found = parse_as(Attempt, raw, self._objects.uri(there))
            return found.heart == self._attempt.heart or found.tries < self._attempt.tries
        except FormatError:
            return False
        except RunDamaged:  # what nobody can read is written anew
            return True

    @property
    def began(self) -> float:
        """When the attempt was taken up first [s since 1970]."""
        return self._attempt.began

    def _is_quiet(self) -> bool:
        """Whether nobody of those that share the attempt has beaten since the last look, or a later one is there.

        The record's time is the store's, whose clock may be another: it is held against itself.
        """
        before, self._beaten_at = self._beaten_at, self._objects.read_dated(self._record_key(self.number))[1]
        return self._beaten_at == before or self._objects.exists(self._record_key(self.number + 1))

    @property
    def is_over(self) -> bool:
        """Whether this process is to stop: `check` says why."""
        return self.cancelled.is_set() or self.superseded.is_set()

    def check(self) -> None:
        """Nothing while this process is to go on with the run.

        Raises:
            RunCancelled: the run was cancelled.
            Superseded: a later process has taken it up.
        """
        if self.superseded.is_set():
            check_newest(self._objects, self._key, self.number)
        if self.cancelled.is_set():
            raise RunCancelled(f"the run {self._key.path} was cancelled; what was finished is kept")

    def end(self, error: BaseException | None = None) -> None:
        """Gives the run back; where an error is why, its record says so."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError, BaseError):  # a record without a heart is as good as an ended one
            if self.number and self.is_last:
                self._keep(True, _reason(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.end(error)


def _reason(error: BaseException | None) -> str:
    """Why an attempt stopped, in a line."""
    if error is None:
        return ""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    try:
        first, *others = str(error).strip().splitlines() or [""]
    except Exception:  # noqa: BLE001 - a user's own class may do anything
        first, others = "", list[str]()
    told = f"{first} {others[-1].strip()}" if others and first.endswith(":") else first
    told = told if isinstance(error, ScytheError) else f"{type(error).__name__}: {told}".rstrip(": ")
    told = "".join(c if c.isprintable() else " " for c in told.encode(errors="replace").decode())
    return redacted(told)[:_LONGEST_REASON]
