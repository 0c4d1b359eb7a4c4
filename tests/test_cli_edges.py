"""The command line where something is wrong: an empty root, a page in place of a bucket, a full disk, a terminal of few letters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import time, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.errors import NotFoundError, ReadError, SettingsError, StorageRefused, TransferError
from scythe.transfer.sheets import write_sheets

SCYTHE = [sys.executable, "-m", "scythe.cli"]


class Word(ExperimentInputSpec):
    text: str = "plain"
    at: time = time(1, 2, 3)
    lasts: timedelta = timedelta(minutes=90)


class Length(ExperimentOutputSpec):
    length: int
    share: float = 1e-5


def measure(spec: Word) -> Length:
    if spec.text == "stop":
        raise KeyboardInterrupt
    print(spec.text)
    found = Length(length=len(spec.text))
    found.dataframes["parts"] = pl.DataFrame({"letter": list(spec.text)[:1]})
    return found


@pytest.fixture
def base(root: Path) -> BaseExperiment:
    ExperimentRegistry.Register(name="measure")(measure)
    return BaseExperiment(measure)


def cli(*words: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*SCYTHE, *words], capture_output=True, timeout=120, check=False, env={**os.environ, **env})


# --- roots --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "told"),
    [("", "--root is empty"), (" ", "--root is empty"), ("s3:///x", "names no bucket"), ("s3://", "names no bucket")],
)
def test_a_root_without_a_name_is_refused_and_nothing_is_deleted(base: BaseExperiment, named: str, told: str) -> None:
    """As `--root "s3://$BUCKET/x"` is, where there is no such variable."""
    base.allocate(pl.DataFrame({"text": ["a"]}), engine="inline")
    done = cli("--root", named, "delete", "measure", "--keep", "0", "-y")
    assert done.returncode == 2
    assert told in done.stderr.decode().replace("\n", " ")
    assert len(base.list_runs()) == 1


@pytest.mark.parametrize("name", ["no bucket!", "a b", "-x", "é"])
def test_what_cannot_be_the_name_of_a_bucket_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_STORAGE_BUCKET", name)
    with pytest.raises(SettingsError, match="cannot be the name of a bucket, which has letters"):
        scythe.list_experiments()


def test_a_version_that_is_not_there_has_no_runs_that_could_be_deleted(base: BaseExperiment) -> None:
    base.allocate(pl.DataFrame({"text": ["a"]}), engine="inline")
    done = cli("delete", "measure/v9.9.9", "--keep", "0", "-y")
    assert done.returncode == 1
    assert "has no version v9.9.9" in done.stderr.decode()


# --- buckets ------------------------------------------------------------------------------------------------


@contextmanager
def answering(status: int, body: bytes) -> Generator[str]:
    """A server that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def named(endpoint: str, bucket: str) -> None:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "eu-central-1",
            "SCYTHE_STORAGE_BUCKET": bucket, "SCYTHE_CACHE_DIR": str(tmp_path / "cache"),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)

    return named


def test_a_page_that_answers_for_a_bucket_is_no_empty_bucket(elsewhere: Any) -> None:
    """As that of a portal which wants a login, or of the console of a store."""
    with answering(200, b"<html>login</html>") as endpoint:
        elsewhere(endpoint, "a-page")
        for asked in (scythe.list_experiments, lambda: scythe.list_runs("x"), lambda: scythe.read("x")):
            with pytest.raises(StorageRefused, match=r"is no store of objects, but a page .* \(AWS_ENDPOINT_URL\)"):
                asked()


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (400, "ExpiredToken", r"refuses the credentials in use \(ExpiredToken\): they have expired: renew them"),
        (403, "RequestTimeTooSkewed", "set the clock of this machine right"),
        (400, "AuthorizationHeaderMalformed", "lies in another region than eu-central-1"),
        (400, "InvalidRequest", r"answered 400 \(InvalidRequest\): check the bucket, and the endpoint"),
    ],
)
def test_what_asking_again_would_not_mend_says_what_would(elsewhere: Any, status: int, code: str, told: str) -> None:
    with answering(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()) as endpoint:
        elsewhere(endpoint, f"refused-{code.lower()}")
        with pytest.raises(StorageRefused, match=told):
            scythe.list_experiments()


# --- disks --------------------------------------------------------------------------------------------------


