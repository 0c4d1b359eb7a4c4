"""What `Objects` promises of a root, the same for a folder and for a bucket."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import duckdb_ext
import pandas as pd
import polars as pl
import pytest
from pyiceberg.table import StaticTable

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference
from scythe_catalog.errors import StorageError
from scythe_catalog.storage import disk
from scythe_catalog.storage.objects import Objects
from scythe_catalog.storage.provider import Provider
from scythe_catalog.storage.ranged import PART_BYTES

NO_LINKS = [errno.EPERM, errno.EOPNOTSUPP]


@pytest.fixture(params=["folder", "bucket"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty root."""
    if request.param == "folder":
        return Objects.at(tmp_path / "root")
    return Objects.at(f"s3://{request.getfixturevalue('bucket')}/some/root")


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this process's file system one without hard links."""

    def refuse(code: int) -> None:
        def link(*_: Any, **__: Any) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "link", link)

    return refuse


# --- files that take no other's place ---------------------------------------------------------------


@pytest.mark.parametrize("size", [10, PART_BYTES + 1], ids=["small", "in parts"])
def test_what_is_published_anew_takes_no_others_place(objects: Objects, size: int) -> None:
    def staged(content: bytes) -> Path:
        path = objects.staging_file("x.bin")
        path.write_bytes(content)
        return path

    mine, late = b"m" * size, b"l" * size
    first = [(staged(mine), f"results/{i}") for i in range(5)]
    assert objects.publish_new(first) == []
    second = [(staged(late if i < 7 else mine), f"results/{i}") for i in range(3, 9)]
    assert objects.publish_new(second) == second[:2]
    assert [path.exists() for path, _ in (*first, *second)] == [False] * 5 + [True] * 2 + [False] * 4
    assert [objects.read(f"results/{i}") for i in range(9)] == [mine] * 5 + [late] * 2 + [mine] * 2
    path = second[0][0]
    assert not objects.holds("results/3", path)
    assert objects.holds("results/5", path)
    assert not objects.holds("results/none", path)
    path.write_bytes(late + b"!")
    assert not objects.holds("results/5", path)
    for path, _ in second:
        objects.discard(path)


@pytest.mark.parametrize("code", NO_LINKS)
def test_without_hard_links_nothing_is_overwritten_either(tmp_path: Path, without_links: Any, code: int) -> None:
    without_links(code)
    objects = Objects.at(tmp_path)
    for content in (b"first", b"second"):
        path = objects.staging_file("x")
        path.write_bytes(content)
        assert objects.publish_new([(path, "a/b")]) == ([] if content == b"first" else [(path, "a/b")])
    assert objects.read("a/b") == b"first"


# --- a second name ----------------------------------------------------------------------------------


def test_a_link_shows_the_same_bytes_and_replaces_what_was_there(objects: Objects) -> None:
    objects.write("data/1.pq", b"first")
    objects.write("data/2.pq", b"second")
    objects.link("data/1.pq", "final/all.pq")
    assert objects.read("final/all.pq") == b"first"
    objects.link("data/2.pq", "final/all.pq")
    objects.link("data/2.pq", "final/all.pq")
    assert objects.read("final/all.pq") == b"second"
    objects.delete(["data/2.pq"])
    assert objects.read("final/all.pq") == b"second"
    assert objects.read("data/1.pq") == b"first"
    with pytest.raises(FileNotFoundError):
        objects.link("data/3.pq", "final/all.pq")
    assert objects.read("final/all.pq") == b"second"


def test_a_link_on_a_disk_is_the_same_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    objects = Objects.at(tmp_path)
    objects.write("a", b"content")
    for _ in range(2):
        objects.link("a", "b/c")
    assert (tmp_path / "a").samefile(tmp_path / "b" / "c")
    assert list((tmp_path / ".staging").iterdir()) == []


