"""What the table of errors tells of an exception: all that Python prints of it, whatever its own code does."""

from __future__ import annotations

import linecache
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.leaf.failures import Failure, lines_in_memory
from scythe.registry import ExperimentRegistry

# Worker processes cannot import this module by its name, which pytest made up.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Trial(ExperimentInputSpec):
    how: str


class Outcome(ExperimentOutputSpec):
    y: float = 0.0


def failures(function: Callable[..., Any], *hows: str, **options: Any) -> dict[str, dict[str, Any]]:
    """What happens -> the row of `errors`; one more input that is fine is run beside them."""
    ExperimentRegistry.Register(**{"retries": 0, **options})(function)
    specs = [Trial(experiment_id="", sort_index=i, how=how) for i, how in enumerate((*hows, "fine"))]
    result = BaseExperiment(function).allocate(specs, workers=1, chunk=len(specs))[1].result()
    assert (result.rows, result.errors) == (1, len(hows))
    return {row["how"]: row for row in scythe.read(function, table="errors").iter_rows(named=True)}


def licence() -> None:
    raise OSError("no licence server")


def solve(input_spec: Trial) -> Outcome:
    match input_spec.how:
        case "cause":
            try:
                licence()
            except OSError as error:
                raise RuntimeError("simulation failed") from error
        case "context":
            try:
                licence()
            finally:
                _ = {}["zone"]
        case "group":
            first = ValueError("zone 7 did not converge")
            first.add_note("at step 42")
            raise ExceptionGroup("two zones failed", [first, KeyError("zone 9")])
        case _:
            return Outcome()


def test_the_whole_chain_is_told_with_the_lines_of_the_users_code(root: Path) -> None:
    found = failures(solve, "cause", "context", "group")
    text = found["cause"]["traceback"]
    assert "no licence server" in text
    assert "The above exception was the direct cause of the following exception" in text
    assert 'raise OSError("no licence server")' in text
    assert text.count(__file__) == 3
    assert "During handling of the above exception" in found["context"]["traceback"]
    group = found["group"]["traceback"]
    for part in ("two zones failed (2 sub-exceptions)", "zone 7 did not converge", "at step 42", "KeyError: 'zone 9'"):
        assert part in group
    assert all(str(Path(scythe.__file__).parent) not in row["traceback"] for row in found.values())


class Hostile(Exception):
    """An exception whose own code does what its first argument says."""

    def __str__(self) -> str:
        match self.args[0]:
            case "exits":
                raise SystemExit(7)
            case "raises":
                raise ValueError("no text")
            case "interrupts":
                raise KeyboardInterrupt
            case "gives no text":
                return 7  # noqa: PLE0307  # pyright: ignore[reportReturnType]
            case "hangs":
                time.sleep(600)
            case "dies":
                os._exit(5)
            case "recurses":
                return str(self)
            case "is long":
                return "x" * 50_000_000
            case _:
                pass
        return "plain"

    __repr__ = __str__


