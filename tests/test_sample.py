"""Inputs are drawn within what their model declares, the same ones wherever it is done, and a run says how they came about."""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import math
import re
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import cloudpickle
import numpy as np
import polars as pl
import pytest
import scipy
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model
from typer.testing import CliRunner

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.cli import app
from scythe.errors import InputError, ReadError
from scythe.names import ID_LEVELS
from scythe.sampling import plans, verb
from scythe.sampling.sequences import Points

cloudpickle.register_pickle_by_value(sys.modules[__name__])

DRAWN = ("sobol", "halton", "lhs", "random")


class Site(enum.Enum):
    BOSTON = "boston"
    OSLO = "oslo"


class Wide(ExperimentInputSpec):
    r_value: float = Field(ge=1, le=8)
    share: float = Field(gt=0, lt=1)
    storeys: int = Field(gt=0, lt=6)
    width: int = Field(ge=5, le=100, multiple_of=10)
    site: Site
    glazing: Literal["double", "triple"]
    panes: Literal[2, 3]
    shaded: bool
    day: dt.date = Field(ge=dt.date(2024, 2, 27), le=dt.date(2024, 3, 2))
    moment: dt.datetime = Field(ge=dt.datetime(2024, 1, 1), lt=dt.datetime(2025, 1, 1))
    note: str | None = None
    tags: list[str] = ["a"]  # noqa: RUF012 - pydantic copies it


class Layer(BaseModel):
    t: float = 1.0


class Angles(ExperimentInputSpec):
    a: float = Field(ge=-math.pi, le=math.pi)
    b: float = Field(ge=-math.pi, le=math.pi)
    c: float = Field(ge=-math.pi, le=math.pi)


class Value(ExperimentOutputSpec):
    y: float
    same: int = 7


def ishigami(spec: Angles) -> Value:
    return Value(y=math.sin(spec.a) + 7 * math.sin(spec.b) ** 2 + 0.1 * spec.c**4 * math.sin(spec.a))


def brittle(spec: Angles) -> Value:
    if spec.a > 3:
        raise ValueError("too far")
    return ishigami(spec)


# --- what is drawn ------------------------------------------------------------------------------------------


@given(st.sampled_from(DRAWN), st.integers(1, 60), st.integers(0, 2**32))
def test_every_row_is_an_input_of_the_model(method: Any, n: int, seed: int) -> None:
    specs = scythe.sample(Wide, n, method, seed=seed)

    assert specs.height == n
    assert specs.columns == [name for name in Wide.model_fields if name not in ID_LEVELS]
    models = [Wide.model_validate(row) for row in specs.with_columns(pl.col("site").cast(pl.String).str.to_lowercase()).to_dicts()]  # fmt: skip
    assert all(model.note is None and model.tags == ["a"] for model in models)


@pytest.mark.parametrize("method", DRAWN)
def test_all_that_a_field_may_be_is_drawn(method: Any) -> None:
    specs = scythe.sample(Wide, 4000, method)

    assert sorted(specs["storeys"].unique()) == [1, 2, 3, 4, 5]
    assert sorted(specs["width"].unique()) == list(range(10, 101, 10))
    assert specs["day"].n_unique() == 5
    assert (specs["day"].min(), specs["day"].max()) == (dt.date(2024, 2, 27), dt.date(2024, 3, 2))
    for name in ("site", "glazing", "panes", "shaded"):
        counts = specs[name].value_counts()["count"]
        assert (counts.len(), counts.min() > 1800) == (2, True), name  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]
    assert abs(float(specs["r_value"].mean()) - 4.5) < 0.15  # pyright: ignore[reportArgumentType]
    correlation = specs.select(pl.corr("r_value", "share")).item()
    assert abs(correlation) < 0.05


@given(st.sampled_from(["sobol", "halton"]), st.integers(0, 40), st.integers(1, 40), st.booleans())
def test_a_sequence_goes_on_where_it_ended(method: Any, first: int, more: int, constrained: bool) -> None:
    how: dict[str, Any] = {"constraint": pl.col("r_value") < 4} if constrained else {}
    whole = scythe.sample(Wide, first + more, method, seed=3, **how)
    assert scythe.sample(Wide, more, method, seed=3, skip=first, **how).equals(whole[first:])


def test_threads_make_the_same_points_as_one(root: Path) -> None:
    at_once, by_and_by = Points("halton", 3, 7), Points("halton", 3, 7)
    assert (at_once.draw(18_000) == np.concatenate([by_and_by.draw(9_000) for _ in range(2)])).all()


@given(st.integers(1, 3000), st.integers(1, 4), st.integers(0, 2**32))
def test_a_latin_hypercube_has_one_point_in_each_slice_of_each_axis(count: int, axes: int, seed: int) -> None:
    points = Points("lhs", axes, seed).draw(count)
    for axis in points.T:
        assert np.sort((axis * count + 1e-9).astype(int)).tolist() == list(range(count))


