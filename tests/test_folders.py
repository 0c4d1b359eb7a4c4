"""The folder of an input is empty, its owner's alone and of a name of its own, whatever the input before has left in it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scythe.leaf.folders import Folders


@pytest.fixture
def folders() -> Iterator[Folders]:
    found = Folders()
    yield found
    found.close()


def without_children(*_: int) -> None:
    """What `os.waitid` does in a process that has none; that of the tests may have servers."""
    raise ChildProcessError


def nothing(folder: Path) -> None:
    pass


def a_file_that_is_taken(folder: Path) -> None:
    (folder / "series.npy").write_text("1")
    (folder / "series.npy").rename(folder.parent / "taken")


def a_file(folder: Path) -> None:
    (folder / "left.txt").write_text("1")


def folders_below(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "c").write_text("1")


def other_rights(folder: Path) -> None:
    folder.chmod(0o755)


def rights_to_nothing(folder: Path) -> None:
    (folder / "left.txt").write_text("1")
    folder.chmod(0)


def no_folder(folder: Path) -> None:
    folder.rmdir()


def a_file_in_its_place(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("1")


def a_link_in_its_place(folder: Path) -> None:
    folder.rmdir()
    folder.symlink_to(folder.parent)


LEFT = [
    nothing, a_file_that_is_taken, a_file, folders_below, other_rights, rights_to_nothing, no_folder, a_file_in_its_place,
    a_link_in_its_place,
]  # fmt: skip


@pytest.mark.parametrize("left", LEFT, ids=lambda left: left.__name__.replace("_", " "))
def test_the_next_one_is_empty_whatever_is_left(
    left: Callable[[Path], None], folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "waitid", without_children)
    names: set[Path] = set()
    for _ in range(3):
        folder = Path(folders.new(again=True))
        names.add(folder)
        assert not folder.is_symlink()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert list(folder.iterdir()) == []
        assert str(folder.resolve()) == folders.real
        left(folder)
        folders.leave(str(folder), again=True)
    assert len(names) == 3


def test_a_folder_that_was_left_empty_is_the_next_one(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "waitid", without_children)
    first = Path(folders.new(again=True))
    inode = first.stat().st_ino
    folders.leave(str(first), again=True)
    second = Path(folders.new(again=True))
    assert second.stat().st_ino == inode
    assert not first.exists()


def test_of_inputs_that_are_not_trusted_each_has_a_folder_that_is_made_for_it(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "waitid", without_children)
    first = folders.new(again=True)
    inode = Path(first).stat().st_ino
    held = os.open(first, os.O_DIRECTORY)
    folders.leave(first, again=True)
    second = Path(folders.new(again=False))
    assert second.stat().st_ino != inode
    with pytest.raises(FileNotFoundError):
        os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=held)
    os.close(held)
    folders.leave(str(second), again=False)
    assert not second.exists()


def test_a_program_that_an_input_left_running_does_not_get_into_the_folder_of_the_next(folders: Folders) -> None:
    first = folders.new(again=True)
    program = "import os, sys; print(flush=True); sys.stdin.read(); open('late', 'w')"
    running = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=first,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    running.stdout.readline()
    folders.leave(first, again=True)
    second = Path(folders.new(again=True))
    _, errors = running.communicate()
    assert list(second.iterdir()) == []
    assert b"FileNotFoundError" in errors


def test_nor_does_one_whose_own_parent_has_ended(folders: Folders, tmp_path: Path) -> None:
    first, begins = folders.new(again=True), tmp_path / "begins"
    os.mkfifo(begins)
    code = "import os, sys; open(sys.argv[1]).read(); open('late', 'w')"
    command = f'{sys.executable} -c "{code}" {begins} 2> {tmp_path / "errors"} &'
    subprocess.run(command, shell=True, cwd=first, check=True)
    folders.leave(first, again=True)
    second = Path(folders.new(again=True))
    begins.write_text("")
    for _ in range(1000):
        if list(second.iterdir()) or "FileNotFoundError" in (tmp_path / "errors").read_text():
            break
        threading.Event().wait(0.01)
    assert list(second.iterdir()) == []


def test_nothing_stays_behind(folders: Folders) -> None:
    first = Path(folders.new(again=True))
    folders.leave(str(first), again=True)
    folders.close()
    assert not first.parent.exists()
    folders.close()
