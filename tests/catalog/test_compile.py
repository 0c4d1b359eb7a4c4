"""A pydantic model compiles to one table schema: types, nullability, docs, units, bounds; or is refused."""

from __future__ import annotations

import datetime as dt
import enum
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NewType, Optional, TypeVar, Union

import annotated_types as at
import polars as pl
import pyarrow as pa
import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    AnyUrl,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    HttpUrl,
    NaiveDatetime,
    NonNegativeFloat,
    PositiveInt,
    SecretBytes,
    SecretStr,
    StringConstraints,
    conlist,
    create_model,
    field_validator,
    model_validator,
)

from scythe_catalog.errors import SchemaError
from scythe_catalog.markers import FileMarker
from scythe_catalog.schema import Column, TableSchema, arrow_to_models, compile_model, models_to_arrow

T = TypeVar("T")
Metres = NewType("Metres", float)
FileText = Annotated[str, FileMarker()]
FileReference = Annotated[HttpUrl | Path, FileMarker()]


class Glazing(enum.Enum):
    SINGLE = "single"
    DOUBLE = "double"


class Storeys(enum.IntEnum):
    ONE = 1
    TWO = 2


class Wall(BaseModel):
    u: float
    layers: list[str]


class Building(BaseModel):
    wall: Wall
    spare: Wall | None = None


def column(annotation: Any, **field: Any) -> Column:
    """The column of a model's only field."""
    model = create_model("Model", value=(annotation, Field(**field)))
    return compile_model(model).schema["value"]


US = pa.timestamp("us")
UTC = pa.timestamp("us", tz="UTC")
TEXT = pa.string()