def test_any_order_of_the_slices_is_as_likely_as_another() -> None:
    points = Points("lhs", 6_000, 5).draw(4)  # each axis has an order of its own
    orders, counts = np.unique((points * 4).astype(int), axis=1, return_counts=True)
    assert orders.shape[1] == 24
    expected = 6_000 / 24
    assert float(((counts - expected) ** 2 / expected).sum()) < 49.7  # chi-square of 23 degrees: once in a thousand


def test_a_large_hypercube_is_as_good_as_a_small_one() -> None:
    points = Points("lhs", 3, 1).draw(100_000)
    assert all((np.sort((axis * 100_000 + 1e-9).astype(int)) == np.arange(100_000)).all() for axis in points.T)
    assert np.abs(np.corrcoef(points.T) - np.eye(3)).max() < 0.015  # five deviations
    along = np.corrcoef(points[:-1, 0], points[1:, 0])[0, 1]
    assert abs(along) < 0.015


#: What was drawn when this was written: another machine, NumPy or SciPy must draw the same.
MARKS = {"sobol": "a8a4ee99a6a3", "halton": "cce3ea803aa1", "lhs": "b5f9a97a4774", "random": "8c0085e09116"}


@pytest.mark.parametrize("method", DRAWN)
def test_a_seed_gives_the_same_rows_wherever_they_are_drawn(method: Any) -> None:
    specs = scythe.sample(Angles, 1000, method, seed=1)
    rounded = np.round(specs.to_numpy(), 9) + 0.0
    assert hashlib.sha256(rounded.astype("<f8").tobytes()).hexdigest()[:12] == MARKS[method]
    assert not scythe.sample(Angles, 1000, method, seed=2).equals(specs)


def test_what_is_said_of_a_field_narrows_chooses_fixes_and_distributes() -> None:
    normal = scipy.stats.norm(0.9, 0.2)
    specs = scythe.sample(
        Wide, 3000, r_value=(2, 3), site=[Site.OSLO], glazing="triple", share=normal, day=(dt.date(2024, 3, 1), dt.date(2024, 3, 2)),
        storeys=scipy.stats.poisson(2), note=["x", None], tags=[["b"], []],
    )  # fmt: skip

    assert specs["r_value"].is_between(2, 3).all()
    assert specs["site"].cast(pl.String).str.to_lowercase().unique().to_list() == ["oslo"]
    assert specs["glazing"].unique().to_list() == ["triple"]
    assert specs["day"].n_unique() == 2
    assert sorted(specs["note"].unique(), key=str) == [None, "x"]
    assert specs["tags"].n_unique() == 2
    assert specs["share"].is_between(0, 1, closed="none").all()
    cut = scipy.stats.truncnorm((0 - 0.9) / 0.2, (1 - 0.9) / 0.2, 0.9, 0.2)
    assert scipy.stats.kstest(specs["share"].to_numpy(), cut.cdf).pvalue > 0.01
    shares = specs["storeys"].value_counts().sort("storeys")["count"] / 3000
    mass = scipy.stats.poisson(2).pmf(range(1, 6))
    np.testing.assert_allclose(shares.to_numpy(), mass / mass.sum(), atol=0.02)


def test_a_constraint_leaves_rows_out_and_others_come_in_their_place(capfd: pytest.CaptureFixture[str]) -> None:
    for method in DRAWN:
        specs = scythe.sample(Angles, 500, method, constraint=pl.col("a") > pl.col("b"))
        assert (specs.height, specs.filter(pl.col("a") <= pl.col("b")).height) == (500, 0)
    assert "the constraint keeps 5" in capfd.readouterr().err
    with pytest.raises(InputError, match="the constraint keeps 0 of 1,"):
        scythe.sample(Angles, 5, constraint=pl.col("a") > 4)
    with pytest.raises(InputError, match=r"cannot be evaluated.*nothing"):
        scythe.sample(Angles, 5, constraint=pl.col("nothing") > 4)


def test_a_grid_is_all_combinations_of_levels() -> None:
    grid = scythe.sample(Angles, {"a": 3, "b": 2, "c": 1}, "grid")
    assert grid["a"].unique().sort().to_list() == pytest.approx([-math.pi, 0, math.pi])
    assert grid["c"].unique().to_list() == [0]
    assert grid.height == grid.n_unique() == 6
    chosen = scythe.sample(Wide, 2, "grid", share=(0.1, 0.9), day=dt.date(2024, 3, 1), moment=dt.datetime(2024, 5, 5))
    assert chosen.height == 2**8
    assert chosen["storeys"].unique().sort().to_list() == [1, 5]


