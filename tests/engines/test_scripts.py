"""A script and its background run: what is the script's own stays so - its output, files, exit hooks, forked processes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import scythe
from scythe.engines.pool import leftovers
from scythe_catalog.processes import this_place

SCRIPT = """
import atexit, contextlib, io, os, sys, time
atexit.register(lambda: open("hooks", "a").write("before "))
import polars as pl
import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
atexit.register(lambda: open("hooks", "a").write("after "))
mine = open("mine.txt", "w")
mine.write("not flushed by anybody")

class Lease(ExperimentInputSpec):
    n: int

class Said(ExperimentOutputSpec):
    y: int

class Unloadable:
    def __reduce__(self):
        return eval, ("1 / 0",)

THING = None

@ExperimentRegistry.Register(retries=0)
def speak(spec: Lease) -> Said:
    THING
    print("worker", spec.n)
    return Said(y=spec.n)

@ExperimentRegistry.Register(retries=0)
def pause(spec: Lease) -> Said:
    time.sleep(0.2)
    return Said(y=spec.n)

def go(n=3, what=speak):
    return BaseExperiment(what).allocate(pl.DataFrame({"n": range(n)}), engine="local", workers=1, chunk=1)[1]

"""


def run_script(text: str, **how: object) -> subprocess.CompletedProcess[str]:
    Path("script.py").write_text(SCRIPT + text)
    return subprocess.run(
        [sys.executable, "script.py"],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 120, "check": False, **how},
    )


# --- its end ----------------------------------------------------------------------------------------


def test_processes_of_a_function_get_what_it_uses_of_its_script_by_its_name(root: Path) -> None:
    body = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

def square(x):
    return x * x

def part(spec):
    return square(spec.n)

@ExperimentRegistry.Register(retries=0)
def parted(spec: Lease) -> Said:
    many = [Lease(experiment_id="", sort_index=0, n=n) for n in range(spec.n)]
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        first = sum(pool.map(part, many))
    with get_context("fork").Pool(2) as pool:
        assert sum(pool.map(part, many)) == first
    return Said(y=first)

if __name__ == "__main__":
    print(go(4, parted).result().rows)
"""
    done = run_script(body)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["4"]), done.stderr
    assert scythe.read("parted")["y"].to_list() == [0, 0, 1, 5]


def test_a_script_whose_run_fails_ends_as_ever_with_another_exit_code(root: Path) -> None:
    done = run_script("THING = Unloadable()\ngo()\nprint('the end', end='')\n")

    assert done.returncode == 1
    assert "division by zero" in done.stderr
    assert done.stdout == "the end"
    assert Path("mine.txt").read_text() == "not flushed by anybody"
    assert Path("hooks").read_text() == "after before "


