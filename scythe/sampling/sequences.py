"""Points of the unit cube: Sobol and Halton by scipy.stats.qmc, Latin hypercubes, random ones. Knows no fields."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from scythe.engines.pool.cores import cpus
from scythe.errors import InputError

#: Those that have a next point.
SEQUENCES = ("sobol", "halton")
METHODS = (*SEQUENCES, "lhs", "random")
#: 2**64 by the golden ratio.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
#: Points from which on threads are worth their start.
_MANY = 10_000


def bits_of(method: str) -> int | None:
    """How many binary digits the numbers of a sequence, or a plan, have that differ from point to point; None where all do."""
    return {"sobol": 30, "saltelli": 30, "halton": 20}.get(method)


def fill_digits(points: np.ndarray, columns: Sequence[int], bits: int) -> None:
    """Fills the digits of numbers behind the first so many, which SciPy leaves 0 (Sobol) or alike (Halton): whole numbers of a wide range would all be even.

    They follow from the number alone, so that equal ones stay equal: by Fibonacci hashing, twice (Knuth, The Art of Computer Programming 3, 6.4).
    """
    for i in columns:
        u = points[:, i]
        with np.errstate(over="ignore"):
            digits = np.ascontiguousarray(u).view(np.uint64) * _GOLDEN
            digits = (digits ^ (digits >> np.uint64(32))) * _GOLDEN
        cells = np.floor(u * 2.0**bits)
        points[:, i] = np.minimum((cells + digits * 2.0**-64) * 2.0**-bits, np.nextafter(1.0, 0.0))


class Points:
    """Points of `dimensions` numbers from 0 to below 1, the next ones with each call.

    Of a sequence it does not matter how many are drawn at once; each call of "lhs" is a hypercube of its own.
    """

    def __init__(self, method: str, dimensions: int, seed: int) -> None:
        """Raises InputError where SciPy is not installed, or has no such sequence of so many dimensions."""
        self._method, self._dimensions = method, dimensions
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._engine = _engine(method, dimensions, self._generator) if method in SEQUENCES and dimensions else None

    def skip(self, count: int) -> None:
        """Leaves out the next points."""
        if self._engine is not None and count:
            self._engine.fast_forward(count)

    def draw(self, count: int) -> np.ndarray:
        """The next points; (count, dimensions), float64."""
        if self._method == "lhs":
            return _hypercube(count, self._generator.spawn(self._dimensions))
        if self._engine is None:
            return self._generator.random((count, self._dimensions))
        with warnings.catch_warnings():
            # Any number of points may be asked for; those of Sobol are most even in powers of two.
            warnings.simplefilter("ignore", UserWarning)
            # The points are the same, however many threads make them.
            more = {"workers": cpus()} if self._method == "halton" and count > _MANY else {}
            return np.minimum(self._engine.random(count, **more), np.nextafter(1.0, 0.0))


def _hypercube(count: int, generators: list[np.random.Generator]) -> np.ndarray:
    """One point in each of `count` equal slices of each axis (McKay, Beckman and Conover 1979); an axis a generator, by as many threads as
    there are cores. SciPy draws the same kind of points, but by one thread, in four times as long."""
    points = np.empty((len(generators), count))

    def draw(axis: np.ndarray, generator: np.random.Generator) -> None:
        generator.random(out=axis)
        axis += _permutation(count, generator)
        axis /= count
        np.minimum(axis, np.nextafter(1.0, 0.0), out=axis)

    with ThreadPoolExecutor(cpus() if count > _MANY else 1) as threads:
        list(threads.map(draw, points, generators))
    return points.T


def _permutation(count: int, generator: np.random.Generator) -> np.ndarray:
    """The numbers below `count` in a random order, each order equally likely (Rao 1961, Sandelius 1962): dealt into piles, which are shuffled.

    What is shuffled at once fits a core's cache, which is a third of the time for ten million.
    """
    piles = generator.integers(0, 256, count, dtype=np.uint8)
    dealt = np.argsort(piles, kind="stable")
    for start, end in pairwise(np.concatenate(([0], np.cumsum(np.bincount(piles))))):
        generator.shuffle(dealt[start:end])
    return dealt


def _engine(method: str, dimensions: int, generator: np.random.Generator) -> Any:
    try:
        from scipy.stats import qmc
    except ImportError as error:
        raise InputError(
            f'method="{method}" is SciPy\'s, which cannot be imported ({error}): pip install scipy'
        ) from None
    made: Any = {"sobol": qmc.Sobol, "halton": qmc.Halton}[method]
    try:
        try:
            return made(dimensions, rng=generator)
        except TypeError:  # before SciPy 1.15
            return made(dimensions, seed=generator)
    except ValueError as error:
        raise InputError(f'method="{method}" with {dimensions} fields that vary: {error}') from None
