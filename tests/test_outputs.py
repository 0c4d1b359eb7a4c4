"""Files that a function returns: the content of what it named is stored, and nothing of the user's is touched."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import computed_field

import scythe
from scythe import FileReference, OptionalFileReference
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.leaf.outputs import OutputFiles, _suffix  # pyright: ignore[reportPrivateUsage]
from scythe.registry import ExperimentRegistry

# Worker processes cannot import this module by its name, which pytest made up.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Case(ExperimentInputSpec):
    kind: str


class Report(ExperimentOutputSpec):
    report: FileReference
    copy_of_it: OptionalFileReference = None


def stored(function: Callable[..., Any], *kinds: str, **options: Any) -> dict[str, Path | str]:
    """Kind -> the file that was stored for it, or the message of its error."""
    if function.__name__ not in {e.name for e in ExperimentRegistry.experiments()}:
        ExperimentRegistry.Register(retries=0)(function)
    specs = [Case(experiment_id="", sort_index=i, kind=kind) for i, kind in enumerate(kinds)]
    BaseExperiment(function).allocate(specs, "auto", workers=1, **options)[1].result()
    files, errors = scythe.files(function), scythe.read(function, table="errors")
    found: dict[str, Path | str] = {
        kind: Path(uri.removeprefix("file://")) for kind, uri in files.select("kind", "report").iter_rows()
    }
    return found | dict(errors.select("kind", "exception_message").iter_rows())


def linked(input_spec: Case, tempdir: Path) -> Report:
    real = tempdir / "step-9.dat"
    real.write_text(f"content of {input_spec.kind}")
    link = tempdir / "latest.dat"
    match input_spec.kind:
        case "relative":
            link.symlink_to("step-9.dat")
        case "absolute":
            link.symlink_to(real)
        case "twice":
            (tempdir / "between").symlink_to("step-9.dat")
            link.symlink_to("between")
        case "hard":
            link.hardlink_to(real)
        case "dangling":
            link.symlink_to("nothing")
        case _:
            link.symlink_to("latest.dat")
    return Report(report=link)


def test_the_content_behind_a_link_is_stored(root: Path) -> None:
    found = stored(linked, "relative", "absolute", "twice", "hard", "dangling", "loop")
    for kind in ("relative", "absolute", "twice", "hard"):
        path = found[kind]
        assert isinstance(path, Path)
        assert not path.is_symlink()
        assert (path.read_text(), path.stat().st_nlink) == (f"content of {kind}", 1)
    assert "is a symbolic link to 'nothing', which does not exist" in str(found["dangling"])
    assert "cannot be read" in str(found["loop"])


def reported(input_spec: Case, tempdir: Path) -> Report:
    (tempdir / "r.tar.gz").write_text(f"of {input_spec.kind}")
    return Report(report=tempdir / "r.tar.gz")


def test_who_was_taken_for_dead_and_goes_on_changes_no_file_that_a_row_names(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = OutputFiles.take

    def behind_another(self: Any, i: int, *given: Any) -> Any:
        taken = take(self, i, *given)
        for key in self._staged[i]:
            self._objects.write(key, [b"of another", b"of same"][int(given[1][-1])])
        return taken

    monkeypatch.setattr(OutputFiles, "take", behind_another)
    found = stored(reported, "mine", "same", engine="inline")
    mine, same = Path(found["mine"]), Path(found["same"])
    assert (mine.read_text(), same.read_text()) == ("of mine", "of same")
    (another,) = {*mine.parent.iterdir()} - {mine, same}
    assert another.read_text() == "of another"
    assert re.fullmatch(another.name.replace(".tar.gz", r"-[0-9a-f]{8}[.]tar[.]gz"), mine.name)
    assert re.fullmatch(r"[0-9a-f-]{36}[.]tar[.]gz", same.name)


@pytest.mark.parametrize("temp", ["there", "behind a link"])
def test_one_file_under_two_fields_is_stored_twice(
    root: Path, tmp_path: Path, temp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "behind a link").symlink_to("there")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / temp))

    def both(input_spec: Case, tempdir: Path) -> Report:
        (tempdir / "r.csv").write_text("1")
        (tempdir / "s.csv").symlink_to("r.csv")
        os.chdir(tempdir)
        other = {"link": tempdir / "s.csv", "relative": Path("r.csv"), "dots": tempdir / "x" / ".." / "r.csv"}
        (tempdir / "x").mkdir()
        return Report(report=tempdir / "r.csv", copy_of_it=other.get(input_spec.kind, tempdir / "r.csv"))

    stored(both, "same", "link", "relative", "dots")
    files = scythe.files(both)
    uris = [uri for column in ("report", "copy_of_it") for uri in files[column]]
    assert len(set(uris)) == 8
    assert [Path(uri.removeprefix("file://")).read_text() for uri in uris] == ["1"] * 8


def test_files_outside_of_the_tempdir_are_copied_and_stay_as_they_are(root: Path, tmp_path: Path) -> None:
    legend = tmp_path / "legend.csv"
    legend.write_text("made by hand")
    legend.chmod(0o600)
    os.utime(legend, ns=(10**18, 10**18))
    before = legend.stat()

    def share(input_spec: Case, tempdir: Path) -> Report:
        if input_spec.kind == "in tempdir":
            (tempdir / "l.csv").hardlink_to(legend)
            return Report(report=tempdir / "l.csv")
        return Report(report=legend, copy_of_it=Path("nowhere.csv") if input_spec.kind == "fails" else None)

    found = stored(share, "one", "two", "fails", "in tempdir")
    assert "nowhere.csv" in str(found["fails"])
    assert [found[k].read_text() for k in ("one", "two", "in tempdir")] == ["made by hand"] * 3  # pyright: ignore[reportAttributeAccessIssue]
    after = legend.stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns, after.st_nlink) == (
        before.st_ino, before.st_mode, before.st_mtime_ns, 1,
    )  # fmt: skip


def test_a_crash_of_a_neighbour_loses_no_file_of_the_users(root: Path, tmp_path: Path) -> None:
    hand_made = tmp_path / "hand-made"
    hand_made.mkdir()
    for i in range(4):
        (hand_made / f"{i}.csv").write_text(f"by hand {i}")

    def give(input_spec: Case) -> Report:
        if input_spec.kind == "2":
            os._exit(3)
        return Report(report=hand_made / f"{input_spec.kind}.csv")

    found = stored(give, "0", "1", "2", "3", chunk=4)
    assert "died" in str(found.pop("2"))
    assert {k: p.read_text() for k, p in found.items()} == {k: f"by hand {k}" for k in "013"}  # pyright: ignore[reportAttributeAccessIssue]
    assert sorted(p.name for p in hand_made.iterdir()) == [f"{i}.csv" for i in range(4)]


NAMES = (
    "empty.bin", "結" * 80 + ".csv", "η" * 120, "no_suffix", "plot.50% #1?.png", "run.v1.2", "a b.tar.gz", ".hidden",
    "x." + "y" * 240, "line\nbreak.csv", "tab\t.x\ty", "trailing.", "sp ace.c s v", "bad.\udcff", "x.結果", "q'\".t'x\"t",
)  # fmt: skip


def test_files_of_any_name_are_stored_and_found_again(root: Path) -> None:
    def name(input_spec: Case, tempdir: Path) -> Report:
        path = tempdir / NAMES[int(input_spec.kind)]
        path.write_text("" if path.name == "empty.bin" else input_spec.kind)
        return Report(report=path)

    stored(name, *map(str, range(len(NAMES))))
    files = scythe.files(name)
    texts = [text for _, text in scythe.FileRefs(files, "report", lambda path: path.read_text())]
    assert texts == ["", *map(str, range(1, len(NAMES)))]
    assert all(uri.isascii() and uri.isprintable() for uri in files["report"])
    assert files["report"][6].endswith(".tar.gz")


@settings(max_examples=300)
@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=200))
def test_a_stored_name_has_a_short_suffix_of_plain_characters(name: str) -> None:
    suffix = _suffix(Path("/folder") / name)
    assert suffix == "" or suffix.startswith(".")
    assert len(suffix) <= 24
    assert all(c.isascii() and (c.isalnum() or c in "._-+") for c in suffix)


def test_what_is_no_file_is_named_for_what_it_is(root: Path) -> None:
    def odd(input_spec: Case, tempdir: Path) -> Report:
        path = tempdir / "odd"
        match input_spec.kind:
            case "pipe":
                os.mkfifo(path)
            case "socket":
                os.chdir(tempdir)
                socket.socket(socket.AF_UNIX).bind("odd")
            case "device":
                path = Path("/dev/null")
            case "folder":
                path.mkdir()
            case "null":
                path = Path("a\0b")
            case _:
                pass
        return Report(report=path)

    found = stored(odd, "pipe", "socket", "device", "folder", "null", "missing")
    for kind, words in {
        "pipe": "is a pipe, not a file", "socket": "is a socket", "device": "is a device", "folder": "is a folder",
        "null": "cannot be read", "missing": "does not exist",
    }.items():  # fmt: skip
        assert words in str(found[kind])


def test_uris_name_files_or_are_refused_by_their_scheme(root: Path) -> None:
    def uri(input_spec: Case, tempdir: Path) -> Report:
        (tempdir / "a b%20c.txt").write_text("here")
        given = {
            "encoded": (tempdir / "a b%20c.txt").as_uri(),
            "plain": f"file://{tempdir}/a b%20c.txt",
            "localhost": f"file://localhost{tempdir}/a%20b%2520c.txt",
            "gs": "gs://bucket/key.pq",
            "az": "az://container/key.pq",
            "kept": "s3://bucket/key.pq",
            "web": "https://example.org/a.csv",
            "in a path": Path("s3://bucket/key.pq"),
        }[input_spec.kind]
        return Report(report=given)  # pyright: ignore[reportArgumentType]

    found = stored(uri, "encoded", "plain", "localhost", "gs", "az", "kept", "web", "in a path")
    assert [found[k].read_text() for k in ("encoded", "plain", "localhost")] == ["here"] * 3  # pyright: ignore[reportAttributeAccessIssue]
    assert "gs:// URI, which Scythe does not read" in str(found["gs"])
    assert "az:// URI" in str(found["az"])
    assert "give it as text" in str(found["in a path"])
    uris = dict(scythe.files(uri).select("kind", "report").iter_rows())
    assert (uris["kept"], uris["web"]) == ("s3://bucket/key.pq", "https://example.org/a.csv")


def test_stored_files_are_ordinary_ones(root: Path) -> None:
    def marked(input_spec: Case, tempdir: Path) -> Report:
        path = tempdir / "r.txt"
        path.write_text("r")
        path.chmod({"setuid": 0o6755, "closed": 0o000, "open": 0o777}[input_spec.kind])
        os.utime(path, ns=(10**18, 10**18))
        if input_spec.kind == "open" and os.geteuid() == 0:
            os.chown(path, 12345, 12345)
        return Report(report=path)

    for path in stored(marked, "setuid", "closed", "open").values():
        assert isinstance(path, Path)
        found = path.stat()
        umask = os.umask(0o022)
        os.umask(umask)
        assert (found.st_mode & 0o7777, found.st_uid) == (0o666 & ~umask, os.geteuid())
        assert found.st_mtime_ns != 10**18


def test_a_file_that_is_written_to_later_is_stored_as_it_was(root: Path) -> None:
    still_open: list[Any] = []

    def leave_open(input_spec: Case, tempdir: Path) -> Report:
        while still_open:
            still_open[-1].write(" and more")
            still_open.pop().close()
        file = (tempdir / "log.txt").open("w")
        file.write(input_spec.kind)
        file.flush()
        still_open.append(file)
        return Report(report=tempdir / "log.txt")

    found = stored(leave_open, "first", "second", "third", chunk=3)
    assert [found[k].read_text() for k in ("first", "second", "third")] == ["first", "second", "third"]  # pyright: ignore[reportAttributeAccessIssue]


def test_relative_paths_begin_in_the_folder_that_the_function_left(root: Path) -> None:
    def wander(input_spec: Case, tempdir: Path) -> Report:
        os.chdir(tempdir)
        Path("r.txt").write_text(input_spec.kind)
        return Report(report=Path("r.txt"))

    found = stored(wander, "a", "b")
    assert [found[k].read_text() for k in "ab"] == ["a", "b"]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root may take any group")
@pytest.mark.parametrize("pack", [False, True])
def test_files_in_a_folder_of_a_group_are_of_that_group(root: Path, pack: bool) -> None:
    group = 54321
    root.mkdir()
    os.chown(root, -1, group)
    root.chmod(0o2770)

    def shared(spec: Case, tempdir: Path) -> Report:
        (tempdir / "r.txt").write_text("shared")
        return Report(report=tempdir / "r.txt")

    ExperimentRegistry.Register(pack=pack)(shared)
    BaseExperiment(shared).allocate([Case(kind="a")], engine="inline")
    others = [str(path) for path in root.rglob("*") if path.stat().st_gid != group]
    assert not others


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    """A disk of 3 MB on which the root lies."""
    root.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", root], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may mount no disk")
    yield root
    subprocess.run(["umount", "-l", root], check=True)


class Measured(ExperimentOutputSpec):
    note: FileReference

    @computed_field
    @property
    def lines(self) -> int:
        return len(Path(self.note).read_text().splitlines())


def measured(spec: Case, tempdir: Path) -> Measured:
    (tempdir / "note.txt").write_text(f"{spec.kind}\nthe end")
    return Measured(note=tempdir / "note.txt")


@pytest.mark.parametrize("pack", [False, True])
def test_a_computed_field_of_an_output_may_read_its_files(root: Path, pack: bool) -> None:
    base = BaseExperiment(ExperimentRegistry.Register(retries=0, pack=pack)(measured))
    result = base.allocate([Case(kind="short"), Case(kind="of\nthree")], engine="inline")[1].result()
    assert (result.rows, result.errors) == (2, 0)
    assert scythe.read("measured").sort("sort_index")["lines"].to_list() == [2, 3]
    assert scythe.fetch(scythe.files("measured").sort("sort_index")["note"][0]).read_text() == "short\nthe end"


class Sized(ExperimentInputSpec):
    size: int


class Noted(ExperimentOutputSpec):
    note: FileReference


def of_size(spec: Sized, tempdir: Path) -> Noted:
    path = tempdir / "note.bin"
    path.write_bytes(os.urandom(spec.size))
    return Noted(note=path)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_full_disk_stops_the_run_and_costs_no_input(small_disk: Path, engine: str, pack: bool) -> None:
    base = BaseExperiment(ExperimentRegistry.Register(name="full", pack=pack, retries=0)(of_size))
    more: dict[str, Any] = {"workers": 1} if engine == "local" else {}
    with pytest.raises((OSError, scythe.errors.RunError), match="No space left on device"):
        base.allocate([Sized(size=200_000) for _ in range(40)], engine=engine, chunk=8, **more)[1].result()
    (run,) = base.list_runs()
    assert run.status != "finished"
    assert scythe.read("full", table="errors", run=run).is_empty()
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    result = run.resume(engine="local", workers=1).result()
    assert (result.rows, result.errors) == (40, 0)
