"""A script keeps its tables in a catalog of PyIceberg's configuration: SQLite beside a disk, Postgres or Glue beside a bucket."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import polars as pl
import pytest
from pyiceberg.table import StaticTable

from scythe_catalog.iceberg import catalog, reached

JOB = """
import sys

import polars as pl

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry


class In(ExperimentInputSpec):
    x: int


class Out(ExperimentOutputSpec):
    y: int


@ExperimentRegistry.Register()
def double(spec: In) -> Out:
    hours = pl.DataFrame({"hour": [1, 2], "value": [spec.x + 0.0, spec.x + 0.5]})
    return Out(y=2 * spec.x, dataframes={"hours": hours})


if __name__ == "__main__":
    experiment = BaseExperiment(double)
    for n in map(int, sys.argv[1:]):
        run, ref = experiment.allocate(pl.DataFrame({"x": range(n)}), version="bumpminor", engine="local")
        ref.result()
    assert scythe.read(double, version="v1.0.0").sort("sort_index")["y"].to_list() == [0, 2, 4, 6]
    assert sorted(scythe.read(double)["y"]) == [0, 2]
    assert scythe.read(double, table="hours")["value"].sum() == 0 + 0.5 + 1 + 1.5
    print(experiment.latest_run().uri)
"""


DOTTED = """
import polars as pl

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.runs.rebuild import rebuild
from scythe.settings import storage


class In(ExperimentInputSpec):
    x: int


class Out(ExperimentOutputSpec):
    y: int


@ExperimentRegistry.Register(name="double.v2")
def double(spec: In) -> Out:
    return Out(y=2 * spec.x, dataframes={"hours.raw": pl.DataFrame({"value": [spec.x]})})


def look():
    assert scythe.list_experiments()["name"].to_list() == names
    for name, n in zip(names, counts):
        assert scythe.read(name)["y"].to_list() == [2 * x for x in range(n)], name
        assert scythe.read(name, "all", run="all", table="hours.raw")["value"].to_list() == list(range(n)), name
        assert scythe.open_run(name).status == "finished"


names, counts = ["double.v2", "the u.s. lab", "the.u"], [3, 2, 1]
for name, n in zip(names, counts):
    experiment = BaseExperiment(double, run_name=None if name == "double.v2" else name)
    experiment.allocate(pl.DataFrame({"x": range(n)}), engine="inline")
look()
rebuild(storage())
look()
scythe.open_run("the u.s. lab").delete()
del names[1], counts[1]
look()
"""


AWAY = """
import sqlite3
import sys

import polars as pl

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry
from scythe.errors import AllocationError, StorageError
from scythe.gather import collect
from scythe_catalog.iceberg import catalog, reached

collect._FIRST_FLUSH_SECONDS, collect._FLUSH_SHARE, reached.PATIENCE_SECONDS = 0.0, 1e9, 0.2
base = sqlite3.connect("catalog.db", isolation_level=None)
SHOWN = []


class In(ExperimentInputSpec):
    x: int


class Out(ExperimentOutputSpec):
    y: int


@ExperimentRegistry.Register()
def double(spec: In) -> Out:
    if spec.x == 2:
        SHOWN.append(scythe.read("double", run=scythe.open_run("double").key.folder).height)
        base.execute("BEGIN EXCLUSIVE")
    if spec.x == 4:
        base.execute("ROLLBACK")
    return Out(y=2 * spec.x)


def told(ask):
    try:
        ask()
    except (StorageError, AllocationError) as error:
        return str(error)
    return "nothing"


run, ref = BaseExperiment(double).allocate(pl.DataFrame({"x": range(6)}), engine="inline", chunk=1)
assert ref.result().rows == 6
assert SHOWN[0], "rows are shown while the run goes on"
assert scythe.read("double")["y"].to_list() == [0, 2, 4, 6, 8, 10]
base.execute("BEGIN EXCLUSIVE")
for ask in (
    lambda: scythe.read("double"),
    lambda: scythe.read("double", "all"),
    lambda: BaseExperiment(double).allocate(pl.DataFrame({"x": [1]}), engine="inline"),
    run.delete,
):
    print(told(ask))
