"""Roots that earlier versions wrote are read for ever: where they were made, and elsewhere after a rebuild."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest

import scythe
from scythe.errors import NotFoundError
from scythe.runs.rebuild import rebuild
from scythe.settings import storage

FROZEN = Path(__file__).parent / "frozen"
#: Where the roots were made: Iceberg's metadata hold absolute addresses.
MADE_AT = Path("/tmp/scythe-frozen")
TABLES = ("scalars", "errors", "tasks", "result_file_refs", "hourly", "load", "load_g1", "Load")


def everything(root: Path) -> dict[str, Any]:
    """The listing, each table of each run, and the tables of all runs together."""
    found: dict[str, Any] = {}
    for name in scythe.list_experiments()["name"]:
        runs = scythe.list_runs(name)
        found[f"{name}: runs"] = plain(
            runs.drop("seconds", "number", "problem", "bytes", "tags", "note", strict=False), root
        )
        for version, run in runs.select("version", "run").rows():
            for table in TABLES:
                _add(found, f"{name}/{version}/{run}: {table}", root, name, version, table=table, run=run)
        _add(found, f"{name}: all finished scalars", root, name, "all")
        _add(found, f"{name}: all scalars of all runs", root, name, "all", run="all")
        _add(found, f"{name}: the latest", root, name)
    return found


def _add(found: dict[str, Any], what: str, root: Path, *arguments: Any, **options: Any) -> None:
    try:
        found[what] = plain(scythe.read(*arguments, **options), root)
    except NotFoundError:
        return


def plain(frame: pl.DataFrame, root: Path) -> dict[str, Any]:
    """Types and rows of a frame as JSON."""
    return {
        "types": {name: str(dtype) for name, dtype in frame.schema.items()},
        "rows": [[_value(value, root) for value in row] for row in frame.rows()],
    }


def _value(value: Any, root: Path) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case list() | tuple():
            return [_value(v, root) for v in value]
        case dict():
            return {str(k): _value(v, root) for k, v in value.items()}
        case bytes():
            return value.hex()
        case _:
            return str(value).replace(str(root), "<root>")


def expected(name: str) -> dict[str, Any]:
    return json.loads((FROZEN / f"{name}.json").read_text())


def unpacked(name: str, where: Path) -> Path:
    """A frozen root below this folder."""
    with tarfile.open(FROZEN / f"{name}.tar.xz") as archive:
        # Python 3.11.0 to 3.11.3 know no filters, and do what the others do without a word.
        archive.extractall(where, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    if len(list((where / name / "loads").rglob("[Ll]oad.pq"))) < 2:
        pytest.skip("this file system does not tell names apart by their case")
    return where / name


def state_of(root: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()}


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compared one by one, so that what differs is named."""
    assert sorted(found) == sorted(wanted)
    for what, frame in wanted.items():
        assert found[what] == frame, what


def test_a_root_of_an_earlier_version_is_read_where_it_was_made_and_nothing_in_it_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        MADE_AT.mkdir()
    except OSError:
        pytest.skip(f"{MADE_AT} cannot be made here")
    try:
        there = unpacked("v1", MADE_AT)
        before = state_of(there)
        monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(there))
        same(everything(there), expected("v1"))
        assert state_of(there) == before
    finally:
        shutil.rmtree(MADE_AT)


def test_a_root_of_an_earlier_version_is_read_elsewhere_after_a_rebuild(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = unpacked("v1", tmp_path / "moved")
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(here))

    rebuild(storage())

    same(everything(here), expected("v1"))
    reports = scythe.files("energy", "all", run="all")["report"]
    assert len(reports) == 9
    assert all(Path(urlsplit(uri).path).read_text().startswith("report of ") for uri in reports)
