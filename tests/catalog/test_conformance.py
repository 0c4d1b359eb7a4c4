"""What a catalog promises, held against the folder catalog in a bucket and against Postgres: the tests of `test_catalog`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.catalog import test_catalog as promises
from tests.catalog.places import Place, made_place
from tests.catalog.test_catalog import (  # noqa: F401 - collected here once more, with the catalogs below
    TestAppending,
    TestOpening,
    TestReplacing,
    TestWidening,
    test_snapshots_stay_few_and_rows_stay_all_after_many_commits,
)


@pytest.fixture(params=["s3", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty catalog that many machines can share."""
    return made_place(request.param, request, tmp_path, monkeypatch)


class TestFolder(promises.TestFolder):
    SORT = "s3"
