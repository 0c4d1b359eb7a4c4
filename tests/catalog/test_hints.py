"""A commit to a bucket is a few requests, and its hint is never lowered, whatever the bucket makes of `If-Match`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import GenericError
from pyiceberg.exceptions import NoSuchTableError

from scythe_catalog.errors import CatalogError
from scythe_catalog.iceberg import fileio, tables
from scythe_catalog.iceberg.tables import Table
from scythe_catalog.schema.kinds import Str
from scythe_catalog.storage import bucket as buckets
from scythe_catalog.storage.bucket import Bucket
from tests.catalog.places import NAME, SPACE, V1, Place, Row, drop_before_the_next_commit, made_place, schema_of
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.s3_server import S3Server

HINT = f"catalog/{SPACE}/{NAME}/metadata/version-hint.text"


@pytest.fixture(autouse=True)
def always_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However shortly ago a table was loaded."""
    monkeypatch.setattr(tables, "_FRESH_SECONDS", 0.0)


@pytest.fixture
def proxy(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    with fault_proxy(s3.port, lambda method, target: None) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


@pytest.fixture
def place(proxy: FaultProxy, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    found = made_place("s3", request, tmp_path, monkeypatch)
    found.ensure()
    return found


@pytest.fixture
def ignoring(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that writes whatever tag is named, as some that speak S3's language do."""

    def replaced(self: Bucket, key: str, data: bytes, tag: str) -> str | None:
        self.write(key, data)
        return '"another"'

    monkeypatch.setattr(Bucket, "_replaced", replaced)


def commit(place: Place, number: int) -> None:
    place.table().append([place.file(str(number), [Row(number=number)])], V1, key=str(number))


def requests_of(place: Place, proxy: FaultProxy, number: int) -> list[tuple[str, str]]:
    """Those of a commit alone, its data file and its table there already."""
    file, table = place.file(str(number), [Row(number=number)]), place.table()
    before = len(proxy.seen)
    table.append([file], V1, key=str(number))
    return [(method, target.rpartition("/metadata/")[2]) for method, target, *_ in proxy.seen[before:]]


def test_a_commit_is_six_requests_and_a_seventh_where_another_process_made_the_last_one(
    place: Place, proxy: FaultProxy
) -> None:
    commit(place, 0)
    assert len(requests_of(place, proxy, 1)) == 6
    fileio._kept.clear()
    made = requests_of(place, proxy, 2)
    assert [(method, name) for method, name in made if not name.endswith(".avro")] == [
        ("GET", "version-hint.text"), ("GET", "v3.metadata.json"), ("PUT", "v4.metadata.json"), ("PUT", "version-hint.text"),
    ]  # fmt: skip
    assert sorted((method for method, name in made if name.endswith(".avro")), reverse=True) == 2 * ["PUT"] + ["GET"]
    assert place.numbers() == [0, 1, 2]


def test_a_bucket_is_asked_once_whether_it_heeds_tags(place: Place, proxy: FaultProxy) -> None:
    buckets._HEEDS_TAGS.clear()
    assert len([1 for _, name in requests_of(place, proxy, 0) if name == "v2.metadata.json"]) == 2
    assert len([1 for _, name in requests_of(place, proxy, 1) if name == "v3.metadata.json"]) == 1


def test_of_a_bucket_that_ignores_tags_the_hint_is_read_before_it_is_written(
    place: Place, proxy: FaultProxy, ignoring: None
) -> None:
    buckets._HEEDS_TAGS.clear()
    for number in range(2):
        made = requests_of(place, proxy, number)
    assert [method for method, name in made if name == "version-hint.text"] == ["GET", "GET", "PUT"]
    assert place.numbers() == [0, 1]


def test_a_bucket_that_cannot_replace_by_tag_is_committed_to(
    place: Place, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from obstore.exceptions import NotSupportedError

    def refused(*_: Any) -> None:
        raise NotSupportedError("NotImplemented")

    buckets._HEEDS_TAGS.clear()
    monkeypatch.setattr(Bucket, "_replaced", refused)
    for number in range(3):
        commit(place, number)
    assert place.numbers() == [0, 1, 2]
    assert place.objects.read(HINT) == b"4"


@pytest.mark.parametrize("heeds", [True, False])
def test_a_committer_that_was_overtaken_does_not_lower_the_hint(
    heeds: bool, place: Place, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Between its commit and its hint another one commits, with a hint of its own."""
    if not heeds:
        request.getfixturevalue("ignoring")
    buckets._HEEDS_TAGS.clear()
    commit(place, 0)
    overtaking = [lambda: commit(place, 2)]
    asked = Bucket.heeds_tags

    def heeds_tags(self: Bucket, key: str, data: bytes) -> bool:
        if overtaking:
            seen = dict(catalog._seen)
            overtaking.pop()()
            catalog._seen.update(seen)  # each process knows what it has seen itself
        return asked(self, key, data)

    catalog: Any = place.catalog.iceberg
    monkeypatch.setattr(Bucket, "heeds_tags", heeds_tags)
    commit(place, 1)
    assert place.objects.read(HINT) == b"4"
    assert place.numbers() == [0, 1, 2]


def test_whether_nothing_is_to_be_done_is_told_of_the_newest_version_where_the_hint_lags_behind(place: Place) -> None:
    first, second = (place.file(str(number), [Row(number=number)]) for number in range(2))
    place.table().append([first], V1, key="0")
    place.table().append([second], V1, key="1")
    place.objects.write(HINT, b"2")  # its committer died before it could raise it
    assert len(place.table().append([first], V1, key="0").files(V1)) == 2
    assert place.objects.read(HINT) == b"3"
    place.objects.write(HINT, b"2")
    place.table().replace([first], V1)  # which is all that the partition held then
    assert place.numbers() == [0]


def test_a_clash_with_columns_that_are_gone_since_is_none(place: Place) -> None:
    before = place.table()
    wide = before.widened(schema_of(number=int, more=int))
    lagging = place.objects.read(HINT)
    wide.narrowed(before, {})
    place.objects.write(HINT, lagging)
    table = Table(wide.iceberg, loaded=0.0)
    assert table.widened(schema_of(number=int, more=str)).schema["more"].kind == Str()
    with pytest.raises(CatalogError, match="more"):
        place.table().widened(schema_of(number=int, more=bytes))


def test_a_dropped_table_stays_dropped_where_a_bucket_looks_at_tags_of_what_is_there_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    heeding = Bucket._replaced

    def replaced(self: Bucket, key: str, data: bytes, tag: str) -> str | None:
        if self.exists(key):
            return heeding(self, key, data, tag)
        self.write(key, data)
        return '"new"'

    buckets._HEEDS_TAGS.clear()
    monkeypatch.setattr(Bucket, "_replaced", replaced)
    file, table = place.file("0", [Row(number=0)]), place.table()
    drop_before_the_next_commit(place, monkeypatch)
    with pytest.raises(NoSuchTableError):
        table.append([file], V1, key="0")
    assert place.objects.files(HINT.rpartition("/")[0]) == []


@pytest.mark.parametrize("status", [400, 409, 501])
def test_a_bucket_that_answers_otherwise_is_asked_no_more(
    status: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    def replaced(self: Bucket, key: str, data: bytes, tag: str) -> str | None:
        asked.append(key)
        raise GenericError(f"Generic S3 error: Server returned non-2xx status code: {status}")

    buckets._HEEDS_TAGS.clear()
    monkeypatch.setattr(Bucket, "_replaced", replaced)
    for number in range(3):
        commit(place, number)
    assert len(asked) == 1
    assert place.numbers() == [0, 1, 2]
