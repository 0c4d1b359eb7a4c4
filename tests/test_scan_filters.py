"""What is asked of a lazy frame before its files are read finds the rows that it finds among all of them."""

from __future__ import annotations

import datetime as dt
import enum
import math
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import AwareDatetime, NaiveDatetime

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry


class Finish(enum.Enum):
    matt = "matt"
    gloss = "gloss"


class Paint(ExperimentInputSpec):
    count: int
    share: float | None = None
    name: str | None = None
    dry: bool | None = None
    day: dt.date | None = None
    at: AwareDatetime | None = None
    local: NaiveDatetime | None = None
    hour: dt.time | None = None
    lasting: dt.timedelta | None = None
    side: Literal["in", "out"] | None = None
    finish: Finish | None = None
    raw: bytes | None = None


class Painted(ExperimentOutputSpec):
    cover: float


def paint(spec: Paint) -> Painted:
    return Painted(cover=spec.share if spec.share is not None else math.nan)


#: What statistics of files tend to get wrong: NaN and both zeros, texts and bytes that are cut, the ends of time.
VALUES: dict[str, tuple[Any, ...]] = {
    "count": (-(2**63), -1, 0, 3, 2**63 - 1),
    "share": (0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 1e300),
    "name": ("", "a", "Z" * 16, "Z" * 40, "Z" * 16 + "\uffff", "\U0010ffff" * 20, "é"),
    "dry": (True, False),
    "day": (dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(2020, 2, 29), dt.date(9999, 12, 31)),
    "at": tuple(dt.datetime(year, 1, 1, 0, 0, 0, us, dt.UTC) for year in (1960, 1970, 2020) for us in (0, 1, 999_999)),
    "local": (dt.datetime(1960, 1, 1), dt.datetime(1970, 1, 1), dt.datetime(2020, 1, 1, 23, 59, 59, 999_999)),
    "hour": (dt.time(), dt.time(12), dt.time(23, 59, 59, 999_999)),
    "lasting": (dt.timedelta(), dt.timedelta(-1), dt.timedelta(5, 3)),
    "side": ("in", "out"),
    "finish": ("matt", "gloss"),
    "raw": (b"", b"a", b"\xff" * 20),
}
VALUES["cover"] = VALUES["share"]

ROWS = st.fixed_dictionaries(
    {name: st.sampled_from([*values, *([None] if name != "count" else [])]) for name, values in VALUES.items() if name != "cover"}
)  # fmt: skip


@st.composite
def conditions(draw: st.DrawFn) -> pl.Expr:
    """One or two comparisons, joined and turned round."""

    def one() -> pl.Expr:
        name = draw(st.sampled_from(sorted(VALUES)))
        column, value = pl.col(name), draw(st.sampled_from(VALUES[name]))
        ordered = name not in ("dry", "side", "finish")
        of_two = ["eq", "ne", "eq_missing", "ne_missing", *(["lt", "le", "gt", "ge"] if ordered else [])]
        asked = draw(st.sampled_from([*of_two, "is_null", "is_not_null", "is_in", "between"]))
        if asked in of_two:
            return getattr(column, asked)(value)
        if asked == "is_in":
            return column.is_in([value, draw(st.sampled_from(VALUES[name]))])
        if asked == "between" and ordered:
            return column.is_between(pl.lit(value), pl.lit(draw(st.sampled_from(VALUES[name]))))
        return column.is_null() if asked == "is_null" else column.is_not_null()

    both = one()
    if draw(st.booleans()):
        both = both & one() if draw(st.booleans()) else both | one()
    return ~both if draw(st.booleans()) else both


@settings(max_examples=4)
@given(runs=st.lists(st.lists(ROWS, min_size=1, max_size=3), min_size=2, max_size=4), asked=st.lists(conditions(), min_size=15, max_size=25))  # fmt: skip
def test_a_condition_of_a_lazy_frame_keeps_the_rows_that_it_keeps_of_the_frame(
    tmp_path_factory: Any, runs: list[list[dict[str, Any]]], asked: list[pl.Expr]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path_factory.mktemp("scan")))
        ExperimentRegistry.Register(name="paint")(paint)
        for rows in runs:
            BaseExperiment("paint").allocate([Paint(**row) for row in rows], "keep", engine="inline")[1].result()
        whole = scythe.read("paint", run="all")
        for condition in asked:
            found = scythe.scan("paint", run="all").filter(condition).collect()
            kept = whole.filter(condition)
            assert_frame_equal(found.sort("run_datetime", "sort_index"), kept, check_exact=True)
