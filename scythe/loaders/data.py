"""`scythe.dataset`: rows of runs as what a training loop draws on. Immutable; pinned to the ends of the runs that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import polars as pl

from scythe.errors import ScytheError
from scythe.loaders.batches import Arrays, Batches
from scythe.loaders.checks import Stands, check_groups, check_same_meaning
from scythe.loaders.groups import Columns, Group
from scythe.loaders.pinned.find import at_pins, pinned
from scythe.loaders.pinned.run import Pin, PinnedRun, frame_of, where_it_lies
from scythe.loaders.rows import Chosen, Rows, digest_of
from scythe.loaders.sources import Loaded, Part, Source, load, names_of, opened
from scythe.loaders.splits import Taken, asked, is_position, named, places, shares_of, taken_of
from scythe.loaders.state import place_among
from scythe.loaders.stats import Stats, stats_of
from scythe.reader.many_runs import is_all
from scythe_catalog.memo import cached_property, made_alone
from scythe_catalog.storage.objects import Objects


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of one run or many, and the groups that a batch is made of. `scythe.dataset` makes it.

    It is pinned to the ends of the runs that it was made of: runs that go on, or come later, change nothing until `refresh()`. Pickled, it is its
    description, with positions of rows that were named one by one: no values and no credentials travel.

    Attributes:
        name: The folder of the experiment.
        objects: The root.
        asked: Version and run as they were asked for, which `refresh` asks for anew.
        pins: Version, folder and gather of each run that it draws on.
        groups: What each batch is made of.
        where: Which rows are taken; None for all.
        dtype: The type of the arrays.
        missing: What happens to rows without a value.
        collate: How files and frames of a batch are put together.
        distinct: Whether each input is there once, by its newest row.
        taken: The splits and positions by which it was made smaller.

    Examples:
        >>> import scythe
        >>> ds = scythe.dataset("simulate_energy", x=["r_value"], y="heating")
        >>> len(ds), ds[0]["y"].item(), len(ds[1:])
        (3, 40.0, 2)
    """

    name: str
    objects: Objects
    asked: tuple[Any, Any]
    pins: list[Pin]
    groups: Mapping[str, Group]
    where: pl.Expr | None
    dtype: np.dtype
    missing: Literal["raise", "drop"]
    collate: Literal["stack", "list"]
    distinct: bool = False
    #: Parts of splits, and rows by their positions, in the order in which they were taken.
    taken: Taken = ()
    #: What columns stood for when it was made; None of one that an earlier Scythe has pickled.
    _stands_for: Mapping[str, Sequence[Stands]] | None = field(default=None, repr=False)
    _pinned: list[PinnedRun] | None = field(default=None, repr=False)
    #: The same of all rows, in this process.
    _whole: Dataset | None = field(default=None, repr=False)
    #: The digest of all rows where it was pickled, if a function of Python chooses them; None also of one that was not.
    _same: str | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        own = {f: getattr(self, f) for f in self.__dataclass_fields__}
        return own | {"_same": self._told_along, "_pinned": None, "_whole": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__["objects"] = where_it_lies(self.objects)

    # --- what it is -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def __repr__(self) -> str:
        try:
            shown = ", ".join(f"{g}: {'of any shape' if s is None else s}" for g, s in self.shapes.items())
        except ScytheError as error:  # a debugger, or a notebook, shows it all the same
            return f"<Dataset of {self.name}, of which no batch can be made: {error}>"
        return f"<Dataset of {self.name}: {len(self):,} rows, {shown}>"

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """Of each group the names of its columns; one-hot columns are called `column=value`. Of files that are tables their columns, of others none.

        Raises:
            NotFoundError: a column, table or run that is not there.
            InputError: a column that is no number, rows without a value, or shapes that differ.

        Examples:
            >>> import scythe
            >>> scythe.dataset("simulate_energy", x=["r_value", "setpoint"]).names
            {'x': ('r_value', 'setpoint')}
        """
        return {group: names_of(source) for group, source in self.sources.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...] | None]:
        """Of each group the shape of what belongs to one row; None where rows differ.

        Raises:
            NotFoundError: a column, table or run that is not there.
            InputError: a column that is no number, rows without a value, or shapes that differ.

        Examples:
            >>> import scythe
            >>> scythe.dataset("simulate_energy", x=["r_value", "setpoint"], y="heating").shapes
            {'x': (2,), 'y': ()}
        """
        return {group: source.shape for group, source in self.sources.items()}

    @property
    def runs(self) -> list[str]:
        """The whole names of the runs that it draws on.

        Raises:
            NotFoundError: one was deleted.

        Examples:
            >>> import scythe
            >>> scythe.dataset("simulate_energy", x=["r_value"]).runs == [scythe.open_run("simulate_energy").experiment_id]
            True
        """
        return [run.key.path for run in self._runs]

    @property
    def digest(self) -> str:
        """What tells its rows, and their order, from other rows of the same runs.

        Raises:
            NotFoundError: a column, table or run that is not there.
            InputError: a column that is no number, or rows without a value.

        Examples:
            >>> import scythe
            >>> ds = scythe.dataset("simulate_energy", x=["r_value"])
            >>> ds.digest == ds[:].digest, ds.digest == ds[1:].digest
            (True, False)
        """
        return self._digest

    @property
    def frame(self) -> pl.LazyFrame:
        """Inputs and outputs of the rows, as `scythe.read` gives them, in the order of the dataset; of many runs with `version` and `run_datetime`.

        Raises:
            NotFoundError: a column, table or run that is not there.
            InputError: a column that is no number, rows without a value, or shapes that differ.
            ReadError: a column has another unit in one run than in another.

        Examples:
            >>> import scythe
            >>> ds = scythe.dataset("simulate_energy", x=["r_value"], where=pl.col("heating") < 30)
            >>> ds.frame.collect()["heating"].to_list()
            [20.0, 10.0]
        """
        return frame_of(self._runs, self._rows, many=any(map(is_all, self.asked)))

    def __getitem__(self, index: int | slice | Sequence[int] | Sequence[bool]) -> Any:
        """One row as a dict of its groups; of a slice, a list of positions, or one of a truth value a row, the dataset of these rows."""
        if is_position(index):
            return self.__getitems__([int(index)])[0]  # type: ignore[arg-type]
        if isinstance(index, slice):
            return self._of((*self.taken, range(len(self))[index]))
        return self._of((*self.taken, named(index, lambda: len(self), self.groups)))

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Rows by their positions, read at once: what `torch.utils.data.DataLoader(ds, batch_size=64)` asks a dataset for."""
        at = places([*indices], len(self))
        taken = {group: source.take(at) for group, source in self.sources.items()}
        return [{group: values[i] for group, values in taken.items()} for i in range(len(at))]

    # --- others of it ---------------------------------------------------------------------------------

    def split(self, *, by: str | Sequence[str] | None = None, seed: int = 0, **parts: float) -> dict[str, Dataset]:
        """Parts of the dataset by a hash of the inputs, which never changes: rows that come later move none of the old.

        Equal inputs of two runs come to one part. What is hashed are all scalar input fields, without nulls and without fields that
        a version does not have.

        Args:
            by: Input columns that are hashed alone: what they have in common stays together.
            seed: Another split by the same hash: of each number one, the same for ever.
            **parts: Share of each part, such as `train=0.8, val=0.1, test=0.1`; they add up to 1 at most.

        Returns:
            A dataset for each part, by its name.

        Raises:
            ReadError: shares that are none.
            NotFoundError: columns that are not there.

        Examples:
            >>> import scythe
            >>> parts = scythe.dataset("simulate_energy", x=["r_value"], y="heating").split(train=0.8, test=0.2)
            >>> sum(len(part) for part in parts.values())
            3
        """
        steps = asked(lambda: self._runs, by, seed, parts)
        return {step.part: self._of((*self.taken, step)) for step in steps}

    def stats(self, *groups: str) -> Stats:
        """Mean, standard deviation, range and count of each column of the groups that have columns, in one pass.

        Args:
            *groups: Of these alone, so that batches are normalized in these alone: labels are not to be.

        Raises:
            NotFoundError: a column, table or run that is not there.
            InputError: a column that is no number, rows without a value, or shapes that differ.
            ReadError: there are no rows, or no such group of columns.

        Examples:
            >>> import scythe
            >>> scythe.dataset("simulate_energy", x="r_value", y="heating").stats("y")["y"]["heating"].min
            10.0
        """
        return stats_of(self.sources, np.arange(len(self)), groups)

    def batches(
        self,
        size: int,
        *,
        seed: int = 0,
        normalize: Stats | None = None,
        to: Arrays = "numpy",
        shuffle: bool = True,
        ahead: int = 2,
        rank: int | None = None,
        world: int | None = None,
        memory: int | None = None,
        drop_last: bool = False,
    ) -> Batches:
        """Batches of the rows: `for batch in batches.at(epoch): step(batch["x"], batch["y"])`.

        Args:
            size: Rows of a batch, of each rank.
            seed: What the order of each epoch follows from.
            normalize: What `stats()` of the training part gave: columns are brought to mean 0 and standard deviation 1.
            to: Arrays of NumPy, or tensors of `torch` or `jax`.
            shuffle: False keeps the order of the dataset.
            ahead: How many batches are read ahead, by threads; 0 reads each when it is asked for.
            rank: Which of several processes this is, from 0; as `torchrun` says, if not given.
            world: How many processes there are, all with equal numbers of steps.
            memory: Shuffle packed files within windows of so many bytes, of blocks drawn at random, rather than all of them:
                so a bucket is read in blocks, each once an epoch, though the cache does not hold them. None shuffles all.
            drop_last: Leave out the last batch of an epoch where it has fewer rows than the others.

        Raises:
            ReadError: an argument makes no sense.

        Examples:
            >>> import scythe
            >>> ds = scythe.dataset("simulate_energy", x=["r_value"], y="heating")
            >>> batch = ds.batches(2, seed=1).at(0)[0]
            >>> batch["x"].shape, batch["y"].shape
            ((2, 1), (2,))
        """
        at, of = place_among(rank, world)
        return Batches(self, size, seed, normalize, to, shuffle, ahead, at, of, memory, drop_last)

    def refresh(self) -> Dataset:
        """The same of the runs as they are now.

        Raises:
            NotFoundError: there is none any more.
            InputError: a group would have as many columns, which stand for other choices, in another order or in other units.
            ReadError: runs differ in what `where` asks for.

        Examples:
            >>> import scythe
            >>> len(scythe.dataset("simulate_energy", x=["r_value"]).refresh())
            3
        """
        runs = pinned(self.objects, self.name, *self.asked)
        stands_for = check_groups(self.groups, runs, self.where)
        check_same_meaning(self._stands_for or {}, stands_for)
        return replace(
            self, pins=[run.pin for run in runs], _stands_for=stands_for, _same=None, _pinned=runs, _whole=None
        )

    def pinned_to(self, pins: Sequence[Pin]) -> Dataset:
        """The same of runs as they were once.

        Args:
            pins: Version, folder and gather of each, as `pins` has them.

        Raises:
            NotFoundError: one was deleted; said when rows are first asked for.
            RunDamaged: one has ended anew, and the files of that end are gone; said then, too.

        Examples:
            >>> import scythe
            >>> ds = scythe.dataset("simulate_energy", x=["r_value"])
            >>> len(ds.pinned_to(ds.pins))
            3
        """
        return replace(self, pins=list(pins), _same=None, _pinned=None, _whole=None)

    def _of(self, taken: Taken) -> Dataset:
        return replace(self, taken=taken, _pinned=self._runs, _whole=self._root)

    # --- how it is made -------------------------------------------------------------------------------

    @cached_property
    def _runs(self) -> list[PinnedRun]:
        return self._pinned if self._pinned is not None else at_pins(self.objects, self.name, self.pins)

    @property
    def sources(self) -> Mapping[str, Source]:
        """The groups, opened: each gives what belongs to rows by their positions.

        Raises:
            NotFoundError: a column, table or run that is not there.
            InputError: a column that is no number, rows without a value, or shapes that differ.

        Examples:
            >>> import scythe
            >>> scythe.dataset("simulate_energy", x=["r_value"]).sources["x"].take([0, 2]).tolist()
            [[2.0], [8.0]]
        """
        return self._sources

    @made_alone
    def _sources(self) -> dict[str, Source]:
        if (positions := self._positions) is not None:
            return {name: Part(source, positions) for name, source in self._root._sources.items()}
        loaded, as_list = self._loaded, self.collate == "list"
        return {
            name: loaded.arrays[name]
            if isinstance(group, Columns)
            else opened(name, group, self._runs, loaded.rows, self.dtype, as_list=as_list)
            for name, group in self.groups.items()
        }

    @property
    def _root(self) -> Dataset:
        """The dataset of all rows, which its parts share their memory with."""
        if not self.taken:
            return self
        return self._whole if self._whole is not None else self._unpickled_root

    @cached_property
    def _unpickled_root(self) -> Dataset:
        return replace(self, taken=(), _pinned=self._pinned)

    @made_alone
    def _loaded(self) -> Loaded:
        return load(
            self.groups, self._runs, self.where, self.dtype, self.missing, distinct=self.distinct, same=self._same
        )

    @cached_property
    def _positions(self) -> np.ndarray | None:
        """Where its rows stand among those of the whole; None where it is the whole."""
        if not self.taken:
            return None
        return taken_of(self.taken, len(self._root._loaded.rows), self._root._share)

    @cached_property
    def _rows(self) -> Rows:
        rows, positions = self._root._loaded.rows, self._positions
        return rows if positions is None else Chosen(*rows.places(positions))

    @cached_property
    def _digest(self) -> str:
        # What a run that is not finished had come to is told by nothing else.
        return digest_of(self._rows, [run.sort_index for run in self._runs if run.result is None])

    @property
    def _told_along(self) -> str | None:
        if self.where is None:
            return None
        try:
            return self._root._digest
        except ScytheError:  # whoever unpickles it is told
            return self._same

    @cached_property
    def _share(self) -> Callable[[tuple[str, ...] | None], np.ndarray]:
        """What its rows are split by, made once for all parts."""
        return cache(partial(shares_of, self._rows, self._runs))


__all__ = ["Dataset"]