def test_handlers_of_c_libraries_run_at_the_end_of_a_script_whose_run_fails(root: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("elsewhere the other handlers may be left out")
    body = """
import ctypes
libc, text = ctypes.CDLL(None), ctypes.create_string_buffer(b"a library was closed")
libc.__cxa_atexit(ctypes.cast(libc.puts, ctypes.c_void_p), ctypes.cast(text, ctypes.c_void_p), None)
ctypes.pythonapi.Py_IncRef(ctypes.py_object(text))
THING = Unloadable()
go()
"""
    done = run_script(body)

    assert (done.returncode, done.stdout) == (1, "a library was closed\n")


# --- processes that it forks ------------------------------------------------------------------------


def test_a_process_that_a_script_forks_while_a_run_goes_on_ends_and_leaves_the_run_alone(root: Path) -> None:
    body = """
ref = go(8, pause)
seen = []
for how in ("falls through", "asks", "waits", "cancels"):
    child = os.fork()
    if child == 0 and how == "falls through":
        mine.close()
        sys.exit(7)
    if child == 0:
        try:
            {"asks": ref.result, "waits": ref.join, "cancels": ref.cancel}[how]()
        except scythe.errors.RunError as error:
            os._exit(9 if "goes on in process" in str(error) else 1)
        os._exit(2)
    seen.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(seen, ref.result().rows)
"""
    done = run_script(body)

    assert done.stdout == "[7, 9, 9, 9] 8\n", done.stderr
    assert scythe.open_run("pause").status == "finished"


def test_a_process_that_was_forked_after_a_run_is_told_to_be_spawned(root: Path) -> None:
    body = """
go().result()
child = os.fork()
if child == 0:
    try:
        go()
    except scythe.errors.RunError as error:
        os._exit(4 if "spawn" in str(error) else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_script(body).stdout.splitlines()[-1] == "4"


# --- its output -------------------------------------------------------------------------------------


def test_what_workers_print_goes_where_the_script_sends_its_output(root: Path) -> None:
    with Path("out.txt").open("w") as out:
        done = run_script("print('script', flush=True)\ngo().result()\n", stdout=out)

    assert done.returncode == 0, done.stderr
    assert Path("out.txt").read_text().splitlines() == ["script", "worker 0", "worker 1", "worker 2"]


def on_a_terminal(body: str, *, stdout: object = None) -> str:
    """What a terminal got of a script, whose standard error (and output, unless it goes elsewhere) is the terminal."""
    Path("script.py").write_text(SCRIPT + body)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        stdin=theirs, stdout=theirs if stdout is None else stdout, stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        seen += read
    os.close(ours)
    assert process.wait(60) == 0, seen.decode()
    return seen.decode()


SHOWS = """
ref = go(3, speak)
while ref.is_alive():
    print("script")
    time.sleep(0.01)
with contextlib.redirect_stdout(io.StringIO()) as text:
    print("kept")
    go(2, pause).result()
    print("kept too")
assert text.getvalue() == "kept\\nkept too\\n", text.getvalue()
print("end")
assert sys.stdout is sys.__stdout__
"""


def test_with_a_bar_on_the_terminal_redirected_output_stays_where_it_was_sent(root: Path) -> None:
    with Path("out.txt").open("w") as out:
        shown = on_a_terminal(SHOWS, stdout=out)

    lines = Path("out.txt").read_text().splitlines()
    assert "speak v1.0.0" in shown
    assert not re.search("script|worker|kept|end", shown.replace("pending", ""))
    assert lines[-1] == "end"
    assert {line for line in lines if line.startswith("worker")} == {"worker 0", "worker 1", "worker 2"}
    assert set(lines) <= {"script", "end", "worker 0", "worker 1", "worker 2"}


def test_what_is_printed_on_the_terminal_stands_on_lines_of_its_own_above_the_bar(root: Path) -> None:
    shown = on_a_terminal(SHOWS)

    printed = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "\n").split("\n")
    assert {"worker 0", "worker 1", "worker 2", "script", "end"} <= set(printed)
    assert not [line for line in printed if "speak v1.0.0" in line and re.search("worker|script", line)]
    assert "kept" not in shown


def test_what_is_printed_while_the_bar_appears_stands_above_it_too(root: Path) -> None:
    body = """
import threading
from scythe.terminal.progress import Progress

def talk():
    while sys.stdout is sys.__stdout__:
        pass
    for _ in range(20):
        print("script")

sys.setswitchinterval(1e-6)
for _ in range(100):
    thread = threading.Thread(target=talk)
    thread.start()
    with Progress("speak v1.0.0", 3):
        thread.join()
"""
    shown = on_a_terminal(body)

    printed = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "\n").split("\n")
    assert printed.count("script") == 2000
    assert not [line for line in printed if "speak v1.0.0" in line and "script" in line]


# --- what killed ones leave behind ------------------------------------------------------------------


def test_the_temporary_folder_of_a_killed_process_is_swept_when_a_pool_starts(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    Path("script.py").write_text(SCRIPT + "go(100, pause)\nprint('started', flush=True)\n")
    killed = subprocess.Popen([sys.executable, "script.py"], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "started\n"
    until = time.monotonic() + 60
    while not (left := list(tmp_path.glob("scythe-pool-*"))):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert leftovers.sweep_dead(tmp_path) == []  # its owner lives

    killed.kill()
    killed.communicate()
    assert left[0].exists()
    done = run_script("go().result()\n")

    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("scythe-pool-*")) == []


def test_only_folders_of_dead_owners_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = leftovers.PoolFolder()
    elsewhere, pid = f"{0:08x}", os.getpid()
    made = {
        "other start": tmp_path / f"scythe-pool-{this_place()}-{pid}-1-{'a' * 8}",
        "far, silent": tmp_path / f"scythe-pool-{elsewhere}-1-1-{'b' * 8}",
        "far, alive": tmp_path / f"scythe-pool-{elsewhere}-1-1-{'c' * 8}",
        "not ours": tmp_path / "scythe-pool-x",
    }
    for folder in made.values():
        folder.mkdir()
    link = tmp_path / f"scythe-pool-{this_place()}-{pid}-1-{'d' * 8}"
    link.symlink_to(tmp_path)
    for name in ("far, silent", "not ours"):
        os.utime(made[name], (1.0, 1.0))

    swept = leftovers.sweep_dead()

    numbers = Path("/proc/self/stat").exists()
    gone = {"far, silent"} | ({"other start"} if numbers else set())
    assert {name for name, folder in made.items() if not folder.exists()} == gone
    assert link.is_symlink() is not numbers  # the link alone is removed
    assert len([path for path in swept if path.parent == tmp_path]) == len(gone) + numbers
    assert mine.path.exists()
    mine.remove()
    assert not mine.path.exists()


def test_a_folder_with_a_long_name_has_a_short_one_while_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / ("x" * 80)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    mine = leftovers.PoolFolder()
    (mine.path / "0-tmp").mkdir()

    short = Path(mine.short(f"{mine.path}/0-tmp"))

    assert len(str(short)) <= 71
    assert short.samefile(mine.path / "0-tmp")
    assert mine.short("/tmp/0-tmp") == "/tmp/0-tmp"
    assert leftovers.sweep_dead(short.parent.parent) == []  # its owner lives
    mine.remove()
    assert not short.parent.is_symlink()
