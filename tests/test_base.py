"""What a user calls inside a simulation: log, fetch_uri, make_multiindex; computed features and extra values."""

import datetime as dt
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import stamina
from pydantic import ValidationError

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import FetchError
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference

IDS = ["experiment_id", "sort_index", "root_workflow_run_id", "workflow_run_id"]


class Glass(Enum):
    CLEAR = "clear"


class In(ExperimentInputSpec):
    x: int = 1
    glass: Glass = Glass.CLEAR
    parts: tuple[int, ...] = ()
    day: dt.date = dt.date(2024, 1, 1)


class Filed(ExperimentInputSpec):
    weather: FileReference


class Featured(ExperimentInputSpec):
    x: int

    @property
    def computed_features(self) -> dict[str, Any]:
        return {"square": self.x**2, "parity": "odd" if self.x % 2 else "even"}


class Out(ExperimentOutputSpec):
    text: str = ""


def spec(**values: Any) -> In:
    return In(**{"experiment_id": "e", "sort_index": 3} | values)


# --- log ---------------------------------------------------------------------------------------------


def test_log_writes_to_pythons_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "scythe.experiment"):
        spec().log("100% done %s")

    assert [(r.name, r.levelname) for r in caplog.records] == [("scythe.experiment", "INFO")]
    assert "100% done %s" in caplog.text
    assert "e [3]" in caplog.text


def test_log_goes_where_a_worker_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(ExperimentInputSpec, "log_method", heard.append)

    spec().log("hello")

    assert heard == ["hello"]


# --- the models ----------------------------------------------------------------------------------------


def test_ids_are_required_or_none_and_the_sort_index_is_not_negative() -> None:
    given = spec()

    assert (given.workflow_run_id, given.root_workflow_run_id) == (None, None)
    for bad in ({"sort_index": -1}, {"experiment_id": None}):
        with pytest.raises(ValidationError):
            spec(**bad)


def test_file_references_are_paths_or_urls() -> None:
    def reference(value: Any) -> Any:
        return Filed(experiment_id="", sort_index=0, weather=value).weather

    assert reference("a/b.epw") == Path("a/b.epw")
    assert reference(Path("a/b.epw")) == Path("a/b.epw")
    assert str(reference("s3://bucket/a.epw")) == "s3://bucket/a.epw"
    assert str(reference("https://example.org/a.epw")) == "https://example.org/a.epw"


def test_dataframes_are_empty_by_default_and_in_no_json_schema() -> None:
    assert Out().dataframes == {}
    assert "dataframes" not in Out.model_json_schema()["properties"]


def test_extra_values_are_kept_and_reach_the_function(root: Path) -> None:
    seen: list[dict[str, Any] | None] = []

    @ExperimentRegistry.Register()
    def f(spec: In) -> Out:
        seen.append(spec.model_extra)
        return Out(text=str(getattr(spec, "colour", None)))

    specs = [spec(colour="red", nested={"a": [1, None]}), spec(), spec(size=2.5)]
    BaseExperiment(experiment=f).allocate(specs, engine="inline")

    assert seen == [{"colour": "red", "nested": {"a": [1, None]}}, {}, {"size": 2.5}]
    read = scythe.read("f")
    assert read["text"].to_list() == ["red", "None", "None"]
    assert read["extra"].to_list() == ['{"colour":"red","nested":{"a":[1,null]}}', None, '{"size":2.5}']
    assert [i.model_extra for i, _ in scythe.rows(f)] == seen


# --- make_multiindex -------------------------------------------------------------------------------------


def test_the_index_has_one_row_for_each_output_row_and_names_the_input() -> None:
    index = spec(x=7).make_multiindex(n_rows=2)

    assert isinstance(index, pd.MultiIndex)
    assert index.names == [*IDS, "x", "glass", "day", "sort_subindex"]
    assert index.droplevel(IDS[2:]).to_list() == [
        ("e", 3, 7, "clear", dt.date(2024, 1, 1), 0),
        ("e", 3, 7, "clear", dt.date(2024, 1, 1), 1),
    ]
    assert index.to_frame()[IDS[2:]].isna().all(axis=None)


