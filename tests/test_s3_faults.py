"""A network that fails at random: a run ends complete or with a clear error, and `resume` completes it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from obstore.exceptions import GenericError

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.errors import ScytheError, StorageError
from scythe.record.generations import catalog_of
from scythe.record.layout import RunKey
from scythe.settings import storage
from scythe.utils.filesys import FileReference
from scythe_catalog.storage import s3_errors
from scythe_catalog.storage.objects import Objects
from tests.catalog.places import V1, Place, Row, made_place
from tests.fault_proxy import FAULTS, FaultProxy, Rule, by_chance, fault_proxy, once, outages
from tests.s3_server import S3Server

INPUTS = 12
Flaky = Callable[[Rule], FaultProxy]


class StepInput(ExperimentInputSpec):
    x: int


class StepOutput(ExperimentOutputSpec):
    y: int
    log: FileReference


def step(input_spec: StepInput, tempdir: Path) -> StepOutput:
    """Every fifth input fails."""
    if input_spec.x % 5 == 4:
        raise ValueError(f"{input_spec.x} will not do")
    (tempdir / "log.txt").write_text(str(input_spec.x))
    return StepOutput(y=2 * input_spec.x, log=tempdir / "log.txt", dataframes={"half": pl.DataFrame({"z": [0.5]})})


@pytest.fixture
def flaky(bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    """Puts a proxy with a rule between the tests and their server."""
    with ExitStack() as stack:

        def put_between(rule: Rule) -> FaultProxy:
            proxy = stack.enter_context(fault_proxy(s3.port, rule))
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            return proxy

        yield put_between


# --- whole runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [by_chance(1, 0.25), outages(2, 60, 25), outages(3, 40, 40)],
    ids=["single requests", "short outages", "long outages"],
)
def test_a_run_over_a_network_that_fails_ends_complete_or_with_an_error_and_is_completed(
    rule: Rule, flaky: Flaky
) -> None:
    proxy = flaky(rule)
    experiment = BaseExperiment(ExperimentRegistry.Register(retries=0)(step))
    specs = pl.DataFrame({"x": range(INPUTS)})
    for tries in itertools.count(1):
        try:
            run = experiment.latest_run()
            ref = run.resume() if run else experiment.allocate(specs, chunk=4, workers=2)[1]
            result = ref.result(timeout=60)
            break
        except ScytheError as error:
            print(f"{tries}: {error}")
        if tries == 2:
            proxy.heal()
    proxy.heal()
    assert proxy.suffered
    check_complete(result)


def check_complete(result: Any) -> None:
    """Every input is exactly once in `scalars` or `errors`; what is in `final/` is what the catalog shows."""
    failed = [x for x in range(INPUTS) if x % 5 == 4]
    good = [x for x in range(INPUTS) if x % 5 != 4]
    assert scythe.read("step")["x"].to_list() == good
    assert scythe.read("step")["y"].to_list() == [2 * x for x in good]
    assert scythe.read("step", table="errors")["x"].to_list() == failed
    assert scythe.read("step", table="tasks")["sort_index"].to_list() == list(range(INPUTS))
    assert scythe.read("step", table="half")["x"].to_list() == good
    objects = storage()
    assert [objects.read(objects.key(uri)) for uri in scythe.files("step")["log"]] == [str(x).encode() for x in good]

    key = RunKey(*result.experiment_id.split("/"))
    whole = scythe.list_runs("step").filter(
        pl.col("status") != "allocating"
    )  # as those are named that the network cut short
    assert whole["run"].to_list() == [key.folder]
    assert objects.files(f"{key.path}/final") == sorted(f"{name}.pq" for name in result.tables)
    for name, table in result.tables.items():
        opened = catalog_of(objects).table("step", table.catalog_table)
        assert opened.files(key.partition) == [objects.uri(table.key)]
        assert objects.read(table.key) == objects.read(key.final(name)) == objects.read(objects.key(result.uris[name]))


# --- one fault at a time ----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_an_object_is_created_once_whatever_befalls_the_request(fault: str, bucket: str, flaky: Flaky) -> None:
    proxy = flaky(once(fault, "PUT", "taken"))
    objects = Objects.at(f"s3://{bucket}/root")
    assert objects.create("taken", b"")
    assert proxy.suffered == {fault}
    assert not objects.create("taken", b"")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_commit_is_made_once_whatever_befalls_the_request(
    fault: str, flaky: Flaky, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place: Place = made_place("s3", request, tmp_path, monkeypatch)
    place.ensure()
    file = place.file("a", [Row(number=1)])
    proxy = flaky(once(fault, "PUT", "v2.metadata.json"))
    place.table().append([file], V1, key="a")
    assert proxy.suffered == {fault}
    assert place.numbers() == [1]
    names = place.objects.files("catalog/experiment/scalars/metadata")
    assert [n for n in names if n.endswith(".json")] == ["v1.metadata.json", "v2.metadata.json"]
    assert place.objects.read("catalog/experiment/scalars/metadata/version-hint.text") == b"2"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("method", "ending"),
    [("POST", "?uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId=")],
    ids=["beginning", "part", "end"],
)
def test_a_large_file_goes_up_whole_whatever_befalls_the_request(
    fault: str, method: str, ending: str, bucket: str, flaky: Flaky, tmp_path: Path
) -> None:
    (tmp_path / "up").write_bytes(content := os.urandom(8 * 1024 * 1024 + 100))
    proxy = flaky(once(fault, method, ending))
    objects = Objects.at(f"s3://{bucket}/root")
    objects.upload(tmp_path / "up", "large")
    assert proxy.suffered == {fault}
    assert hashlib.sha256(objects.read("large")).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("fault", FAULTS)
def test_bytes_come_down_whole_whatever_befalls_the_request(
    fault: str, bucket: str, flaky: Flaky, tmp_path: Path
) -> None:
    objects = Objects.at(f"s3://{bucket}/root")
    objects.write("small", b"s" * 1000)
    objects.write("large", content := os.urandom(20 * 1024 * 1024))
    for name, read in {
        "small": lambda: objects.read("small") == b"s" * 1000,
        "large": lambda: objects.download("large", tmp_path / "down") or (tmp_path / "down").read_bytes() == content,
        "file": lambda: objects.reader("large").read() == content,
    }.items():
        proxy = flaky(once(fault, "GET", "large" if name == "file" else name))
        assert read()
        assert proxy.suffered == {fault}


@pytest.mark.parametrize("fault", FAULTS)
def test_listing_and_deleting_are_repeated(fault: str, bucket: str, flaky: Flaky) -> None:
    objects = Objects.at(f"s3://{bucket}/root")
    for name in ("a", "b"):
        objects.write(f"some/{name}", b"")
    proxy = flaky(once(fault, "GET", "list-type"))
    assert objects.files("some") == ["a", "b"]
    proxy.rule = once(fault, "POST", "?delete")
    objects.delete(["some/a", "some/b", "some/c"])
    assert objects.files("some") == []
    assert [f for *_, f in proxy.seen if f] == [fault, fault]


def test_what_goes_up_carries_its_checksum(bucket: str, flaky: Flaky, tmp_path: Path) -> None:
    proxy = flaky(lambda method, target: None)
    objects = Objects.at(f"s3://{bucket}/root")
    objects.write("small", b"small")
    (tmp_path / "up").write_bytes(bytes(8 * 1024 * 1024 + 1))
    objects.upload(tmp_path / "up", "large")
    told = {
        target: headers.get("x-amz-checksum-sha256") for method, target, headers, _ in proxy.seen if method == "PUT"
    }
    assert told.pop(f"/{bucket}/root/small") == base64.b64encode(hashlib.sha256(b"small").digest()).decode()
    assert len(told) == 2
    assert all(told.values())


@pytest.mark.parametrize("fault", ["500", "cut before", "lost answer"])
def test_a_network_that_never_works_again_is_an_error_when_patience_ends(
    fault: str, bucket: str, flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_errors, "PATIENCE_SECONDS", 2.0)
    flaky(lambda method, target: fault)
    objects = Objects.at(f"s3://{bucket}/root")
    for ask in (lambda: objects.read("a"), lambda: objects.create("a", b""), lambda: objects.delete(["a"])):
        with pytest.raises(StorageError, match=f"the bucket '{bucket}' at http://127"):
            ask()


@pytest.mark.parametrize("answers", [True, False])
def test_a_request_that_stood_still_for_longer_than_all_patience_is_made_once_more_where_the_bucket_answers(
    bucket: str, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    root, now, asked = f"s3://{bucket}/root", [0.0], list[float]()
    if answers:
        assert not Objects.at(root).exists("a")
    else:
        s3_errors._ANSWERED.clear()
    monkeypatch.setattr(s3_errors, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def stands_still(times: int) -> str:
        asked.append(now[0])
        if len(asked) <= times:
            now[0] += 60.0
            raise GenericError("Generic S3 error: HTTP error: request or response body error: operation timed out")
        return "there"

    if answers:
        assert s3_errors.attempted(root, lambda: stands_still(1)) == "there"
        assert asked == [0.0, 60.0]
        asked.clear()
    with pytest.raises(StorageError, match="cannot be reached"):
        s3_errors.attempted(root, lambda: stands_still(9))
    assert len(asked) == (2 if answers else 1)


def test_objects_that_a_bucket_does_not_delete_among_others_are_told_by_the_code(bucket: str) -> None:
    answer = '<?xml version="1.0"?><DeleteResult><Error><Key>a</Key><Code>InternalError</Code></Error></DeleteResult>'
    failed = GenericError(
        f"Generic S3 error: Error performing POST http://h/b?delete in 1s - Server returned error response: {answer}"
    )
    assert s3_errors.explained(failed, f"s3://{bucket}/p").endswith(" answered InternalError: try again later")


@pytest.mark.parametrize("name", ["plain", "redirect_flow", "SlowDown"])
def test_a_failure_is_told_by_what_the_server_said_whatever_the_experiment_is_called(bucket: str, name: str) -> None:
    where = f"Error performing GET http://localhost/{bucket}/{name}/v1.0.0 in 1s"
    failed = GenericError(f"Generic S3 error: {where} - Server returned non-2xx status code: 500")

    assert "answered 500" in s3_errors.explained(failed, f"s3://{bucket}/p")
    assert s3_errors._patience(failed, True) == s3_errors.PATIENCE_SECONDS
