"""What functions print and log: kept by input in the table `logs`, and passed on to where the user sent it."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.cli import app
from scythe.define import schemas
from scythe.errors import OutputError
from scythe.leaf import call, printed, surroundings
from scythe.leaf.dataframes import prepare
from scythe.leaf.printed import KEPT_BYTES, remains
from scythe.registry import ExperimentRegistry


class Talk(ExperimentInputSpec):
    n: int


class Heard(ExperimentOutputSpec):
    y: int = 0


PROGRAM = "import sys; print('a program'); print('its trouble', file=sys.stderr)"


def talking(spec: Talk) -> Heard:
    """The odd ones are silent."""
    match spec.n:
        case 0:
            print("plain", spec.n)
            print("half a line", end="")
        case 2:
            subprocess.run([sys.executable, "-c", PROGRAM], check=True)
        case 4:
            spec.log("see https://me:hunter2@host/x")
        case 6:
            print("before it fails")
            raise ValueError("broken")
        case 8:
            os.write(2, b"last words\n")
            os.kill(os.getpid(), signal.SIGKILL)
        case 10:
            print("x" * 3 * KEPT_BYTES)
        case _:
            pass
    return Heard(y=spec.n)


@pytest.fixture
def run(root: Path, capfd: pytest.CaptureFixture[str]) -> ExperimentRun:
    """A finished run of inputs that print in all ways."""
    experiment = BaseExperiment(ExperimentRegistry.Register(name="talk", retries=0)(talking))
    made, ref = experiment.allocate(pl.DataFrame({"n": range(12)}), engine="local", workers=2, chunk=3)
    ref.result()
    return made


def logs(run: ExperimentRun) -> dict[int, tuple[str | None, ...]]:
    found = scythe.read("talk", table="logs", run=run)
    assert set(found["attempt"]) == {1}
    return {i: texts for i, *texts in found.select("sort_index", "stdout", "stderr", "log").rows()}


def test_each_input_has_what_it_printed_and_the_silent_have_no_row(
    run: ExperimentRun, capfd: pytest.CaptureFixture[str]
) -> None:
    found = logs(run)
    assert list(found) == [0, 2, 4, 6, 8, 10]
    assert found[0] == ["plain 0\nhalf a line", None, None]
    assert found[2] == ["a program\n", "its trouble\n", None]
    assert found[4][2] is not None
    assert "hunter2" not in found[4][2]
    assert found[6] == ["before it fails\n", None, None]
    assert found[8] == [None, "last words\n", None]
    assert found[10][0] is not None
    assert f"{KEPT_BYTES + 1:,} bytes are left out" in found[10][0]
    out, err = capfd.readouterr()
    assert "plain 0" in out
    assert "before it fails" in out
    assert out.count("x") == 3 * KEPT_BYTES
    assert err.count("last words") == 1


def test_what_a_function_tells_the_logging_of_python_is_kept_with_its_input(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @ExperimentRegistry.Register(name="talk", retries=0)
    def logging_(spec: Talk) -> Heard:
        log = logging.getLogger("solver")
        match spec.n:
            case 0:
                log.warning("no convergence after %d steps, see https://me:hunter2@host/x", 7)
                spec.log("goes on")
            case 1:
                log.info("below the level of the script")
            case 2:
                logging.getLogger("solver.mesh").info("its own level")
                try:
                    raise ValueError("a bad cell")
                except ValueError:
                    log.exception("caught")
            case 3:
                log.error("the last words")
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                log.warning("%s", object.__new__(Unshowable))
        return Heard(y=spec.n)

    class Unshowable:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    caplog.set_level(logging.INFO, "solver.mesh")
    run, ref = BaseExperiment(logging_).allocate(pl.DataFrame({"n": range(5)}), engine="local", workers=1, chunk=5)
    assert ref.result().rows == 4
    found = {i: log for i, (*_, log) in logs(run).items()}
    assert list(found) == [0, 2, 3, 4]
    assert found[0] == "WARNING solver: no convergence after 7 steps, see https://me:***@host/x\ngoes on\n"
    assert str(found[2]).startswith(
        "INFO solver.mesh: its own level\nERROR solver: caught\nTraceback (most recent call last):"
    )
    assert str(found[2]).endswith("ValueError: a bad cell\n")
    assert found[3] == "ERROR solver: the last words\n"
    assert found[4] == "WARNING solver: %s (its values cannot be shown: RuntimeError)\n"
    assert "no convergence" in caplog.text


def test_what_a_quick_function_prints_after_many_silent_inputs_is_its_own_and_is_passed_on_once(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    @ExperimentRegistry.Register(name="talk", retries=0)
    def rarely(spec: Talk) -> Heard:
        if spec.n % 300 == 299:
            print(f"here is {spec.n}")
        return Heard(y=spec.n)

    run, ref = BaseExperiment(rarely).allocate(pl.DataFrame({"n": range(1000)}), engine="local", workers=1, chunk=500)
    assert ref.result().rows == 1000
    assert logs(run) == {i: [f"here is {i}\n", None, None] for i in (299, 599, 899)}
    assert capfd.readouterr().out.split("\n")[:3] == ["here is 299", "here is 599", "here is 899"]


def test_a_retry_replaces_what_the_failed_inputs_printed_and_keeps_the_rest(root: Path) -> None:
    @ExperimentRegistry.Register(name="talk", retries=0)
    def mended(spec: Talk) -> Heard:
        print("try", Path("mended").exists())
        if spec.n == 1 and not Path("mended").exists():
            raise ValueError("broken")
        return Heard(y=spec.n)

    run, ref = BaseExperiment(mended).allocate(pl.DataFrame({"n": range(3)}), engine="local", workers=1)
    assert ref.result().errors == 1
    Path("mended").touch()
    run.retry_errors(engine="local", workers=1).result()
    found = scythe.read("talk", table="logs", run=run).select("sort_index", "attempt", "stdout").rows()
    assert found == [(0, 1, "try False\n"), (1, 2, "try True\n"), (2, 1, "try False\n")]


def test_words_of_an_input_that_is_run_again_and_is_silent_are_gone(root: Path) -> None:
    @ExperimentRegistry.Register(name="talk", retries=0)
    def mended(spec: Talk) -> Heard:
        if not Path("mended").exists():
            print("it breaks")
            raise ValueError("broken")
        return Heard(y=spec.n)

    run, ref = BaseExperiment(mended).allocate(pl.DataFrame({"n": [0]}), engine="local", workers=1)
    ref.result()
    assert "it breaks" in CliRunner().invoke(app, ["logs", "talk"]).output
    Path("mended").touch()
    run.retry_errors(engine="inline").result()
    assert "has printed anything" in CliRunner().invoke(app, ["logs", "talk"]).output


def test_the_command_shows_the_last_lines_of_all_and_everything_of_one(run: ExperimentRun) -> None:
    def said(*words: str) -> str:
        return CliRunner().invoke(app, ["logs", *words], catch_exceptions=False).output

    lines = said("talk").splitlines()
    assert len(lines) == 7
    assert "half a line" in lines[1]
    assert said("talk", "2") == "--- stdout\na program\n--- stderr\nits trouble\n"
    assert "has printed nothing" in said("talk", "3")


def test_a_run_in_which_nothing_is_printed_has_no_such_table(root: Path) -> None:
    @ExperimentRegistry.Register(name="talk")
    def silent(spec: Talk) -> Heard:
        return Heard(y=spec.n)

    run, ref = BaseExperiment(silent).allocate(pl.DataFrame({"n": range(3)}), engine="local", workers=1)
    assert "logs" not in ref.result().uris
    told = CliRunner().invoke(app, ["logs", "talk"]).output
    assert told == f"no input of {run.experiment_id} has printed anything\n"


def test_a_dataframe_may_not_have_the_name_of_the_table() -> None:
    with pytest.raises(OutputError, match="table of Scythe's own"):
        prepare({"logs": pl.DataFrame({"a": [1]})})


def test_what_a_process_that_died_has_left_is_read_once_and_what_was_passed_on_is_not_passed_on_again(
    tmp_path: Path,
) -> None:
    path, out = str(tmp_path / "0"), tmp_path / "out"
    program = (
        "import os, sys; from scythe.leaf.printed import Printed\n"
        f"p = Printed({path!r}); print('first'); sys.stdout.flush(); p.pass_on(); print('second'); sys.stdout.flush()\n"
        "p.log('noted'); os._exit(9)"
    )
    with out.open("wb") as stdout:
        subprocess.run([sys.executable, "-c", program], stdout=stdout, check=False)
        assert out.read_text() == "first\n"
        assert remains(path, stdout.fileno()).row == (None, "first\nsecond\n", None, "noted\n")
        assert remains(path, stdout.fileno()) == (None, False)
    assert out.read_text() == "first\nsecond\n"
    assert list(tmp_path.iterdir()) == [out]


def test_an_older_run_with_a_dataframe_of_that_name_is_read_and_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @ExperimentRegistry.Register(name="talk", retries=0)
    def older(spec: Talk) -> Heard:
        if spec.n == 1 and not Path("mended").exists():
            raise ValueError("broken")
        print("talks")
        return Heard(
            y=spec.n, dataframes={} if Path("mended").exists() else {"logs": pl.DataFrame({"trees": [spec.n]})}
        )

    with monkeypatch.context() as earlier:
        earlier.setattr(schemas, "RESERVED_TABLES", schemas.RESERVED_TABLES - {"logs"})
        with pytest.raises(ValueError, match="broken"):
            BaseExperiment(older).allocate(pl.DataFrame({"n": [0, 1, 2]}), engine="inline")
        run = scythe.open_run("talk")
        run.resume(engine="inline")
    assert scythe.read("talk", table="logs", run=run)["trees"].to_list() == [0, 2]
    Path("mended").touch()
    run.retry_errors(engine="local", workers=1).result()
    assert scythe.read("talk", table="logs", run=run)["trees"].to_list() == [0, 2]


def odd(spec: Talk) -> Heard:
    """The one in the middle leaves the streams as no other input may find them."""
    print("hi", spec.n)
    match spec.n:
        case 1:
            sys.stdout.close()
        case 3:
            sys.stdout = Rude()  # type: ignore[assignment]
        case 5:
            del sys.stdout
        case 7:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        case 9:
            os.close(1)
        case _:
            pass
    return Heard(y=spec.n)


class Rude:
    def flush(self) -> None:
        raise RuntimeError("never")


def test_an_input_that_closes_or_replaces_its_streams_does_so_for_itself_alone(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment = BaseExperiment(ExperimentRegistry.Register(name="talk", retries=0)(odd))
    run, ref = experiment.allocate(pl.DataFrame({"n": range(12)}), engine="local", workers=1)
    assert ref.result().errors == 0
    assert logs(run) == {i: [f"hi {i}\n", None, None] for i in range(12)}
    assert capfd.readouterr().out == "".join(f"hi {i}\n" for i in range(12))


@pytest.mark.parametrize("most", [None, 201])
def test_what_was_printed_among_trusted_inputs_is_its_own_where_their_process_ends_in_between(
    root: Path, most: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    @ExperimentRegistry.Register(name="talk", retries=0, max_inputs_per_process=most)
    def quick(spec: Talk) -> Heard:
        # However slow the machine is, they are quick enough to be trusted.
        surroundings.QUICK_SECONDS = call.QUICK_SECONDS = 60.0
        if spec.n == 200:
            print("I am 200")
        if spec.n == 201 and most is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return Heard(y=spec.n)

    run, ref = BaseExperiment(quick).allocate(pl.DataFrame({"n": range(250)}), engine="local", workers=1, chunk=250)
    assert ref.result().errors == (most is None)
    assert logs(run) == {200: ["I am 200\n", None, None]}
    assert capfd.readouterr().out == "I am 200\n"


def kept_of(path: Path, *pieces: bytes) -> str:
    path.write_bytes(b"".join(pieces))
    with path.open("rb") as file:
        found = printed._kept(file.fileno())
    assert found is not None
    return found


def test_a_long_text_is_cut_between_lines_so_that_no_secret_is_halved_else_between_characters(tmp_path: Path) -> None:
    secret = b"fetching https://me:hunter2@host/x\n"
    for shift in range(len(secret)):
        filled = (b"a" * 99 + b"\n") * 640 + b"b" * (KEPT_BYTES - 64000 - shift - 1) + b"\n"
        found = kept_of(tmp_path / "long", filled, secret, b"c\n" * KEPT_BYTES, secret, filled)
        assert not re.search("hunt|unter2|nter2|ter2@", found)
    found = kept_of(tmp_path / "letters", b"x", "é".encode() * 3 * KEPT_BYTES)
    assert "\ufffd" not in found
    left_out = int(re.search(r"… ([\d,]+) bytes", found)[1].replace(",", ""))  # type: ignore[index]
    assert left_out + len(re.sub(r"\n… .* …\n", "", found).encode()) == 6 * KEPT_BYTES + 1


def test_a_full_pipe_that_does_not_wait_gets_everything(tmp_path: Path) -> None:
    (tmp_path / "printed").write_bytes(b"x" * 1_000_000)
    source, onto = os.pipe()
    os.set_blocking(onto, False)
    got: list[int] = []

    def drain() -> None:
        while block := os.read(source, 65536):
            got.append(len(block))

    reader = threading.Thread(target=drain)
    with (tmp_path / "printed").open("rb") as file:
        writer = threading.Thread(target=lambda: (printed._copy(file.fileno(), 0, onto), os.close(onto)))
        writer.start()
        reader.start()
        writer.join()
        reader.join()
    os.close(source)
    assert sum(got) == 1_000_000


def test_a_process_that_was_killed_before_it_had_begun_has_left_nothing(tmp_path: Path) -> None:
    (tmp_path / "0-passed").touch()
    assert remains(str(tmp_path / "0"), None) == (None, False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux frees a part of a file")
def test_endless_output_that_is_passed_on_takes_no_room_on_the_disk(tmp_path: Path) -> None:
    path = str(tmp_path / "0")
    program = (
        "import os; from scythe.leaf.printed import Printed\n"
        f"p = Printed({path!r})\n"
        "for _ in range(20): os.write(1, b'first' + bytes(3_000_000) + b'last'); p.pass_on()\n"
        f"print(os.stat({path + '-stdout'!r}).st_blocks * 512 < 8_000_000); text = p.take().stdout\n"
        "print(text[:5], text[-9:-5])"
    )
    with (tmp_path / "out").open("wb") as stdout:
        subprocess.run([sys.executable, "-c", program], stdout=stdout, check=True)
    left = remains(path, None).row
    assert left is not None
    assert left.stdout == "first last\n"
    assert (tmp_path / "out").read_bytes().replace(b"\0", b"") == b"firstlast" * 20 + b"True\n"
