"""Two schemas are identical, additive or breaking, field by field; united, they hold the rows of both."""

from __future__ import annotations

import datetime as dt
import enum
import re
from decimal import Decimal
from typing import Annotated, Any, Literal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, Field, create_model

from scythe_catalog.schema import Severity, TableSchema, compare, compile_model, united
from scythe_catalog.schema import kinds as k

IDENTICAL, ADDITIVE, BREAKING = Severity.IDENTICAL, Severity.ADDITIVE, Severity.BREAKING
Money = Annotated[Decimal, Field(max_digits=9, decimal_places=2)]
LongMoney = Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
FineMoney = Annotated[Decimal, Field(max_digits=12, decimal_places=4)]


class Two(enum.Enum):
    A = "a"
    B = "b"


class Inner(BaseModel):
    x: int


class InnerMore(BaseModel):
    x: int
    y: float


class InnerOptional(BaseModel):
    x: int | None


def schema(**fields: Any) -> TableSchema:
    """The schema of a model with these fields."""
    return compile_model(create_model("Model", **{name: (a, ...) for name, a in fields.items()})).schema


#: old annotation, new annotation, what it is one way, what it is the other way, words of the first.
CHANGES = [
    (int, int | None, ADDITIVE, BREAKING, "may be None by now"),
    (int, float, BREAKING, BREAKING, "changed from int to float"),
    (int, str, BREAKING, BREAKING, "changed from int to str"),
    (bool, int, BREAKING, BREAKING, "changed from bool to int"),
    (dt.date, dt.datetime, BREAKING, BREAKING, "changed from date to timestamp"),
    (dt.datetime, AwareDatetime, BREAKING, BREAKING, "changed from timestamp to timestamp with time zone"),
    (dt.timedelta, int, BREAKING, BREAKING, "changed from duration to int"),
    (str, bytes, BREAKING, BREAKING, "changed from str to bytes"),
    (int, Literal[1, 2], BREAKING, ADDITIVE, "changed from"),
    (Literal[1, 2], Literal[1, 2, 3], ADDITIVE, BREAKING, "gained the choices 3"),
    (Literal["a", "b"], Literal["b", "a"], IDENTICAL, IDENTICAL, ""),
    (Literal["a"], Two, ADDITIVE, BREAKING, "gained the categories b"),
    (Two, Literal["a", "b"], IDENTICAL, IDENTICAL, ""),
    (Two, str, ADDITIVE, BREAKING, "widened from .* to str"),
    (Two, Literal["a", "c"], BREAKING, BREAKING, "lost the categories b"),
    (Money, LongMoney, ADDITIVE, BREAKING, r"widened from decimal\(9, 2\) to decimal\(12, 2\)"),
    (Money, FineMoney, BREAKING, BREAKING, r"changed from decimal\(9, 2\) to decimal\(12, 4\)"),
    (Money, float, BREAKING, BREAKING, "changed from decimal"),
    (list[int], list[int | None], ADDITIVE, BREAKING, "may be None by now"),
    (list[int], list[str], BREAKING, BREAKING, "changed from int to str"),
    (list[int], set[int], IDENTICAL, IDENTICAL, ""),
    (list[int], tuple[int, ...], IDENTICAL, IDENTICAL, ""),
    (list[Literal["a"]], list[Two], ADDITIVE, BREAKING, "gained the categories b"),
    (list[int], int, BREAKING, BREAKING, "changed from list of int to int"),
    (dict[str, int], dict[str, int | None], ADDITIVE, BREAKING, "may be None by now"),
    (dict[str, int], dict[str, float], BREAKING, BREAKING, "changed from int to float"),
    (dict[Two, int], dict[str, int], ADDITIVE, BREAKING, "keys: widened"),
    (dict[str, Inner], dict[str, InnerMore], ADDITIVE, BREAKING, "added, float"),
    (Inner, InnerMore, ADDITIVE, BREAKING, r"field\.y: added, float"),
    (Inner, InnerOptional, ADDITIVE, BREAKING, r"field\.x: may be None by now"),
    (list[Inner], list[InnerMore], ADDITIVE, BREAKING, r"field\[\]\.y: added, float"),
    (tuple[int, int], tuple[int, int, int], ADDITIVE, BREAKING, "item_2: added"),
    (tuple[int, str], tuple[str, int], BREAKING, BREAKING, "changed from int to str"),
    (Inner, dict[str, int], BREAKING, BREAKING, "changed from struct of x to map"),
]


@pytest.mark.parametrize(("old", "new", "there", "back", "words"), CHANGES, ids=[f"{c[0]}-{c[1]}" for c in CHANGES])
def test_each_change_of_a_field_has_its_severity_there_and_back(
    old: Any, new: Any, there: Severity, back: Severity, words: str
) -> None:
    forth = compare(schema(field=old), schema(field=new))
    assert forth.severity is there
    assert compare(schema(field=new), schema(field=old)).severity is back
    if words:
        told = next(line for line in str(forth).splitlines() if re.search(words, line))
        assert told.startswith("  field")
        assert told.endswith(f"({there.name.lower()})")


def test_an_added_field_is_additive_and_a_removed_one_breaking() -> None:
    small, large = schema(a=int), schema(a=int, b=str)
    assert str(compare(small, large)) == "  b: added, str (additive)"
    assert str(compare(large, small)) == "  b: removed (breaking)"


