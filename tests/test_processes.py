"""A process as others know it: told from one that has its number on another machine, in another container, or later on."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scythe_catalog.processes import Process, place_of, this_place
from scythe_catalog.whole_files import whole

ON_LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the start of processes is told by Linux")


def test_a_process_lives_until_it_ends() -> None:
    assert Process.this().lives
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    told = replace(Process.this(), pid=child.pid, start=0)
    assert told.lives
    child.communicate(b"\n")
    assert told.lives is False


@ON_LINUX
def test_one_that_was_given_the_number_later_is_another() -> None:
    mine = Process.this()
    assert replace(mine, start=mine.start - 1).lives is False
    assert replace(mine, start=0).lives, "nobody knows when it began"


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**70])
def test_numbers_that_none_can_have_are_of_none(pid: int) -> None:
    assert not replace(Process.this(), pid=pid, start=1).lives or pid == 2**70


def test_of_one_elsewhere_nothing_is_known() -> None:
    assert replace(Process.this(), place=place_of("another", "")).lives is None
    assert Process(this_place(), os.getpid(), 0).lives


@ON_LINUX
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can begin a container")
def test_a_container_of_the_same_host_name_is_another_place() -> None:
    ask = "from scythe_catalog.processes import Process; print(Process(*%r).lives)"
    mine = Process.this()
    told = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", ask % ((mine.place, mine.pid, mine.start),)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if told.returncode and "unshare" in told.stderr:
        pytest.skip(told.stderr)
    assert told.stdout == "None\n", told.stderr


# --- files that somebody asked for ----------------------------------------------------------------------------


def test_of_two_that_write_one_file_at_once_each_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    with whole(target) as one:
        one.write_text("one")
        with whole(target) as other:
            other.write_text("ot")
        assert target.read_text() == "ot"
    assert target.read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_link_stays_one_and_a_long_name_is_taken(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("table.csv")
    with whole(tmp_path / "link") as part:
        part.write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "table.csv").read_text() == "x"
    with whole(tmp_path / ("a" * 251 + ".csv")) as part:
        part.write_text("y")
    assert (tmp_path / ("a" * 251 + ".csv")).read_text() == "y"
