"""What an attempt on a cluster is to do: which inputs are open, and how they are spread.

Written before anything is triggered, and read by every task of the attempt: a root that is moved to
another worker finds it and goes on with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from scythe.errors import RunDamaged
from scythe.record.format import dump, parse, parse_as
from scythe.record.layout import RunKey, gathers
from scythe.record.plan import MaxErrors, Positions
from scythe.scatter_gather import Shape
from scythe_catalog.memo import cached_property
from scythe_catalog.storage.objects import Objects


@dataclass(frozen=True)
class AttemptPlan:
    """The inputs of a run that an attempt is to run, as half-open ranges of rows of `specs.pq`."""

    number: int
    open: list[tuple[int, int]]
    #: Whether finished rows are shown to readers before the end.
    show: bool = True
    #: The hash of the caller's code, which a worker's must equal; None where any code may run it.
    code: str | None = None
    #: The labels that a leaf's worker must have: name -> value.
    labels: dict[str, str | int] = field(default_factory=dict[str, str | int])
    #: The tasks that workers must have, the leaf's first.
    tasks: list[str] = field(default_factory=list[str])
    #: How many inputs may fail until it stops.
    max_errors: MaxErrors = None
    #: Whose attempt it is.
    engine: str = "hatchet"

    @property
    def n(self) -> int:
        """How many inputs are open."""
        return sum(stop - start for start, stop in self.open)

    def rows(self, inputs: range) -> Positions:
        """The rows of `specs.pq` of some of the open inputs, counted 0 to n - 1."""
        if len(self.open) == 1:
            first = self.open[0][0]
            return range(inputs.start + first, inputs.stop + first, inputs.step)
        return self._all[inputs.start : inputs.stop : inputs.step]

    @cached_property
    def _all(self) -> np.ndarray:
        return np.concatenate([np.empty(0, np.int64), *(np.arange(a, b, dtype=np.int64) for a, b in self.open)])


def load_attempt_plan(objects: Objects, key: RunKey, number: int) -> AttemptPlan:
    """An attempt's plan; raises FileNotFoundError."""
    where = key.attempt_plan(number)
    return parse_as(AttemptPlan, objects.read(where), where)


def last_attempt_planned(objects: Objects, key: RunKey) -> int:
    """The number of the last attempt that has a plan, 0 where none has."""
    names = objects.files(key.attempt_plan(0).rsplit("/", 1)[0])
    return max((int(name[:6]) for name in names), default=0)


def last_attempt_left(objects: Objects, key: RunKey) -> int:
    """The highest number of an attempt whose rows are there, 0 where there are none: its record may have been lost.

    A new attempt with a number of before would write over its rows, and take its result for its own.
    """
    names = [*objects.files(key.parts), *(folder.rsplit("/", 1)[-1] for folder in objects.folders(gathers(key)))]
    return max((int(name[:6]) for name in names if name[:6].isdecimal()), default=0)


def is_planned(objects: Objects, key: RunKey, ended: int) -> bool:
    """Whether there is a plan of a later attempt than the one that a run ended with, and nobody has said that it came to nothing."""
    return last_attempt_planned(objects, key) > ended and load_failure(objects, key) is None


def store_attempt_plan(objects: Objects, key: RunKey, attempt: AttemptPlan) -> None:
    """Writes an attempt's plan."""
    objects.write(key.attempt_plan(attempt.number), dump(asdict(attempt)))


def load_shape(objects: Objects, key: RunKey, number: int) -> Shape | None:
    """How an attempt's inputs are spread, None where that is not decided yet."""
    where = key.shape(number)
    with contextlib.suppress(FileNotFoundError):
        return parse_as(Shape, objects.read(where), where)
    return None


def store_shape(objects: Objects, key: RunKey, number: int, shape: Shape) -> None:
    """Writes how an attempt's inputs are spread."""
    objects.write(key.shape(number), dump(asdict(shape)))


def load_trigger(objects: Objects, key: RunKey, number: int) -> str | None:
    """The engine's run that an attempt was triggered as last, None where none is known."""
    with contextlib.suppress(FileNotFoundError):
        return _load(objects, key.trigger(number), "workflow_run_id")
    return None


def store_trigger(objects: Objects, key: RunKey, number: int, workflow_run_id: str) -> None:
    """Writes which run of the engine an attempt was triggered as."""
    objects.write(key.trigger(number), dump({"workflow_run_id": workflow_run_id}))


def load_given_up(objects: Objects, key: RunKey, number: int, path: Sequence[int]) -> frozenset[int]:
    """Which of the nodes right below a node were left without slots, so that it runs their leaves itself."""
    with contextlib.suppress(FileNotFoundError):
        return frozenset(_load(objects, key.alone(number, path), "children"))
    return frozenset()


def store_given_up(objects: Objects, key: RunKey, number: int, path: Sequence[int], children: Iterable[int]) -> None:
    """Writes that a node runs the leaves of some of the nodes right below it itself, and that those do not."""
    objects.write(key.alone(number, path), dump({"children": sorted(children)}))


def load_failure(objects: Objects, key: RunKey) -> str | None:
    """Why the last attempt on a run came to no end, None where it did not, or where nobody could say."""
    with contextlib.suppress(FileNotFoundError):
        return _load(objects, key.failure(last_attempt_planned(objects, key)), "message")
    return None


def store_failure(objects: Objects, key: RunKey, number: int, message: str) -> None:
    """Writes why an attempt came to no end."""
    objects.write(key.failure(number), dump({"message": message}))


@dataclass(frozen=True)
class Ended:
    """How many inputs of a run have come to an end, as its nodes tell: every two seconds at best."""

    done: int
    failed: int
    #: The first failure of each kind in this attempt: what kind, and a text for people.
    news: tuple[tuple[str, str], ...] = ()


def accounts(objects: Objects, key: RunKey, prefix: str = "") -> dict[str, dict[str, Any]]:
    """What the nodes of attempts tell of themselves, by their names, those that begin so: every two seconds at best."""
    names = [name for name in objects.files(key.progress) if name.startswith(prefix)]
    told = objects.read_all(f"{key.progress}/{name}" for name in names)
    return {name.removesuffix(".json"): parse(raw, key.progress) for name, raw in zip(names, told, strict=True)}


def progress_of(objects: Objects, key: RunKey, inputs: int) -> Ended:
    """How far the last attempt on a run of `inputs` is, the attempts before it counted in."""
    number = last_attempt_planned(objects, key)
    if not number:
        return Ended(0, 0)
    attempt, told = load_attempt_plan(objects, key, number), accounts(objects, key)
    now = [account for name, account in told.items() if name.startswith(f"{number:06d}-")]
    # An attempt on what failed runs those inputs again; any other leaves the errors of the attempts before.
    failed = sum(account["errors"] for account in (told.values() if attempt.show else now))
    done = inputs - attempt.n + sum(t["rows"] + t["errors"] for t in now)
    news = {kind: text for t in reversed(now) for kind, text in t.get("news", ())}
    return Ended(min(done, inputs), min(failed, inputs), tuple(news.items()))


def _load(objects: Objects, key: str, name: str) -> Any:
    record = parse(objects.read(key), key)
    if name not in record:
        raise RunDamaged(f"{key} lacks {name}: it was damaged after it was written")
    return record[name]
