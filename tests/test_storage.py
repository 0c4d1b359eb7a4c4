"""What `Objects` promises of a root, the same for a folder and for a bucket."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from scythe_catalog.objects import Objects

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
    import scythe_catalog.objects as module

    monkeypatch.setattr(module, "_COPY_BYTES", 1000)
    objects = Objects.at(f"s3://{bucket}/root")
    objects.write("large", content := os.urandom(9 * 1024 * 1024))
    objects.link("large", "again")
    assert objects.read("again") == content