class Open(ExperimentInputSpec):
    area: float = Field(ge=0)
    name: str = "a"


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: scythe.sample(Open, 3), r"Open.area has neither bounds on both sides nor a default.*area=\(low, high\)"),
        (lambda: scythe.sample(Open, 3, area=(-1, 2)), r"Open.area: .*must be >= 0"),
        (lambda: scythe.sample(Open, 3, area="x"), "Open.area: 'x' is not a number"),
        (lambda: scythe.sample(Open, 3, area=(2, 1)), "the lower one first"),
        (lambda: scythe.sample(Open, 3, area=scipy.stats.norm(-50, 1)), "nothing between 0.0 and inf"),
        (lambda: scythe.sample(Open, 3, area=[], name="b"), "nothing to choose from"),
        (lambda: scythe.sample(Open, 3, area=1, name=("a", "b")), "Open.name is a .*no range.*a list of choices"),
        (lambda: scythe.sample(Open, 3, area=1, surface=2), "no field 'surface'; it has area, name"),
        (lambda: scythe.sample(Wide, 3, glazing="single"), "Wide.glazing: 'single' is not one of its values"),
        (lambda: scythe.sample(Wide, 3, "sobel"), "method='sobel': there are sobol, halton"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: scythe.sample(Wide, 0), "n=0: give a whole number above 0"),
        (lambda: scythe.sample(Wide, 3, "lhs", skip=1), "skip=1: 'lhs' has no next row"),
        (lambda: scythe.sample(Wide, {"storey": 1}, "grid"), "no field 'storey'"),
        (lambda: scythe.sample(Angles, {"a": 1}, "grid"), "does not say how many levels 'b' has"),
        (lambda: scythe.sample(Angles, 4, "morris", constraint=pl.col("a") > 0), "no row may be left out"),
        (lambda: scythe.sample("Wide", 3), "takes an input model"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_by_name(draw: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"(?s){said}"):
        draw()


class Edges(ExperimentInputSpec):
    count: int = Field(ge=-5, le=5)
    free: int = 0
    wide: float = Field(ge=-1.7e308, le=1.7e308)
    whole: int = Field(ge=-(2**63), le=2**63 - 1, default=0)
    half: float = Field(ge=0, le=3, multiple_of=0.5)
    tenth: float = Field(ge=0, le=0.3, multiple_of=0.1)
    five: Annotated[int, Field(ge=0, le=10, multiple_of=5)] | None = None
    letter: Literal["a", "b", "c", "d", "e"] = "a"


REST = {"whole": 0}


def test_whole_numbers_of_a_continuous_distribution_are_the_nearest_ones() -> None:
    specs = scythe.sample(Edges, 20_000, count=scipy.stats.uniform(-5.5, 11), **REST)
    assert specs["count"].value_counts(name="times")["times"].is_between(1750, 1900).all()
    normal = scythe.sample(Edges, 20_000, count=scipy.stats.norm(0, 1), **REST)
    assert abs((normal["count"] == 0).sum() / 20_000 - 0.3829) < 0.01


@given(st.sampled_from(DRAWN), st.integers(1, 30), st.integers(0, 99))
def test_ends_and_multiples_are_kept_as_the_model_has_them(method: Any, n: int, seed: int) -> None:
    specs = scythe.sample(Edges, n, method, seed=seed, **REST)
    for row in specs.to_dicts():
        Edges.model_validate(row)
    assert specs["wide"].n_unique() == n
    assert {*scythe.sample(Edges, 200, **REST)["tenth"]} == {0.0, 0.1, 0.2, 0.3}
    grid = scythe.sample(Edges, {"wide": 3, "count": 2}, "grid", **REST, half=1, tenth=0, five=5, letter="a")
    assert sorted(set(grid["wide"])) == [-1.7e308, 0, 1.7e308]


class Ajar(ExperimentInputSpec):
    r: float = Field(gt=0, le=15)
    t: float = Field(ge=-5, lt=0)


def test_open_ends_are_no_hindrance_to_who_draws_none_of_them() -> None:
    """1 / r is finite: no float next to 0 is drawn."""
    assert (1 / scythe.sample(Ajar, 1000)["r"]).is_finite().all()
    assert scythe.sample(Ajar, 1, "grid").rows() == [(7.5, -2.5)]
    assert scythe.sample(Ajar, {"r": 3}, "grid", r=(0.5, 1.5), t=-1.0)["r"].to_list() == [0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: scythe.sample(Edges, 3), "Edges.whole: its bounds are too wide to draw from"),
        (lambda: scythe.sample(Edges, 9, free=scipy.stats.norm(0, 1e30), **REST), r"whole numbers beyond 2\*\*53"),
        (lambda: scythe.sample(Edges, 9, half=scipy.stats.norm(), **REST), "multiples of a number alone"),
        (lambda: scythe.sample(Edges, 9, half=[0.3], **REST), "0.3 is no multiple of 0.5"),
        (lambda: scythe.sample(Edges, 9, half=(0.6, 0.7), **REST), "no multiple of 0.5 within its bounds"),
        (lambda: scythe.sample(Edges, 9, five=(None, 5), **REST), "the lower one first"),
        (
            lambda: scythe.sample(Edges, 9, "morris", half=1, tenth=0, five=5, **REST),
            "'letter' 5 values, some of which would never be drawn",
        ),
        (lambda: scythe.sample(Edges, 9, seed=None, **REST), "seed=None: give a whole number"),
        (lambda: scythe.sample(Edges, 9, seed=-1, **REST), "seed=-1: give a whole number"),
        (lambda: scythe.sample(Edges, 9, skip=2.0, **REST), "skip=2.0: give a whole number"),
        (lambda: scythe.sample(Edges, 9, "halton", skip=2**40, **REST), r"a sequence has 2\*\*30 rows"),
        (lambda: scythe.sample(Edges, 2**40, "random", **REST), r"n=1099511627776, skip=0: a sample has 2\*\*30 rows"),
        (
            lambda: scythe.sample(Angles, 1000, "grid"),
            r"a grid of 1,000,000,000 rows, 1000 \(a\) \* 1000 \(b\).*or draw",
        ),
        (lambda: scythe.sample(Angles, 9, constraint="a > 3"), "constraint='a > 3': give a Polars expression"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: scythe.sample(Value, 9), "Value is an output model"),
        (
            lambda: scythe.sample(Ajar, 9, "grid"),
            r"Ajar\.r has no lowest value, as 0 is left out, .*say r=\(low, high\)",
        ),
        (lambda: scythe.sample(Ajar, 9, "morris", r=2.0), r"Ajar\.t has no highest value, as 0 is left out, .*morris"),
        (lambda: scythe.sample(Priced, 9, price=0.001), "Priced.price: "),
        (lambda: scythe.sample(Priced, 9, step=Decimal("0.01")), "is no multiple of 0.05"),
        (lambda: scythe.sample(Priced, 9, step=scipy.stats.norm()), "multiples of a number alone"),
    ],
)
def test_what_would_be_drawn_wrongly_is_refused(draw: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"(?s){said}"):
        draw()