def test_the_index_has_one_row_unless_told_otherwise_and_may_have_none() -> None:
    assert len(spec().make_multiindex()) == 1
    assert len(spec().make_multiindex(n_rows=0)) == 0
    assert spec().make_multiindex(n_rows=0).names == spec().make_multiindex().names


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"month": [1, 2], "zone": "core"}, [(1, "core"), (2, "core")]),
        ({"month": (1, 2), "zone": None}, [(1, None), (2, None)]),
        ([{"month": 1, "zone": "a"}, {"month": 2, "zone": "b"}], [(1, "a"), (2, "b")]),
        ([{"month": 1}, {"month": 2, "zone": "b"}], [(1, None), (2, "b")]),
    ],
)
def test_further_levels_are_a_dict_of_values_or_lists_or_a_list_of_dicts(data: Any, expected: list[Any]) -> None:
    index = spec().make_multiindex(data, n_rows=2)

    assert index.names[-3:] == ["month", "zone", "sort_subindex"]
    frame = index.to_frame(index=False).astype(object)
    rows = frame[["month", "zone"]].where(frame[["month", "zone"]].notna(), None)
    assert [tuple(row) for row in rows.to_numpy().tolist()] == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"month": [1, 2, 3]}, r"'month'.*3 values for 2 rows"),
        ({"month": []}, "0 values for 2 rows"),
        ([{"month": 1}], "1 dicts for 2 rows"),
        ([], "0 dicts for 2 rows"),
        ({"x": 1}, "'x' stands twice"),
        ([{"sort_index": 1}] * 2, "'sort_index' stands twice"),
        ({"sort_subindex": [5, 6]}, "'sort_subindex' stands twice"),
    ],
)
def test_data_of_another_length_and_levels_that_stand_twice_are_refused(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        spec().make_multiindex(data, n_rows=2)


def test_levels_can_be_left_out() -> None:
    index = spec().make_multiindex(
        {"x": [8, 9]}, n_rows=2, include_sort_subindex=False, additional_excludes=frozenset({"x", "day", "glass"})
    )

    assert index.names == [*IDS, "x"]
    assert index.get_level_values("x").tolist() == [8, 9]


def test_the_index_shows_the_uris_that_were_given_not_the_local_copies(root: Path) -> None:
    seen: list[tuple[Any, Any]] = []

    @ExperimentRegistry.Register()
    def f(spec: Filed) -> Out:
        index = spec.make_multiindex()
        seen.append((spec.weather, index.get_level_values("weather")[0]))
        return Out(dataframes={"t": pd.DataFrame({"v": [1]}, index=index)})

    Path("a.txt").write_text("A")
    run, ref = BaseExperiment(experiment=f).allocate(
        [Filed(experiment_id="", sort_index=0, weather="a.txt")], engine="inline"
    )

    (local, shown), *_ = seen
    assert isinstance(local, Path)
    assert local.read_text() == "A"
    assert shown == f"{run.uri}/artifacts/weather/a.txt"
    assert pd.read_parquet(ref.result().uris["t"]).index.get_level_values("weather").tolist() == [shown]


def test_the_index_shows_uris_also_for_files_copied_to_the_tempdir(root: Path) -> None:
    shown: list[str] = []

    @ExperimentRegistry.Register(local_file_location="copied-to-tempdir")
    def f(spec: Filed, tempdir: Path) -> Out:
        shown.append(spec.make_multiindex().get_level_values("weather")[0])
        return Out()

    Path("a.txt").write_text("A")
    run, _ = BaseExperiment(experiment=f).allocate(
        [Filed(experiment_id="", sort_index=0, weather="a.txt")], engine="inline"
    )

    assert shown == [f"{run.uri}/artifacts/weather/a.txt"]


# --- computed features -----------------------------------------------------------------------------------


def test_computed_features_are_levels_behind_the_inputs() -> None:
    index = Featured(experiment_id="e", sort_index=0, x=3).make_multiindex(include_sort_subindex=False)

    assert index.names == [*IDS, "x", "square", "parity"]
    assert index[0][4:] == (3, 9, "odd")


def test_computed_features_are_levels_of_every_table_of_the_run(root: Path) -> None:
    @ExperimentRegistry.Register()
    def f(spec: Featured) -> Out:
        return Out(dataframes={"t": pd.DataFrame({"v": [1, 2]})})

    specs = [Featured(experiment_id="", sort_index=i, x=i) for i in range(3)]
    _, ref = BaseExperiment(experiment=f).allocate(specs, engine="inline")

    for table in ("scalars", "t", "errors"):
        assert pd.read_parquet(ref.result().uris[table]).index.names == [*IDS, "x", "square", "parity"]
    assert scythe.read("f")["square"].to_list() == [0, 1, 4]
    assert scythe.read("f", table="t")["parity"].to_list() == ["even", "even", "odd", "odd", "even", "even"]


# --- fetching --------------------------------------------------------------------------------------------


class Web:
    """A server whose answer to each path can be set, and that counts how often it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.answers[self.path](self)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def gives(self, path: str, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> str:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", str(len(body) if length is None else length))
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = answer
        return self.url + path


@pytest.fixture
def web(root: Path) -> Iterator[Web]:
    """A web server; retries wait for nothing."""
    served = Web()
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    stamina.set_testing(True, attempts=3)
    yield served
    stamina.set_testing(False)
    served.server.shutdown()
    served.server.server_close()
    thread.join()


@pytest.fixture
def cache(root: Path, tmp_path: Path) -> Path:
    return tmp_path / "cache"


def cached(cache: Path) -> list[Path]:
    return [p for p in cache.rglob("*") if p.is_file()]


def test_a_local_file_is_given_as_it_is(root: Path, cache: Path) -> None:
    path = Path("a file 100%.txt").absolute()
    path.write_text("a")

    assert spec().fetch_uri(path) == path
    assert spec().fetch_uri("a file 100%.txt").read_text() == "a"
    assert spec().fetch_uri(path.as_uri()) == path
    assert cached(cache) == []


def test_a_missing_file_or_a_folder_cannot_be_fetched(root: Path) -> None:
    Path("folder").mkdir()

    with pytest.raises(FetchError, match=r"gone\.txt does not exist"):
        spec().fetch_uri("gone.txt")
    with pytest.raises(FetchError, match="folder is a folder"):
        spec().fetch_uri("folder")


def test_a_web_file_is_fetched_into_the_cache_under_its_own_name(web: Web, cache: Path) -> None:
    url = web.gives("/data/boston%20logan.epw?year=2024", b"weather", ETag='"1"')

    path = spec().fetch_uri(url)

    assert path.read_bytes() == b"weather"
    assert path.name == "boston logan.epw"
    assert cached(cache) == [path]


def test_a_file_of_the_same_tag_is_taken_from_the_cache_and_fetched_anew_without_it(web: Web, cache: Path) -> None:
    url = web.gives("/a", b"one", ETag='"1"')
    first = spec().fetch_uri(url)
    web.gives("/a", b"two", ETag='"1"')

    assert spec().fetch_uri(url) == first
    assert first.read_bytes() == b"one"
    assert spec().fetch_uri(url, use_cache=False).read_bytes() == b"two"


def test_a_file_whose_tag_has_changed_is_fetched_anew_and_the_old_one_stays(web: Web) -> None:
    url = web.gives("/a", b"one", ETag='"1"')
    first = spec().fetch_uri(url)
    web.gives("/a", b"two", ETag='"2"')

    second = spec().fetch_uri(url)

    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")


def test_without_a_tag_date_and_size_tell_whether_a_file_has_changed(web: Web) -> None:
    url = web.gives("/a", b"one", Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
    assert spec().fetch_uri(url).read_bytes() == b"one"

    web.gives("/a", b"two", Last_Modified="Tue, 02 Jan 2024 00:00:00 GMT")
    assert spec().fetch_uri(url).read_bytes() == b"two"

    web.gives("/a", b"three", Last_Modified="Tue, 02 Jan 2024 00:00:00 GMT")
    assert spec().fetch_uri(url).read_bytes() == b"three"


def test_a_server_that_says_nothing_of_its_content_is_never_trusted_to_give_the_same(web: Web) -> None:
    url = web.gives("/a", b"one")
    assert spec().fetch_uri(url).read_bytes() == b"one"

    web.gives("/a", b"two")
    assert spec().fetch_uri(url).read_bytes() == b"two"


def test_equal_tags_of_different_addresses_are_different_files(web: Web) -> None:
    one, two = web.gives("/1/a", b"one", ETag='"1"'), web.gives("/2/a", b"two", ETag='"1"')

    assert [spec().fetch_uri(u).read_bytes() for u in (one, two, one)] == [b"one", b"two", b"one"]


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (500, 3), (503, 3)])
def test_a_status_that_is_no_success_is_an_error_and_only_the_servers_own_faults_are_tried_again(
    web: Web, cache: Path, status: int, asked: int
) -> None:
    url = web.gives("/a", b"an error page", status=status)

    with pytest.raises(FetchError, match=f"{url} answered {status}"):
        spec().fetch_uri(url)
    assert len(web.asked) == asked
    assert cached(cache) == []


def test_a_server_that_recovers_is_believed(web: Web) -> None:
    url = web.gives("/a", b"", status=503)
    bad = web.answers["/a"]
    web.gives("/a", b"fine", ETag='"1"')
    good = web.answers["/a"]
    web.answers["/a"] = lambda handler: (bad if len(web.asked) == 1 else good)(handler)

    assert spec().fetch_uri(url).read_bytes() == b"fine"
    assert len(web.asked) == 2


def test_a_server_that_is_not_there_is_an_error(web: Web) -> None:
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:1/a cannot be fetched"):
        spec().fetch_uri("http://127.0.0.1:1/a")


def test_an_answer_that_breaks_off_leaves_nothing_in_the_cache(web: Web, cache: Path) -> None:
    url = web.gives("/a", b"half", length=8, ETag='"1"')

    with pytest.raises(FetchError, match="cannot be fetched"):
        spec().fetch_uri(url)
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
        spec().fetch_uri(web.url + "/a")
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
    worker = threading.Thread(target=lambda: fetched.append(spec().fetch_uri(web.url + "/big.bin")))
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
            found = spec().fetch_uri(web.url + path)
        except FetchError:
            continue
        assert found.resolve().is_relative_to(cache.resolve()), path
        assert found.read_bytes() == b"x"


FETCHING = """
import sys
from scythe.fetch import fetch
print("ready", flush=True)
sys.stdin.readline()
path = fetch(sys.argv[1])
print(path, path.stat().st_size)
"""


def test_many_processes_at_once_get_one_whole_file(web: Web, cache: Path) -> None:
    url = web.gives("/shared.bin", b"y" * (2 << 20), ETag='"1"')
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", FETCHING, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=60) for process in crowd]

    assert [p.returncode for p in crowd] == [0] * 4, ended
    assert len({out for out, _ in ended}) == 1
    assert [p.stat().st_size for p in cached(cache)] == [2 << 20]
