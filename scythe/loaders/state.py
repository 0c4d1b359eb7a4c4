"""Where a training stands: what `Batches.state` writes as plain JSON, whether batches of now are those of then, and which process this is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from scythe.errors import ReadError, StateError
from scythe.loaders.pinned.run import Pin


@dataclass(frozen=True)
class State:
    """Behind how many samples of which epoch, of which rows in which order. What is None was not told: a state of before."""

    runs: list[Pin]
    rows: int
    seed: int
    epoch: int
    samples: int
    #: Rows that all ranks together draw in a step.
    batch: int | None = None
    #: What tells the rows from others of the same runs.
    part: str | None = None
    experiment: str | None = None
    #: What tells the statistics from others by which batches were normalized.
    stats: str | None = None
    shuffle: bool = True
    memory: int | None = None
    #: The blocks of packed files by which `memory` shuffles.
    blocks: str | None = None

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """A state from plain JSON.

        Raises:
            StateError: it is none.
        """
        try:
            known: dict[str, Any] = {name: told[name] for name in cls.__dataclass_fields__ if name in told}
            known["runs"] = [(version, folder, gather) for version, folder, gather in told["runs"]]
            rows, epoch, samples = (int(told[name]) for name in ("rows", "epoch", "samples"))
            known |= {"rows": rows, "seed": told["seed"], "epoch": epoch, "samples": samples}
        except KeyError as error:
            raise StateError(f"this is no state of batches: it has no {error}, which state() gives") from None
        except (TypeError, ValueError, OverflowError):
            raise StateError(f"this is no state of batches, as state() gives it, but {told!r:.100}") from None
        if not 0 <= epoch < 2**64 or not 0 <= samples <= rows:
            raise StateError(f"this is no state of batches: epoch {epoch}, {samples:,} of {rows:,} samples")
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON; without what is as it mostly is."""
        told = {**vars(self), "runs": [list(pin) for pin in self.runs]}
        return {name: value for name, value in told.items() if value is not None and (name != "shuffle" or not value)}

    def check_experiment(self, name: str) -> None:
        """Nothing where it is of this experiment.

        Raises:
            StateError: it is of another one.
        """
        if self.experiment not in (None, name):
            raise StateError(f"the state is of the experiment {self.experiment!r}, this dataset is of {name!r}")

    def check_same(self, stands: Callable[[], State], size: int, world: int, layout: Callable[[], str]) -> None:
        """Nothing where batches can go on from it.

        Args:
            stands: What they would tell.
            size: Their rows a rank.
            world: Their ranks.
            layout: Tells their blocks of packed files; asked where `memory` shuffles these.

        Raises:
            StateError: they are other batches; the message says in what.
        """
        try:
            now = stands()
        except IndexError as error:
            raise StateError(
                f"the state is of runs in which there is no such row ({error}): a slice or a mask names rows by their positions, which are "
                "others by now: take split, or where="
            ) from error
        if self.rows != now.rows:
            raise StateError(
                f"the state is of a dataset of {self.rows:,} rows, this one has {now.rows:,}: another where=, split or missing=?"
            )
        if self.seed != now.seed:
            raise StateError(f"the state is of seed={self.seed!r}, these batches have seed={now.seed!r}")
        if self.part not in (None, now.part):
            raise StateError(
                "the state is of other rows of the same runs: another where=, split or slice, or a run that has gone on?"
            )
        if self.stats not in (None, now.stats):
            raise StateError(
                "the state is of batches that were normalized by other statistics: keep to_dict() of those of then beside it, "
                "and give normalize=scythe.Stats.from_dict(…) of it"
            )
        if self.shuffle != now.shuffle:
            raise StateError(f"the state is of shuffle={self.shuffle}, these batches have shuffle={now.shuffle}")
        if self.memory != now.memory:
            raise StateError(f"the state is of memory={self.memory}, these batches have memory={now.memory}")
        together = size * world
        if (self.samples % together or self.batch not in (None, together)) and self.samples != self.rows:
            raise StateError(
                f"the state stands behind {self.samples:,} samples, in other steps than of {size} x {world} rows: "
                "keep size x world as it was"
            )
        if self.memory is not None and self.blocks not in (None, layout()):
            raise StateError(
                "the state is of files that lay in other shards, by which memory= shuffles: go on where they lie as then, at the source of "
                "a download that took a part, say"
            )


def place_among(rank: int | None, world: int | None) -> tuple[int, int]:
    """Rank and world as they are given, else as `torchrun` sets them in the environment, else one process alone."""
    told = (os.environ.get("RANK"), os.environ.get("WORLD_SIZE"))
    if rank is None and world is None and any(told):
        try:
            return int(told[0] or ""), int(told[1] or "")
        except ValueError:
            raise ReadError(
                f"RANK={told[0] or ''} and WORLD_SIZE={told[1] or ''} in the environment are not two whole numbers: "
                "set both, as torchrun does, or give rank= and world="
            ) from None
    if (rank is None) != (world is None):
        raise ReadError("give rank= and world= together")
    return (0, 1) if rank is None or world is None else (rank, world)


__all__ = ["State", "place_among"]
