"""Any model with any values comes back unchanged: Arrow, Parquet, Iceberg, Polars, and models again."""

from __future__ import annotations

import datetime as dt
import enum
import itertools
import uuid
from decimal import Context, Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    PrivateAttr,
    TypeAdapter,
    create_model,
    field_validator,
    model_validator,
)

from scythe_catalog.errors import DataError
from scythe_catalog.iceberg.catalog import Catalog
from scythe_catalog.iceberg.datafile import DataFileWriter, with_field_ids
from scythe_catalog.iceberg.scan import scan
from scythe_catalog.iceberg.tables import Table
from scythe_catalog.schema import Column, CompiledModel, TableSchema, arrow_to_models, compile_model, models_to_arrow
from scythe_catalog.schema.kinds import Str
from scythe_catalog.storage.objects import Objects


class Glazing(enum.Enum):
    SINGLE = "single"
    DOUBLE = "double"


class Storeys(enum.IntEnum):
    ONE = 1
    TWO = 2


class Floors(enum.Enum):
    ONE = 1
    TWO = 2


class Mixed(enum.Enum):
    A = (1, 2)
    B = 3.5


ints = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)  # a NaN equals nothing, not even itself: it has a test of its own
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
zones = st.integers(-14 * 60, 14 * 60).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
aware = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30), timezones=zones)
spans = st.timedeltas(dt.timedelta(days=-100_000_000), dt.timedelta(days=100_000_000))
paths = st.text("abcüé /._-%#?", min_size=1, max_size=8).map(Path)
urls = st.from_regex(r"\Ahttps://[a-z]{1,5}\.org/[a-z0-9]{0,5}(%20)?\Z").map(TypeAdapter(HttpUrl).validate_python)
cents = st.decimals(-9_999_999, 9_999_999, places=2)
wide = st.integers(-(10**38) + 1, 10**38 - 1).map(lambda v: Decimal(v).scaleb(-9, context=Context(prec=50)))

#: An annotation, and a strategy for its values.
SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (bool, st.booleans()),
    (int, ints),
    (float, floats),
    (str, texts),
    (bytes, st.binary(max_size=8)),
    (Annotated[Decimal, Field(max_digits=9, decimal_places=2)], cents),
    (Annotated[Decimal, Field(max_digits=38, decimal_places=9)], wide),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.datetime, st.datetimes()),
    (AwareDatetime, aware),
    (dt.timedelta, spans),
    (uuid.UUID, st.uuids()),
    (Glazing, st.sampled_from(Glazing)),
    (Storeys, st.sampled_from(Storeys)),
    (Mixed, st.sampled_from(Mixed)),
    (Literal["a", "ü", ""], st.sampled_from(["a", "ü", ""])),
    (Literal[1, 7], st.sampled_from([1, 7])),
    (Path, paths),
    (HttpUrl, urls),
]
names = st.from_regex(r"\A[a-zA-Z][a-zA-Z0-9_]{0,6}\Z").filter(
    lambda n: not n.startswith("model_") and not hasattr(BaseModel, n)
)
counter = itertools.count()


@st.composite
def typed(draw: st.DrawFn, depth: int) -> tuple[Any, st.SearchStrategy[Any]]:
    """A random annotation, up to `depth` levels deep, and a strategy for its values."""
    shape = draw(st.sampled_from(["scalar"] * 4 + (["list", "set", "many", "pair", "map", "model"] if depth else [])))
    optional = draw(st.booleans())
    if shape == "scalar":
        annotation, values = draw(st.sampled_from(SCALARS))
    elif shape == "set":
        annotation, items = draw(st.sampled_from(SCALARS))
        annotation, values = set[annotation], st.sets(items, max_size=3)
    elif shape == "model":
        model, values = draw(models(depth - 1))
        annotation = model
    else:
        inner, items = draw(typed(depth - 1))
        if shape == "list":
            annotation, values = list[inner], st.lists(items, max_size=3)
        elif shape == "many":
            annotation, values = tuple[inner, ...], st.lists(items, max_size=3).map(tuple)
        elif shape == "pair":
            annotation, values = tuple[inner, int], st.tuples(items, ints)
        else:
            key, keys = draw(st.sampled_from([(str, texts), (Glazing, st.sampled_from(Glazing))]))
            annotation, values = dict[key, inner], st.dictionaries(keys, items, max_size=3)
    return (Optional[annotation], st.none() | values) if optional else (annotation, values)  # noqa: UP045


@st.composite
def models(draw: st.DrawFn, depth: int) -> tuple[type[BaseModel], st.SearchStrategy[BaseModel]]:
    """A random model, and a strategy for its instances."""
    fields = draw(st.dictionaries(names, typed(depth), min_size=1, max_size=5))
    unique = {name.lower(): (name, field) for name, field in fields.items()}
    config = ConfigDict(protected_namespaces=())
    model = create_model(f"Model{next(counter)}", __config__=config, **{n: (f[0], ...) for n, f in unique.values()})
    return model, st.builds(model, **{n: f[1] for n, f in unique.values()})


