"""What a report tells of a run, as plain frozen values: numbers, counts in bins, names. Computes nothing, draws nothing.

Everything is aggregated: nothing here grows with the rows of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Counts of rows: one tuple for each place on the first axis, one count for each on the second.
Grid = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Scale:
    """How the values of a column lie along an axis: in bins, or one place a category."""

    #: Times are in days since 1970, in UTC.
    kind: Literal["number", "time", "category"]
    #: The edges of the bins; of categories none.
    edges: tuple[float, ...] = ()
    #: The categories, the most frequent first or in their own order; the last one may stand for all others.
    labels: tuple[str, ...] = ()
    #: Whether the bins are equally wide in the logarithm of the values.
    log: bool = False
    #: Whether the values are whole numbers.
    whole: bool = False

    @property
    def places(self) -> int:
        """How many bins or categories there are."""
        return len(self.labels) if self.kind == "category" else max(0, len(self.edges) - 1)


@dataclass(frozen=True)
class Variable:
    """An input or an output: how it is called, in which unit, and what it means."""

    name: str
    unit: str | None = None
    doc: str | None = None


@dataclass(frozen=True)
class Spread:
    """The values of one variable: their histogram, or in words why there is none."""

    variable: Variable
    #: None where nothing can be drawn.
    scale: Scale | None
    counts: tuple[int, ...] = ()
    low: float | None = None
    median: float | None = None
    high: float | None = None
    #: Rows without a value, and those with NaN or an infinite one; neither is in the histogram.
    missing: int = 0
    infinite: int = 0
    #: What there is to say in place of a histogram.
    told: str = ""
    #: Where its axis begins and ends, where that is not with the bins: beside another run, both have one axis.
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Middle:
    """Where half of the values lie below, and where nine tenths lie around it, at one place of another axis."""

    at: float
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Relation:
    """An output against an input: how strong it is, and how many rows lie where."""

    input: Variable
    output: Variable
    input_scale: Scale
    output_scale: Scale
    #: Spearman's rho of two numbers; eta of the ranks where one is a category; Cramér's V where both are.
    measure: Literal["ρ", "η", "V"]
    strength: float
    grid: Grid
    #: Of an output that is a number, along the input.
    middles: tuple[Middle, ...] = ()
    #: Each row, where they are few.
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Relations:
    """The strongest relations, and how strong all are that were looked at."""

    drawn: tuple[Relation, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    #: Output -> input -> (measure, strength), None where there is none.
    table: tuple[tuple[tuple[str, float] | None, ...], ...] = ()
    #: How many pairs there are.
    pairs: int = 0


@dataclass(frozen=True)
class Kind:
    """Errors that are alike."""

    name: str
    message: str
    place: str
    count: int
    first: int
    #: What the inputs that failed so have in common that good ones have not, in sentences.
    common: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failing:
    """Which part of the inputs failed, along one of them."""

    variable: Variable
    scale: Scale
    good: tuple[int, ...]
    bad: tuple[int, ...]
    #: How far apart the failed and the good ones are, from 0 to 1: the largest gap between their cumulated shares.
    apart: float
    #: The ranges of both, in words; empty where there are none.
    good_range: str
    bad_range: str


@dataclass(frozen=True)
class FailureMap:
    """Failed and good inputs in the plane of two of them."""

    x: Variable
    y: Variable
    x_scale: Scale
    y_scale: Scale
    good: Grid
    bad: Grid
    #: Each failed input, where they are few.
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Failures:
    """What failed, and where."""

    count: int
    inputs: int
    kinds: tuple[Kind, ...] = ()
    along: tuple[Failing, ...] = ()
    maps: tuple[FailureMap, ...] = ()


@dataclass(frozen=True)
class Machine:
    """Workers over the time of one attempt: which share of each moment they were at work."""

    attempt: int | None
    attempts: int
    #: Seconds since the first start.
    edges: tuple[float, ...]
    workers: tuple[str, ...]
    #: For each worker that is drawn, the share [0, 1] of each bin in which it was at work.
    busy: tuple[tuple[float, ...], ...]
    #: How many of all workers were at work, on average, in each bin.
    at_work: tuple[float, ...]
    #: How many workers there were.
    count: int
    #: The share of their time, from the first start to the last end, in which they were at work.
    share: float


@dataclass(frozen=True)
class Times:
    """How long inputs took."""

    seconds: Spread
    #: Names of the columns of `slowest`, then its rows as texts.
    columns: tuple[str, ...] = ()
    slowest: tuple[tuple[str, ...], ...] = ()
    machine: Machine | None = None


@dataclass(frozen=True)
class Band:
    """A column of a dataframe over its first one: median, and the band in which nine tenths of the values lie."""

    frame: str
    x: Variable
    y: Variable
    x_scale: Scale
    middles: tuple[Middle, ...]


@dataclass(frozen=True)
class Picture:
    """An image that an input gave, made small."""

    field: str
    sort_index: int
    name: str
    jpeg: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Number:
    """One of the five numbers of a run."""

    label: str
    value: str
    note: str = ""
    bad: bool = False


@dataclass(frozen=True)
class Origin:
    """Where a run comes from: facts by name, its attempts as a table, packages with their versions."""

    facts: tuple[tuple[str, str], ...] = ()
    attempt_columns: tuple[str, ...] = ()
    attempts: tuple[tuple[str, ...], ...] = ()
    packages: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Indices:
    """What a sensitivity analysis says, of inputs that are a plan for one."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class RunFacts:
    """All that a report tells of one run."""

    experiment: str
    version: str
    folder: str
    status: str
    problem: str | None
    #: What was said about it at its allocation.
    note: str | None
    numbers: tuple[Number, ...]
    inputs: tuple[Spread, ...]
    outputs: tuple[Spread, ...]
    relations: Relations
    failures: Failures | None
    times: Times | None
    bands: tuple[Band, ...]
    pictures: tuple[Picture, ...]
    origin: Origin
    #: What was left out, drawn from a part of the rows, or could not be read: section -> sentences.
    notes: tuple[tuple[str, str], ...] = ()
    indices: Indices | None = None

    def notes_of(self, section: str) -> tuple[str, ...]:
        """The sentences that belong to a section."""
        return tuple(text for where, text in self.notes if where == section)