def test_a_report_that_cannot_be_written_leaves_the_one_that_is_there(
    base: BaseExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    base.allocate(pl.DataFrame({"text": ["a", "bc"]}), engine="inline")
    page = scythe.report("measure", to=tmp_path / "page.html")
    before = page.read_bytes()
    write = Path.write_text

    def full(path: Path, text: str, **options: Any) -> int:
        write(path, text[:100], **options)
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        for target in (page, tmp_path / "new.html"):
            with pytest.raises(scythe.errors.ReportError, match="No space left on device; name another file"):
                scythe.report("measure", to=target)
    assert page.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".parquet" and p.is_file()] == ["page.html"]


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_a_table_that_cannot_be_written_says_why(
    base: BaseExperiment, tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polars' errors of a disk are a text alone, without a number or a path."""
    base.allocate(pl.DataFrame({"text": ["a"]}), engine="inline")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device (os error 28)")

    monkeypatch.setattr(pl.LazyFrame, "sink_csv", full)
    monkeypatch.setattr(pl.DataFrame, "write_excel", full)
    with pytest.raises(
        TransferError, match=r"scalars\.(csv|xlsx) cannot be written: No space left on device \(os error 28\)$"
    ):
        write_sheets("measure", tmp_path, [("scalars", kind)])
    assert not [*tmp_path.glob("*measure*")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_what_cannot_be_shown_on_a_full_disk_is_an_error_in_a_line(base: BaseExperiment) -> None:
    base.allocate(pl.DataFrame({"text": ["a"]}), engine="inline")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*SCYTHE, "show", "measure"], stdout=full, stderr=subprocess.PIPE, timeout=120, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[0].startswith("scythe: [Errno 28] No space left on device")
    assert "Traceback" not in done.stderr.decode()


# --- terminals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "utf-8"])
def test_any_terminal_shows_what_it_can_and_json_stays_json(base: BaseExperiment, encoding: str) -> None:
    text = "日本 \u0081 é 🏠"
    base.allocate(pl.DataFrame({"text": [text]}), engine="local", workers=1)[1].result()
    plain = cli("logs", "measure", PYTHONIOENCODING=encoding)
    assert plain.returncode == 0, plain.stderr
    coded = cli("logs", "measure", "--json", PYTHONIOENCODING=encoding)
    assert coded.returncode == 0, coded.stderr
    shown = coded.stdout.decode("utf-8" if encoding == "utf-8" else "ascii")
    assert json.loads(shown)[0]["stdout"].strip() == text


def test_logs_of_a_run_that_is_not_finished_name_no_range_of_inputs(base: BaseExperiment) -> None:
    with pytest.raises(KeyboardInterrupt):
        base.allocate(pl.DataFrame({"text": ["a", "b", "stop", "c"]}), engine="inline", chunk=1)
    done = cli("logs", "measure", "3")
    assert "its inputs are" not in done.stderr.decode()
    assert "has no input 3" not in done.stderr.decode()


# --- conditions ---------------------------------------------------------------------------------------------


def test_a_condition_that_cannot_be_asked_is_told_in_a_line_of_the_columns_own_names(
    base: BaseExperiment, tmp_path: Path
) -> None:
    base.allocate(pl.DataFrame({"text": ["a", "b"]}), engine="inline")
    with pytest.raises(
        NotFoundError,
        match=r"where= names a column that neither 'parts' nor 'scalars' of measure/.* has: 'leter' \(did you mean 'letter'",
    ):
        write_sheets("measure", tmp_path, [("parts", "csv")], where="leter = 'a'")
    for condition in ("text = 5", "length < '3'"):
        for ask in (
            lambda condition=condition: write_sheets("measure", tmp_path, [("scalars", "csv")], where=condition),
            lambda condition=condition: scythe.download("measure", tmp_path / "down", where=condition),
        ):
            with pytest.raises(ReadError, match="where= cannot be asked of") as raised:
                ask()
            assert "\n" not in str(raised.value)
            assert "_min" not in str(raised.value)
            assert "compare" in str(raised.value)


# --- workbooks ----------------------------------------------------------------------------------------------


def test_times_and_durations_of_a_workbook_are_whole_milliseconds_that_show_what_they_are(
    base: BaseExperiment, tmp_path: Path
) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    late, long = time(23, 59, 59, 999_999), timedelta(hours=30, microseconds=1_700)
    specs = pl.DataFrame({"text": ["a"], "at": [late], "lasts": [long]})
    base.allocate(specs, engine="inline")
    sheet = write_sheets("measure", tmp_path, [("scalars", "xlsx")])[0]
    assert sheet.cut == ("at", "lasts")
    rows = openpyxl.load_workbook(sheet.path)["scalars"]
    cells = {head.value: cell for head, cell in zip(*rows.iter_rows(min_row=1, max_row=2), strict=True)}
    assert cells["at"].value == time(23, 59, 59, 999_000)
    assert cells["lasts"].value == timedelta(hours=30, milliseconds=1)
    assert cells["lasts"].number_format == '[h]:mm:ss.000;-0.0########" days"'  # Excel has no clock below 0
    assert cells["share"].number_format == "General"