class Priced(ExperimentInputSpec):
    price: Decimal = Field(ge=0, le=10, max_digits=6, decimal_places=2)
    share: Decimal | None = Field(None, gt=0, lt=1, max_digits=6, decimal_places=1)
    step: Decimal = Field(ge=0, le=1, max_digits=10, decimal_places=3, multiple_of=Decimal("0.05"))
    wide: Decimal = Field(ge=-(10**17), le=10**17, max_digits=38, decimal_places=18)
    least: Decimal = Field(Decimal(5), ge=0.1, max_digits=10, decimal_places=3)


@given(st.sampled_from(DRAWN), st.integers(1, 60), st.integers(0, 99))
def test_decimals_are_drawn_as_the_model_has_them(method: Any, n: int, seed: int) -> None:
    specs = scythe.sample(Priced, n, method, seed=seed)
    for row in specs.to_dicts():
        Priced.model_validate(row)
    assert specs["wide"].n_unique() == n
    assert specs["share"].null_count() == 0
    assert specs["least"].unique().to_list() == [Decimal(5)]


def test_all_decimals_within_the_bounds_are_drawn() -> None:
    specs = scythe.sample(Priced, 20_000)
    assert specs["price"].n_unique() == 1001
    assert (specs["price"].min(), specs["price"].max()) == (Decimal(0), Decimal(10))
    assert [*map(str, specs["share"].unique().sort())] == [f"0.{i}" for i in range(1, 10)]
    assert [*map(str, specs["step"].unique().sort())] == [f"{i * 0.05:.3f}" for i in range(21)]


def test_what_is_said_of_decimals() -> None:
    told = {"price": (1, 2.5), "share": [0.3, Decimal("0.5")], "least": scipy.stats.norm(0, 1), "wide": 1}
    specs = scythe.sample(Priced, 2000, **told)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert (specs["price"].min(), specs["price"].max()) == (1, Decimal("2.50"))
    assert {*map(str, specs["share"])} == {"0.3", "0.5"}
    assert specs["least"].min() >= Decimal("0.100")  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]
    assert float(specs["least"].median()) == pytest.approx(scipy.stats.truncnorm(0.1, math.inf).median(), abs=0.01)  # pyright: ignore[reportArgumentType]
    grid = scythe.sample(Priced, 3, "grid", share=0.5, wide=1, step=(0, 0.1))
    assert sorted({*map(str, grid["price"])}) == ["0.00", "10.00", "5.00"]


class Narrow(ExperimentInputSpec):
    price: Decimal = Field(ge=0, le=1000, max_digits=5, decimal_places=2)
    shift: Decimal = Field(Decimal(0), ge=-math.inf, le=math.inf, max_digits=3, decimal_places=1)
    count: Decimal = Field(ge=0, le=9, max_digits=6, decimal_places=0)
    far: Decimal = Field(ge=-(10**17), le=10**17, max_digits=38, decimal_places=18, multiple_of=1)


def test_decimals_are_those_that_their_digits_can_write() -> None:
    for method in ("sobol", "grid"):
        specs = scythe.sample(Narrow, 3 if method == "grid" else 20_000, method)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        assert Decimal(999) < specs["price"].max() <= Decimal("999.99")  # pyright: ignore[reportOperatorIssue]
        assert specs["shift"].unique().to_list() == [0]
    wide = scythe.sample(Narrow, 2000, shift=scipy.stats.norm(0, 100), price=np.linspace(0, 1, 5), far=0)
    assert (wide["shift"].min(), wide["shift"].max()) == (Decimal("-99.9"), Decimal("99.9"))
    assert {*map(str, wide["price"])} == {"0.00", "0.25", "0.50", "0.75", "1.00"}