base.execute("ROLLBACK")
run.delete()
print(scythe.list_experiments().height)
"""


class Computer:
    """A user's computer: a folder with the script, and an environment in which the catalog is `lab`."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        (folder / "job.py").write_text(JOB)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SCYTHE_", "PYICEBERG_", "HATCHET_"))}
        self.env["SCYTHE_CATALOG"] = "lab"
        self.env |= {f"PYICEBERG_CATALOG__LAB__{k.upper()}": v for k, v in settings.items()}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )

    def runs_rebuilds_and_reads(self) -> str:
        """Two runs, their rows, and the same rows of a catalog made anew; the URI of the second run."""
        rebuild = ("-c", "from scythe.cli import main; main()", "rebuild")
        for command in (("job.py", "4", "2"), rebuild, ("job.py",)):
            done = self.run(*command)
            assert done.returncode == 0, done.stderr
        return done.stdout


def test_a_disks_tables_can_be_kept_in_sqlite(tmp_path: Path) -> None:
    computer = Computer(tmp_path, type="sql", uri=f"sqlite:///{tmp_path / 'catalog.db'}")

    assert computer.runs_rebuilds_and_reads().startswith(f"file://{tmp_path}/scythe-data/double/v1.1.0/")

    assert not list(tmp_path.rglob("version-hint.text")), "the folder catalog is not used"


