"""What an attempt on Slurm keeps in the run's folder: its jobs, who works on what, who died of it. Runs nothing, asks nobody.

All rests on one operation: a file that is created if absent. Everything is found again by whoever comes next.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from scythe.engines.options import EngineOptions, SlurmOptions
from scythe.engines.slurm.commands import BLAMELESS, UNKNOWN
from scythe.record.attempts import store_time
from scythe.record.format import dump, parse, parse_as
from scythe.record.layout import RunKey
from scythe_catalog.memo import cached_property
from scythe_catalog.storage.objects import Objects

#: Whose beat is so old is dead [s]; it beats ten times as often.
DEAD_SECONDS, BEAT_SECONDS = 50.0, 5.0
_TURN_SECONDS = 0.02

T = TypeVar("T")
#: Options of sbatch that say when the first jobs may begin: for jobs that follow that is over.
_AT_FIRST = ("begin", "deadline", "dependency", "hold")


@dataclass(frozen=True)
class Jobs:
    """What was submitted in one round of an attempt."""

    #: The number of the job array; None where nothing is open, and only the gather job is there.
    array: str | None
    gather: str
    elements: int
    #: How many inputs were open.
    open: int

    @property
    def numbers(self) -> list[str]:
        return [job for job in (self.array, self.gather) if job is not None]


#: What an element has counted of the parts that it has stored, before there are any.
NOTHING_STORED: Mapping[str, Any] = MappingProxyType({"rows": 0, "errors": 0, "kinds": ()})


@dataclass(frozen=True)
class Beat:
    """What an element tells of itself now and then."""

    element: str
    job: str
    array: str
    index: int
    node: str
    #: The inputs that run, by their rows in `specs.pq`.
    rows: list[int] = field(default_factory=list[int])
    #: Just these: each was written down before it began. Else others may have begun since.
    exact: bool = False
    #: It has ended by itself; what it has not done is open.
    ended: bool = False
    #: When it began, by its own clock [s since 1970].
    began: float = 0.0
    #: How long its log was then [bytes]: those of earlier rounds and restarts have written into the same one.
    log_at: int = 0
    #: When each of `rows` began, by its own clock; 0 of one that waits behind another.
    since: list[float] = field(default_factory=list[float])
    #: When it told this, by its own clock.
    told: float = 0.0
    #: What the only one that has begun has printed (standard output and error, and its log); empty where it is not the only one.
    printed: list[str | None] = field(default_factory=list[str | None])


@dataclass(frozen=True)
class Gone:
    """An element that died: how, as Slurm says, and which inputs ran then, as far as it had told."""

    element: str
    state: str
    rows: list[int]
    #: Just these ran.
    exact: bool = False
    #: When each of them began [s since 1970]; 0 where that is not known.
    since: list[float] = field(default_factory=list[float])
    #: When it died, as far as is known [s since 1970].
    at: float = 0.0
    #: What the only one that had begun had printed, as it was told last.
    printed: list[str | None] = field(default_factory=list[str | None])

    def began(self, row: int) -> float:
        """When an input began in it; 0 where it did not, or where that is not known."""
        return dict(zip(self.rows, self.since, strict=False)).get(row, 0.0)

    @property
    def is_blamed(self) -> bool:
        """Whether the inputs may have a part in it."""
        return self.state not in BLAMELESS

    @property
    def is_told(self) -> bool:
        """Whether Slurm has told how it ended: what nobody knows the reason of counts as no try."""
        return self.state != UNKNOWN

    @property
    def counts(self) -> bool:
        """Whether it was a try of one input, which is known to be the only one that ran."""
        return self.is_blamed and self.is_told and self.exact and len(self.rows) == 1


@dataclass(frozen=True)
class Ticket:
    """Some of the open inputs of an attempt, counted 0 to n - 1, that an element has claimed."""

    number: int
    start: int
    stop: int
    element: str
    #: How long an input takes a process, as far as was known [s].
    seconds: float | None = None
    #: The file, below the attempt's folder, by which it was claimed last.
    where: str = ""


class Folder:
    """The folder of one attempt."""

    def __init__(self, objects: Objects, key: RunKey, number: int) -> None:
        self.objects, self.run, self.number = objects, key, number
        self._base = f"{key.path}/scatter-gather/slurm/{number:06d}"
        self._last: Ticket | None = None

    @cached_property
    def _ahead(self) -> float:
        """How far the store's clock, by which its files are dated, is ahead of this machine's [s]."""
        before = time.time()
        return store_time(self.objects) - before

    # --- what it was started with -------------------------------------------------------------------

    @property
    def options_key(self) -> str:
        return f"{self._base}/options.json"

    def store_options(self, options: SlurmOptions, elements: int | None, told: EngineOptions | None = None) -> None:
        """How more jobs of the attempt are submitted; and what was `told` of that, beside the settings."""
        record = {"options": _given(options), "elements": elements, "told": _given(told) if told is not None else None}
        self.objects.write(self.options_key, dump(record))

    def forget_options(self) -> None:
        """Takes its options away: those of the attempt before it hold again."""
        self.objects.delete([self.options_key])

    def options(self) -> tuple[SlurmOptions, int | None]:
        """The same; and how many elements were asked for."""
        record = parse(self.objects.read(self.options_key), self.options_key)
        return SlurmOptions.model_validate(record["options"]), record["elements"]

    def told(self) -> SlurmOptions | None:
        """Those of the options that were not settings; None where nobody gave any."""
        told = parse(self.objects.read(self.options_key), self.options_key).get("told")
        return SlurmOptions.model_validate(told) if told is not None else None

    @cached_property
    def logs(self) -> Path:
        """Where the jobs write what they print: below the run, or where that is in a bucket below the working folder."""
        below = (
            f"{self._base}/logs"
            if self.objects.folder is not None
            else f"scythe-logs/{self.run.path}/{self.number:06d}"
        )
        return (self.objects.folder or Path.cwd()) / below

    # --- jobs ---------------------------------------------------------------------------------------

    def rounds(self) -> list[Jobs]:
        """What was submitted until now, the first first."""
        names = sorted(self.objects.files(f"{self._base}/jobs"))
        found = self.objects.read_all(f"{self._base}/jobs/{name}" for name in names)
        return [parse_as(Jobs, raw, name) for name, raw in zip(names, found, strict=True)]

    def add_round(self, jobs: Jobs) -> None:
        """Records a submission, behind the others."""
        number = len(self.objects.files(f"{self._base}/jobs")) + 1
        while not self.objects.create(f"{self._base}/jobs/{number:06d}.json", dump(asdict(jobs))):
            number += 1

    # --- elements -----------------------------------------------------------------------------------

    def beat(self, beat: Beat) -> None:
        """Tells that an element lives, and at what it is."""
        self.objects.write(f"{self._base}/elements/{beat.element}.json", dump(asdict(beat)))

    def beats(self) -> list[Beat]:
        """What the elements have told last."""
        return self._read_all("elements", Beat)

    def living(self) -> int:
        """How many elements have told of themselves lately, and have not ended."""
        now = time.time() + self._ahead
        fresh = [f for f in self.objects.found(f"{self._base}/elements") if now - f.modified.timestamp() < DEAD_SECONDS]
        return len(fresh)

    def age(self, ticket: Ticket) -> float:
        """Seconds since the element that has claimed a ticket told of itself; where that is not seen, since it claimed it."""
        for where in (f"elements/{ticket.element}.json", ticket.where):
            with contextlib.suppress(FileNotFoundError):
                return time.time() + self._ahead - self.objects.read_dated(f"{self._base}/{where}")[1]
        return 0.0

    def bury(self, gone: Gone) -> None:
        """Records that an element died; the first who says so is believed."""
        self.objects.create(f"{self._base}/gone/{gone.element}.json", dump(asdict(gone)))
        account = f"{self.run.progress}/{self.number:06d}-{gone.element}.json"
        with contextlib.suppress(FileNotFoundError):  # what it has run and not stored is run again, and counted then
            told = parse(self.objects.read(account), account)
            self.objects.write(account, dump({**told, **(told.get("stored") or NOTHING_STORED)}))

    def gone(self) -> list[Gone]:
        """All elements that died."""
        return self._read_all("gone", Gone)

    # --- claims -------------------------------------------------------------------------------------

    def take(
        self, element: str, n: int, size: Callable[[int, float | None], int], seconds: float | None
    ) -> Ticket | None:
        """The next of the open inputs, which nobody has claimed; None where all are.

        Args:
            element: Who claims them.
            n: How many inputs are open.
            size: Told how many are unclaimed, and the seconds of an input by the newest claim; how many to take.
            seconds: What this element knows of the time of an input.
        """
        last, tries = self._newest(), 0
        while True:
            start, number = (last.stop, last.number + 1) if last is not None else (0, 0)
            if start >= n:
                return None
            known = seconds if seconds is not None else last.seconds if last is not None else None
            stop = min(n, start + max(1, int(size(n - start, known))))
            mine = Ticket(number, start, stop, element, known)
            if self.objects.create(self._claim(number), dump({k: v for k, v in asdict(mine).items() if k != "where"})):
                self._last = mine
                return mine
            tries += 1
            time.sleep(
                random.uniform(0, min(_TURN_SECONDS * tries, 1.0))
            )  # many that want one would be in each other's way
            self._last = self._read_claim(number)
            last = self._newest()

    def _newest(self) -> Ticket | None:
        """The claim that was made last. They have no gaps: it is found by a few looks, however many there are."""
        known = self._last.number if self._last is not None else -1
        step = 1
        while self.objects.exists(self._claim(known + step)):
            known, step = known + step, 2 * step
        while step > 1:
            step //= 2
            if self.objects.exists(self._claim(known + step)):
                known += step
        if known >= 0 and (self._last is None or known != self._last.number):
            self._last = self._read_claim(known)
        return self._last

    def _read_claim(self, number: int) -> Ticket:
        """A claim that is there, or is about to be seen: a network's file system may take a moment."""
        for pause in (0.0, 0.05, 0.2, 0.5, 1.0, 2.0, 4.0):
            time.sleep(pause)
            with contextlib.suppress(FileNotFoundError):
                return self._ticket(number)
        return self._ticket(number)

    def _ticket(self, number: int) -> Ticket:
        return parse_as(Ticket, self.objects.read(self._claim(number)), self._claim(number))

    def _claim(self, number: int) -> str:
        return f"{self._base}/claims/{number:08d}.json"

    def done(self, ticket: Ticket) -> None:
        """Records that all inputs of a claim are stored."""
        self.objects.write(f"{self._base}/done/{ticket.number:08d}", b"")

    def unfinished(self) -> list[Ticket]:
        """The claims that are not done, with who has them now."""
        done = {int(name) for name in self.objects.files(f"{self._base}/done")}
        names = [name for name in self.objects.files(f"{self._base}/claims") if int(name[:8]) not in done]
        again: dict[int, str] = {}
        for name in sorted(self.objects.files(f"{self._base}/again")):
            again[int(name[:8])] = name
        raw = self.objects.read_all(f"{self._base}/claims/{name}" for name in sorted(names))
        found = {(ticket := parse_as(Ticket, one, "a claim")).number: ticket for one in raw}
        retaken = [number for number in found if number in again]
        holders = self.objects.read_all(f"{self._base}/again/{again[number]}" for number in retaken)
        for number, one in zip(retaken, holders, strict=True):
            held = parse(one, "a claim")["element"]
            found[number] = replace(found[number], element=held, where=f"again/{again[number]}")
        return [replace(t, where=t.where or f"claims/{t.number:08d}.json") for t in found.values()]

    def holders(self, inputs: Collection[int]) -> dict[int, list[str]]:
        """The elements that have claimed each of some inputs of the attempt (counted 0 to n - 1), the first first."""
        again: dict[int, list[str]] = {}
        for name in sorted(self.objects.files(f"{self._base}/again")):
            again.setdefault(int(name[:8]), []).append(f"{self._base}/again/{name}")
        found: dict[int, list[str]] = {}
        for name in sorted(self.objects.files(f"{self._base}/claims")) if inputs else ():
            ticket = self._ticket(int(name[:8]))
            if held := [i for i in inputs if ticket.start <= i < ticket.stop]:
                later = self.objects.read_all(again.get(ticket.number, ()))
                names = [ticket.element, *(parse(one, "a claim")["element"] for one in later)]
                found |= dict.fromkeys(held, names)
        return found

    def retake(self, ticket: Ticket, element: str) -> bool:
        """Claims the inputs of an element that is dead; whether nobody was faster."""
        names = [n for n in self.objects.files(f"{self._base}/again") if int(n[:8]) == ticket.number]
        times = max((int(name[9:15]) for name in names), default=0)
        if times:
            where = f"{self._base}/again/{ticket.number:08d}-{times:06d}.json"
            if parse(self.objects.read(where), where)["element"] != ticket.element:
                return False
        return self.objects.create(
            f"{self._base}/again/{ticket.number:08d}-{times + 1:06d}.json", dump({"element": element})
        )

    # --- marks --------------------------------------------------------------------------------------

    def over(self, array: str) -> str:
        """There once nothing is left to be claimed: an element of that array that starts later need not."""
        return f"{self._base}/over-{array}"

    def note_problem(self, text: str) -> None:
        """Records what keeps an element from working, outside of the user's function."""
        self.objects.write(f"{self._base}/problem.txt", text.encode())

    def problem(self) -> str | None:
        """What was recorded last of that; None where nothing was."""
        with contextlib.suppress(FileNotFoundError):
            return self.objects.read(f"{self._base}/problem.txt").decode()
        return None

    def _read_all(self, what: str, made: type[T]) -> list[T]:
        where = f"{self._base}/{what}"
        names = sorted(self.objects.files(where))
        found = self.objects.read_all(f"{where}/{name}" for name in names)
        return [parse_as(made, raw, name) for name, raw in zip(names, found, strict=True)]