def listed(dtype: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", dtype))


TYPES = [
    (bool, pa.bool_(), pl.Boolean),
    (int, pa.int64(), pl.Int64),
    (float, pa.float64(), pl.Float64),
    (str, TEXT, pl.String),
    (bytes, pa.binary(), pl.Binary),
    (Annotated[Decimal, Field(max_digits=12, decimal_places=2)], pa.decimal128(12, 2), pl.Decimal(12, 2)),
    (dt.date, pa.date32(), pl.Date),
    (dt.time, pa.time64("us"), pl.Time),
    (dt.datetime, US, pl.Datetime("us")),
    (NaiveDatetime, US, pl.Datetime("us")),
    (AwareDatetime, UTC, pl.Datetime("us", "UTC")),
    (dt.timedelta, pa.int64(), pl.Duration("us")),
    (uuid.UUID, TEXT, pl.String),
    (Path, TEXT, pl.String),
    (PurePosixPath, TEXT, pl.String),
    (FilePath, TEXT, pl.String),
    (AnyUrl, TEXT, pl.String),
    (HttpUrl, TEXT, pl.String),
    (HttpUrl | Path, TEXT, pl.String),
    (FileText, TEXT, pl.String),
    (FileReference, TEXT, pl.String),
    (Glazing, TEXT, pl.Enum(["single", "double"])),
    (Storeys, TEXT, pl.Enum(["ONE", "TWO"])),
    (Literal["a", "b"], TEXT, pl.Enum(["a", "b"])),
    (Literal["a"] | Literal["b"], TEXT, pl.Enum(["a", "b"])),
    (Literal[Glazing.DOUBLE], TEXT, pl.Enum(["double"])),
    (Literal[3, 1], pa.int64(), pl.Int64),
    (Literal[True, False], pa.bool_(), pl.Boolean),
    (list[float], listed(pa.float64()), pl.List(pl.Float64)),
    (Sequence[int], listed(pa.int64()), pl.List(pl.Int64)),
    (set[str], listed(TEXT), pl.List(pl.String)),
    (frozenset[Glazing], listed(TEXT), pl.List(pl.Enum(["single", "double"]))),
    (tuple[float, ...], listed(pa.float64()), pl.List(pl.Float64)),
    (list[list[int]], listed(listed(pa.int64())), pl.List(pl.List(pl.Int64))),
    (list[dt.timedelta], listed(pa.int64()), pl.List(pl.Duration("us"))),
    (
        tuple[int, str],
        pa.struct([("item_0", pa.int64()), ("item_1", TEXT)]),
        pl.Struct({"item_0": pl.Int64, "item_1": pl.String}),
    ),
    (dict[str, float], pa.map_(TEXT, pa.field("value", pa.float64())), pl.Map(pl.String, pl.Float64)),
    (Mapping[str, int], pa.map_(TEXT, pa.field("value", pa.int64())), pl.Map(pl.String, pl.Int64)),
    (dict[Glazing, int], pa.map_(TEXT, pa.field("value", pa.int64())), pl.Map(pl.String, pl.Int64)),
    (
        Wall,
        pa.struct([("u", pa.float64()), ("layers", listed(TEXT))]),
        pl.Struct({"u": pl.Float64, "layers": pl.List(pl.String)}),
    ),
    (PositiveInt, pa.int64(), pl.Int64),
    (Metres, pa.float64(), pl.Float64),
    (int | float, pa.float64(), pl.Float64),
]


@pytest.mark.parametrize(("annotation", "arrow", "polars"), TYPES, ids=[str(t[0]) for t in TYPES])
class TestTypes:
    def test_each_type_has_one_arrow_type_and_one_polars_dtype(self, annotation: Any, arrow: Any, polars: Any) -> None:
        compiled = column(annotation)
        assert compiled.arrow == pa.field("value", arrow, nullable=False)
        assert compiled.kind.polars() == polars

    def test_optional_makes_the_same_column_nullable(self, annotation: Any, arrow: Any, polars: Any) -> None:
        compiled = column(Optional[annotation])  # noqa: UP045 - built at run time
        assert compiled.arrow == pa.field("value", arrow, nullable=True)
        assert compiled.kind == column(annotation).kind

    def test_the_schema_comes_back_from_json_and_from_arrow_metadata(
        self, annotation: Any, arrow: Any, polars: Any
    ) -> None:
        schema = compile_model(create_model("Model", value=(annotation, Field(description="A value [m]")))).schema
        assert TableSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
        read = TableSchema.from_arrow(schema.arrow)
        assert read == schema
        assert read.arrow == schema.arrow


def test_columns_stand_in_the_order_of_their_definition_with_inherited_ones_first() -> None:
    class Base(BaseModel):
        z: int

    class Child(Base):
        b: str
        a: float | None

    schema = compile_model(Child).schema
    assert schema.names == ("z", "b", "a")
    assert [c.nullable for c in schema] == [False, False, True]


def test_a_default_does_not_make_a_column_nullable_and_none_does() -> None:
    class Model(BaseModel):
        count: int = 3
        name: str | None = None
        either: Union[None, int] = 4  # noqa: UP007, RUF036
        literal: Literal["a", None] = "a"

    assert [c.nullable for c in compile_model(Model).schema] == [False, True, True, True]


def test_nullability_of_items_and_values_is_kept() -> None:
    assert column(list[int | None]).kind != column(list[int]).kind
    assert column(dict[str, int | None]).kind != column(dict[str, int]).kind
    assert column(tuple[int | None, int]).kind != column(tuple[int, int]).kind


def test_a_generic_model_compiles_once_its_parameters_are_given() -> None:
    class Box(BaseModel, Generic[T]):
        content: T

    assert compile_model(Box[int]).schema["content"].kind == column(int).kind


def test_aliases_do_not_name_columns() -> None:
    class Model(BaseModel):
        area: float = Field(alias="floorArea")
        height: float = Field(validation_alias=AliasChoices("h", "height"))

    assert compile_model(Model).schema.names == ("area", "height")


def test_skipped_fields_have_no_column_and_are_not_looked_at() -> None:
    class Model(BaseModel):
        area: float
        anything: Any = None

    assert compile_model(Model, ("anything",)).schema.names == ("area",)


def test_a_model_with_extra_values_says_so() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        area: float

    assert compile_model(Open).allows_extra
    assert not compile_model(Wall).allows_extra


class TestNotes:
    def test_the_description_is_the_doc_and_its_trailing_bracket_the_unit(self) -> None:
        found = column(float, description="The U-value of the wall [W/m2K]")
        assert (found.doc, found.unit) == ("The U-value of the wall [W/m2K]", "W/m2K")
        assert found.arrow.metadata == {b"doc": b"The U-value of the wall [W/m2K]", b"unit": b"W/m2K"}

    def test_an_explicit_unit_goes_before_the_bracket(self) -> None:
        assert column(float, description="Area [ft2]", json_schema_extra={"unit": "m2"}).unit == "m2"

    def test_lists_of_numbers_have_units(self) -> None:
        assert column(list[float], description="Hourly load [kWh] ").unit == "kWh"

    @pytest.mark.parametrize("annotation", [str, bool, Literal["a"], dt.date])
    def test_a_bracket_behind_what_is_no_measure_is_no_unit(self, annotation: Any) -> None:
        assert column(annotation, description="The name [optional]").unit is None

    def test_a_bracket_in_the_middle_is_no_unit(self) -> None:
        assert column(float, description="The [best] ratio").unit is None

    def test_without_description_there_is_neither(self) -> None:
        assert column(float).arrow.metadata is None


class TestBounds:
    @pytest.mark.parametrize(
        ("annotation", "bounds"),
        [
            (Annotated[int, Field(ge=0, lt=10)], {"ge": 0, "lt": 10}),
            (Annotated[float, at.Gt(0.5), at.Le(2)], {"gt": 0.5, "le": 2}),
            (Annotated[float, at.Interval(ge=0, le=1)], {"ge": 0, "le": 1}),
            (PositiveInt, {"gt": 0}),
            (NonNegativeFloat, {"ge": 0}),
            (NonNegativeFloat | None, {"ge": 0}),
            (Annotated[int | None, Field(le=4)], {"le": 4}),
            (Annotated[str, Field(min_length=1, max_length=3)], {"min_length": 1, "max_length": 3}),
            (Annotated[str, at.Len(2, 5)], {"min_length": 2, "max_length": 5}),
            (Annotated[str, StringConstraints(pattern="^a", max_length=3)], {"pattern": "^a", "max_length": 3}),
            (Annotated[list[int], Field(min_length=1)], {"min_length": 1}),
            (conlist(int, max_length=2), {"max_length": 2}),
            (Annotated[dt.date, Field(ge=dt.date(2020, 1, 1))], {"ge": dt.date(2020, 1, 1)}),
            (
                Annotated[Decimal, Field(max_digits=6, decimal_places=2, ge=0)],
                {"ge": 0},
            ),
            (Annotated[float, Field(allow_inf_nan=False)], {"finite": True}),
        ],
        ids=str,
    )
    def test_declared_limits_are_kept_with_the_column(self, annotation: Any, bounds: dict[str, Any]) -> None:
        assert column(annotation).bounds == bounds

    def test_limits_given_in_the_field_count_too(self) -> None:
        assert column(float, ge=0, le=1, description="A ratio").bounds == {"ge": 0, "le": 1}

    def test_limits_that_are_not_json_are_written_as_text(self) -> None:
        found = column(dt.timedelta, ge=dt.timedelta(hours=1))
        assert found.to_json()["bounds"] == {"ge": "1:00:00"}


class TestDeclarative:
    """Column checks say all that the model would, or pydantic is asked."""

    def test_plain_fields_with_limits_are_declarative(self) -> None:
        class Model(BaseModel):
            a: int = Field(ge=0)
            b: Literal["x", "y"]
            c: dt.datetime | None = None
            d: str = Field(pattern="^x", max_length=3)

        assert compile_model(Model).declarative

    @pytest.mark.parametrize(
        "annotation",
        [
            Annotated[float, AfterValidator(lambda v: v)],
            Annotated[float, BeforeValidator(lambda v: v)],
            Annotated[int, Field(multiple_of=3)],
            Annotated[str, StringConstraints(strip_whitespace=True)],
            Annotated[str, StringConstraints(to_lower=True)],
            list[int],
            list[Annotated[int, Field(ge=0)]],
            dict[str, int],
            Wall,
            tuple[int, int],
            Literal[True],
        ],
        ids=["after", "before", "multiple", "strip", "lower", "list", "bounded items", "map", "model", "tuple", "true"],
    )
    def test_what_columns_cannot_check_goes_through_pydantic(self, annotation: Any) -> None:
        assert not compile_model(create_model("Model", value=(annotation, ...))).declarative

    def test_validators_of_the_model_make_it_undeclarative(self) -> None:
        class OfField(BaseModel):
            a: int

            @field_validator("a")
            @classmethod
            def even(cls, v: int) -> int:
                return v

        class OfModel(BaseModel):
            a: int

            @model_validator(mode="after")
            def even(self) -> OfModel:
                return self

        class Hooked(BaseModel):
            a: int

            def model_post_init(self, context: Any) -> None:
                self.a += 0

        class Stripped(BaseModel):
            model_config = ConfigDict(str_strip_whitespace=True)
            a: str

        for model in (OfField, OfModel, Hooked, Stripped):
            assert not compile_model(model).declarative, model


class Empty(BaseModel):
    pass


class Node(BaseModel):
    children: list[Node] = []


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class WithFile(BaseModel):
    epw: FileReference


class Odd:
    pass


REFUSED = [
    (Any, r"Any", "(concrete|plain) type"),
    (object, r"object", "plain type"),
    (Odd, r"Odd", "plain type"),
    (complex, r"complex", "plain type"),
    (int | str, r"int \| str|Union\[int, str\]", "one optional field for each"),
    (int | str | None, r"int \| str|Union\[int, str\]", "one optional field for each"),
    (Wall | Open, r"Wall", "one optional field for each"),
    (Node, r"Node", "contains itself"),
    (Decimal, r"Decimal", "max_digits=12, decimal_places=2"),
    (Annotated[Decimal, Field(max_digits=12)], r"Decimal", "max_digits=12, decimal_places=2"),
    (Annotated[Decimal, Field(max_digits=39, decimal_places=2)], r"Decimal", "at most 38"),
    (SecretStr, r"SecretStr", "environment"),
    (SecretBytes, r"SecretBytes", "environment"),
    (dict, r"dict", r"dict\[str, float\]"),
    (dict[int, str], r"dict", r"dict\[str, ...\]"),
    (dict[str | None, str], r"dict", r"dict\[str, ...\]"),
    (list, r"list", r"list\[float\]"),
    (set, r"set", r"set\[float\]"),
    (tuple, r"tuple", r"tuple\[float, float\]"),
    (list[Any], r"Any", "(concrete|plain) type"),
    (dict[str, Any], r"Any", "(concrete|plain) type"),
    (Empty, r"Empty", "no fields"),
    (list[Empty], r"Empty", "no fields"),
    (Open, r"Open", "extra"),
    (list[FileReference], r"file reference", "a field of its own"),
    (dict[str, FileReference], r"file reference", "a field of its own"),
    (tuple[FileReference, int], r"file reference", "a field of its own"),
    (WithFile, r"file reference", "a field of its own"),
    (Literal[1, "a"], r"Literal", "one type"),
    (Literal[b"a"], r"Literal", "one type"),
]


class TestRefusals:
    @pytest.mark.parametrize(("annotation", "named", "way_out"), REFUSED, ids=[str(r[0]) for r in REFUSED])
    def test_what_has_no_faithful_column_is_refused_by_model_field_type_and_ways_out(
        self, annotation: Any, named: str, way_out: str
    ) -> None:
        model = create_model("Simulation", __config__=ConfigDict(arbitrary_types_allowed=True), load=(annotation, ...))
        with pytest.raises(SchemaError) as caught:
            compile_model(model)
        message = str(caught.value)
        assert message.startswith("Node.children: " if annotation is Node else "Simulation.load: ")
        assert re.search(named, message), message
        assert re.search(way_out, message), message

    def test_a_refusal_deep_inside_names_the_model_that_it_stands_in(self) -> None:
        class Inner(BaseModel):
            odd: Any

        class Outer(BaseModel):
            inner: list[Inner]

        with pytest.raises(SchemaError, match=r"Inner\.odd"):
            compile_model(Outer)

    def test_a_model_that_contains_itself_through_another_is_refused(self) -> None:
        with pytest.raises(SchemaError, match=r"B\.a: .*contains itself"):
            compile_model(A)

    def test_extra_values_get_a_column_that_no_field_has(self) -> None:
        model = create_model("Spec", __config__=ConfigDict(extra="allow"), extra=(int, ...), x=(int, ...))
        compiled = compile_model(model)
        assert (compiled.schema.names, compiled.extra_column) == (("extra", "x"), "extra_")
        table = models_to_arrow([model(extra=1, x=2, height=3)], compiled)
        assert table.column_names == ["extra", "x", "extra_"]
        assert arrow_to_models(table, compiled) == [model(extra=1, x=2, height=3)]
        assert compiled.beside(["Extra_"]).extra_column == "extra__"

    def test_the_same_model_twice_side_by_side_is_no_recursion(self) -> None:
        assert compile_model(Building).schema.names == ("wall", "spare")


class A(BaseModel):
    b: B | None = None


class B(BaseModel):
    a: A | None = None


A.model_rebuild()