def test_a_renamed_field_is_breaking() -> None:
    assert compare(schema(a=int), schema(b=int)).severity is BREAKING


def test_the_order_of_fields_does_not_matter() -> None:
    assert compare(schema(a=int, b=str), schema(b=str, a=int)).severity is IDENTICAL


def test_another_unit_is_breaking_and_none_says_nothing() -> None:
    none, kwh, mwh = (schema(a=Annotated[float, Field(description=f"Heat{unit}")]) for unit in ("", " [kWh]", " [MWh]"))
    assert str(compare(kwh, mwh)) == "  a: changed its unit from [kWh] to [MWh] (breaking)"
    for old, new in ((none, kwh), (kwh, none), (kwh, kwh)):
        assert compare(old, new).severity is IDENTICAL


def test_docs_and_bounds_do_not_count() -> None:
    noted = schema(a=Annotated[int, Field(ge=0, description="Count [1]")])
    found = compare(schema(a=int), noted)
    assert found.severity is IDENTICAL
    assert str(found) == "  no difference"


def test_the_gravest_change_decides_and_all_are_told() -> None:
    found = compare(schema(a=int, b=int), schema(a=int | None, b=str, c=int))
    assert found.severity is BREAKING
    assert len(found.changes) == 3
    assert (found + compare(schema(a=int), schema(a=int))).changes == found.changes


def test_severities_are_ordered() -> None:
    assert IDENTICAL < ADDITIVE < BREAKING


def test_a_schema_compares_the_same_after_its_json() -> None:
    full = schema(a=Two, b=list[Inner], c=dict[str, Money], d=tuple[int, str], e=Literal[1, 2])
    assert compare(full, TableSchema.from_json(full.to_json())).severity is IDENTICAL


kinds = st.sampled_from(
    [
        (int, int | None), (Literal[1, 2], Literal[1, 2, 3]), (Literal[1], int), (Literal["a"], Literal["b", "a"]),
        (Two, str), (Money, LongMoney), (list[Literal["a"]], list[Two]), (list[int], list[int | None]),
        (dict[Two, int], dict[str, int | None]), (Inner, InnerMore), (Inner, InnerOptional), (list[Inner], list[InnerMore]),
        (tuple[int], tuple[int, str]), (str, str), (dt.date, dt.date),
    ]
)  # fmt: skip


@st.composite
def evolutions(draw: st.DrawFn) -> tuple[TableSchema, TableSchema]:
    """An old schema and one that grew from it, with fields changed, added and removed."""
    pairs = draw(st.dictionaries(st.sampled_from("abcdef"), kinds, min_size=1, max_size=6))
    gone, fresh = draw(st.sets(st.sampled_from("abcdef"))), draw(st.sets(st.sampled_from("abcdef")))
    old = {n: pair[0] for n, pair in pairs.items() if n not in fresh - gone}
    new = {n: draw(st.sampled_from(pair)) for n, pair in pairs.items() if n not in gone}
    return schema(**old), schema(**new)


@settings(max_examples=150)
@given(evolutions())
def test_united_holds_the_rows_of_the_old_and_of_the_new_schema(pair: tuple[TableSchema, TableSchema]) -> None:
    old, new = pair
    both = united(old, new)
    assert set(both.names) == {*old.names, *new.names}
    assert both.names[: len(old)] == old.names
    for one in pair:
        # Nothing but additions leads from either to the union, so a row of either is a row of it.
        assert compare(one, both).severity <= ADDITIVE
        for column in one:
            assert_holds(both[column.name].kind, column.kind)
            assert both[column.name].nullable or not column.nullable
    for column in both:
        assert column.nullable or (column.name in old and column.name in new)
    assert united(both, new) == both
    assert compare(both, united(both, old)).severity is IDENTICAL


def assert_holds(wide: k.Kind, narrow: k.Kind) -> None:
    """Every value that the narrow kind stores is one that the wide kind stores and loads as the same."""
    for value in stored_values(narrow):
        array = (
            pa.array([value], narrow.storage).cast(wide.storage)
            if pa.types.is_primitive(narrow.storage)
            else pa.array([value], wide.storage)
        )
        loaded = wide.load(array.to_pylist())
        assert wide.array(loaded).equals(array)


def stored_values(kind: k.Kind) -> list[Any]:
    """A few values as a column of this kind stores them."""
    match kind:
        case k.Category(values):
            return list(values)
        case k.Int(choices):
            return list(choices or (-(2**63), 5))
        case k.Decimal(precision, scale):
            return [Decimal(10**precision - 1).scaleb(-scale)]
        case k.List(item):
            return [[], stored_values(item)]
        case k.Map(key, value):
            return [[], [(stored_values(key)[0], stored_values(value)[0])]]
        case k.Struct(members):
            return [{m.name: stored_values(m.kind)[0] for m in members}]
        case k.Date():
            return [dt.date(2020, 1, 1)]
        case k.Float():
            return [0.5]
        case _:
            return ["text"]


def test_united_takes_docs_and_units_from_the_new_schema() -> None:
    old = schema(a=Annotated[float, Field(description="Old [m]")])
    new = schema(a=Annotated[float, Field(description="New [km]", ge=0)])
    (column,) = united(old, new)
    assert (column.doc, column.unit, column.bounds) == ("New [km]", "km", {"ge": 0})