def tried_alone(gone: Iterable[Gone]) -> Counter[int]:
    """How often each input was the only one that ran when its element died of something that may be its fault."""
    return Counter(one.rows[0] for one in gone if one.counts)


def suspects(gone: Iterable[Gone], among: Collection[int]) -> list[int]:
    """Those inputs that ran when an element died: they are run one at a time, with nothing beside them."""
    return sorted({row for one in gone if one.is_blamed for row in one.rows} & {*among})


def last_folder(objects: Objects, run: RunKey) -> Folder | None:
    """The folder of a run's last attempt that came to be submitted; None where none has."""
    numbers = [int(name) for name in objects.folders(f"{run.path}/scatter-gather/slurm")]
    folders = (Folder(objects, run, number) for number in sorted(numbers, reverse=True))
    return next((folder for folder in folders if objects.exists(folder.options_key)), None)


def _given(options: EngineOptions) -> dict[str, Any]:
    given = options.model_dump(mode="json", exclude_unset=True)
    if "sbatch" in given:
        given["sbatch"] = {name: value for name, value in given["sbatch"].items() if name not in _AT_FIRST}
    return given


__all__ = [
    "BEAT_SECONDS",
    "DEAD_SECONDS",
    "NOTHING_STORED",
    "Beat",
    "Folder",
    "Gone",
    "Jobs",
    "Ticket",
    "last_folder",
    "suspects",
    "tried_alone",
]