@pytest.mark.parametrize("distribution", [scipy.stats.poisson(2), scipy.stats.randint(0, 10), scipy.stats.norm(4.5, 9)])
def test_both_ends_are_drawn_as_often_for_decimals_and_floats_as_for_whole_numbers(distribution: Any) -> None:
    class Three(ExperimentInputSpec):
        whole: int = Field(ge=0, le=9)
        decimal: Decimal = Field(ge=0, le=9, max_digits=6, decimal_places=0)
        real: float = Field(ge=0, le=9)

    specs = scythe.sample(Three, 4096, whole=distribution, decimal=distribution, real=distribution)
    lows = [int((specs[name] == 0).sum()) for name in ("whole", "decimal")]
    assert abs(lows[0] - lows[1]) < 25
    if hasattr(distribution, "pmf"):
        assert abs(int((specs["real"] == 0).sum()) - lows[0]) < 25


# --- what a run says of it ----------------------------------------------------------------------------------


def run_of(function: Any, specs: pl.DataFrame, engine: Any = "inline") -> Any:
    ExperimentRegistry.Register(retries=0)(function)
    run, ref = BaseExperiment(function).allocate(specs, engine=engine, version="bumppatch")
    ref.result()
    return run


def test_a_run_says_how_its_inputs_were_drawn_and_whether_they_were_changed(root: Path) -> None:
    def sampled(specs: pl.DataFrame) -> Any:
        run = run_of(ishigami, specs)
        return yaml.safe_load((root / run.key.manifest).read_text())["sampled"], CliRunner().invoke(app, ["show", run.experiment_id]).output  # fmt: skip

    drawn = scythe.sample(Angles, 20, seed=5, skip=3, constraint=pl.col("a") > 0)
    how, shown = sampled(drawn)
    assert (how["method"], how["seed"], how["skip"], how["model"]) == ("sobol", 5, 3, "Angles")
    assert re.search("sampled +sobol, seed 5, skip 3, where ", shown)
    how, shown = sampled(drawn.filter(pl.col("b") > 0))
    assert how["changed"] is True
    assert "; then changed" in shown
    how, _ = sampled(drawn.reverse())
    assert how["changed"] is True
    in_place = scythe.sample(Angles, 20, seed=6)
    in_place[0, "a"] = 0.125
    assert sampled(in_place)[0]["changed"] is True
    same = scythe.sample(Angles, 1, seed=1, a=1, b=1, c=1)
    scythe.sample(Angles, 1, "halton", seed=2, a=1, b=1, c=1)
    assert sampled(same)[0]["method"] == "sobol"
    how, _ = sampled(
        pl.DataFrame({"a": [1.0, 2.0], "b": [1.0, 1.0], "c": [1.0, 1.0]})
    )  # any hand may have written the first
    assert how is None
    how, shown = sampled(pl.DataFrame({"a": [0.5], "b": [0.5], "c": [0.5]}))
    assert how is None
    assert "sampled" not in shown


def test_a_run_says_that_inputs_were_drawn_and_then_changed_in_every_row(root: Path) -> None:
    drawn = scythe.sample(Angles, 20, seed=5)
    for changed in (drawn.with_columns(pl.col("a").round(2)), drawn.with_columns(c=pl.lit(0.5)).sort("b")):
        how = yaml.safe_load((root / run_of(ishigami, changed).key.manifest).read_text())["sampled"]
        assert (how["seed"], how["changed"]) == (5, True)


@pytest.mark.parametrize("method", ["sobol", "halton"])
def test_a_run_whose_inputs_go_on_with_a_sequence_says_how_far_they_came(root: Path, method: Any) -> None:
    def sampled(*parts: pl.DataFrame) -> Any:
        run = run_of(ishigami, pl.concat(parts))
        return yaml.safe_load((root / run.key.manifest).read_text())["sampled"]

    def draw(n: int, skip: int, **more: Any) -> pl.DataFrame:
        return scythe.sample(Angles, n, method, skip=skip, **more)

    first, second, third = draw(5, 0), draw(7, 5), draw(4, 12)
    narrow = draw(7, 5, a=(0, 1))
    how = sampled(first, second, third)
    assert (how["n"], how["skip"], how.get("changed")) == (16, 0, None)
    how = sampled(second, third)
    assert (how["n"], how["skip"], how.get("changed")) == (11, 5, None)
    for parts in ((second, first), (first, third), (first, second.head(3)), (first, narrow)):
        assert sampled(*parts)["changed"] is True


# --- what matters -------------------------------------------------------------------------------------------


def test_sobols_indices_are_those_that_are_known(root: Path) -> None:
    run_of(ishigami, scythe.sample(Angles, 16, "saltelli"))
    assert scythe.sensitivity("ishigami").equals(scythe.sensitivity("ishigami"))  # the intervals, too
    run_of(ishigami, scythe.sample(Angles, 512, "saltelli", seed=2))

    found = scythe.sensitivity("ishigami")

    assert found.columns == ["output", "input", "first", "first_low", "first_high", "total", "total_low", "total_high"]
    y = {row["input"]: row for row in found.filter(output="y").to_dicts()}
    for name, first, total in (("a", 0.3139, 0.5576), ("b", 0.4424, 0.4424), ("c", 0.0, 0.2437)):
        assert y[name]["first_low"] - 0.02 < first < y[name]["first_high"] + 0.02
        assert y[name]["total_low"] - 0.02 < total < y[name]["total_high"] + 0.02
    assert found.filter(output="same")["total"].null_count() == 3