@pytest.mark.parametrize("own", ["", "&connect_timeout=77&application_name=lab"])
def test_a_connection_to_postgres_that_stands_still_is_given_up_and_a_users_own_times_stay(
    postgres: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__LAB__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAB__URI", postgres + own)
    engine = catalog._configured_catalog("lab").engine  # pyright: ignore[reportAttributeAccessIssue]
    with engine.connect() as connection:
        told = connection.connection.dbapi_connection.get_dsn_parameters()
    assert {**catalog._ENDS, **told} == told if not own else told["connect_timeout"] == "77"
    assert told["tcp_user_timeout"] == "30000"


def test_a_catalog_serves_one_root_and_a_second_one_is_refused_by_name(tmp_path: Path) -> None:
    """Rows of both would lie in one table, and each root take the other's for rows of runs that were removed."""
    first = Computer(tmp_path, type="sql", uri=f"sqlite:///{tmp_path / 'catalog.db'}")
    assert first.run("job.py", "4", "2").returncode == 0
    read = ("-c", "import scythe; print(scythe.read('double', 'all', run='all').height)")

    def second(*command: str) -> str:
        other = Computer(tmp_path)
        other.env = {**first.env, "SCYTHE_STORAGE_ROOT": str(tmp_path / "other")}
        return other.run(*command).stderr

    rebuild = ("-c", "from scythe.cli import main; main()", "rebuild")
    refused = f"of the catalog 'lab' is that of the root file://{tmp_path}/scythe-data, and this root is file://{tmp_path}/other: a catalog serves one root"
    assert refused in second("job.py", "4")
    assert not list((tmp_path / "other").glob("double/v*/*"))
    shutil.copytree(tmp_path / "scythe-data", tmp_path / "other", dirs_exist_ok=True)
    assert refused in second(*rebuild)
    assert refused in second(*read)
    assert first.run(*read).stdout == "6\n"

    (tmp_path / "scythe-data").rename(tmp_path / "away")  # the copy takes its place
    assert second(*rebuild) == ""
    assert second(*read) == ""


@pytest.mark.parametrize("sort", ["folder", "sqlite", "postgres"])
def test_experiments_and_dataframes_may_have_dots_in_their_names(
    sort: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    uri = request.getfixturevalue("postgres") if sort == "postgres" else f"sqlite:///{tmp_path / 'catalog.db'}"
    computer = Computer(tmp_path, type="sql", uri=uri)
    if sort == "folder":
        del computer.env["SCYTHE_CATALOG"]
    (tmp_path / "dotted.py").write_text(DOTTED)

    done = computer.run("dotted.py")

    assert done.returncode == 0, done.stderr
    if sort == "folder":
        duck = duckdb.connect()
        stored = tmp_path / "scythe-data" / "double.v2" / "*" / "*" / "final" / "hours.raw.pq"
        assert duck.execute(f"SELECT sum(value) FROM read_parquet('{stored}')").fetchone() == (3,)
        found = StaticTable.from_metadata(str(tmp_path / "scythe-data/_catalog/the.u/hours.raw"))
        assert pl.scan_iceberg(found).collect()["value"].to_list() == [0]


def test_a_database_that_is_away_for_a_while_ends_no_run_and_is_named(tmp_path: Path) -> None:
    computer = Computer(tmp_path, type="sql", uri=f"sqlite:///{tmp_path / 'catalog.db'}?timeout=0.1")
    (tmp_path / "away.py").write_text(AWAY)

    done = computer.run("away.py")

    assert done.returncode == 0, done.stderr
    *told, runs = done.stdout.splitlines()
    assert len(told) == 4
    assert all(line.startswith("the catalog 'lab' cannot be reached: OperationalError: ") for line in told), told
    assert runs == "0"
    said = [line for line in done.stderr.splitlines() if "cannot be shown yet" in line]
    assert said, done.stderr
    assert "the catalog 'lab' cannot be reached" in said[0]


@pytest.mark.parametrize(
    ("sort", "said"),
    [
        ("read-only", "the catalog 'lab' cannot be used: .*attempt to write a readonly database"),
        ("no database", "the catalog 'lab' cannot be opened: .*file is not a database"),
    ],
)
def test_a_database_that_waiting_does_not_mend_is_named_at_once(sort: str, said: str, tmp_path: Path) -> None:
    database = tmp_path / "catalog.db"
    Computer(tmp_path, type="sql", uri=f"sqlite:///{database}").run("job.py", "4", "2").check_returncode()
    if sort == "no database":
        database.write_bytes(b"no database" * 99)
    read_only = f"sqlite:///file:{database}?mode=ro&uri=true"
    began = time.monotonic()
    done = Computer(tmp_path, type="sql", uri=read_only).run("job.py", "1")

    assert done.returncode == 1
    assert re.search(rf"Error: .*{said}", done.stderr.splitlines()[-1])
    assert time.monotonic() - began < reached.PATIENCE_SECONDS


@pytest.mark.parametrize("sort", ["postgres", "glue"])
def test_a_buckets_tables_can_be_kept_in_a_service_with_the_settings_of_boto3_alone(
    sort: str, request: pytest.FixtureRequest, tmp_path: Path, bucket: str
) -> None:
    postgres = {"type": "sql", "uri": request.getfixturevalue("postgres")} if sort == "postgres" else {}
    computer = Computer(tmp_path, **(postgres or {"type": "glue"}))
    computer.env["SCYTHE_STORAGE_BUCKET"] = bucket

    assert computer.runs_rebuilds_and_reads().startswith(f"s3://{bucket}/scythe/double/v1.1.0/")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "the catalog 'lab' cannot be opened: ValueError: URI missing"),
        ({"type": "lake"}, "the catalog 'lab' cannot be opened: ValueError: 'lake' is not a valid CatalogType"),
        ({"type": "rest", "uri": "http://127.0.0.1:1"}, "the catalog 'lab' cannot be reached: ConnectionError"),
        ({"type": "sql", "uri": "postgresql+psycopg2://me@127.0.0.1:1/lab"}, "the catalog 'lab' cannot be reached: Op"),
    ],
    ids=["not configured", "unknown type", "rest not reached", "postgres not reached"],
)
def test_a_catalog_that_cannot_be_opened_is_named_and_no_run_is_left(
    settings: dict[str, str], said: str, tmp_path: Path
) -> None:
    done = Computer(tmp_path, **settings).run("job.py", "1")

    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "scythe-data").rglob("manifest.yml"))
