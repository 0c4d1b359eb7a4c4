"""Batches of a dataset: an epoch is a pure function of seed and epoch, so that it can be begun anywhere, on any number of ranks."""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any, NoReturn, Protocol

import numpy as np

from scythe.errors import ReadError
from scythe.loaders.arrays import Arrays, converted
from scythe.loaders.files.shards import BLOCK_BYTES, FRESH_BYTES
from scythe.loaders.files.source import Files
from scythe.loaders.groups import File, Group
from scythe.loaders.hashing import order_of, order_of_blocks
from scythe.loaders.pinned.run import Pin
from scythe.loaders.sources import Part, Source
from scythe.loaders.state import State
from scythe.loaders.stats import Stats, check_same_groups
from scythe.reader.many_runs import truth
from scythe.remote.forks import check_fork
from scythe_catalog.memo import cached_property

#: Blocks of shards are fetched so far ahead [bytes]: many at once, while few batches wait in memory.
_AHEAD_BYTES = 64 * 1024 * 1024
_NO_BLOCKS = "memory= shuffles blocks of packed files, and this dataset has no group of them: leave it out"
_IN_TORCH = "DataLoader(batches.at(epoch), batch_size=None)"


class Drawn(Protocol):
    """What batches are drawn from: a dataset."""

    def __len__(self) -> int: ...

    @property
    def name(self) -> str:
        """The folder of its experiment."""
        ...

    @property
    def pins(self) -> list[Pin]:
        """The gathers that it is pinned to."""
        ...

    @property
    def groups(self) -> Mapping[str, Group]:
        """What was asked for."""
        ...

    @property
    def sources(self) -> Mapping[str, Source]:
        """Its groups, opened."""
        ...

    @property
    def digest(self) -> str:
        """What tells its rows from others."""
        ...

    def pinned_to(self, pins: Sequence[Pin]) -> Drawn:
        """The same of runs as they were once."""
        ...