@pytest.mark.parametrize("code", NO_LINKS)
def test_where_there_are_no_links_a_copy_is_shown(tmp_path: Path, without_links: Any, code: int) -> None:
    objects = Objects.at(tmp_path)
    objects.write("a", b"content")
    without_links(code)
    objects.link("a", "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    assert not (tmp_path / "a").samefile(tmp_path / "b")
    assert list((tmp_path / ".staging").iterdir()) == []


def test_what_one_request_cannot_copy_goes_through_this_machine(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Provider, "copied_bytes", 1000)
    objects = Objects.at(f"s3://{bucket}/root")
    objects.write("large", content := os.urandom(9 * 1024 * 1024))
    objects.link("large", "again")
    assert objects.read("again") == content


# --- one atomic way to create -----------------------------------------------------------------------


@pytest.mark.parametrize("code", NO_LINKS)
def test_where_there_are_no_links_one_of_many_creates_an_object(tmp_path: Path, without_links: Any, code: int) -> None:
    without_links(code)
    objects = Objects.at(tmp_path / "root")
    with ThreadPoolExecutor(16) as pool:
        won = [i for i, first in enumerate(pool.map(lambda i: objects.create("a/b", b"%d" % i), range(50))) if first]
    assert len(won) == 1
    assert objects.read("a/b") == b"%d" % won[0]
    assert list((tmp_path / "root" / ".staging").iterdir()) == []


def test_a_file_system_that_can_do_neither_says_what_is_missing(
    tmp_path: Path, without_links: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(errno.EPERM)
    monkeypatch.setattr(disk, "_exclusive_rename", lambda: None)
    objects = Objects.at(tmp_path / "root")
    with pytest.raises(StorageError, match=rf"{tmp_path}/root/a has neither hard links nor renames"):
        objects.create("a/b", b"")
    assert not objects.exists("a/b")


def test_a_folder_of_the_root_may_be_a_link_to_another_disk(objects: Objects, tmp_path: Path) -> None:
    others = [path for path in (Path("/dev/shm"), Path("/var/tmp")) if path.is_dir()]
    other = next((path for path in others if path.stat().st_dev != tmp_path.stat().st_dev), None)
    if objects.folder is None or other is None:
        pytest.skip("there is no second disk here")
    with tempfile.TemporaryDirectory(dir=other) as elsewhere:
        objects.write("a", b"content")
        (tmp_path / "root" / "far").symlink_to(elsewhere)
        objects.write("far/b", b"content")
        assert objects.create("far/c", b"content")
        assert not objects.create("far/c", b"other")
        objects.link("a", "far/d")
        assert objects.keys("far") == ["far/b", "far/c", "far/d"]
        assert {objects.read(key) for key in objects.keys("far")} == {b"content"}
        objects.delete_folder("far")
        assert objects.keys("far") == []
        assert list((tmp_path / "root" / ".staging").iterdir()) == []


# --- what stays -------------------------------------------------------------------------------------


def test_bytes_are_flushed_before_they_get_their_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    objects = Objects.at(root)
    done: list[str] = []
    flush, replace, link = os.fsync, os.replace, os.link

    def fsync(opened: int) -> None:
        done.append(f"flush {Path(f'/proc/self/fd/{opened}').readlink().name.rpartition('-')[2]}")
        flush(opened)

    def named(how: Any) -> Any:
        def call(source: Any, target: Any) -> None:
            done.append(f"name {Path(target).name}")
            how(source, target)

        return call

    objects.write("folder/there", b"")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", named(replace))
    monkeypatch.setattr(os, "link", named(link))
    objects.write("folder/a", b"a")
    objects.create("folder/b", b"b")
    staged = objects.staging_file("c")
    staged.write_bytes(b"c")
    objects.publish(staged, "folder/c")
    assert done == [step for name in "abc" for step in (f"flush {name}", f"name {name}", "flush folder")]


def test_of_many_files_all_are_flushed_before_the_first_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Objects.at(tmp_path / "root")
    staged = [(objects.staging_file(str(i)), f"many/{i}") for i in range(20)]
    for path, _ in staged:
        path.write_bytes(b"x")
    flush, shown = disk._flush, list[int]()

    def counted(path: Path) -> None:
        shown.append(len(objects.files("many")))
        flush(path)

    monkeypatch.setattr(disk, "_flush", counted)
    objects.publish_all(staged)
    assert shown[:20] == [0] * 20
    assert len(objects.files("many")) == 20


@pytest.mark.parametrize("how", ["write", "create", "publish_all", "publish_new"])
def test_what_is_written_arrives_though_others_delete_its_folder_while_it_is_empty(tmp_path: Path, how: str) -> None:
    objects, over = Objects.at(tmp_path / "root"), threading.Event()
    objects.write("kept", b"")

    def write(key: str) -> None:
        if how in ("write", "create"):
            getattr(objects, how)(key, b"x")
            return
        staged = objects.staging_file("x")
        staged.write_bytes(b"x")
        getattr(objects, how)([(staged, key)])

    def tidy() -> None:
        while not over.is_set():
            objects.delete([f"run/a/b/gone{i}" for i in range(3)])  # what has just been put there, too
            objects.delete_empty_folders("run/a/b/none")

    with ThreadPoolExecutor(2) as pool:
        tidying = [pool.submit(tidy) for _ in range(2)]
        try:
            for i in range(60):
                write(f"run/a/b/gone{i % 3}")
                write(f"run/a/b/{i}")
                assert objects.read(f"run/a/b/{i}") == b"x"
                objects.delete([f"run/a/b/{i}"])
        finally:
            over.set()
    assert [one.result() for one in tidying] == [None, None]


def test_a_file_that_is_gone_before_it_gets_its_name_is_told(tmp_path: Path) -> None:
    objects = Objects.at(tmp_path / "root")
    with pytest.raises(FileNotFoundError):
        objects.publish_all([(objects.staging_file("x"), "run/a")])


def test_a_staging_folder_above_the_root_that_is_closed_is_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".staging").mkdir()
    allowed = os.access

    def access(path: Any, mode: int) -> bool:  # whoever tests may write everywhere
        return Path(path) != tmp_path / ".staging" and allowed(path, mode)

    assert Objects.at(tmp_path / "root").staging_file("x").parent == tmp_path / ".staging"
    monkeypatch.setattr(os, "access", access)
    assert Objects.at(tmp_path / "root").staging_file("x").parent == tmp_path / "root" / ".staging"


# --- what is not made, and what is not deleted ------------------------------------------------------


def test_reading_makes_nothing(tmp_path: Path) -> None:
    objects = Objects.at(tmp_path / "root")
    assert (objects.folders(), objects.files("a"), objects.keys("a"), objects.exists("a")) == ([], [], [], False)
    with pytest.raises(FileNotFoundError):
        objects.read("a")
    objects.delete(["a"])
    objects.delete_folder("b")
    assert list(tmp_path.iterdir()) == []


def test_a_new_root_stays_out_of_the_repository_around_it_and_an_older_folder_is_left_as_it_is(tmp_path: Path) -> None:
    Objects.at(tmp_path / "study" / "root").make()
    assert (tmp_path / "study" / "root" / ".gitignore").read_text() == "*\n"
    assert not (tmp_path / "study" / ".gitignore").exists()
    Objects.at(tmp_path / "study").make()
    assert not (tmp_path / "study" / ".gitignore").exists()


def test_what_cannot_be_deleted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects.at(tmp_path)
    objects.write("run/a", b"")
    objects.write("run/b", b"")
    unlink = os.unlink

    def refuse(path: Any, *more: Any, **named: Any) -> None:
        if str(path).endswith("b"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        unlink(path, *more, **named)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(StorageError, match=r"b cannot be deleted: Permission denied"):
        objects.delete_folder("run")
    with pytest.raises(StorageError, match=r"run/b cannot be deleted: Permission denied"):
        objects.delete(["run/a", "run/b"])
    monkeypatch.setattr(os, "unlink", unlink)
    assert objects.files("run") == ["b"]


def test_a_file_that_goes_while_a_folder_is_listed_is_not_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, walk = Objects.at(tmp_path), disk.walk
    for name in ("stays", "goes"):
        objects.write(f"run/{name}", b"content")

    def walked(folder: Path) -> Any:
        for path in list(walk(folder)):
            Path(path).unlink() if path.endswith("/goes") else None
            yield path

    monkeypatch.setattr(disk, "walk", walked)
    assert objects.keys("run") == ["run/stays"]


# --- staging ----------------------------------------------------------------------------------------

STAGING = """
import sys
from scythe_catalog.storage.objects import Objects
from scythe_catalog.storage.provider import Provider
from scythe_catalog.storage.ranged import PART_BYTES
for root in sys.argv[1:]:
    path = Objects.at(root).staging_file("x")
    path.write_bytes(b"half")
    print(path, flush=True)
sys.stdin.readline()
"""


def test_what_a_process_staged_is_swept_an_hour_after_its_death_and_not_before(bucket: str, tmp_path: Path) -> None:
    root, environment = tmp_path / "root", {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", STAGING, str(root), f"s3://{bucket}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout
    staged = [Path(process.stdout.readline().strip()) for _ in range(2)]
    assert staged[1].is_relative_to(tmp_path)
    assert stat.S_IMODE(staged[1].parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(staged[1].stat().st_mode) == 0o600
    sweep = [
        sys.executable,
        "-c",
        f"from scythe_catalog.storage.objects import Objects; Objects.at({str(root)!r}).sweep_staging()",
    ]

    def left_after(seconds: float) -> list[bool]:
        for path in (*staged, staged[1].parent):
            os.utime(path, (time.time() - seconds,) * 2)
        subprocess.run(sweep, check=True, env=environment)
        return [path.exists() for path in staged]

    assert left_after(7200) == [True, True]
    process.kill()
    process.communicate()
    assert left_after(1800) == [True, True]
    assert left_after(7200) == [False, False]
    assert not staged[1].parent.exists()


def test_what_cannot_be_published_leaves_nothing_staged(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    staged = [(objects.staging_file("x"), f"many/{i}") for i in range(200)]
    for path, _ in staged:
        path.write_bytes(b"x")
    staged[3][0].unlink()
    with pytest.raises(FileNotFoundError):
        objects.publish_all(staged)
    assert [p.name for p in tmp_path.rglob("*") if "-x" in p.name or "scythe-staging" in p.name] == []


def test_what_is_published_or_dropped_leaves_nothing_staged(objects: Objects, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for keep in (True, False):
        staged = objects.staging_file("x")
        staged.write_bytes(b"content")
        if keep:
            objects.publish(staged, "a")
        objects.discard(staged)
    assert objects.read("a") == b"content"
    assert [p.name for p in tmp_path.rglob("*") if "-x" in p.name or "scythe-staging" in p.name] == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_another_users_root_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    objects = Objects.at(tmp_path)
    objects.write("run/a", b"")

    def refuse(path: Any, *_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "link", refuse)
    reading = [lambda: objects.read("run/a"), lambda: objects.files("run")]
    writing = [lambda: objects.write("run/a", b""), lambda: objects.create("run/b", b"")]
    for calls, what in ((reading, "read"), (writing, "written")):
        for call in calls:
            with pytest.raises(StorageError, match=f"cannot be {what}: {os.strerror(code)}"):
                call()


# --- names ------------------------------------------------------------------------------------------


class Point(ExperimentInputSpec):
    x: int


class Value(ExperimentOutputSpec):
    y: int
    file: FileReference


def double(spec: Point, tempdir: Path) -> Value:
    (tempdir / "a.txt").write_text(str(spec.x))
    return Value(y=2 * spec.x, file=tempdir / "a.txt")


@pytest.mark.parametrize("name", ["two words", "50% #1?", "Wärme à [x] {y}*", "%20&+=~'"])
def test_a_root_of_any_name_is_read_by_all(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / name / "data"))
    experiment = BaseExperiment(ExperimentRegistry.Register(retries=0)(double))
    _, ref = experiment.allocate(pl.DataFrame({"x": [1, 2]}), engine="inline")
    uri, table = ref.result().uris["scalars"], f"{tmp_path}/{name}/data/_catalog/double/scalars"
    static = StaticTable.from_metadata(table, {"py-io-impl": "scythe_catalog.iceberg.fileio.ObjectsFileIO"})
    assert scythe.read("double")["y"].to_list() == [2, 4]
    assert [text for _, text in scythe.FileRefs(scythe.files("double"), "file", Path.read_text)] == ["1", "2"]
    assert sorted(pl.scan_iceberg(static).collect()["y"]) == [2, 4]
    assert sorted(static.scan().to_arrow()["y"].to_pylist()) == [2, 4]
    assert sorted(pd.read_parquet(uri.removeprefix("file://"))["y"]) == [2, 4]
    duck = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    for extension in ("avro", "iceberg"):
        (file,) = Path(duckdb_ext.__path__[0]).rglob(f"v{duckdb.__version__}/*/{extension}.duckdb_extension")
        duck.execute(f"LOAD '{file}'")
    assert duck.execute("SELECT sum(y) FROM iceberg_scan(?)", [table]).fetchone() == (6,)
