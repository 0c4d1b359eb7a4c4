"""What a report tells is computed without any plot: histograms, rank correlations, failures, workers over time, bands."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import polars as pl
import pytest

from scythe.reporting.bands import bands
from scythe.reporting.facts import Variable
from scythe.reporting.failures import failures
from scythe.reporting.relations import relations, strength
from scythe.reporting.spreads import Axis, laid_out, shortened, shown
from scythe.reporting.times import machine


def axis(name: str, values: object) -> Axis:
    """The axis of a column."""
    found = laid_out(Variable(name), pl.Series(name, values))[1]
    assert found is not None
    return found


def test_a_histogram_counts_each_finite_value_once_and_names_the_others() -> None:
    spread, _ = laid_out(Variable("x"), pl.Series([0.0, 0.5, 1.0, None, math.nan, math.inf, 1.0]))
    assert (sum(spread.counts), spread.missing, spread.infinite) == (4, 1, 2)
    assert (spread.low, spread.median, spread.high) == (0.0, 0.75, 1.0)
    assert (spread.counts[0], spread.counts[-1]) == (1, 2)


def test_whole_numbers_have_a_bin_each_and_wide_positive_ranges_are_logarithmic() -> None:
    spread, _ = laid_out(Variable("n"), pl.Series([1, 1, 2, 4]))
    assert spread.counts == (2, 1, 0, 1)
    spread, _ = laid_out(Variable("t"), pl.Series([10.0**e for e in (-3, -2, -1, 0, 1, 2)]))
    assert spread.scale is not None
    assert spread.scale.log
    assert np.allclose(np.diff(np.log(spread.scale.edges)), np.diff(np.log(spread.scale.edges))[0])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([3.0, 3.0, 3.0], "always the same value"),
        (["a", "a"], "always the same value"),
        ([3.0, math.nan, 3.0], "always the same value"),
        ([3.0, None, -math.inf], "always the same value"),
        ([2**54, None, 2**54], "always the same value"),
        ([None, None], "no value"),
        ([math.nan, math.inf], "no value"),
        ([-1.7e308, 1.7e308], "too wide a range, or too narrow a one, to be drawn"),
        ([2**54, 2**54 + 8], "too wide a range, or too narrow a one, to be drawn"),
        ([1.0, 1.0 + 2**-52], "too wide a range, or too narrow a one, to be drawn"),
        ([[1.0], [2.0, 3.0]], "lists: not drawn"),
        ([{"a": 1}], "several values in one: not drawn"),
        ([f"name {i}" for i in range(200)], "200 different texts, 'name 0' among them"),
        ([], "no value"),
    ],
)
def test_what_has_no_histogram_is_told_in_words(values: list[object], told: str) -> None:
    spread, found = laid_out(Variable("x"), pl.Series(values, strict=False))
    assert found is None
    assert spread.told == told


def test_rare_texts_are_counted_together_and_an_enum_keeps_its_order() -> None:
    texts = [t for i, t in enumerate("abcdefghijklmnop") for _ in range(40 - i)]
    spread, _ = laid_out(Variable("x"), pl.Series(texts))
    assert spread.scale is not None
    assert spread.scale.labels[:2] == ("a", "b")
    assert spread.scale.labels[-1] == "5 others"
    assert sum(spread.counts) == len(texts)
    spread, _ = laid_out(Variable("x"), pl.Series(["low", "high", "low"], dtype=pl.Enum(["high", "low"])))
    assert spread.scale is not None
    assert (spread.scale.labels, spread.counts) == (("high", "low"), (1, 2))


def test_times_lie_on_an_axis_of_days() -> None:
    spread, _ = laid_out(Variable("d"), pl.Series([dt.date(1970, 1, 2), dt.date(1970, 1, 4)]))
    assert spread.scale is not None
    assert (spread.scale.kind, spread.low, spread.high) == ("time", 1.0, 3.0)
    assert shown(1.5, "time") == "1970-01-02 12:00"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-2.0, "−2"),
        (1234.5678, "1235"),
        (2020.0, "2020"),
        (11543.21, "11,543"),
        (-0.0, "0"),
        (1e-7, "1e−7"),
        (2.5e12, "2.5e12"),
        (0.25, "0.25"),
    ],
)
def test_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert shown(value) == text


def test_the_rank_correlation_is_spearmans_over_the_rows_that_have_both() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    y = np.exp(x) + rng.normal(size=400)
    x[::7], y[::5] = math.nan, math.inf
    both = np.isfinite(x) & np.isfinite(y)
    expected = pl.DataFrame({"x": x[both], "y": y[both]}).select(pl.corr("x", "y", method="spearman")).item()
    found = strength(axis("x", x), axis("y", y))
    assert found is not None
    assert found == ("ρ", pytest.approx(expected))


def test_categories_are_measured_by_what_lies_between_them() -> None:
    group = ["a", "b", "c"] * 60
    assert strength(axis("g", group), axis("y", [float("abc".index(g)) for g in group])) == ("η", pytest.approx(1))
    found = strength(axis("g", group), axis("y", np.random.default_rng(1).normal(size=180)))
    assert found is not None
    assert found[1] < 0.25
    assert strength(axis("g", group), axis("h", [g.upper() for g in group])) == ("V", pytest.approx(1))
    assert strength(axis("g", group), axis("h", ["x"] * 90 + ["y"] * 90))[1] < 0.1  # pyright: ignore[reportOptionalSubscript]


def test_the_strongest_relation_stands_first_and_its_median_follows_the_rows() -> None:
    x, z = np.linspace(0, 1, 500), np.random.default_rng(2).random(500)
    found = relations([axis("z", z), axis("x", x)], [axis("y", 3 * x)])
    assert [r.input.name for r in found.drawn] == ["x", "z"]
    assert found.drawn[0].strength == pytest.approx(1)
    assert sum(map(sum, found.drawn[0].grid)) == 500
    assert all(abs(m.median - 3 * m.at) < 1e-9 and m.low < m.median < m.high for m in found.drawn[0].middles)


def test_failures_are_told_along_the_input_that_tells_them_apart() -> None:
    rng = np.random.default_rng(3)
    hot, other = rng.uniform(10, 30, 1000), rng.uniform(0, 1, 1000)
    failed = hot > 26
    found = failures([axis("other", other), axis("hot", hot)], failed, (), int(failed.sum()), 1000)
    assert [one.variable.name for one in found.along] == ["hot", "other"]
    assert found.along[0].apart > 0.9 > 0.3 > found.along[1].apart
    assert sum(found.along[0].bad) == failed.sum()
    assert found.along[0].bad_range.startswith("26")
    assert found.maps[0].x.name == "hot"
    assert sum(map(sum, found.maps[0].bad)) == failed.sum()
    assert len(found.maps[0].points) == failed.sum()


def test_the_machine_is_busy_as_long_as_its_inputs_last() -> None:
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    starts = [begin + dt.timedelta(seconds=s) for s in (0, 0, 5, 100)]
    tasks = pl.DataFrame(
        {"start": starts, "seconds": [5.0, 10.0, 2.5, 1.0], "worker": ["a", "b", "a", "a"], "attempt": [1, 1, 1, 2]}
    )
    found = machine(tasks)
    assert found is not None
    assert (found.attempt, found.attempts, found.workers, found.edges[-1]) == (1, 2, ("a", "b"), 10.0)
    assert found.share == pytest.approx(17.5 / 20)
    assert sum(found.at_work) * 10 / len(found.at_work) == pytest.approx(17.5)
    assert found.busy[0][0] == pytest.approx(1)
    assert found.busy[0][-1] == 0


def test_a_band_is_median_and_5_to_95_percent_over_the_first_column() -> None:
    frame = pl.DataFrame(
        {"hour": [0, 1] * 101, "load": [float(i // 2 + 100 * (i % 2)) for i in range(202)], "name": ["x"] * 202}
    )
    (found,) = bands("hourly", frame, [Variable(n) for n in frame.columns])
    assert [(m.at, m.low, m.median, m.high) for m in found.middles] == [(0, 5, 50, 95), (1, 105, 150, 195)]


@pytest.mark.parametrize(
    ("text", "told"), [("", "(empty)"), (" \n", "(blank)"), ("a  b", "a b"), ("x" * 60, "x" * 39 + "…")]
)
def test_texts_are_shown_in_a_line_and_none_is_invisible(text: str, told: str) -> None:
    assert shortened(text) == told
