"""`scythe.rows` of a run that was made with other models: what it was comes back, or the field is named."""

from __future__ import annotations

import datetime as dt
import uuid
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, HttpUrl, computed_field, create_model

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import RunError
from scythe.registry import ExperimentRegistry


class Two(Enum):
    p = "p"
    q = "q"


class One(Enum):
    p = "p"


def layer(**fields: Any) -> type[BaseModel]:
    return create_model("Layer", **fields)


METRES, MILLIMETRES = Field(description="Width [m]"), Field(description="Width [mm]")
#: What a field was, a value, what it is by now, and what the error says of it; None where the value comes back.
CHANGES: list[tuple[Any, Any, Any, str | None]] = [
    (int, 5, dt.timedelta, "changed from"),
    (float, 1.5, dt.timedelta, "changed from"),
    (dt.timedelta, dt.timedelta(days=1), int, "changed from"),
    (float, 1.5, int, "changed from"),
    (int, 5, bool, "changed from"),
    (bool, True, float, "changed from"),
    (str, "ab", list[str], "changed from"),
    (str, "ab", HttpUrl, "changed from"),
    (str, "ab", uuid.UUID, "changed from"),
    (str, "zzz", Literal["p"], "changed from"),
    (list[tuple[str, int]], [("a", 1)], dict[str, int], "changed from"),
    (dict[str, int], {"u": 1}, layer(u=(int, ...)), "changed from"),
    (tuple[int, int], (1, 2), tuple[int, int, int], "added"),
    (tuple[int, int, int], (1, 2, 3), tuple[int, int], "removed"),
    (layer(u=(float, ...)), {"u": 1.0}, layer(u=(float, ...), d=(float, 0.1)), "x.d added"),
    (layer(u=(float, ...), d=(float, 0.1)), {"u": 1.0}, layer(u=(float, ...)), "x.d removed"),
    (Annotated[float, METRES], 1.0, Annotated[float, MILLIMETRES], "changed its unit"),
    (layer(u=(float, METRES)), {"u": 1.0}, layer(u=(float, MILLIMETRES)), "x.u changed its unit"),
    (float | None, None, float, "may no longer be None, and is null in some rows"),
    (Literal["p", "q"], "q", Literal["p"], "'q' in some rows, which is none of its choices"),
    (Literal[1, 2], 2, Literal[1], "2 in some rows, which is none of its choices"),
    (Two, Two.q, One, "'q' in some rows, which is none of its choices"),
    (float | None, 1.5, float, None),
    (float, 1.5, float | None, None),
    (Literal["p", "q"], "p", Literal["p"], None),
    (Literal["p"], "p", Literal["p", "q"], None),
    (Literal["p"], "p", str, None),
    (Literal[1, 2], 2, int, None),
    (list[Literal["p"]], ["p"], list[Literal["p", "q"]], None),
    (Annotated[float, Field(ge=0)], 1.5, Annotated[float, METRES], None),
]


def registered(inputs: dict[str, Any], outputs: dict[str, Any], value: Any = None) -> type[ExperimentInputSpec]:
    """The input model of an experiment whose function gives `value` as its `x`, where its outputs have one."""
    taken: type[ExperimentInputSpec] = create_model("In", __base__=ExperimentInputSpec, **inputs)
    given: type[ExperimentOutputSpec] = create_model("Out", __base__=ExperimentOutputSpec, **outputs)

    def changing(input_spec: Any) -> Any:
        return given(x=value) if "x" in outputs else given()

    changing.__annotations__ = {"input_spec": taken, "return": given}
    ExperimentRegistry.Register()(changing)
    return taken


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "root"))
    return tmp_path


@pytest.mark.parametrize("made", [False, True], ids=["input", "output"])
@pytest.mark.parametrize(("before", "value", "after", "told"), CHANGES)
def test_values_come_back_as_what_they_were_or_their_field_is_named(
    root: Path, before: Any, value: Any, after: Any, told: str | None, made: bool
) -> None:
    other: dict[str, Any] = {"k": (float, 0.0)}

    def registered_with(kind: Any) -> type[ExperimentInputSpec]:
        return registered(*((other, {"x": (kind, ...)}) if made else ({"x": (kind, ...)}, other)), value)

    then = registered_with(before)
    BaseExperiment("changing").allocate([then() if made else then(x=value)], engine="inline")  # type: ignore[call-arg]
    registered_with(after)

    if told is None:
        ((inputs, outputs),) = scythe.rows("changing")
        assert (outputs if made else inputs).x == value
    else:
        with pytest.raises(RunError, match=told) as refused:
            list(scythe.rows("changing"))
        assert "use scythe.read" in str(refused.value)


def test_a_field_with_the_name_that_values_beyond_the_fields_had_is_no_such_value(root: Path) -> None:
    outputs: dict[str, Any] = {"y": (float, 0.0)}
    then = registered({"a": (float, ...), "extra": (str, "none")}, outputs)
    BaseExperiment("changing").allocate([then(a=1, extra="shed")], engine="inline")  # type: ignore[call-arg]
    registered({"a": (float, ...)}, outputs)

    ((inputs, _),) = scythe.rows("changing")

    assert (inputs.a, inputs.model_extra) == (1.0, {})


def test_an_identifier_that_is_made_for_each_input_is_made_for_each_row_of_older_runs(root: Path) -> None:
    class Out(ExperimentOutputSpec):
        y: float = 1.0

    def run_of(**fields: Any) -> Any:
        model: Any = create_model("In", __base__=ExperimentInputSpec, a=(float, ...), **fields)

        def made(spec: Any) -> Out:
            return Out()

        made.__annotations__ = {"spec": model, "return": Out}
        ExperimentRegistry._experiments.pop("made", None)
        ExperimentRegistry.Register()(made)
        return made

    BaseExperiment(run_of()).allocate([{"a": a} for a in range(3)], engine="inline")[1].result()
    now = run_of(w=(uuid.UUID, Field(default_factory=uuid.uuid4)), some=(list[int], Field(default_factory=list)))
    rows = [spec for spec, _ in scythe.rows(now)]
    assert [row.a for row in rows] == [0, 1, 2]
    assert len({row.w for row in rows}) == 3
    assert [row.some for row in rows] == [[], [], []]


def test_what_a_model_computes_otherwise_by_now_is_not_said_of_a_run_of_before(root: Path) -> None:
    tariff = 1.0

    class Bill(ExperimentOutputSpec):
        kwh: float

        @computed_field
        @property
        def cost(self) -> float:
            return self.kwh * tariff

    class Asked(ExperimentInputSpec):
        used: float

    def billed(spec: Any) -> Any:
        return Bill(kwh=spec.used)

    billed.__annotations__ = {"spec": Asked, "return": Bill}
    ExperimentRegistry.Register()(billed)
    BaseExperiment(billed).allocate([{"used": 3.0}, {"used": float("nan")}], engine="inline")
    assert next(bill.cost for _, bill in scythe.rows(billed)) == 3.0
    tariff = 10.0
    assert scythe.read("billed")["cost"][0] == 3.0
    with pytest.raises(RunError, match=r"cost was computed as 3\.0, and is 30\.0 by now; use scythe\.read"):
        list(scythe.rows(billed))