@st.composite
def instances(draw: st.DrawFn) -> list[BaseModel]:
    """Instances of one random model."""
    _, values = draw(models(2))
    return draw(st.lists(values, min_size=1, max_size=6))


PARTITION = {"version": "v1.0.0"}
PARTITION_COLUMNS = [Column("version", Str())]


def stored(root: Path, name: str, table: pa.Table, schema: TableSchema) -> tuple[Table, str]:
    """An Iceberg table whose only data file holds a table, and the key of that file."""
    objects = Objects.at(root)
    opened = Catalog(objects.root).ensure("space", name, schema, PARTITION_COLUMNS)
    key = f"data/{name}.pq"
    with DataFileWriter(objects, key, table.schema, opened.ids) as writer:
        writer.write(table)
    return opened.replace([writer.describe(opened.iceberg.schema())], PARTITION), key


def from_polars(frame: pl.DataFrame, schema: TableSchema) -> pa.Table:
    """A frame in the storage types, by its Python values: categories are texts, durations microseconds."""
    return pa.table([pa.array(map(_lowered, frame[c.name].to_list()), c.kind.storage) for c in schema], schema.arrow)


def _lowered(value: Any) -> Any:
    match value:
        case dt.timedelta():
            return value // dt.timedelta(microseconds=1)
        case list():
            return [_lowered(v) for v in value]
        case dict():
            return {k: _lowered(v) for k, v in value.items()}
        case _:
            return value


def assert_survives(root: Path, originals: list[Any], compiled: CompiledModel) -> None:
    """Every leg of the way gives the same models."""
    name = f"table{next(counter)}"
    arrow = models_to_arrow(originals, compiled)
    assert arrow.schema.equals(compiled.schema.arrow)
    assert arrow_to_models(arrow, compiled) == originals

    table, key = stored(root, name, arrow, compiled.schema)
    parquet = pq.read_table(root / key)
    assert arrow_to_models(parquet, compiled) == originals
    assert TableSchema.from_arrow(parquet.schema) == compiled.schema
    assert table.schema == compiled.schema

    frame = scan(table, PARTITION).collect()
    assert dict(frame.schema) == {c.name: c.kind.polars() for c in compiled.schema}
    assert arrow_to_models(from_polars(frame, compiled.schema), compiled) == originals


@settings(max_examples=60)
@given(instances())
def test_a_random_model_with_random_values_comes_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, rows: list[BaseModel]
) -> None:
    assert_survives(tmp_path_factory.mktemp("root"), rows, compile_model(type(rows[0])))


class Wall(BaseModel):
    u: float
    layers: list[str] | None = None


class Everything(BaseModel):
    """One field of every kind, and the nestings that formats disagree about."""

    wall: Wall | None
    walls: list[Wall] | None
    by_name: dict[str, Wall | None]
    durations: list[dt.timedelta | None]
    glazings: dict[str, Glazing]
    deep: list[dict[str, list[Glazing | None]]]
    pair: tuple[Glazing, dt.timedelta] | None
    many: frozenset[Annotated[Decimal, Field(max_digits=20, decimal_places=4)]] = frozenset()


def test_empty_null_and_nested_values_are_told_apart(tmp_path: Path) -> None:
    full = Everything(
        wall=Wall(u=1, layers=[]),
        walls=[Wall(u=1), Wall(u=2, layers=["a", ""])],
        by_name={"a": None, "": Wall(u=3)},
        durations=[dt.timedelta(microseconds=-1), None],
        glazings={"x": Glazing.SINGLE},
        deep=[{}, {"a": [], "b": [None, Glazing.DOUBLE]}],
        pair=(Glazing.SINGLE, dt.timedelta(days=1)),
        many=frozenset({Decimal("1.5"), Decimal("-2.0001")}),
    )
    empty = Everything(wall=None, walls=[], by_name={}, durations=[], glazings={}, deep=[], pair=None)
    null = empty.model_copy(update={"walls": None})
    assert_survives(tmp_path, [full, empty, null, full], compile_model(Everything))


def test_no_rows_are_no_rows(tmp_path: Path) -> None:
    assert_survives(tmp_path, [], compile_model(Everything))


def test_a_nan_comes_back_as_a_nan(tmp_path: Path) -> None:
    compiled = compile_model(Wall)
    table, _ = stored(
        tmp_path, "walls", models_to_arrow([Wall(u=float("nan")), Wall(u=1.0)], compiled), compiled.schema
    )
    assert scan(table, PARTITION).collect()["u"].is_nan().to_list() == [True, False]