def test_morris_tells_what_matters_least(root: Path) -> None:
    run = run_of(ishigami, scythe.sample(Angles, 40, "morris", b=0.3))
    found = scythe.sensitivity("ishigami", run=run.key.folder).filter(output="y")
    assert found.columns == ["output", "input", "mu_star", "mu_star_low", "mu_star_high", "sigma"]
    assert sorted(found["input"]) == ["a", "c"]


def test_a_truth_value_of_which_there_is_one_is_drawn_alone() -> None:
    class Switched(ExperimentInputSpec):
        on: Literal[True]
        off: Literal[False, True]

    specs = scythe.sample(Switched, 8, seed=0)
    assert specs["on"].to_list() == [True] * 8
    assert {*specs["off"]} == {True, False}


class Mixed(ExperimentInputSpec):
    on: bool
    few: int = Field(ge=1, le=3)
    some: Literal["a", "d"]
    odd: int = Field(ge=0, le=4)
    many: int = Field(ge=0, le=10)
    priced: Decimal = Field(ge=0, le=1, max_digits=2, decimal_places=1)
    real: float = Field(ge=-3, le=3)


_REACH = {"on": 3.0, "few": 1.0, "some": 7.0, "odd": 0.5, "many": 4.0, "priced": 2.2, "real": 5.0}


def linear(spec: Mixed) -> Value:
    places = {
        "on": spec.on, "few": (spec.few - 1) / 2, "some": "abcd".index(spec.some) / 3, "odd": spec.odd / 4,
        "many": spec.many / 10, "priced": float(spec.priced), "real": (spec.real + 3) / 6,
    }  # fmt: skip
    return Value(y=sum(_REACH[name] * place for name, place in places.items()))


def test_morris_tells_the_effect_of_a_field_over_its_range_whatever_its_type(root: Path) -> None:
    specs = scythe.sample(Mixed, 60, "morris", seed=3)
    run_of(linear, specs)
    found = scythe.sensitivity("linear").filter(output="y")
    assert dict(found.select("input", "mu_star").iter_rows()) == pytest.approx(_REACH)
    assert found["sigma"].to_list() == pytest.approx([0] * len(_REACH), abs=1e-9)
    shares = specs["few"].value_counts().sort("few")["count"] / specs.height
    assert shares.to_list() == pytest.approx([0.25, 0.5, 0.25], abs=0.07)


