"""A cluster's turn on a run: which inputs are open, and how they are spread.

Written before anything is triggered, and read by every task of the turn: a root that is moved to
another worker finds it and goes on with it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from scythe.chunk import Positions
from scythe.layout import RunKey
from scythe.scatter_gather import Shape
from scythe_catalog.objects import Objects


@dataclass(frozen=True)
class TurnPlan:
    """The open inputs of a run, as half-open ranges of rows of `specs.pq`."""

    number: int
    open: list[tuple[int, int]]
    #: Whether finished rows are shown to readers before the end.
    show: bool = True

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


def load_turn(objects: Objects, key: RunKey, number: int) -> TurnPlan:
    """A turn's plan; raises FileNotFoundError."""
    data = json.loads(objects.read(key.turn(number)))
    return TurnPlan(data["number"], [(a, b) for a, b in data["open"]], data["show"])


def last_turn(objects: Objects, key: RunKey) -> int:
    """The number of the last turn that has a plan, 0 where none has."""
    names = objects.files(key.turn(0).rsplit("/", 1)[0])
    return max((int(name[:6]) for name in names), default=0)


def store_turn(objects: Objects, key: RunKey, turn: TurnPlan) -> None:
    """Writes a turn's plan."""
    objects.write(key.turn(turn.number), json.dumps(asdict(turn)).encode())


def load_shape(objects: Objects, key: RunKey, number: int) -> Shape | None:
    """How a turn's inputs are spread, None where that is not decided yet."""
    try:
        return Shape(**json.loads(objects.read(key.shape(number))))
    except FileNotFoundError:
        return None


def store_shape(objects: Objects, key: RunKey, number: int, shape: Shape) -> None:
    """Writes how a turn's inputs are spread."""
    objects.write(key.shape(number), json.dumps(asdict(shape)).encode())


def load_trigger(objects: Objects, key: RunKey, number: int) -> str | None:
    """The engine's run that a turn was triggered as last, None where none is known."""
    try:
        return json.loads(objects.read(key.trigger(number)))["workflow_run_id"]
    except FileNotFoundError:
        return None


def store_trigger(objects: Objects, key: RunKey, number: int, workflow_run_id: str) -> None:
    """Writes which run of the engine a turn was triggered as."""
    objects.write(key.trigger(number), json.dumps({"workflow_run_id": workflow_run_id}).encode())
