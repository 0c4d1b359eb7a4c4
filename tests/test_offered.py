"""Names that specs answer beside their fields: a user's own of that name comes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from scythe.base import ExperimentInputSpec
from scythe.seeds import run_seed, seed_of


class Plain(ExperimentInputSpec):
    x: float = 0.0


def _spec(model: type[ExperimentInputSpec] = Plain, **more: object) -> ExperimentInputSpec:
    return model(experiment_id="heat/v1.0.0/2025-01-01_00-00-00", sort_index=7, **more)  # pyright: ignore[reportArgumentType]


def test_a_spec_names_files_by_its_run_and_its_position() -> None:
    assert _spec().prefix == "heat/v1.0.0/2025-01-01_00-00-00/7"


def test_local_path_is_fetch_uri(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("1")
    assert _spec().local_path(file.as_uri()).read_text() == "1"


def test_the_seed_follows_from_the_run_and_the_position_alone() -> None:
    assert _spec().seed == seed_of(0, 7) == _spec(x=2.0).model_copy(deep=True).seed
    token = run_seed.set(12)
    try:
        assert _spec().seed == seed_of(12, 7) != seed_of(0, 7)
    finally:
        run_seed.reset(token)
    assert 0 <= seed_of(2**80, 10**12) < 2**63


def test_fields_extras_and_properties_of_these_names_win() -> None:
    class Own(ExperimentInputSpec):
        seed: int = 3

        @property
        def prefix(self) -> str:
            return "mine"

    assert (_spec(Own).seed, _spec(Own).prefix) == (3, "mine")
    assert _spec(prefix="given").prefix == "given"


def test_a_property_that_fails_is_not_answered_by_another() -> None:
    class Broken(ExperimentInputSpec):
        @property
        def prefix(self) -> str:
            raise AttributeError("no such building")

    with pytest.raises(AttributeError, match="no such building"):
        _ = _spec(Broken).prefix
    with pytest.raises(AttributeError, match="heigth"):
        _ = _spec().heigth


def test_they_are_neither_stored_nor_compared() -> None:
    spec = _spec()
    before = spec.model_dump()
    _ = spec.seed, spec.prefix
    assert spec.model_dump() == before
    assert spec == _spec()
