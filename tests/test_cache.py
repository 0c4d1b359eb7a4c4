"""The cache of fetched files: private, bounded, and never emptied under a process that lives."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scythe.cli import app
from scythe.remote import cache as cache_module
from scythe.remote.cache import clear, keep_bounded, usage
from scythe.remote.fetch import fetch
from tests.web_server import Web, web_server


@pytest.fixture
def web(root: Path) -> Iterator[Web]:
    with web_server() as served:
        yield served


@pytest.fixture
def cache(root: Path, tmp_path: Path) -> Path:
    return tmp_path / "cache"


FETCHING = """
import sys
from scythe.remote.fetch import fetch
for url in sys.argv[1:]:
    print(fetch(url), flush=True)
sys.stdin.readline()
"""


@contextmanager
def another(*urls: str) -> Iterator[list[Path]]:
    """What a process that lives as long as this block was handed."""
    process = subprocess.Popen(
        [sys.executable, "-c", FETCHING, *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield [Path(process.stdout.readline().strip()) for _ in urls]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_files_and_folders_are_their_owners_alone(web: Web, cache: Path) -> None:
    before = os.umask(0)
    try:
        fetch(web.gives("/a", b"one", ETag='"1"'))
    finally:
        os.umask(before)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in [cache, *cache.rglob("*")]}
    assert {mode for path, mode in found.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in found.items() if path.is_file()} == {0o600}


def test_the_least_recently_used_files_go_first_and_none_that_a_living_process_was_handed(
    web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_SWEEP_SECONDS", 0)
    urls = [web.knows_its_tags(f"/{i}", b"x" * 1000, f'"{i}"') for i in range(5)]
    with another(*urls[:4]) as ended:
        pass
    for number, path in enumerate(ended):
        os.utime(path.parent, (1000 + number, 1000 + number))
    with another(urls[0], urls[4]) as held:  # 0 is the newest now, and held
        os.utime(held[0].parent, (900, 900))
        keep_bounded(3500)
        assert [path.exists() for path in (*ended, held[1])] == [True, False, False, True, True]
        keep_bounded(100)
        assert [path.exists() for path in (*ended, held[1])] == [True, False, False, False, True]
    keep_bounded(100)
    assert usage().files == 0


def test_a_download_bounds_the_cache_by_itself(web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_SWEEP_SECONDS", 0)
    with another(web.gives("/a", b"x" * 1000, ETag='"1"')) as first:
        pass
    monkeypatch.setenv("SCYTHE_CACHE_SIZE", "1.5kB")
    fetch(web.gives("/b", b"x" * 1000, ETag='"2"'))
    assert not first[0].exists()
    assert usage().files == 1


def test_what_a_killed_download_left_is_swept(web: Web, cache: Path) -> None:
    begun = threading.Event()

    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"x" * 50)
        handler.wfile.flush()
        begun.set()
        handler.rfile.read(1)

    web.answers["/a"] = half
    process = subprocess.Popen([sys.executable, "-c", FETCHING, web.url + "/a"], stdin=subprocess.PIPE)
    assert begun.wait(60)
    assert clear().files == 0  # it is being downloaded
    process.kill()
    process.communicate()
    assert clear().files == 1
    assert fetch(web.gives("/a", b"whole", ETag='"1"')).read_bytes() == b"whole"


def test_the_command_shows_the_cache_and_clears_it(web: Web, cache: Path) -> None:
    with another(web.gives("/a", b"x" * 1500, ETag='"1"')):
        pass
    kept = fetch(web.gives("/b", b"x" * 500, ETag='"2"'))
    shown = CliRunner().invoke(app, ["cache"]).output
    assert str(cache) in shown
    assert "2 files, 2.0 kB" in shown
    assert "50.0 GB" in shown
    cleared = CliRunner().invoke(app, ["cache", "--clear"]).output
    assert "1 file, 1.5 kB" in cleared
    assert "1 file, 500 B" in cleared
    assert kept.exists()


def test_no_address_is_written_into_the_cache(web: Web, cache: Path) -> None:
    fetch(web.gives("/secret-path?X-Amz-Signature=abcdef", b"one", ETag='"1"'))
    (known,) = (cache / ".state" / "known").iterdir()
    assert "abcdef" not in known.read_text()
    assert json.loads(known.read_text())["size"] == 3
