"""Which known row answers which input: one answers one, so that replicates stay replicates. Pure but for the inputs that it reads.

Inputs are found by a number that tells them apart, then held against each other value by value.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from scythe.errors import AllocationError
from scythe.record.provenance import short
from scythe.reuse.identity import Identities, Specs
from scythe.reuse.known import KnownRows, KnownRun, Origin


@dataclass(frozen=True)
class Matches:
    """Inputs that have an answer: their positions, and which input of which run answers each."""

    runs: Sequence[KnownRun]
    origins: Sequence[Origin]
    asked: np.ndarray
    #: Which of `runs`, and which of its inputs.
    run: np.ndarray
    position: np.ndarray
    #: Which of `origins`.
    origin: np.ndarray
    failed: np.ndarray
    #: The `sort_index` under which each was run first.
    drawn: np.ndarray

    def kept(self, mask: np.ndarray) -> Matches:
        """Some of them, by a mask or by their places."""
        if mask.dtype == np.bool_ and mask.all():
            return self
        columns = (self.asked, self.run, self.position, self.origin, self.failed, self.drawn)
        return Matches(self.runs, self.origins, *(column[mask] for column in columns))

    def of_each_run(self) -> Iterator[tuple[int, np.ndarray]]:
        """Which of `runs` answer any, and which of the matches are theirs."""
        order = np.argsort(self.run, kind="stable")
        edges = np.searchsorted(self.run[order], np.arange(len(self.runs) + 1))
        for i, (low, high) in enumerate(itertools.pairwise(edges)):
            if low < high:
                yield i, order[low:high]

    def by_position(self) -> Matches:
        """The same, in the order of the inputs that answer, of one run."""
        if bool((self.position[1:] > self.position[:-1]).all()):
            return self
        return self.kept(np.argsort(self.position))

    @property
    def counted(self) -> list[tuple[Origin, int]]:
        """Who ran how many of them, only those who ran any."""
        counts = np.bincount(self.origin, minlength=len(self.origins))
        return [(one, int(n)) for one, n in zip(self.origins, counts, strict=True) if n]


def matched(specs: Specs, identities: Identities, known: KnownRows, code: str | None) -> Matches:
    """The best answer to each input: a result before an error, of this code before another's, the newest before older ones."""
    others = np.array([one.code is None or one.code != code for one in known.origins], bool)
    keys = [others[known.origin]] if others.any() and not others.all() else []
    keys += [known.failed] if known.failed.any() else []
    order = np.lexsort((*keys, known.numbers)) if keys else np.argsort(known.numbers, kind="stable")
    order = order[_first_draws(known, order)]
    asked, chosen = _by_numbers(identities, known.numbers, order)
    rows = (known.run, known.position, known.origin, known.failed, known.drawn)
    matches = Matches(known.runs, known.origins, asked, *(column[chosen] for column in rows))
    return matches.kept(_equal(specs, matches))


def _first_draws(known: KnownRows, order: np.ndarray) -> np.ndarray:
    """Which rows are the first of their input with these random numbers: a copy of a row is no replicate of it."""
    every = np.ones(len(order), bool)
    streams = np.array([one.stream for one in known.origins] or [0])[known.origin[order]]
    if len(known.runs) == 1 and not streams.any():
        return every
    columns = (streams, known.drawn[order], known.numbers[order])
    by_draw = np.lexsort(columns)
    same = np.logical_and.reduce([column[by_draw][1:] == column[by_draw][:-1] for column in columns])
    every[by_draw[1:][same]] = False
    return every


def _by_numbers(identities: Identities, there: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of inputs and of others (`there`, in this order) with equal numbers: the first with the first, and so on."""
    usable = np.flatnonzero(~identities.unknown)
    asked = usable[np.argsort(identities.numbers[usable], kind="stable")]
    numbers, sorted_there = identities.numbers[asked], there[order]
    at = np.searchsorted(sorted_there, numbers) + _ordinals(numbers)
    found = at < len(sorted_there)
    found[found] = sorted_there[at[found]] == numbers[found]
    return asked[found], order[at[found]]


def paired(one: Identities, other: Identities, of_one: Specs, of_other: Specs) -> tuple[np.ndarray, np.ndarray]:
    """Positions of inputs that are equal to one of another run's, and of those: each stands in one pair at most."""
    known = np.flatnonzero(~other.unknown)
    order = np.argsort(other.numbers[known], kind="stable")
    mine, theirs = _by_numbers(one, other.numbers[known], order)
    theirs = known[theirs]
    equal = are_equal(of_one, mine, of_other, theirs)
    return mine[equal], theirs[equal]


def _ordinals(numbers: np.ndarray) -> np.ndarray:
    """How many equal ones stand before each, in sorted numbers."""
    n = len(numbers)
    starts = np.concatenate(([True], numbers[1:] != numbers[:-1])) if n else np.empty(0, bool)
    return np.arange(n) - np.maximum.accumulate(np.where(starts, np.arange(n), 0))


def _equal(specs: Specs, matches: Matches) -> np.ndarray:
    """Which of the matches are equal in all that tells inputs apart: equal numbers alone prove nothing."""
    equal = np.ones(len(matches.asked), bool)
    for i, mine in matches.of_each_run():
        equal[mine] = are_equal(specs, matches.asked[mine], matches.runs[i].specs, matches.position[mine])
    return equal


def are_equal(one: Specs, at: np.ndarray, other: Specs, there: np.ndarray) -> np.ndarray:
    """Whether these inputs of one are equal to those of another, in pairs."""
    equal = np.ones(len(at), bool)
    for name in sorted({*one.telling, *other.telling}):
        mine, theirs = one.canonical(name).gather(at), other.canonical(name).gather(there)
        if mine.dtype == theirs.dtype:
            equal &= mine.eq_missing(theirs).to_numpy()
        else:  # a column that one of them lacks is null there
            equal &= (mine.is_null() & theirs.is_null()).to_numpy()
    return equal


def check_code(matches: Matches, code: str | None, commit: str | None, differing: Callable[[Origin], str]) -> None:
    """Nothing where all that is reused was made by this code; `differing` tells in what it differs from that of an origin.

    Raises:
        AllocationError: some was not, or nobody recorded by which.
    """
    others = [(one, n) for one, n in matches.counted if one.code is None or one.code != code]
    if not others:
        return
    n = sum(count for _, count in others)
    one = others[0][0]
    way_out = "any_code=True takes their rows all the same; without reuse all inputs are run again"
    if code is None or one.code is None:
        which = "of this experiment" if code is None else f"that ran them in {one.run}"
        raise AllocationError(f"{n:,} of the inputs are known, but the code {which} is not: {way_out}")
    raise AllocationError(
        f"{n:,} of the inputs are known from other code: {one.run} ran them at {_named(one.code, one.commit)}, this is "
        f"{_named(code, commit)}{differing(one)}. If what they come to is the same, {way_out}"
    )


def _named(code: str, commit: str | None) -> str:
    return f"commit {short(commit)} (code {short(code)})" if commit else f"code {short(code)}"


__all__ = ["Matches", "are_equal", "check_code", "matched", "paired"]
