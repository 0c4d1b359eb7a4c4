"""Who works on a run: each process that starts or resumes it leaves a mark with a heartbeat.

Marks are numbered and created if absent, so two processes never take the same turn. A mark whose
process is gone, or whose heartbeat is old, is dead; the run can then be resumed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Self

from obstore.exceptions import BaseError

from scythe.errors import RunCancelled, RunDamaged, RunError
from scythe.layout import CATALOG, RunKey
from scythe.records import dump, parse
from scythe_catalog.objects import Objects

_LOOK_SECONDS = 1.0
_BEAT_SECONDS = 5.0
_DEAD_SECONDS = 45.0
#: Written now and then, for the store's own time of it.
_CLOCK = f"{CATALOG}/.clock"


@dataclass(frozen=True)
class Attempt:
    """The mark of one process, and how old its last heartbeat is."""

    number: int
    engine: str
    host: str
    pid: int
    beat: float
    ended: bool = False
    #: Names the thread that keeps it alive.
    heart: str = ""
    #: On a cluster, the run of the engine that works on it: the same one may go on in another process.
    run: str | None = None
    #: The system that its process belongs to: two containers may have one name, and the same numbers for processes.
    system: str = ""
    #: When it took up the run, by its own clock [s since 1970]; 0 where that was not recorded.
    began: float = 0.0
    #: Seconds since the last heartbeat; never stored.
    age: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether its process still works on the run, as far as can be seen from here."""
        if self.ended or self.age > _DEAD_SECONDS:
            return False
        if self.host != socket.gethostname() or self.system not in ("", _system()):
            return True
        if self.pid == os.getpid() and self.heart:  # of this process more is known than that it exists
            return any(thread.name == self.heart for thread in threading.enumerate())
        return _exists(self.pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@cache
def _system() -> str:
    """What tells this running system, or container of it, from another of the same name; empty where nothing does."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return ""


def attempts(objects: Objects, key: RunKey) -> list[Attempt]:
    """All marks on a run, oldest first; their ages are not known."""
    names = sorted(objects.files(key.attempts))
    found = objects.read_all(f"{key.attempts}/{n}" for n in names)
    return [_parse(raw, objects.uri(f"{key.attempts}/{n}")) for n, raw in zip(names, found, strict=True)]


def latest_attempt(objects: Objects, key: RunKey, *, exact: bool = False) -> Attempt | None:
    """The newest mark on a run.

    A heartbeat's age is told by the times of the store, not by what its writer's clock said. With `exact` the
    store is asked for its time of now as well, for which a small object is written; else this machine's is taken.

    Raises:
        RunDamaged: the mark is none any more.
    """
    names = sorted(objects.files(key.attempts))
    if not names:
        return None
    newest = f"{key.attempts}/{names[-1]}"
    raw, modified = objects.read_dated(newest)
    found = _parse(raw, objects.uri(newest))
    if found.ended:
        return found
    if found.host == socket.gethostname() and found.system in ("", _system()):
        return replace(found, age=time.time() - found.beat)  # one clock for both
    return replace(found, age=(_time_of(objects) if exact else time.time()) - modified)


def store_time(objects: Objects) -> float:
    """The store's own time of now [s since 1970], for which a small object is written; raises what writing does."""
    objects.write(_CLOCK, b"")
    return objects.read_dated(_CLOCK)[1]


def _time_of(objects: Objects) -> float:
    try:
        return store_time(objects)
    except (OSError, BaseError):  # who cannot write there has this machine's clock alone
        return time.time()


def _parse(raw: bytes, where: str) -> Attempt:
    data = parse(raw, where)
    try:
        return Attempt(**{name: data[name] for name in _STORED if name in data})
    except TypeError as error:
        raise RunDamaged(f"{where} is incomplete ({error}): it was damaged after it was written") from error


_STORED = tuple(f.name for f in fields(Attempt) if f.name != "age")


def check_free(objects: Objects, key: RunKey) -> Attempt | None:
    """The newest mark on a run on which nobody works, None where there is none.

    Raises:
        RunError: somebody does.
    """
    last = latest_attempt(objects, key, exact=True)
    if last is not None and last.alive:
        raise RunError(
            f"the run {key.path} is being worked on by process {last.pid} on {last.host} ({last.engine}): "
            "wait for it, or cancel the run"
        )
    return last


def check_newest(objects: Objects, key: RunKey, number: int) -> None:
    """Nothing while no later process has taken up a run than the one of mark `number`.

    Raises:
        Superseded: one has, or the run was deleted.
    """
    names = sorted(objects.files(key.attempts))
    if not names or not objects.exists(key.manifest):
        raise Superseded(f"the run {key.path} was deleted while this process stood still: it ends here")
    if int(names[-1].split(".")[0]) > number:
        raise Superseded(
            f"the run {key.path} was taken over by another process while this one stood still: it ends here"
        )


class Superseded(RunError):
    """A turn on a run belongs to another process, or to another run of the engine: nothing is run twice."""

    def __init__(self, message: str, owner: str | None = None) -> None:
        super().__init__(message)
        self.owner = owner


class Turn:
    """This process's turn to work on a run: taken on entry, kept alive by a thread, ended on exit.

    With `run` and `number`, a run of a cluster's engine takes the turn that it was triggered for, or
    takes up again what it had before it was moved to this process. `taken` is told the number of a turn that is new.

    Raises:
        RunError: another process works on the run.
        RunCancelled: the run of a cluster's engine was cancelled before it began.
        Superseded: another run of the engine has this turn.
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
    ) -> None:
        self._objects, self._key, self._engine, self._run = objects, key, engine, run
        self._over = threading.Event()
        self.cancelled = threading.Event()
        #: Set when a later process has taken up the run: this one stood still for too long.
        self.superseded = threading.Event()
        self.number = 0
        self._began = time.time()
        self._heart = f"scythe-heartbeat-{uuid.uuid4().hex}"
        self._thread = threading.Thread(target=self._beat, daemon=True, name=self._heart)
        self._thread.start()  # before there is a mark: one without a heart counts for nothing
        try:
            self._take() if number is None else self._take_up(number)
            if taken is not None:
                taken(self.number)
        except BaseException:
            self._over.set()
            self._thread.join()
            raise

    def _take(self) -> None:
        last = check_free(self._objects, self._key)
        number = last.number + 1 if last is not None else 1
        if not self._objects.create(self._mark_key(number), self._mark(number)):
            raise RunError(f"the run {self._key.path} has just been taken up by another process: wait for it")
        self.number = number

    def _take_up(self, number: int) -> None:
        if self._objects.exists(self._key.cancelled):  # before it began: who waits for the end must not see a beginning
            raise RunCancelled(f"the run {self._key.path} was cancelled")
        if not self._objects.create(self._mark_key(number), self._mark(number)):
            there = self._mark_key(number)
            owner = _parse(self._objects.read(there), self._objects.uri(there)).run
            if owner != self._run:
                raise Superseded(f"the run {self._key.path} is worked on by {owner}", owner)
            self._objects.write(self._mark_key(number), self._mark(number))
        self.number = number

    def _mark_key(self, number: int) -> str:
        return f"{self._key.attempts}/{number:06d}.json"

    def _mark(self, number: int, ended: bool = False) -> bytes:
        mark = Attempt(
            number,
            self._engine,
            socket.gethostname(),
            os.getpid(),
            time.time(),
            ended,
            self._heart,
            self._run,
            _system(),
            self._began,
        )
        return dump({name: getattr(mark, name) for name in _STORED})

    def _beat(self) -> None:
        beaten = time.monotonic()
        while not self._over.wait(_LOOK_SECONDS):
            with contextlib.suppress(OSError, BaseError):  # a look that failed is made up for by the next
                if self._objects.exists(self._key.cancelled):
                    self.cancelled.set()
                if self.number and time.monotonic() - beaten > _BEAT_SECONDS:
                    if self._objects.exists(self._mark_key(self.number + 1)):
                        self.superseded.set()
                        return  # its last beat is long ago, and stays so
                    self._objects.write(self._mark_key(self.number), self._mark(self.number))
                    beaten = time.monotonic()

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

    def end(self) -> None:
        """Gives the turn back."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError, BaseError):  # a mark without a heart is as good as an ended one
            self._objects.write(self._mark_key(self.number), self._mark(self.number, ended=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
