"""The tables of a cluster's runs can be kept in a catalog service; the workers commit to it, with the data in a bucket."""

from __future__ import annotations

import os

import pytest

import scythe
from scythe.errors import RunError
from tests.catalog.places import fresh_configuration
from tests.cluster import PATIENCE, unique
from tests.hatchet.sites import Site


@pytest.fixture
def service(postgres: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings that a worker needs, too; this process has them."""
    name = unique("lab").replace("_", "")  # to PyIceberg, an underscore in a variable is a hyphen in a name
    of_it = f"PYICEBERG_CATALOG__{name.upper()}__"
    settings = {"SCYTHE_CATALOG": name, f"{of_it}TYPE": "sql", f"{of_it}URI": postgres}
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    # PyIceberg reads its environment once, when it is imported.
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", fresh_configuration())
    return settings


@pytest.mark.parametrize("n", [1, 5])
def test_workers_commit_to_postgres_what_lies_in_a_bucket(
    n: int, spare: Site, bucket: str, service: dict[str, str]
) -> None:
    _, specs = spare.orders(*["fine"] * n)
    bucket_settings = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    with spare.worker("--slots", "1", SCYTHE_STORAGE_BUCKET=bucket, **bucket_settings, **service):
        spare.served("obey")

        run, ref = spare.allocate("obey", specs if n > 1 else specs[0])
        ref.result(timeout=PATIENCE)

    assert run.uri.startswith(f"s3://{bucket}/scythe/")
    assert sorted(scythe.read(run.experiment, run.version)["sort_index"]) == list(range(n))


@pytest.mark.parametrize("n", [1, 3])
def test_a_worker_without_the_settings_of_the_catalog_says_so(n: int, main: Site, service: dict[str, str]) -> None:
    _, specs = main.orders(*["fine"] * n)

    _, ref = main.allocate("obey", specs if n > 1 else specs[0])

    with pytest.raises(RunError, match=rf"the catalog '{service['SCYTHE_CATALOG']}' cannot be opened: .*PYICEBERG_"):
        ref.result(timeout=PATIENCE)