def test_a_plan_that_was_drawn_before_steps_were_even_is_refused_where_they_are_not(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = verb.remember
    monkeypatch.setattr(
        verb, "remember", lambda frame, how, **more: remembered(frame, {k: how[k] for k in how if k != "steps"}, **more)
    )
    run_of(linear, scythe.sample(Mixed, 4, "morris"))
    with pytest.raises(ReadError, match=r"drawn before the values of 'on' were spread evenly"):
        scythe.sensitivity("linear")
    run_of(ishigami, scythe.sample(Angles, 4, "morris"))
    assert scythe.sensitivity("ishigami").height == 6


@pytest.mark.parametrize(
    "form", ["pandas", "dicts", "models", "arrow", "numbered", "from a file", "columns in another order"]
)
def test_a_plan_is_known_in_whatever_form_it_is_allocated(root: Path, form: str, tmp_path: Path) -> None:
    plan = scythe.sample(Mixed, 2, "morris", seed=8)
    match form:
        case "pandas":
            given: Any = plan.to_pandas()
        case "dicts":
            given = plan.to_dicts()
        case "models":
            given = [Mixed.model_validate(row) for row in plan.to_dicts()]
        case "arrow":
            given = plan.to_arrow()
        case "numbered":
            given = plan.with_row_index("sort_index")
        case "from a file":
            plan.write_parquet(tmp_path / "plan.pq")
            given = pl.read_parquet(tmp_path / "plan.pq")
        case _:
            given = plan.select(reversed(plan.columns))
    run_of(linear, given)
    assert scythe.sensitivity("linear").filter(output="y").height == 7


class Nested(Angles):
    layer: Layer = Layer()
    layers: list[Layer] = Field(default_factory=list)
    by_name: dict[str, Layer] = Field(default_factory=dict)


def within(spec: Nested) -> Value:
    return Value(y=spec.a * spec.layer.t)


def test_a_plan_is_known_beside_fields_that_hold_other_values_and_stay_as_they_are(root: Path) -> None:
    plan = scythe.sample(Angles, 4, "saltelli")
    run_of(within, plan)
    assert scythe.sensitivity("within").filter(output="y")["total"].null_count() == 0
    thick = [Nested(**row, layer=Layer(t=1.0 + (i % 2))) for i, row in enumerate(plan.iter_rows(named=True))]
    run_of(within, thick)
    with pytest.raises(ReadError, match="are no plan"):
        scythe.sensitivity("within")


class Further(Angles):
    d: float = 0.0


def further(spec: Further) -> Value:
    return Value(y=spec.a)


def test_a_plan_may_be_given_to_a_model_with_fields_that_stay_at_their_defaults(root: Path) -> None:
    plan = scythe.sample(Angles, 4, "saltelli")
    run_of(further, plan)
    assert scythe.sensitivity("further").filter(output="y")["total"].null_count() == 0
    run_of(further, plan.with_columns(d=pl.int_range(pl.len()).cast(pl.Float64)))
    with pytest.raises(ReadError, match="are no plan"):
        scythe.sensitivity("further")


def half_known(spec: Angles) -> Value:
    return Value(y=float("inf") if spec.a < 0 else 1.0, same=int(spec.a * 100))


def test_an_output_that_is_not_finite_leaves_the_others_their_indices(root: Path) -> None:
    run_of(half_known, scythe.sample(Angles, 16, "saltelli"))
    found = scythe.sensitivity("half_known")
    assert found.filter(output="y")["total"].null_count() == 3
    assert found.filter(output="same")["total"].null_count() == 0


def test_indices_that_would_mean_nothing_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of(ishigami, scythe.sample(Angles, 20))
    with pytest.raises(ReadError, match=r"are no plan.*saltelli"):
        scythe.sensitivity("ishigami")
    run_of(brittle, scythe.sample(Angles, 32, "saltelli"), "local")
    with pytest.raises(ReadError, match=r"of the 160 inputs of brittle/.* have no result.*retry what failed"):
        scythe.sensitivity("brittle")
    run_of(ishigami, scythe.sample(Angles, 32, "saltelli"))
    monkeypatch.setattr(plans, "mark_of", lambda points: "another")  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(ReadError, match=r"drawn by SALib .*other points"):
        scythe.sensitivity("ishigami")


def test_the_report_of_a_plan_has_its_indices(root: Path) -> None:
    whole = run_of(ishigami, scythe.sample(Angles, 64, "saltelli"))
    page = scythe.report(whole, to="whole.html").read_text(encoding="utf-8")
    assert "Sensitivity analysis (SALib)" in page
    failed = run_of(brittle, scythe.sample(Angles, 64, "saltelli"), "local")
    page = scythe.report(failed, to="failed.html").read_text(encoding="utf-8")
    assert "No sensitivity analysis: " in page


@pytest.mark.parametrize(("step", "top"), [(1 / 3, 1.0), (1e-302, 1e-300), (1e21, 1e22), (math.pi / 4, 3.0)])
def test_multiples_of_a_number_of_many_digits_are_drawn(step: float, top: float) -> None:
    model = create_model("Long", __base__=ExperimentInputSpec, x=(float, Field(ge=0, le=top, multiple_of=step)))
    found = scythe.sample(model, 256, method="grid")["x"].unique().sort().to_list()
    assert len(found) == int(top / step + 1e-9) + 1
    assert found == [float(Fraction(str(step)) * k) for k in range(len(found))]


@given(
    st.sampled_from(["0.1", "0.5", "0.05", "1e-13", "3", "0.7", "2.5"]),
    st.integers(-40, 40),
    st.integers(0, 40),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_multiples_of_a_float_are_all_within_its_ends_and_no_others(
    step: str, first: int, count: int, low_open: bool, high_open: bool, exact: bool
) -> None:
    lattice = [float(Decimal(step) * k) for k in range(first, first + count + 1)]
    ends = {"gt" if low_open else "ge": lattice[0], "lt" if high_open else "le": lattice[-1]}
    multiple = Decimal(step) if exact else float(step)
    model = create_model("Multiples", __base__=ExperimentInputSpec, x=(float, Field(multiple_of=multiple, **ends)))
    wanted = lattice[low_open : len(lattice) - high_open]
    if not wanted or (lattice[0] == lattice[-1] and (low_open or high_open)):
        with pytest.raises(InputError, match=r"no multiple of|leave no value"):
            scythe.sample(model, 64)
    else:
        assert scythe.sample(model, 128, method="grid")["x"].unique().sort().to_list() == wanted


def test_more_multiples_than_can_be_drawn_from_are_refused() -> None:
    model = create_model("Many", __base__=ExperimentInputSpec, x=(float, Field(ge=0, le=1e12, multiple_of=1e-6)))
    with pytest.raises(InputError, match=r"multiples of 1e-06 lie between .*, too many to draw from: narrow it"):
        scythe.sample(model, 8)


# --- digits, ends and choices that a method does not reach by itself ----------------------------------------------


class Seeds(ExperimentInputSpec):
    share: float = Field(ge=0, le=1)
    seed: int = Field(ge=0, lt=2**31)
    big: int = Field(ge=0, lt=2**40)


class Load(ExperimentInputSpec):
    load: float
    share: float = Field(ge=0, le=1)


@pytest.mark.parametrize("method", ["sobol", "saltelli", "halton", "lhs", "random"])
@pytest.mark.parametrize("alone", [False, True])
def test_whole_numbers_of_a_wide_range_are_even_in_all_their_digits(method: Any, alone: bool) -> None:
    """A seed of a simulator was never an odd number: the sequences have 30 binary digits."""
    specs = scythe.sample(Seeds, 1000, method, **({"share": 0.5, "seed": 1} if alone else {}))
    assert (specs["big"] % 2).mean() == pytest.approx(0.5, abs=0.06)  # pyright: ignore[reportArgumentType]
    assert (specs["big"] % 1024).n_unique() > 500
    if not alone:
        assert (specs["seed"] % 2).mean() == pytest.approx(0.5, abs=0.06)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("method", ["sobol", "halton"])
def test_filled_digits_follow_from_the_place_in_the_sequence(method: Any) -> None:
    whole = scythe.sample(Seeds, 300, method)
    assert scythe.sample(Seeds, 100, method, skip=200).equals(whole[200:])
    kept = pl.col("share") > 0.5
    assert scythe.sample(Seeds, 100, method, constraint=kept).equals(
        scythe.sample(Seeds, 400, method).filter(kept)[:100]
    )


@pytest.mark.parametrize("method", [*DRAWN, "morris", "saltelli", "grid"])
def test_no_distribution_gives_an_infinite_value(method: Any) -> None:
    for told in (scipy.stats.norm(10, 1), scipy.stats.lognorm(1), scipy.stats.cauchy()):
        values = scythe.sample(Load, 8, method, load=told)["load"]
        assert values.is_finite().all()
        assert values.n_unique() > 3


def test_morris_draws_from_the_middles_of_a_distributions_quarters() -> None:
    drawn = sorted({*scythe.sample(Load, 16, "morris", load=scipy.stats.norm(10, 1))["load"]})
    assert drawn == pytest.approx(scipy.stats.norm(10, 1).ppf([0.125, 0.375, 0.625, 0.875]))


def test_the_one_point_of_a_sequence_that_lies_at_its_end_is_finite() -> None:
    found = scythe.sample(Load, 2, skip=934589243, load=scipy.stats.norm(0, 1), share=0.5)["load"]
    assert found.is_finite().all()
    assert found[0] == pytest.approx(scipy.stats.norm.ppf(2.0**-33))


@pytest.mark.parametrize(("low", "high"), [(8.0, math.inf), (8.0, 10.0), (-10.0, -8.0), (-math.inf, -8.0), (-1.0, 9.0)])
def test_tails_of_distributions_are_as_fine_above_as_below(low: float, high: float) -> None:
    bounds = {name: end for name, end in (("ge", low), ("le", high)) if math.isfinite(end)}
    model = create_model("Tail", __base__=ExperimentInputSpec, x=(float, Field(**bounds)))  # type: ignore[call-overload] # pyright: ignore
    drawn = scythe.sample(model, 1024, x=scipy.stats.norm(0, 1))["x"].to_numpy()
    assert len(set(drawn)) == 1024
    assert scipy.stats.kstest(drawn, scipy.stats.truncnorm(low, high).cdf).pvalue > 0.9


def test_a_hypercube_whose_constraint_keeps_all_is_one() -> None:
    model = create_model("One", __base__=ExperimentInputSpec, a=(float, Field(ge=0, le=1)))
    for constraint in (None, pl.col("a") <= 1):
        drawn = scythe.sample(model, 100, "lhs", constraint=constraint)["a"]
        assert len({*(drawn * 100).cast(int)}) == 100


class Sites(ExperimentInputSpec):
    site: Literal["a", "b", "c"]
    x: float = Field(ge=0, le=1)


def test_morris_refuses_choices_of_which_it_would_compare_some_alone() -> None:
    with pytest.raises(InputError, match=r"those of 'site' have no such order: .*site=\[\.\.\.\]"):
        scythe.sample(Sites, 4, "morris")
    for wrong in ([1.0, 2.0, 100.0], [1, 2, 3, 5]):
        with pytest.raises(InputError, match="those of 'load' have no such order"):
            scythe.sample(Load, 4, "morris", load=wrong)
    assert {*scythe.sample(Sites, 4, "morris", site=["a", "c"])["site"]} == {"a", "c"}
    assert {*scythe.sample(Load, 9, "morris", load=[1.0, 2.0, 3.0])["load"]} == {1.0, 2.0, 3.0}


class Told(ExperimentInputSpec):
    flag: Literal[True] | None = None
    made: list[int] = Field(default_factory=list)
    x: float = Field(ge=0, le=1)


def test_what_a_model_makes_by_itself_has_no_column_and_a_literal_beside_none_its_own_values(root: Path) -> None:
    specs = scythe.sample(Told, np.int64(4), seed=np.int64(1))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert specs.columns == ["flag", "x"]
    assert specs["flag"].to_list() == [True] * 4
    assert scythe.sample(Told, 4, made=[[1], [2]]).columns == ["flag", "made", "x"]


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (
            lambda: scythe.sample(Load, 3, load=scipy.stats.norm(5, 0)),
            "the distribution is none, with these parameters",
        ),
        (
            lambda: scythe.sample(Wide, 3, moment=(dt.date(2024, 1, 1), dt.date(2024, 2, 1))),
            r"datetime\.date\(2024, 1, 1\) is no datetime",
        ),
    ],
)
def test_distributions_and_ends_that_are_none_are_told(draw: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        draw()