def test_a_table_without_data_reads_as_an_empty_typed_frame(tmp_path: Path) -> None:
    schema = compile_model(Everything).schema
    table = Catalog(Objects.at(tmp_path).root).ensure("space", "empty", schema, PARTITION_COLUMNS)
    frame = scan(table, PARTITION).collect()
    assert frame.height == 0
    assert dict(frame.schema) == {c.name: c.kind.polars() for c in schema}


def test_extra_values_come_back_from_their_json_column(tmp_path: Path) -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int

    compiled = compile_model(Open)
    originals = [Open(a=1), Open(a=2, colour="red", sizes=[1, 2.5, None], deep={"x": True})]
    arrow = models_to_arrow(originals, compiled)
    assert arrow.column_names == ["a", "extra"]
    schema = TableSchema(
        (*compiled.schema, TableSchema.from_arrow(arrow.select(["extra"]).schema.remove_metadata())["extra"])
    )
    table, key = stored(tmp_path, "open", arrow, schema)
    assert arrow_to_models(pq.read_table(tmp_path / key), compiled) == originals
    frame = scan(table, PARTITION).collect()
    assert frame["extra"].to_list() == [None, '{"colour":"red","sizes":[1,2.5,null],"deep":{"x":true}}']
    assert models_to_arrow(originals[:1], compiled).column_names == ["a"]


def test_columns_can_be_selected_and_ordered_and_partition_columns_kept(tmp_path: Path) -> None:
    compiled = compile_model(Wall)
    table, _ = stored(tmp_path, "walls", models_to_arrow([Wall(u=1.0, layers=["a"])], compiled), compiled.schema)
    frame = scan(table, PARTITION, columns=["layers", "u"], keep=["version"]).collect()
    assert frame.to_dicts() == [{"layers": ["a"], "u": 1.0, "version": "v1.0.0"}]


class TestRefusedValues:
    @pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30])
    def test_an_integer_beyond_64_bits_is_an_error_with_its_rows(self, value: int) -> None:
        model = create_model("Model", count=(int, ...))
        rows = [model(count=1), model(count=value), model(count=2), model(count=value)]
        with pytest.raises(DataError, match=r"count: must be int.*\(2 rows: 1, 3\)"):
            models_to_arrow(rows, compile_model(model))

    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (list[int], [2**63]),
            (dict[str, int], {"a": 2**63}),
            (dt.time, dt.time(1, tzinfo=dt.UTC)),
            (dt.datetime, dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
            (dt.timedelta, dt.timedelta.max),
            (dt.datetime, pd.Timestamp(1, unit="ns")),
            (AwareDatetime, pd.Timestamp(1, unit="ns", tz="UTC")),
            (list[dt.datetime], [pd.Timestamp(1, unit="ns")]),
        ],
        ids=str,
    )
    def test_what_the_column_cannot_hold_is_an_error_with_its_row(self, annotation: Any, value: Any) -> None:
        model = create_model("Model", value=(annotation, ...))
        with pytest.raises(DataError, match=r"Model: 1 problem.*\n.*value: must be .*\(1 row: 0\)"):
            models_to_arrow([model(value=value)], compile_model(model))

    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (int, 1.5),
            (int, "1"),
            (int, None),
            (float, "1"),
            (float, True),
            (str, 1),
            (Glazing, "triple"),
            (Literal["a"], "b"),
            (Annotated[Decimal, Field(max_digits=5, decimal_places=2)], Decimal("1.234")),
            (Annotated[Decimal, Field(max_digits=5, decimal_places=2)], Decimal("1234")),
            (list[int], "12"),
            (list[int], 3),
            (uuid.UUID, "x"),
            (Wall, {"u": 1.0}),
            (tuple[int, int], (1, 2, 3)),
        ],
        ids=str,
    )
    def test_a_model_that_was_never_validated_does_not_slip_in_another_value(self, annotation: Any, value: Any) -> None:
        model = create_model("Model", value=(annotation, ...))
        with pytest.raises(DataError, match=r"value: must .*\(1 row: 0\)"):
            models_to_arrow([model.model_construct(value=value)], compile_model(model))

    def test_all_columns_are_told_at_once(self) -> None:
        model = create_model("Model", a=(int, ...), b=(int, ...))
        with pytest.raises(DataError, match=r"(?s)2 problems.*a: .*b: ") as caught:
            models_to_arrow([model(a=2**63, b=1), model(a=1, b=2**63)], compile_model(model))
        assert [(p.column, p.rows) for p in caught.value.problems] == [("a", (0,)), ("b", (1,))]  # type: ignore[attr-defined]


class Percent(BaseModel):
    """Its validator changes the value, so that running it again would show."""

    share: float

    @field_validator("share")
    @classmethod
    def _fraction(cls, value: float) -> float:
        return value / 100


