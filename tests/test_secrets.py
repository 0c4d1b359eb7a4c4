"""No secret enters what a run stores or what anybody is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference
from scythe.errors import InputError, RunError, StorageError
from tests.web_server import Web, web_server

SECRET = "wJalrXUtnFEMIK7MDENG"


@pytest.fixture
def web(root: Path) -> Iterator[Web]:
    with web_server() as served:
        yield served


class Weather(ExperimentInputSpec):
    file: FileReference


class Read(ExperimentOutputSpec):
    text: str


def read_it(spec: Weather) -> Read:
    assert isinstance(spec.file, Path)
    if spec.sort_index == 1:
        spec.log(f"a log of https://host/x?X-Amz-Signature={SECRET}")
        print(f"printed https://ada:{SECRET}@host/x")
        raise ValueError(f"could not open https://host/x?X-Amz-Signature={SECRET}")
    return Read(text=spec.file.read_text())


def stored(root: Path) -> dict[str, bytes]:
    """Everything below a root, Parquet files as text too."""
    found: dict[str, bytes] = {}
    for path in root.rglob("*"):
        if path.is_file():
            shown = repr(pl.read_parquet(path, glob=False).to_dicts()).encode() if path.suffix == ".pq" else b""
            found[str(path.relative_to(root))] = path.read_bytes() + shown
    return found


@pytest.mark.parametrize("user", [f"ada:{SECRET}", SECRET])
def test_an_address_with_a_password_is_refused_before_anything_is_written(root: Path, web: Web, user: str) -> None:
    url = web.gives("/a", b"content").replace("http://", f"http://{user}@")
    experiment = BaseExperiment(ExperimentRegistry.Register()(read_it))
    with pytest.raises(InputError, match=r"file: http://.*\*\*\*@.* holds a password") as caught:
        experiment.allocate(pl.DataFrame({"file": [url]}), engine="inline")
    assert SECRET not in str(caught.value)
    assert not root.exists()


def test_a_presigned_input_is_copied_and_its_signature_is_nowhere(
    root: Path, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/a.csv?X-Amz-Expires=60&X-Amz-Signature={SECRET}"
    url, plain = web.gives(path, b"content"), web.gives("/b.csv", b"plain")
    experiment = BaseExperiment(ExperimentRegistry.Register(retries=0)(read_it))
    run, ref = experiment.allocate(pl.DataFrame({"file": [url, url, plain]}), engine="local", workers=1)
    ref.result(timeout=100)
    del web.answers[path]  # it has expired
    assert scythe.read("read_it")["text"].to_list() == ["content", "plain"]
    assert scythe.read("read_it")["file"].to_list() == [f"{run.uri}/artifacts/file/a.csv", plain]
    artifacts = yaml.safe_load((root / run.key.input_artifacts).read_bytes())
    assert artifacts["files"]["file"] == sorted([plain, f"{run.uri}/artifacts/file/a.csv"])
    (error,) = scythe.read("read_it", table="errors").to_dicts()
    assert error["exception_message"] == "could not open https://host/x?X-Amz-Signature=***"
    assert [name for name, content in stored(root).items() if SECRET.encode() in content] == []


def test_logs_and_errors_do_not_show_this_processs_credentials(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    caplog.set_level("INFO")
    spec = Weather.model_validate({"experiment_id": "e", "sort_index": 0, "file": "x"})
    spec.log(f"the key is {SECRET}")
    assert caplog.messages == ["e [0]: the key is ***"]
    for kind in (RunError, StorageError, InputError):
        assert str(kind(f"with {SECRET}")) == "with ***"


def test_yaml_with_a_secret_in_it_is_still_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    from scythe.record.manifest import dump_yaml

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert yaml.safe_load(dump_yaml({"a": SECRET, "b": [SECRET, 1]})) == {"a": "***", "b": ["***", 1]}


def test_a_lazy_frame_of_a_bucket_holds_no_secret_that_polars_finds_itself(bucket: str) -> None:
    experiment = BaseExperiment(ExperimentRegistry.Register(name="read_it")(read_it))
    Path("a.csv").write_text("content")
    experiment.allocate(pl.DataFrame({"file": ["a.csv"]}), engine="inline")[1].result()
    frame = scythe.scan("read_it")
    assert frame.select("text").collect()["text"].to_list() == ["content"]
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in frame.serialize()
