"""Modules of a project are loaded as their files were when they were read, whatever has become of the files; as Python reads them."""

from __future__ import annotations

import importlib.util
import inspect
import os
import py_compile
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from scythe.define.sources.snapshot import Source, load_as_they_were, read_source


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder that Python looks into."""
    for name in ("path", "meta_path"):
        monkeypatch.setattr(sys, name, [*getattr(sys, name)])
    sys.path.insert(0, str(tmp_path))
    return tmp_path


def found(name: str) -> ModuleType:
    """A module that Python has found, and not loaded."""
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(name)
    assert spec is not None
    return importlib.util.module_from_spec(spec)


def load(module: ModuleType) -> ModuleType:
    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    module.__spec__.loader.exec_module(module)
    return module


def as_it_is(file: Path) -> None:
    load_as_they_were([Source(file.stem, str(file), is_package=False, text=read_source(file))])


@pytest.mark.parametrize("edit", ["LATE = 7.0\n", "", "LATE = (", None])
def test_a_module_that_is_edited_just_before_python_reads_it_is_as_it_was(folder: Path, edit: str | None) -> None:
    file = folder / "late.py"
    file.write_text("LATE = 1.0\n")
    as_it_is(file)
    module = found("late")
    file.unlink() if edit is None else file.write_text(edit)
    assert load(module).LATE == 1.0


def test_bytecode_of_an_earlier_file_of_the_same_second_and_size_is_not_taken(folder: Path) -> None:
    file = folder / "late.py"
    file.write_text("LATE = 1.0\n")
    os.utime(file, (1e9, 1e9))
    py_compile.compile(str(file))
    file.write_text("LATE = 7.0\n")
    os.utime(file, (1e9, 1e9))
    as_it_is(file)
    assert load(found("late")).LATE == 7.0


class Doubling(SourceFileLoader):
    """A loader that changes what it loads, as those that check types do."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.LATE *= 2


def test_a_loader_that_changes_what_it_loads_still_does(folder: Path) -> None:
    class Finder:
        def find_spec(self, name: str, path: object = None, target: object = None) -> object:
            spec = PathFinder.find_spec(name)
            if name != "late" or spec is None or spec.origin is None:
                return None
            return importlib.util.spec_from_file_location(name, spec.origin, loader=Doubling(name, spec.origin))

    file = folder / "late.py"
    file.write_text("LATE = 1.0\n")
    as_it_is(file)
    sys.meta_path.insert(0, Finder())
    assert load(found("late")).LATE == 2.0
    sys.meta_path.append(sys.meta_path.pop(0))  # found behind ours
    sys.meta_path.sort(key=lambda finder: finder is PathFinder)  # before Python's
    assert load(found("late")).LATE == 2.0


@pytest.mark.parametrize("written", ["\ufeffK = 'ü'\n".encode(), "# coding: latin-1\nK = 'ü'\n".encode("latin-1")])
def test_a_module_is_read_by_the_encoding_that_it_declares(folder: Path, written: bytes) -> None:
    file = folder / "late.py"
    file.write_bytes(written)
    as_it_is(file)
    module = found("late")
    file.write_text("K = 'u'\n")
    assert load(module).K == "ü"


def test_the_lines_of_a_module_are_those_that_python_counts(folder: Path) -> None:
    """A form feed, or a line separator of Unicode, ends none: a traceback would show other lines, and whoever asks for a source get another one."""
    file = folder / "late.py"
    file.write_text('TEXT = "\f \u2028 \x85"\ndef one():\n    "\f"\n    return 1\ndef two():\n    return 2\n')
    as_it_is(file)
    module = load(found("late"))
    assert [inspect.getsource(f) for f in (module.one, module.two)] == [
        'def one():\n    "\f"\n    return 1\n', "def two():\n    return 2\n",
    ]  # fmt: skip
