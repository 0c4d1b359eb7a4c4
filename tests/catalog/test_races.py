"""Committers race, in processes of their own: nothing is lost, nothing doubled, in any catalog."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.catalog.places import NAME, SPACE, Place, made_place

RACER = """
import sys
from pydantic import BaseModel
from scythe_catalog.iceberg.datafile import DataFileWriter
from scythe_catalog.storage.objects import Objects
from scythe_catalog.schema import compile_model, models_to_arrow
from scythe_catalog.iceberg import tables
from scythe_catalog.iceberg.catalog import Catalog

root, warehouse, name, racer, commits, queued = sys.argv[1:]
if queued == "False":  # as between machines: nothing but the catalog's own atomic step decides
    tables._QUEUE_SECONDS = 0.0

class Row(BaseModel):
    number: int
    text: str | None = None

objects, compiled = Objects.at(root), compile_model(Row)
table = Catalog(warehouse, name or None).table("experiment", "scalars")
files = []
for i in range(int(commits)):
    number = int(racer) * int(commits) + i
    with DataFileWriter(objects, f"data/{number}.pq", compiled.schema.arrow, table.ids) as writer:
        writer.write(models_to_arrow([Row(number=number)], compiled))
    files.append((number, writer.describe(table.iceberg.schema())))
print("ready", flush=True)
sys.stdin.readline()
for number, file in files:
    partition = {"version": "v1.0.0", "run": f"r{number % 2}"}
    table = table.append([file], partition, key=str(number))
    if number % 5 == 0:
        table.append([file], partition, key=str(number))
"""


@pytest.mark.parametrize(
    ("sort", "racers", "commits", "queued"),
    [
        ("folder", 8, 12, True),
        ("folder", 4, 12, False),
        ("s3", 4, 8, True),
        ("sqlite", 4, 12, True),
        ("postgres", 4, 12, True),
    ],
)
def test_racing_committers_in_separate_processes_lose_and_double_nothing(
    sort: str, racers: int, commits: int, queued: bool, request: pytest.FixtureRequest, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    place = made_place(sort, request, tmp_path, monkeypatch)
    place.ensure()
    race(place, racers, commits, queued=queued)
    if sort in ("folder", "s3"):  # asked before anything reads the table, for a reader would raise the hint
        files = place.objects.files(f"catalog/{SPACE}/{NAME}/metadata")
        versions = sorted(int(f[1:].split(".")[0]) for f in files if f.endswith(".metadata.json"))
        assert int(place.objects.read(f"catalog/{SPACE}/{NAME}/metadata/version-hint.text")) == versions[-1]
        assert versions[-1] == 1 + racers * commits  # one for the table, one for each commit, none skipped

    table, total = place.table(), racers * commits
    assert len(table.files({"version": "v1.0.0"})) == total
    assert place.numbers({"version": "v1.0.0"}) == list(range(total))
    for run in (0, 1):
        assert place.numbers({"version": "v1.0.0", "run": f"r{run}"}) == list(range(run, total, 2))
    assert len(table.iceberg.snapshots()) <= 22


def race(place: Place, racers: int, commits: int, *, queued: bool) -> None:
    """All racers commit at once, as soon as the last of them is ready."""
    packages = Path(__file__).parents[2] / "catalog"
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    command = [sys.executable, "-c", RACER, place.objects.root, place.catalog.warehouse, place.catalog.name or ""]
    started = [
        subprocess.Popen(
            [*command, str(i), str(commits), str(queued)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for i in range(racers)
    ]  # fmt: skip
    try:
        assert [r.stdout.readline() for r in started if r.stdout] == ["ready\n"] * racers
        for racer in started:
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        told = [racer.communicate(timeout=280)[1] for racer in started]
        assert [r.returncode for r in started] == [0] * racers, "\n".join(told)[-4000:]
    finally:
        for racer in started:
            racer.kill()
            racer.wait()
