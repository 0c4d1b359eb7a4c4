"""Who works on a run: each process that starts or resumes it leaves a record with a heartbeat.

Records are numbered and created if absent, so no two processes take the same attempt. One whose
process is gone, or whose heartbeat is old, is dead; the run can then be resumed. Marks are left in `lease`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import asdict, dataclass, replace

from obstore.exceptions import BaseError

from scythe.errors import RunError, Superseded
from scythe.names import CATALOG
from scythe.record.format import dump, parse, parse_as
from scythe.record.layout import RunKey
from scythe_catalog.processes import Process, place_of, this_place, this_system
from scythe_catalog.storage.objects import Objects

_DEAD_SECONDS = 45.0
#: The reason of an attempt that Ctrl-C, or a signal that asks a process to end, has stopped.
INTERRUPTED = "interrupted"
#: Written now and then, for the store's own time of it.
_CLOCK = f"{CATALOG}/.clock"


@dataclass(frozen=True)
class Attempt:
    """The record of one process, and how old its last heartbeat is."""

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
    #: When its process began, in that system's ticks; 0 where that was not recorded.
    start: int = 0
    #: When the run was taken up as this attempt, by the clock of whoever did so first [s since 1970]; 0 where that was not recorded.
    began: float = 0.0
    #: For how long it had worked on the run at its last heartbeat [s].
    worked: float = 0.0
    #: How many processes have taken it up, this one counted: a cluster moves a run whose worker it has lost.
    tries: int = 1
    #: Whether it runs no inputs, but packs the files of a finished run.
    packs: bool = False
    #: Why it stopped before the run was finished; empty where it came to its end, or nobody could say.
    reason: str = ""
    #: Seconds since the last heartbeat; never stored.
    age: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether its process still works on the run, as far as can be seen from here."""
        if self.ended or self.age > _DEAD_SECONDS:
            return False
        lives = Process(self.place, self.pid, self.start).lives
        if lives and self.pid == os.getpid() and self.heart:  # of this process more is known than that it exists
            return any(thread.name == self.heart for thread in threading.enumerate())
        return lives is not False

    @property
    def place(self) -> str:
        """Where its `pid` means its process; those of earlier versions, which told no system, are taken to be of this one."""
        return place_of(self.host, self.system or this_system())

    @property
    def origin(self) -> tuple[object, ...]:
        """Which attempt it is, among all that have this number in copies of one run."""
        pid = (
            self.pid if self.run is None else None
        )  # an attempt of Slurm's has the number of the job that has beaten last
        return (self.number, self.engine, self.run, self.host, self.system, pid, self.began)

    def is_same(self, other: Attempt) -> bool:
        """Whether two records are of one attempt, in two copies of a run; a cluster's may have been moved between them."""
        moved = (
            self.run is not None and (self.number, self.run) == (other.number, other.run) and self.tries != other.tries
        )
        return moved or self.origin == other.origin

    def to_json(self) -> bytes:
        """The record as JSON."""
        return dump({name: value for name, value in asdict(self).items() if name != "age"})


def attempts(objects: Objects, key: RunKey) -> list[Attempt]:
    """The records of all attempts on a run, oldest first; their ages are not known."""
    names = sorted(objects.files(key.attempts))
    found = objects.read_all(f"{key.attempts}/{n}" for n in names)
    return [parse_as(Attempt, raw, objects.uri(f"{key.attempts}/{n}")) for n, raw in zip(names, found, strict=True)]


def latest_attempt(objects: Objects, key: RunKey, *, exact: bool = False) -> Attempt | None:
    """The newest attempt on a run.

    A heartbeat's age is told by the times of the store, not by what its writer's clock said. With `exact` the
    store is asked for its time of now as well, for which a small object is written; else this machine's is taken.

    Raises:
        RunDamaged: its record is none any more.
    """
    names = sorted(objects.files(key.attempts))
    if not names:
        return None
    newest = f"{key.attempts}/{names[-1]}"
    raw, modified = objects.read_dated(newest)
    found = parse_as(Attempt, raw, objects.uri(newest))
    if found.ended:
        return found
    if found.place == this_place():
        return replace(found, age=time.time() - found.beat)  # one clock for both
    return replace(found, age=(_time_of(objects) if exact else time.time()) - modified)


def ask_to_cancel(objects: Objects, key: RunKey) -> None:
    """Leaves the mark by which whoever works on a run stops."""
    objects.write(key.cancelled, dump({}))


def store_time(objects: Objects) -> float:
    """The store's own time of now [s since 1970], for which a small object is written; raises what writing does."""
    objects.write(_CLOCK, b"")
    return objects.read_dated(_CLOCK)[1]


def _time_of(objects: Objects) -> float:
    try:
        return store_time(objects)
    except (OSError, BaseError):  # who cannot write there has this machine's clock alone
        return time.time()


def check_free(objects: Objects, key: RunKey) -> Attempt | None:
    """The newest attempt on a run on which nobody works, None where there is none.

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


def check_arrived(objects: Objects, key: RunKey) -> None:
    """Nothing where a run lies here whole: no download has put it here, or the last one that has came to its end.

    Raises:
        RunError: what lies here is not all of one state of the run, as its download goes on, or was cut short.
    """
    with contextlib.suppress(FileNotFoundError):
        if not parse(objects.read(key.arrivals_ended), objects.uri(key.arrivals_ended)).get("whole", True):
            raise RunError(
                f"{key.path} is not wholly here: its download to {objects.root} goes on, or was cut short. Wait for it, or call "
                "it again; then go on with the run"
            )


def check_newest(objects: Objects, key: RunKey, number: int) -> None:
    """Nothing while no later process has taken up a run than that of attempt `number`.

    Raises:
        Superseded: one has, or the run was deleted, or is not there any more.
    """
    names = sorted(objects.files(key.attempts))
    if not names or not objects.exists(key.manifest):
        if not objects.exists(key.tombstone) and not objects.exists(key.reservation):
            raise Superseded(
                f"the run {key.path} is not in {objects.root} any more: was the root moved, or a link to it turned? It ends here; "
                "`scythe resume` goes on with it where it is"
            )
        raise Superseded(f"the run {key.path} was deleted while this process stood still: it ends here")
    if int(names[-1].split(".")[0]) > number:
        raise Superseded(
            f"the run {key.path} was taken over by another process while this one stood still: it ends here"
        )
