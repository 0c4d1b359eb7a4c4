"""Types that this file alone knows go every way that a type goes: the package has no line for any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NewType

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pydantic import Field, ValidationError, create_model
from pydantic_core import core_schema

import scythe
from scythe import ExperimentInputSpec, ExperimentOutputSpec
from scythe.allocate import BaseExperiment
from scythe.errors import InputError
from scythe.registry import ExperimentRegistry
from scythe_catalog.errors import SchemaError
from scythe_catalog.schema import TableSchema, compile_model
from scythe_catalog.schema.kinds import Kind, Values, register

# --- two types: a class with a text form, and a number that means something ---------------------------


@dataclass(frozen=True, order=True)
class Colour:
    red: int
    green: int
    blue: int

    @classmethod
    def of(cls, value: Any) -> Colour:
        if isinstance(value, Colour):
            return value
        if not (isinstance(value, str) and len(value) == 7 and value[0] == "#"):
            raise ValueError(f"{value!r} is no colour")
        return cls(*bytes.fromhex(value[1:]))

    def __str__(self) -> str:
        return f"#{self.red:02x}{self.green:02x}{self.blue:02x}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        text = core_schema.str_schema()
        return core_schema.no_info_before_validator_function(
            cls.of,
            core_schema.is_instance_schema(cls),
            json_schema_input_schema=text,
            serialization=core_schema.to_string_ser_schema(),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        return {"type": "string"}


@register
@dataclass(frozen=True)
class ColourKind(Kind):
    name = "colour"
    stored = pa.string()
    annotations = (Colour,)
    classes = (Colour, str)

    def dump(self, values: Values) -> Values:
        if not all(v is None or isinstance(v, Colour) for v in values):
            raise TypeError("not a colour")
        return [None if v is None else str(v) for v in values]

    def load(self, values: Values) -> Values:
        return [None if v is None else Colour.of(v) for v in values]

    def cast(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        return pa.chunked_array([self.array(self.load(values.to_pylist()))])

    def level(self, value: Any) -> Any:
        return self.dump([value])[0]


Length = NewType("Length", float)


@register
@dataclass(frozen=True)
class LengthKind(Kind):
    name = "length"
    stored = pa.float64()
    number = True
    annotations = (Length,)
    classes = (float, int)


# --- an experiment of them ----------------------------------------------------------------------------

DARK, RED, WHITE = Colour(16, 16, 16), Colour(255, 0, 0), Colour(255, 255, 255)


class Wall(ExperimentInputSpec):
    paint: Colour = Field(ge=DARK)
    trim: Colour | None = None
    height: Length = Field(gt=0, description="Height of a storey [m]")
    depth: Length | None = None
    palette: list[Colour | None] = Field(default_factory=list)
    reaches: list[Length] = Field(default_factory=list)


class Painted(ExperimentOutputSpec):
    mixed: Colour
    under: Colour | None
    coats: list[Colour]
    width: Length = Field(ge=0)


def paint(spec: Wall) -> Painted:
    assert isinstance(spec.paint, Colour)
    assert all(isinstance(colour, Colour | None) for colour in (spec.trim, *spec.palette))
    frame = pd.DataFrame({"load": [1.0, 2.0]}, index=spec.make_multiindex(n_rows=2))
    mixed = Colour(spec.paint.red, 0, spec.paint.blue)
    return Painted(
        mixed=mixed,
        under=spec.trim,
        coats=[c for c in spec.palette if c is not None],
        width=Length(2 * spec.height),
        dataframes={"loads": frame},
    )


WALLS = [
    Wall(experiment_id="w", sort_index=0, paint=RED, trim=WHITE, height=Length(2.5), palette=[DARK, None, RED]),
    Wall(experiment_id="w", sort_index=1, paint=WHITE, height=Length(3), depth=Length(0.3), reaches=[Length(1), Length(2)]),
]  # fmt: skip


@pytest.fixture
def experiment(root: Path) -> BaseExperiment[Any, Any]:
    return BaseExperiment(ExperimentRegistry.Register()(paint))


def columns(text: Callable[[Colour], Any]) -> dict[str, list[Any]]:
    """The inputs as the columns of a frame, with colours as its library has them."""
    return {
        "paint": [text(w.paint) for w in WALLS],
        "trim": [None if w.trim is None else text(w.trim) for w in WALLS],
        "height": [w.height for w in WALLS],
        "depth": [w.depth for w in WALLS],
        "palette": [[None if c is None else text(c) for c in w.palette] for w in WALLS],
        "reaches": [w.reaches for w in WALLS],
    }


GIVEN: dict[str, Callable[[], Any]] = {
    "models": lambda: WALLS,
    "pandas, texts": lambda: pd.DataFrame(columns(str)).astype({"depth": "Float64"}),
    "pandas, objects": lambda: pd.DataFrame(columns(lambda colour: colour)).astype({"depth": "Float64"}),
    "polars": lambda: pl.DataFrame(columns(str)),
    "polars, objects": lambda: pl.DataFrame(columns(str)).with_columns(pl.Series("paint", [RED, WHITE], pl.Object)),
    "arrow": lambda: pa.table(columns(str)),
    "arrow, categories": lambda: pa.table(columns(str) | {"paint": pa.array(["#ff0000", "#ffffff"]).dictionary_encode()}),
}  # fmt: skip


@pytest.mark.parametrize("given", GIVEN)
def test_a_type_from_outside_survives_the_whole_way(experiment: BaseExperiment[Any, Any], given: str) -> None:
    run, _ = experiment.allocate(GIVEN[given](), engine="inline")
    run.resume(engine="inline").result()

    frame = scythe.read("paint")
    text, number = pl.String, pl.Float64
    assert [frame.schema[name] for name in ("paint", "mixed", "palette")] == [text, text, pl.List(text)]
    assert [frame.schema[name] for name in ("height", "width", "reaches")] == [number, number, pl.List(number)]
    assert frame["paint"].to_list() == ["#ff0000", "#ffffff"]
    assert frame["trim"].to_list() == frame["under"].to_list() == ["#ffffff", None]
    assert frame["depth"].to_list() == [None, 0.3]
    assert frame["palette"].to_list() == [["#101010", None, "#ff0000"], []]
    assert scythe.read("paint", run="all")["mixed"].to_list() == ["#ff0000", "#ff00ff"]
    assert scythe.read("paint", table="loads")["paint"].to_list() == ["#ff0000"] * 2 + ["#ffffff"] * 2

    back = list(scythe.rows("paint"))
    fields = ("paint", "trim", "height", "depth", "palette", "reaches")
    assert [[getattr(w, f) for f in fields] for w, _ in back] == [[getattr(w, f) for f in fields] for w in WALLS]
    assert [(o.mixed, o.under, o.coats, o.width) for _, o in back] == [
        (RED, WHITE, [DARK, RED], 5.0),
        (Colour(255, 0, 255), None, [], 6.0),
    ]


def test_the_stored_schema_names_it_and_comes_back() -> None:
    schema = compile_model(Wall).schema
    assert schema["paint"].to_json()["kind"] == "colour"
    assert schema["height"].unit == "m"
    assert TableSchema.from_json(schema.to_json())["palette"].kind == schema["palette"].kind
    assert TableSchema.from_arrow(schema.arrow).names == schema.names


class Plain(ExperimentInputSpec):
    paint: Colour = Field(ge=DARK)
    height: Length = Field(gt=0)


def plain(spec: Plain) -> Painted:
    raise AssertionError


BROKEN: dict[str, tuple[dict[str, list[Any]], str]] = {
    "a bound": ({"paint": ["#ff0000", "#000000"]}, r"paint: must be >= #101010, got '#000000' \(1 row: 1\)"),
    "a bound of a number": ({"height": [1.0, -1.0]}, r"height: must be > 0, got -1\.0 \(1 row: 1\)"),
    "null": ({"paint": ["#ff0000", None]}, r"paint: must not be null \(1 row: 1\)"),
    "no such value": ({"paint": ["#ff0000", "red"]}, r"paint: must be colour: got 'red' \(1 row: 1\)"),
    "another type": ({"paint": [1, 2]}, "paint: must be colour, the column holds int"),
    "text for a number": ({"height": ["1", "2"]}, "height: must be length, the column holds"),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
def test_what_is_no_value_of_it_is_refused_by_column(root: Path, library: Callable[[Any], Any], broken: str) -> None:
    given, message = BROKEN[broken]
    frame = library({"paint": ["#ff0000", "#ffffff"], "height": [1.0, 2.0]} | given)
    with pytest.raises(InputError, match=message):
        BaseExperiment(ExperimentRegistry.Register()(plain)).allocate(frame, engine="inline")


def test_models_are_held_to_the_same_bounds() -> None:
    with pytest.raises(ValidationError, match="paint"):
        Wall(experiment_id="w", sort_index=0, paint=Colour(0, 0, 0), height=Length(1))


def test_two_types_cannot_have_one_name() -> None:
    class Other(Kind):
        name = "int"

    with pytest.raises(SchemaError, match="column kind 'int' is Int already"):
        register(Other)
    assert compile_model(create_model("Model", n=(int, ...))).schema["n"].kind.name == "int"