class Nested(BaseModel):
    inner: Percent
    several: list[Percent]


class Private(BaseModel):
    """Fills a private attribute after construction; its validator changes the value."""

    share: float
    _cache: dict[str, float] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any) -> None:
        self._cache["twice"] = self.share * 2


class ScaledLate(BaseModel):
    share: float
    _note: str = PrivateAttr("fresh")

    @model_validator(mode="after")
    def _fraction(self) -> ScaledLate:
        self.share /= 100
        return self


class ScaledInHook(BaseModel):
    share: float

    def model_post_init(self, context: Any) -> None:
        self.share /= 100


class TestBack:
    """What a model is when it comes back from a table."""

    @pytest.mark.parametrize("model", [Percent, ScaledLate, ScaledInHook])
    def test_what_changes_a_value_on_the_way_in_does_not_change_it_again(self, model: type[Any]) -> None:
        original = model(share=50)
        (back,) = arrow_to_models(models_to_arrow([original], compile_model(model)), compile_model(model))
        assert back.share == original.share == 0.5

    def test_validators_of_nested_models_do_not_run_again_either(self) -> None:
        original = Nested(inner=Percent(share=50), several=[Percent(share=20)])
        assert arrow_to_models(models_to_arrow([original], compile_model(Nested)), compile_model(Nested)) == [original]

    def test_private_attributes_are_there_and_each_instance_has_its_own(self) -> None:
        compiled = compile_model(Private)
        one, two = arrow_to_models(models_to_arrow([Private(share=1), Private(share=2)], compiled), compiled)
        assert (one._cache, two._cache) == ({"twice": 2.0}, {"twice": 4.0})
        assert one == Private(share=1)

    def test_a_private_attribute_has_its_default(self) -> None:
        compiled = compile_model(ScaledLate)
        (back,) = arrow_to_models(models_to_arrow([ScaledLate(share=1)], compiled), compiled)
        assert back._note == "fresh"

    def test_it_can_be_dumped_copied_and_assigned_like_any_other(self) -> None:
        compiled = compile_model(Everything)
        original = Everything(wall=Wall(u=1), walls=[], by_name={}, durations=[], glazings={}, deep=[], pair=None)
        (back,) = arrow_to_models(models_to_arrow([original], compiled), compiled)
        assert back.model_dump() == original.model_dump()
        assert back.model_copy(deep=True) == original
        assert back.wall.model_dump_json() == original.wall.model_dump_json()  # type: ignore[union-attr]
        assert hash(repr(back)) == hash(repr(original))

    def test_an_enum_kept_by_value_stays_a_value(self) -> None:
        class ByValue(BaseModel):
            model_config = ConfigDict(use_enum_values=True)
            glazing: Glazing
            floors: Floors

        compiled = compile_model(ByValue)
        original = ByValue(glazing=Glazing.SINGLE, floors=Floors.TWO)
        (back,) = arrow_to_models(models_to_arrow([original], compiled), compiled)
        assert (original.glazing, original.floors) == ("single", 2)
        assert back == original

    def test_field_ids_change_no_type(self) -> None:
        arrow = compile_model(Everything).schema.arrow
        assert with_field_ids(arrow, {"wall": 1, "wall.u": 2}).equals(arrow)


def test_a_set_is_stored_in_one_order_whatever_is_in_it() -> None:
    class Numbers(BaseModel):
        some: set[float]

    made = [Numbers(some={3.0, float("nan"), 1.0, 2.0}) for _ in range(100)]  # each NaN has a hash of its own
    stored = models_to_arrow(made, compile_model(Numbers)).column("some").to_pylist()
    assert [row[:3] for row in stored] == [[1.0, 2.0, 3.0]] * 100
    assert all(row[3] != row[3] for row in stored)


def test_a_list_in_the_place_of_a_set_is_stored_as_the_set() -> None:
    class Numbers(BaseModel):
        some: set[int]

    made = Numbers(some=set())
    made.some = [2, 1, 2, 1]  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    compiled = compile_model(Numbers)
    stored = models_to_arrow([made], compiled)
    assert stored.column("some").to_pylist() == [[1, 2]]
    assert arrow_to_models(stored, compiled) == [Numbers(some={1, 2})]
    made.some = [[1]]  # type: ignore[list-item]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(DataError, match="some"):
        models_to_arrow([made], compiled)


@pytest.mark.parametrize("annotation", [dt.datetime, dt.date, dt.time, dt.timedelta])
def test_nat_is_refused_as_no_time(annotation: Any) -> None:
    model: Any = create_model("Timed", at=(annotation | None, None))
    made = model()
    made.at = pd.NaT
    told = "NaT is no time: give None" if annotation is dt.datetime else "NaT"
    with pytest.raises(DataError, match=told):
        models_to_arrow([made], compile_model(model))
