"""Metadata that a table needs no more is removed when it is old; whatever reads or commits goes on as before."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scythe_catalog.iceberg import tables, upkeep
from scythe_catalog.iceberg.folder_catalog import FolderCatalog
from scythe_catalog.storage.objects import Objects
from tests.catalog.places import V1, Place, Row, made_place

COMMITS = 50


@pytest.fixture(params=["folder", "s3", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    found = made_place(request.param, request, tmp_path, monkeypatch)
    found.ensure()
    return found


@pytest.fixture
def all_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "OLD_SECONDS", -3600.0)


def commit(place: Place, *numbers: int) -> None:
    for n in numbers:
        place.table().append([place.file(f"f{n}", [Row(number=n)])], V1, key=f"k{n}")


def metadata_of(place: Place) -> set[str]:
    objects = Objects.at(place.table().iceberg.location())
    return {key for key in objects.keys("metadata") if key.endswith((".avro", ".json"))}


def test_young_metadata_is_never_removed(place: Place) -> None:
    commit(place, *range(25))  # beyond the number at which snapshots expire
    before = metadata_of(place)
    assert len(before) > 25

    assert place.table().tidy(time.time()) == []
    assert metadata_of(place) == before


def test_files_stay_few_by_themselves_and_every_snapshot_that_is_left_is_read(place: Place, all_is_old: None) -> None:
    commit(place, *range(COMMITS))
    rest = place.table().tidy(time.time())

    # 20 versions, and for each of at most 21 snapshots a list and what it has of its own.
    assert len(metadata_of(place)) < 20 + 3 * tables._MANY_SNAPSHOTS
    assert len(rest) < COMMITS
    table = place.table()
    for snapshot in table.iceberg.metadata.snapshots:
        seen = table.iceberg.scan(snapshot_id=snapshot.snapshot_id).to_arrow()["number"].to_pylist()
        assert sorted(seen) == list(range(len(seen)))
    assert place.numbers() == list(range(COMMITS))
    commit(place, COMMITS)
    assert place.numbers() == list(range(COMMITS + 1))


def test_what_would_be_removed_is_told_and_stays(place: Place, all_is_old: None) -> None:
    commit(place, *range(25))
    before = metadata_of(place)

    told = place.table().tidy(time.time(), dry_run=True)

    assert told
    assert metadata_of(place) == before
    assert {found.key for found in place.table().tidy(time.time())} == {found.key for found in told}


@pytest.mark.parametrize("sort", ["folder", "s3"])
def test_a_committer_that_slept_until_its_version_was_removed_does_not_commit_unseen(
    sort: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, all_is_old: None
) -> None:
    place = made_place(sort, request, tmp_path, monkeypatch)
    place.ensure()
    file = place.file("late", [Row(number=-1)])
    asleep = place.table()
    seen = dict(place.catalog.iceberg._seen)
    commit(place, *range(COMMITS))
    place.table().tidy(time.time())
    objects = Objects.at(asleep.iceberg.location())
    assert not objects.exists("metadata/v2.metadata.json")
    stale = [asleep.iceberg, asleep.iceberg]  # as it finds the table, twice, before it sleeps

    def seen_before(load: Callable[[FolderCatalog, Any], Any]) -> Callable[[FolderCatalog, Any], Any]:
        def loaded(self: FolderCatalog, identifier: Any) -> Any:
            if not stale:
                return load(self, identifier)
            self._seen.update(seen)
            return stale.pop()

        return loaded

    for name in ("load_table", "hinted_table"):
        monkeypatch.setattr(FolderCatalog, name, seen_before(getattr(FolderCatalog, name)))
    asleep.append([file], V1, key="late")

    assert not stale
    assert not objects.exists("metadata/v2.metadata.json")
    assert place.numbers() == [-1, *range(COMMITS)]


def test_a_commit_that_takes_half_a_day_is_begun_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter([0.0, 13.0])
    began = time.time()
    monkeypatch.setattr(tables.time, "time", lambda: began + 3600 * next(hours, 13.0))

    commit(place, 1)

    assert place.numbers() == [1]
    assert next(hours, None) is None