@dataclass(frozen=True, repr=False)
class Batches:
    """Batches of a dataset, in an order that each epoch has of its own.

    `batches.at(epoch)` is a sequence of batches: iterate it, or give it to `torch.utils.data.DataLoader` with `batch_size=None`.

    Attributes:
        dataset: What they are drawn from.
        size: Rows in a batch of one rank.
        rank, world: Which of how many processes this one is; together they draw each row once an epoch, but for fewer than `world`
            that are left over at its end, so that all have as many steps.
        memory: Bytes of a window within which rows of packed files are shuffled; None shuffles all of them.
        drop_last: Whether the last batch is left out where it has fewer rows than the others.
    """

    dataset: Drawn
    size: int
    seed: int = 0
    normalize: Stats | None = None
    to: Arrays = "numpy"
    shuffle: bool = True
    ahead: int = 2
    rank: int = 0
    world: int = 1
    memory: int | None = None
    drop_last: bool = False

    def __post_init__(self) -> None:
        for what, least in (("size", 1), ("seed", None), ("ahead", 0), ("rank", 0), ("world", 1)):
            given = getattr(self, what)
            object.__setattr__(self, what, _whole(f"{what}={given!r}", given, least))
        for what in ("shuffle", "drop_last"):
            object.__setattr__(self, what, truth(what, getattr(self, what)))
        if not -(2**63) <= self.seed < 2**64:
            raise ReadError(f"seed={self.seed}: a number of 64 bits is wanted")
        if self.normalize is not None and not isinstance(self.normalize, Stats):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ReadError(
                f"normalize= is what stats() of the training part gave, got {type(self.normalize).__name__}: give "
                'parts["train"].stats(), or what was kept of it, by scythe.Stats.from_dict'
            )
        if self.normalize is not None:
            check_same_groups(self.normalize, self.dataset.groups)
        if self.to not in ("numpy", "torch", "jax"):
            raise ReadError(f"to={self.to!r}: batches are of 'numpy', 'torch' or 'jax'")
        if self.to != "numpy" and find_spec(self.to) is None:
            raise ReadError(f"to={self.to!r}: {self.to} is not installed: pip install {self.to}")
        if self.rank >= self.world:
            raise ReadError(f"rank={self.rank} of world={self.world}: ranks begin at 0")
        if self.memory is not None:
            object.__setattr__(self, "memory", _whole(f"memory={self.memory!r} bytes", self.memory, BLOCK_BYTES))
            if not any(isinstance(group, File) for group in self.dataset.groups.values()):
                raise ReadError(_NO_BLOCKS)

    def __len__(self) -> int:
        """Steps of an epoch, the same on every rank.

        Raises:
            ReadError: there are no rows, fewer than ranks, or `drop_last` leaves out all of them.
        """
        if not len(self.dataset):
            raise ReadError("there are no rows to draw: an empty part of a split, or a where= that takes none?")
        if len(self.dataset) < self.world:
            raise ReadError(f"{len(self.dataset)} rows are fewer than world={self.world}: no rank would have a step")
        whole, rest = divmod(len(self.dataset), self.size * self.world)
        if self.drop_last and rest and not whole:
            raise ReadError(
                f"{len(self.dataset)} rows fill no batch of {self.size} x {self.world}: drop_last= leaves none"
            )
        return whole + (rest >= self.world and not self.drop_last)

    def __repr__(self) -> str:
        # Without their number, for which all rows would be read.
        own = f", rank {self.rank} of {self.world}" if self.world > 1 else ""
        return f"<Batches of {self.size:,} rows, groups {', '.join(self.dataset.groups)}, seed {self.seed}{own}>"

    def __iter__(self) -> NoReturn:
        raise TypeError("batches are drawn an epoch at a time: for batch in batches.at(epoch)")

    def __getitem__(self, _: Any) -> NoReturn:
        raise TypeError(f"batches are drawn an epoch at a time: batches.at(epoch)[i], or {_IN_TORCH}")

    def at(self, epoch: int) -> Epoch:
        """The batches of an epoch.

        Args:
            epoch: Its number, from 0; each has an order of its own, the same wherever it is asked for.

        Raises:
            ReadError: it is no number of an epoch.
        """
        if (number := _whole(f"epoch={epoch!r}", epoch, 0)) >= 2**64:
            raise ReadError(f"epoch={epoch}: a number of 64 bits is wanted")
        return Epoch(self, number)

    def state(self, epoch: int, step: int) -> dict[str, Any]:
        """What `resume` goes on from, as plain JSON.

        Args:
            epoch: The epoch that is under way.
            step: How many of its batches have been used.

        Raises:
            ReadError: there is no such epoch, or step of it.
        """
        epoch, step = _whole(f"epoch={epoch!r}", epoch, 0), _whole(f"step={step!r}", step, 0)
        if step > len(self):
            raise ReadError(f"step={step}: an epoch has {len(self)} batches")
        here = self._stands(epoch, min(step * self.size * self.world, len(self.dataset)))
        return (here if self.memory is None else replace(here, blocks=self._layout)).to_dict()

    def resume(self, state: Mapping[str, Any]) -> Epoch:
        """The rest of the epoch of a state, from the very next sample on.

        Ranks and the size of batches may be others, as long as all ranks together draw as many rows a step. The dataset is the one of
        then, also where the experiment has grown since: `resume(state).batches.at(epoch)` are further epochs of it.

        Args:
            state: What `state` gave.

        Raises:
            StateError: it is of another experiment, dataset, seed, statistics, or size of all ranks' batches together.
            NotFoundError: a run of then is not there any more.
            RunDamaged: one has ended anew since, and the files of that end are gone.
        """
        then = State.read(state)
        then.check_experiment(self.dataset.name)
        before = self.dataset if then.runs == self.dataset.pins else self.dataset.pinned_to(then.runs)
        batches = replace(self, dataset=before)
        then.check_same(
            partial(batches._stands, then.epoch, then.samples), self.size, self.world, lambda: batches._layout
        )
        return batches.at(then.epoch)[-(-then.samples // (self.size * self.world)) :]

    def _stands(self, epoch: int, samples: int) -> State:
        of = self.dataset
        return State(
            runs=[*of.pins], rows=len(of), seed=self.seed, epoch=epoch, samples=samples, batch=self.size * self.world,
            part=of.digest, experiment=of.name, stats=self.normalize.digest if self.normalize else None, shuffle=self.shuffle, memory=self.memory,
        )  # fmt: skip

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        # Files are waited for, also those on a disk; packed ones are copied, or fetched by threads of their own.
        waits = any(isinstance(files, Files) and files.packs is None for files, _ in self._wholes())
        return ThreadPoolExecutor(self.ahead if waits else 1, thread_name_prefix="scythe-batches")

    @cached_property
    def _fetching(self) -> ThreadPoolExecutor:
        # One: blocks are asked for in the order in which they are needed.
        return ThreadPoolExecutor(1, thread_name_prefix="scythe-ahead")

    def _wholes(self) -> Iterator[tuple[Source, np.ndarray | None]]:
        """The groups with all their rows, and the positions of those that are drawn (None: all)."""
        for source in self.dataset.sources.values():
            yield (source.whole, source.positions) if isinstance(source, Part) else (source, None)

    def _awaited(self) -> Iterator[tuple[Files, np.ndarray | None]]:
        """The groups of packed files that are waited for, and the positions of those that are drawn (None: all)."""
        for source, rows in self._wholes():
            if isinstance(source, Files) and not source.is_local and source.packs is not None:
                yield source, rows

    @cached_property
    def farther(self) -> int:
        """How many batches ahead the blocks of packed files are fetched; 0 where there are none."""
        scattered = self.shuffle and self.memory is None
        rows = [
            BLOCK_BYTES if scattered and packs.sizes.sum() > FRESH_BYTES else packs.length.mean()
            for source, _ in self._awaited()
            if (packs := source.packs) is not None and len(packs.length)
        ]
        return int(_AHEAD_BYTES / (max(rows) * self.size)) if any(rows) else 0

    def ready(self, rows: np.ndarray) -> object:
        """Begins to fetch the blocks that packed files of some rows lie in; whoever has what this gives keeps them in memory."""
        return [source.ready(rows if of is None else of[rows]) for source, of in self._awaited()]

    def leave(self) -> None:
        """Gives up what was to be fetched ahead."""
        for source, _ in self._awaited():
            source.leave()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_pool", "_fetching", "farther")}

    def order(self, epoch: int) -> np.ndarray:
        """The positions of all rows in the order of an epoch."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        if self.memory is None:
            return order_of(len(self.dataset), self.seed, epoch)
        return order_of_blocks(self._blocks(), self.memory // BLOCK_BYTES, self.seed, epoch)

    def _blocks(self) -> np.ndarray:
        """The block that each row begins in, by which `memory` shuffles.

        Raises:
            ReadError: there are none.
        """
        for files, rows in self._wholes():
            if isinstance(files, Files) and files.packs is not None:
                blocks = files.packs.blocks()
                return blocks if rows is None else blocks[rows]
        raise ReadError(_NO_BLOCKS)

    @cached_property
    def _layout(self) -> str:
        """What tells its blocks from others."""
        return hashlib.blake2b(self._blocks().astype("<i8").tobytes(), digest_size=8).hexdigest()

    def assembled(self, rows: np.ndarray) -> dict[str, Any]:
        """The groups of some rows as one batch."""
        batch: dict[str, Any] = {}
        for name, source in self.dataset.sources.items():
            values = source.take(rows)
            batch[name] = self.normalize.normalized(name, source, values) if self.normalize is not None else values
        return batch if self.to == "numpy" else {name: converted(values, self.to) for name, values in batch.items()}


@dataclass(frozen=True)
class Epoch(Sequence[dict[str, Any]]):
    """The batches of one epoch on one rank, or of its rest, each a dict of its groups.

    Attributes:
        batches: Whose epoch it is; of a state that was resumed, of the runs of then.
        epoch: Its number.
        first: How many of its batches lie before the first one of these.
    """

    batches: Batches
    epoch: int
    first: int = 0
    last: int | None = None

    def __len__(self) -> int:
        last = len(self.batches) if self.last is None else self.last
        return max(0, last - self.first)

    def state(self, step: int) -> dict[str, Any]:
        """What `Batches.resume` goes on from behind the first `step` of these batches, wherever in the epoch they begin.

        Raises:
            ReadError: there are not as many.
        """
        if (step := _whole(f"step={step!r}", step, 0)) > len(self):
            raise ReadError(f"step={step}: here are {len(self)} batches")
        return self.batches.state(self.epoch, self.first + step)

    def rows(self, step: int) -> np.ndarray:
        """The positions in the dataset of the rows of a batch."""
        batches = self.batches
        together = batches.size * batches.world
        start = (self.first + step) * together
        count = min(together, len(batches.dataset) - start)
        each, more = divmod(count, batches.world)
        begin = start + batches.rank * each + min(batches.rank, more)
        end = begin + each + (batches.rank < more)
        return self._order[begin:end].astype(np.int64)  # it is kept in half of that

    @cached_property
    def _order(self) -> np.ndarray:
        return self.batches.order(self.epoch)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_order"}

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ReadError("batches of an epoch are taken one after the other: a slice of them has no step")
            return Epoch(self.batches, self.epoch, self.first + start, self.first + max(start, stop))
        index = _whole(f"batch {index!r} of an epoch", index, None)
        if not -len(self) <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        return self.batches.assembled(self.rows(index % len(self)))

    def __getitems__(self, _: Any) -> NoReturn:
        raise TypeError(f"each item is a batch, of which no further batches are made: {_IN_TORCH}")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        ahead = self.batches.ahead
        if ahead < 1:
            yield from (self[i] for i in range(len(self)))
            return
        check_fork()  # the threads that read ahead do not survive a fork either
        pool, waiting = self.batches._pool, deque[Future[dict[str, Any]]]()  # pyright: ignore[reportPrivateUsage]
        fetching = self.batches._fetching  # pyright: ignore[reportPrivateUsage]
        farther, readied = self.batches.farther, deque[Future[object]](maxlen=self.batches.farther)
        next_one = 0
        try:
            for i in range(len(self)):
                # More with each batch, so that the first one waits for few others. What fails is told by the batch itself.
                while farther and next_one < min(i + farther, (i + 1) * (ahead + 1), len(self)):
                    readied.append(fetching.submit(self.batches.ready, self.rows(next_one)))
                    next_one += 1
                waiting.append(pool.submit(self.__getitem__, i))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            if not sys.is_finalizing():  # where a program ends within an epoch, half of Python is gone by then
                for one in (*readied, *waiting):
                    one.cancel()
                self.batches.leave()


def _whole(told: str, given: object, least: int | None) -> int:
    """The whole number that was given, from the least one on.

    Raises:
        ReadError: it is something else.
    """
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or (least is not None and given < least):
        raise ReadError(f"{told}: a whole number{'' if least is None else f' from {least} on'} is wanted")
    return int(given)


__all__ = ["Batches", "Epoch"]