class BadNotes(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise SystemExit(3)


def misbehave(input_spec: Trial) -> Outcome:
    if input_spec.how == "has bad notes":
        raise BadNotes("told")
    if input_spec.how == "has strange notes":
        error = ValueError("told")
        error.__notes__ = Hostile("exits")  # pyright: ignore[reportAttributeAccessIssue]
        raise error
    if input_spec.how != "fine":
        raise Hostile(input_spec.how)
    return Outcome()


def test_an_exception_whose_own_code_fails_costs_its_input_alone(root: Path) -> None:
    hows = ("exits", "raises", "interrupts", "gives no text", "recurses", "has bad notes", "has strange notes", "dies")
    found = failures(misbehave, *hows)
    assert {found[how]["exception_type"] for how in hows[:5]} == {f"{__name__}.Hostile"}
    assert found["exits"]["exception_message"] == "its message cannot be shown: __str__ fails"
    assert found["has bad notes"]["exception_message"] == "told"
    assert found["dies"]["exception_type"] == "scythe.errors.WorkerCrashed"


def test_an_exception_whose_text_takes_for_ever_is_ended_by_the_time_limit(root: Path) -> None:
    found = failures(misbehave, "hangs", execution_timeout=1)
    assert found["hangs"]["exception_type"] == "scythe.errors.InputTimeout"


def test_texts_are_of_bounded_size_and_keep_both_ends(root: Path) -> None:
    row = failures(misbehave, "is long")["is long"]
    assert len(row["exception_message"]) < 40_000
    assert "characters are left out here" in row["exception_message"]
    assert len(row["traceback"]) < 300_000
    assert row["traceback"].startswith("Traceback (most recent call last)")


@pytest.mark.parametrize("at", range(16 * 1024 - 60, 16 * 1024 + 20, 7))
@pytest.mark.parametrize("from_its_end", [False, True])
def test_of_a_secret_at_a_cut_nothing_is_told(monkeypatch: pytest.MonkeyPatch, at: int, from_its_end: bool) -> None:
    secret = "".join(chr(65 + i) for i in range(26)) + "0123456789abcd"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    text = "-" * at + secret + "-" * 200_000
    told = Failure.of(ValueError(text[::-1].replace(secret[::-1], secret) if from_its_end else text), 1).message
    assert 20_000 < len(told) < 40_000
    assert not {secret[i : i + 4] for i in range(len(secret) - 3)} & {told[i : i + 4] for i in range(len(told) - 3)}


def test_lines_that_no_file_holds_are_shown_by_workers_too(root: Path) -> None:
    cell, name = "def fail(how):\n    return 1 / len(how[:0])\n", "/tmp/ipykernel_1/12.py"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"__name__": __name__}
    exec(compile(cell, name, "exec"), scope)
    fail = scope["fail"]

    def from_a_notebook(input_spec: Trial) -> Outcome:
        return Outcome(y=0.0 if input_spec.how == "fine" else fail(input_spec.how))

    text = failures(from_a_notebook, "by nothing")["by nothing"]["traceback"]
    assert f'File "{name}", line 2, in fail\n    return 1 / len(how[:0])\n' in text


def test_lines_that_another_thread_reads_meanwhile_disturb_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    exists = Path.exists

    def while_another_thread_reads(path: Path) -> bool:
        linecache.cache[f"{path}.new"] = (1, None, ["\n"], f"{path}.new")
        return exists(path)

    monkeypatch.setattr(linecache, "cache", {"/tmp/ipykernel_1/13.py": (1, None, ["\n"], "/tmp/ipykernel_1/13.py")})
    monkeypatch.setattr(Path, "exists", while_another_thread_reads)
    assert lines_in_memory() == {"/tmp/ipykernel_1/13.py": ["\n"]}


def test_inline_raises_the_exception_with_all_that_it_was_raised_from(root: Path) -> None:
    ExperimentRegistry.Register()(solve)
    with pytest.raises(RuntimeError, match="simulation failed") as caught:
        BaseExperiment(solve).allocate(Trial(experiment_id="", sort_index=0, how="cause"), engine="inline")
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_that_no_code_raised_has_no_traceback() -> None:
    assert Failure.of(ValueError("told"), 1).traceback == "ValueError: told\n"


class Large(ExperimentOutputSpec):
    whole: int = 0
    text: str = ""


def test_an_output_that_cannot_be_stored_is_told_with_its_own_value(root: Path) -> None:
    def unfit(spec: Trial) -> Large:
        if spec.how == "fine":
            return Large()
        return Large(whole=2**70 + int(spec.how)) if int(spec.how) % 2 else Large(text=f"{spec.how}\ud800")

    hows = list(map(str, range(10, 20)))
    told = failures(unfit, *hows)
    assert len(told) == 10
    for how, error in told.items():
        value = str(2**70 + int(how)) if int(how) % 2 else f"{how}\\ud800"
        assert f"got '{value}'" in error["exception_message"]
