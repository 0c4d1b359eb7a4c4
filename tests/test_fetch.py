"""Fetching: whole files, asked for once, in a cache that many processes share."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import stamina

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.errors import FetchError
from scythe.remote.fetch import fetch
from scythe.runs.run import ExperimentRun
from scythe.utils.filesys import FileReference
from scythe_catalog.storage import repeated
from tests.fault_proxy import fault_proxy
from tests.s3_server import S3Server
from tests.web_server import Web, web_server


@pytest.fixture
def web(root: Path) -> Iterator[Web]:
    """A web server; retries wait for nothing."""
    with web_server() as served:
        stamina.set_testing(True, attempts=3)
        yield served
        stamina.set_testing(False)


@pytest.fixture
def cache(root: Path, tmp_path: Path) -> Path:
    return tmp_path / "cache"


def cached(cache: Path) -> list[Path]:
    return [p for p in cache.rglob("*") if p.is_file() and ".state" not in p.parts]


def test_a_local_file_is_given_as_it_is(root: Path, cache: Path) -> None:
    path = Path("a file 100%.txt").absolute()
    path.write_text("a")

    assert fetch(path) == path
    assert fetch("a file 100%.txt").read_text() == "a"
    assert fetch(path.as_uri()) == path
    assert cached(cache) == []


def test_a_missing_file_or_a_folder_cannot_be_fetched(root: Path) -> None:
    Path("folder").mkdir()

    with pytest.raises(FetchError, match=r"gone\.txt does not exist"):
        fetch("gone.txt")
    with pytest.raises(FetchError, match="folder is a folder"):
        fetch("folder")


def test_a_web_file_is_fetched_into_the_cache_under_its_own_name(web: Web, cache: Path) -> None:
    url = web.gives("/data/boston%20logan.epw?year=2024", b"weather", ETag='"1"')

    path = fetch(url)

    assert path.read_bytes() == b"weather"
    assert path.name == "boston logan.epw"
    assert cached(cache) == [path]


def test_a_file_of_the_same_tag_is_taken_from_the_cache_and_fetched_anew_without_it(web: Web, cache: Path) -> None:
    url = web.gives("/a", b"one", ETag='"1"')
    first = fetch(url)
    web.gives("/a", b"two", ETag='"1"')

    assert fetch(url) == first
    assert first.read_bytes() == b"one"
    assert fetch(url, use_cache=False).read_bytes() == b"two"


def test_a_file_whose_tag_has_changed_is_fetched_anew_and_the_old_one_stays(web: Web) -> None:
    url = web.gives("/a", b"one", ETag='"1"')
    first = fetch(url)
    web.gives("/a", b"two", ETag='"2"')

    second = fetch(url)

    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")


def test_without_a_tag_date_and_size_tell_whether_a_file_has_changed(web: Web) -> None:
    url = web.gives("/a", b"one", Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
    assert fetch(url).read_bytes() == b"one"

    web.gives("/a", b"two", Last_Modified="Tue, 02 Jan 2024 00:00:00 GMT")
    assert fetch(url).read_bytes() == b"two"

    web.gives("/a", b"three", Last_Modified="Tue, 02 Jan 2024 00:00:00 GMT")
    assert fetch(url).read_bytes() == b"three"


def test_a_server_that_says_nothing_of_its_content_is_never_trusted_to_give_the_same(web: Web) -> None:
    url = web.gives("/a", b"one")
    assert fetch(url).read_bytes() == b"one"

    web.gives("/a", b"two")
    assert fetch(url).read_bytes() == b"two"


def test_equal_tags_of_different_addresses_are_different_files(web: Web) -> None:
    one, two = web.gives("/1/a", b"one", ETag='"1"'), web.gives("/2/a", b"two", ETag='"1"')

    assert [fetch(u).read_bytes() for u in (one, two, one)] == [b"one", b"two", b"one"]


def test_what_is_tried_again_is_told_in_a_line_now_and_then_and_other_codes_tries_as_they_are(
    web: Web, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated, "_EVERY_SECONDS", 1e9)
    told = [one for one in logging.getLogger("stamina").filters if isinstance(one, repeated._Told)]  # pyright: ignore[reportPrivateUsage]
    for one in told:
        one._last = -1e12  # pyright: ignore[reportPrivateUsage]
    url = web.gives("/a?X-Amz-Signature=abc", b"an error page", status=500)
    for _ in range(2):
        with pytest.raises(FetchError):
            fetch(url)
    (line,) = caplog.messages
    assert re.fullmatch(r"http://127[.]0[.]0[.]1:[0-9]+/a.*: 500 .*; it is tried again", line)
    assert "abc" not in line
    caplog.clear()
    for one in logging.getLogger("stamina").filters:
        one._last = -1e12  # type: ignore[union-attr] # pyright: ignore
    for attempt in repeated.repeated("outer", lambda _: True):
        with attempt:
            for inner in repeated.repeated("inner", lambda _: True):
                with inner:
                    break
            if attempt.num == 1:
                raise OSError("later")
    assert caplog.messages == ["outer: later; it is tried again"]
    caplog.clear()
    with pytest.raises(ValueError, match="invalid literal"):
        stamina.retry(on=ValueError)(int)("mine")
    assert caplog.messages == ["stamina.retry_scheduled"] * 2


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (500, 3), (503, 3)])
def test_a_status_that_is_no_success_is_an_error_and_only_the_servers_own_faults_are_tried_again(
    web: Web, cache: Path, status: int, asked: int
) -> None:
    url = web.gives("/a", b"an error page", status=status)

    with pytest.raises(FetchError, match=f"{url} answered {status}"):
        fetch(url)
    assert len(web.asked) == asked
    assert cached(cache) == []


def test_a_server_that_recovers_is_believed(web: Web) -> None:
    url = web.gives("/a", b"", status=503)
    bad = web.answers["/a"]
    web.gives("/a", b"fine", ETag='"1"')
    good = web.answers["/a"]
    web.answers["/a"] = lambda handler: (bad if len(web.asked) == 1 else good)(handler)

    assert fetch(url).read_bytes() == b"fine"
    assert len(web.asked) == 2


def test_a_server_that_is_not_there_is_an_error(web: Web) -> None:
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:1/a cannot be fetched"):
        fetch("http://127.0.0.1:1/a")


def test_an_answer_that_breaks_off_leaves_nothing_in_the_cache(web: Web, cache: Path) -> None:
    url = web.gives("/a", b"half", length=8, ETag='"1"')

    with pytest.raises(FetchError, match="cannot be fetched"):
        fetch(url)
    assert cached(cache) == []


def test_an_answer_in_chunks_that_breaks_off_is_an_error_too(web: Web, cache: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"8\r\nhalf")
        handler.close_connection = True

    web.answers["/a"] = answer

    with pytest.raises(FetchError, match="cannot be fetched"):
        fetch(web.url + "/a")
    assert cached(cache) == []


def test_nothing_half_written_is_ever_visible_under_its_final_name(web: Web, cache: Path) -> None:
    half_sent, go_on = threading.Event(), threading.Event()
    size = 4 << 20

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.send_header("ETag", '"1"')
        handler.end_headers()
        handler.wfile.write(b"x" * (size // 2))
        handler.wfile.flush()
        half_sent.set()
        go_on.wait(30)
        handler.wfile.write(b"x" * (size // 2))

    web.answers["/big.bin"] = answer
    fetched: list[Path] = []
    worker = threading.Thread(target=lambda: fetched.append(fetch(web.url + "/big.bin")))
    worker.start()
    assert half_sent.wait(30)
    seen = [p.name for p in cached(cache)]
    go_on.set()
    worker.join(30)

    assert "big.bin" not in seen
    assert fetched[0].stat().st_size == size
    assert [p.name for p in cached(cache)] == ["big.bin"]


def test_a_name_in_an_address_cannot_leave_the_cache(web: Web, cache: Path) -> None:
    for path in ("/a/..", "/a/%2e%2e", "/a/..%2F..%2Fescape", "/", "/%00", "/" + "x" * 300):
        web.gives(path, b"x", ETag='"1"')
        try:
            found = fetch(web.url + path)
        except FetchError:
            continue
        assert found.resolve().is_relative_to(cache.resolve()), path
        assert found.read_bytes() == b"x"


FETCHING = """
import sys
from scythe.remote.fetch import fetch
print("ready", flush=True)
sys.stdin.readline()
path = fetch(sys.argv[1])
print(path, path.stat().st_size)
"""


def test_many_processes_at_once_get_one_whole_file_by_one_download(web: Web, cache: Path) -> None:
    url = web.knows_its_tags("/shared.bin", b"y" * (2 << 20), '"1"')
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", FETCHING, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=60) for process in crowd]

    assert [p.returncode for p in crowd] == [0] * 6, ended
    assert len({out for out, _ in ended}) == 1
    assert [p.stat().st_size for p in cached(cache)] == [2 << 20]
    assert ["if-none-match" in h for h in web.headers].count(False) == 1


# --- asked for where it has changed -----------------------------------------------------------------


def test_a_source_that_is_asked_again_with_its_tag_sends_nothing(web: Web) -> None:
    url = web.knows_its_tags("/a", b"one", '"1"')
    first = fetch(url)
    assert fetch(url) == first
    assert [h.get("if-none-match") for h in web.headers] == [None, '"1"']
    web.knows_its_tags("/a", b"two", '"2"')
    assert fetch(url).read_bytes() == b"two"


def test_a_source_that_was_asked_by_a_clock_that_was_set_back_since_is_asked_again(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    url = web.knows_its_tags("/a", b"one", '"1"')
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    fetch(url)
    monkeypatch.setattr(time, "time", now)
    web.knows_its_tags("/a", b"two", '"2"')
    assert fetch(url).read_bytes() == b"two"


def test_a_source_without_tags_is_told_by_its_date_and_size(web: Web) -> None:
    date, older = "Mon, 01 Jan 2024 00:00:00 GMT", "Sun, 01 Jan 2023 00:00:00 GMT"
    url = web.gives("/a", b"one", Last_Modified=date)
    first = fetch(url)
    web.gives("/a", b"two", Last_Modified=date)
    assert fetch(url) == first
    assert first.read_bytes() == b"one"  # it was not read: its head tells of what is known
    web.gives("/a", b"old", Last_Modified=older)  # a backup that was put back, say; "not modified since" is true of it
    assert fetch(url).read_bytes() == b"old"
    assert all("if-modified-since" not in headers for headers in web.headers)


def test_a_cached_file_that_was_written_to_is_downloaded_again(web: Web) -> None:
    url = web.knows_its_tags("/a", b"one", '"1"')
    fetch(url).write_bytes(b"spoilt!")
    assert fetch(url).read_bytes() == b"one"


class Weather(ExperimentInputSpec):
    file: FileReference


class Read(ExperimentOutputSpec):
    text: str


def read_it(spec: Weather) -> Read:
    assert isinstance(spec.file, Path)
    again = spec.fetch_uri(scythe_uri(spec))
    return Read(text=spec.file.read_text() + again.read_text())


def scythe_uri(spec: Weather) -> str:
    """The second source of an input: the same for all."""
    return str((spec.model_extra or {})["also"])


def run_it(inputs: list[Weather], **options: Any) -> ExperimentRun:
    experiment = BaseExperiment(ExperimentRegistry.Register(name="read_it", retries=0)(read_it))
    run, ref = experiment.allocate(inputs, **options)
    ref.result(timeout=100)
    return run


def weather(file: str, also: str) -> Weather:
    return Weather.model_validate({"experiment_id": "", "sort_index": 0, "file": file, "also": also})


def test_a_source_is_asked_once_a_run_and_process_however_many_inputs_have_it(root: Path, web: Web) -> None:
    file, also = web.knows_its_tags("/a", b"one", '"1"'), web.knows_its_tags("/b", b" two", '"2"')
    run_it([weather(file, also)] * 20, engine="local", workers=1, chunk=5)
    assert sorted(web.asked) == ["/a", "/b"]
    assert scythe.read("read_it")["text"].to_list() == ["one two"] * 20


def test_the_next_run_of_a_process_sees_what_has_changed_and_what_was_removed_is_fetched_again(
    root: Path, web: Web, tmp_path: Path
) -> None:
    url = web.knows_its_tags("/a", b"one", '"1"')
    run_it([weather(url, url)], engine="inline")
    web.knows_its_tags("/a", b"two", '"2"')
    run_it([weather(url, url)], engine="inline")
    assert scythe.read("read_it")["text"].to_list() == ["twotwo"]
    shutil.rmtree(tmp_path / "cache")
    run_it([weather(url, url)], engine="inline")
    assert scythe.read("read_it")["text"].to_list() == ["twotwo"]


# --- what is no file, or too much -------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 206, 304])
def test_an_answer_without_the_file_is_none(web: Web, cache: Path, status: int) -> None:
    url = web.gives("/a", b"", status=status)
    with pytest.raises(FetchError, match=f"{url} answered {status}"):
        fetch(url)
    assert cached(cache) == []


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/a", "file:///etc/hostname"])
def test_a_redirect_leads_to_web_servers_alone(web: Web, target: str) -> None:
    url = web.gives("/a", b"", status=302, Location=target)
    with pytest.raises(FetchError, match=f"it is redirected to {target.split(':', maxsplit=1)[0]}://"):
        fetch(url)


def test_a_redirect_to_the_file_is_followed(web: Web) -> None:
    url = web.gives("/a", b"", status=302, Location=web.gives("/b", b"moved"))
    assert fetch(url).read_bytes() == b"moved"


def test_a_source_that_goes_on_for_ever_is_given_up_after_its_time(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not gone.wait(0.02):
                handler.wfile.write(b".")

    web.answers["/a"] = drip
    monkeypatch.setenv("SCYTHE_FETCH_TIMEOUT", "0.3")
    with pytest.raises(FetchError, match="SCYTHE_FETCH_TIMEOUT"):
        fetch(web.url + "/a")
    gone.set()


def test_a_file_beyond_the_limit_is_refused_whether_its_size_is_told_or_not(
    web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untold(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"x" * 2001)

    web.answers["/untold"] = untold
    monkeypatch.setenv("SCYTHE_FETCH_SIZE", "2kB")
    for url in (web.gives("/told", b"x" * 2001), web.url + "/untold"):
        with pytest.raises(FetchError, match="larger than 2,000 bytes: raise SCYTHE_FETCH_SIZE"):
            fetch(url)
    assert cached(cache) == []
    assert fetch(web.gives("/fits", b"x" * 2000)).stat().st_size == 2000


def test_messages_do_not_show_what_a_presigned_url_holds(web: Web) -> None:
    url = web.gives("/a", b"", status=403) + "?X-Amz-Signature=abcdef"
    web.answers["/a?X-Amz-Signature=abcdef"] = web.answers["/a"]
    for address in (url, url.replace("http://", "http://ada:abcdef@")):
        with pytest.raises(FetchError) as caught:
            fetch(address)
        assert "abcdef" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["gs://bucket/a.csv", "http://[::1", "http://", "s3://", "a\0b", "x" * 5000, "/a\nb.csv"]
)
def test_whatever_cannot_be_fetched_is_a_fetch_error(root: Path, uri: str) -> None:
    with pytest.raises(FetchError):
        fetch(uri)


def test_a_local_name_with_a_newline_is_fetched(root: Path) -> None:
    Path("a\nb.csv").write_text("content")
    assert fetch("a\nb.csv").read_text() == "content"


# --- buckets ----------------------------------------------------------------------------------------


def test_a_cached_object_is_asked_about_and_not_sent_again(
    bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.client().put_object(Bucket=bucket, Key="a/large", Body=(content := os.urandom(9 * 1024 * 1024)))
    first = fetch(f"s3://{bucket}/a/large")
    assert first.read_bytes() == content
    with fault_proxy(s3.port, lambda method, target: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert fetch(f"s3://{bucket}/a/large") == first
        assert [(method, "if-none-match" in headers) for method, _, headers, _ in proxy.seen] == [("GET", True)]
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    s3.client().put_object(Bucket=bucket, Key="a/large", Body=b"new")
    assert fetch(f"s3://{bucket}/a/large").read_bytes() == b"new"


@pytest.mark.parametrize("key", ["a//b.csv", "/b.csv", "a/./b.csv", "a/../b.csv", "a\tb.csv", "a/"])
def test_any_key_of_a_bucket_is_fetched_and_no_other_for_it(bucket: str, s3: S3Server, key: str) -> None:
    client = s3.client()
    for other in ("a/b.csv", "b.csv", "a"):
        client.put_object(Bucket=bucket, Key=other, Body=b"another")
    client.put_object(Bucket=bucket, Key=key, Body=b"one")
    first = fetch(f"s3://{bucket}/{key}")
    assert first.read_bytes() == b"one"
    assert fetch(f"s3://{bucket}/{key}") == first
    client.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(FetchError, match="does not exist"):
        fetch(f"s3://{bucket}/{key}")


def test_a_disk_that_takes_less_than_it_is_given_gets_the_rest(
    bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.client().put_object(Bucket=bucket, Key="large", Body=(content := os.urandom(20 * 1024 * 1024)))
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole(fd, data[: 3 * 1024 * 1024], at))
    assert fetch(f"s3://{bucket}/large").read_bytes() == content


def test_an_object_that_comes_short_is_an_error_and_never_in_the_cache(
    bucket: str, s3: S3Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scythe_catalog.storage import ranged

    s3.client().put_object(Bucket=bucket, Key="large", Body=os.urandom(9 * 1024 * 1024))
    monkeypatch.setattr(ranged, "read_range", lambda root, key, start, stop, tag: b"short")
    with pytest.raises(FetchError, match=r"got [\d]+ of 9437184 bytes"):
        fetch(f"s3://{bucket}/large")
    assert cached(cache) == []


def test_a_throttle_is_waited_for_longer_than_a_failure(
    bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scythe_catalog.storage import reach, s3_errors

    s3.client().put_object(Bucket=bucket, Key="a", Body=b"content")
    monkeypatch.setattr(s3_errors, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setitem(reach._BRIEF, "max_retries", 0)
    for fault in ("503", "500"):
        left = [fault] * 4
        with fault_proxy(s3.port, lambda method, target, left=left: left.pop() if left else None) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            if fault == "503":
                assert fetch(f"s3://{bucket}/a").read_bytes() == b"content"
            else:
                with pytest.raises(FetchError, match="answered 500"):
                    fetch(f"s3://{bucket}/a", use_cache=False)


def test_one_input_whose_file_cannot_be_had_is_one_row_of_errors(bucket: str, s3: S3Server, web: Web) -> None:
    good = web.knows_its_tags("/a", b"one", '"1"')
    s3.client().put_object(Bucket=bucket, Key="a//b.csv", Body=b"odd")
    files = [good, f"s3://{bucket}/a//b.csv", f"s3://{bucket}/no//c.csv", "s3://no-such-bucket-at-all/a", good]
    run = run_it([weather(file, good) for file in files], engine="local", workers=1)
    assert run.status == "finished"
    assert scythe.read("read_it")["text"].to_list() == ["oneone", "oddone", "oneone"]
    assert scythe.read("read_it", table="errors")["sort_index"].to_list() == [2, 3]
