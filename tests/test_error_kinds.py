"""What fails is told when it fails, once a kind, and counted; errors that trying again cannot change are not tried again."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from typer.testing import CliRunner

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.cli import app
from scythe.errors import TooManyErrors
from scythe.gather import error_kinds
from scythe.gather.error_kinds import ErrorKinds
from scythe.gather.error_limit import ErrorLimit


class House(ExperimentInputSpec):
    setpoint: float
    site: str = "Boston"


class Load(ExperimentOutputSpec):
    doubling: float = Field(ge=0)


def errors(messages: list[str], kind: str = "ValueError", first: int = 0) -> pa.Table:
    n = len(messages)
    return pa.table({
        "sort_index": range(first, first + n), "setpoint": [20.5] * n,
        "exception_type": [kind] * n, "exception_message": messages,
        "traceback": ['Traceback:\n  File "a.py", line 3, in low\n    low(1)\n  File "b.py", line 9, in f\n    raise E\n'] * n,
        "attempts": [1] * n,
    })  # fmt: skip


def test_errors_are_of_one_kind_where_their_messages_differ_in_values_alone() -> None:
    kinds = ErrorKinds()

    news = kinds.add(errors(["no root between 0.5 and -1e-3 for 'a b'", "no root between 7 and 8,000 for 'c'", "late"]))
    news += kinds.add(errors(["no root between 1 and 2 for 'd'"], first=3))
    news += kinds.add(errors(["no root between 1 and 2 for 'd'"], kind="mine.Odd", first=4))

    assert [(k.name, k.count, k.first) for k in kinds.all()] == [
        ("ValueError", 3, 0),
        ("ValueError", 1, 2),
        ("Odd", 1, 4),
    ]
    assert news[0].text == (
        "input 0 failed (setpoint=20.5): ValueError: no root between 0.5 and -1e-3 for 'a b'\n  b.py:9 in f: raise E"
    )
    assert len(news) == 3
    assert kinds.all()[0].place == "b.py:9 in f"


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(-(10**9), 10**9)), max_size=30), st.integers(1, 7)
)
def test_however_the_rows_come_the_counts_are_the_same(rows: list[tuple[str, int]], size: int) -> None:
    messages = [f"{word} {number}" for word, number in rows]
    whole, piecewise = ErrorKinds(), ErrorKinds()
    whole.add(errors(messages))
    for start in range(0, len(messages), size):
        piecewise.add(errors(messages[start : start + size], first=start))
    assert piecewise.all() == whole.all()
    apart = [ErrorKinds() for _ in range(3)]
    for start in range(0, len(messages), size):
        apart[start // size % 3].add(errors(messages[start : start + size], first=start))
    assert ErrorKinds(*(json.loads(json.dumps(one.told())) for one in apart)).all() == whole.all()
    assert sum(kind.count for kind in whole.all()) == len(rows)


def test_however_many_kinds_there_are_every_error_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_kinds, "_MOST_KINDS", 10)
    kinds, words = ErrorKinds(), [f"no weather for {chr(97 + i)}bc" for i in range(20)]
    kinds.add(errors(words))
    kinds.add(errors(["out of memory"] * 90, kind="MemoryError", first=20))
    kinds.add(errors([f"word {chr(97 + i)}" for i in range(20)], kind="KeyError", first=110))
    found = kinds.all()
    assert (found[0].name, found[0].count, found[0].first, found[0].message) == ("MemoryError", 90, 20, "out of memory")
    assert sum(kind.count for kind in found) == 130
    assert len(found) <= 14
    again = ErrorKinds(json.loads(json.dumps(kinds.told())))
    assert again.all() == found


@pytest.mark.parametrize("classes", [1, 50])
def test_errors_of_any_number_of_classes_are_all_counted(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_kinds, "_MOST_KINDS", 2)
    kinds = ErrorKinds()
    for i in range(100):
        kinds.add(errors([f"word {chr(97 + i % 26)}{chr(97 + i // 26)}"], kind=f"E{i % classes}", first=i))
    assert sum(kind.count for kind in kinds.all()) == 100
    assert len(kinds.all()) <= 7


def doubling(spec: House) -> Load:
    if spec.site == "Rome":
        import module_that_is_not_there  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    if spec.site == "Oslo":
        return Load(doubling=1, dataframes={"hours": pl.DataFrame({"setpoint": [1.0]})})
    return Load(doubling=26 - spec.setpoint)


@pytest.fixture
def run(root: Any, capfd: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    ExperimentRegistry.Register(retries=3)(doubling)
    specs = pl.DataFrame({"setpoint": [20.0, 27.0, 28.0, 30.0, 20.0, 20.0], "site": ["Boston"] * 4 + ["Rome", "Oslo"]})
    _, ref = BaseExperiment(doubling).allocate(specs, engine="local", workers=1)
    return ref.result(), capfd.readouterr().err


def test_the_first_failure_of_each_kind_is_told_at_once_and_the_end_names_the_kinds(run: tuple[Any, str]) -> None:
    result, said = run
    assert [(k.name, k.count, k.first) for k in result.error_kinds] == [
        ("ValidationError", 3, 1),
        ("ModuleNotFoundError", 1, 4),
        ("OutputError", 1, 5),
    ]
    assert "input 1 failed (setpoint=27.0, site='Boston'): ValidationError: 1 validation error for Load" in said
    assert said.count("ValidationError: 1 validation error") == 1
    assert "test_error_kinds.py:" in said
    assert "in doubling: return Load(doubling=26 - spec.setpoint)" in said
    assert "doubling v1.0.0: 5 errors: ValidationError 1 validation error for Load doubling Input should be " in said
    assert "https://" not in repr(result)
    assert "5 errors: ValidationError" in repr(result)
    assert scythe.open_run("doubling").result == result


def test_what_cannot_change_by_trying_again_is_tried_once(run: tuple[Any, str]) -> None:
    assert scythe.read("doubling", table="errors")["attempts"].to_list() == [1] * 5


def test_show_gives_one_entry_a_kind(run: tuple[Any, str]) -> None:
    shown = CliRunner().invoke(app, ["show", "doubling"]).output
    assert "3 (50%), input 1 the first: ValidationError: 1 validation error for Load" in shown
    assert shown.count("ValidationError") == 1
    assert "Traceback" not in shown
    told = [
        CliRunner().invoke(app, command).output
        for command in (["show", "doubling", "--traceback"], ["errors", "doubling"])
    ]
    assert [text.count("Traceback (most recent call last)") for text in told] == [2, 2]


def test_errors_in_parts_count_for_a_number_and_never_for_alike() -> None:
    alike, three = ErrorLimit("alike", 100, "r"), ErrorLimit(3, 100, "r")
    alike.check_part(0, 50, ErrorKinds())
    three.check_part(5, 3, ErrorKinds())
    with pytest.raises(TooManyErrors, match="4 inputs have failed, more than 3"):
        three.check_part(0, 1, ErrorKinds())
    with pytest.raises(TooManyErrors, match="1 input has failed, more than 0, with errors that `scythe errors` shows"):
        ErrorLimit(0, 100, "r").check_part(0, 1, ErrorKinds())


def test_a_result_that_is_printed_commands_no_terminal(root: Any) -> None:
    def odd(spec: House) -> Load:
        if spec.setpoint:
            raise ValueError("x\x00y\x1b[2J")
        return Load(doubling=0)

    ExperimentRegistry.Register(retries=0)(odd)
    _, ref = BaseExperiment(odd).allocate(pl.DataFrame({"setpoint": [0.0, 1.0]}), engine="local")
    assert r"ValueError x\x00y\x1b[2J" in str(ref.result())
