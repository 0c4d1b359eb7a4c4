"""A root whose models grew, without its catalog: each version reads as it did, whichever was taken in first."""

from decimal import Decimal
from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree
from typing import Annotated, Any, Literal

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import BaseModel, Field

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import ReadError, TransferError
from scythe.registry import ExperimentRegistry
from scythe.runs.pack import pack
from scythe.runs.rebuild import rebuild
from scythe.settings import storage
from scythe.utils.filesys import FileReference


class Wall(BaseModel):
    u: float


class WallWithArea(BaseModel):
    u: float
    area: float | None = None


class First(ExperimentInputSpec):
    n: int
    wall: Wall = Wall(u=1)


class Second(ExperimentInputSpec):
    n: int
    wall: WallWithArea = WallWithArea(u=1, area=4)


class FirstOut(ExperimentOutputSpec):
    kind: Literal["a", "b"]
    cost: Annotated[Decimal, Field(max_digits=8, decimal_places=2)]


class SecondOut(ExperimentOutputSpec):
    kind: Literal["a", "b", "c"]
    cost: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]


def first(spec: First) -> FirstOut:
    frame = pl.DataFrame({"alarm": [None, None], "events": [[], []]})
    return FirstOut(kind="a", cost=Decimal("1.25"), dataframes={"series": frame})


def second(spec: Second) -> SecondOut:
    if spec.n == 2 and not Path("calm").exists():
        raise KeyboardInterrupt
    frame = pl.DataFrame({"alarm": [1, None], "events": [[1], []]})
    return SecondOut(kind="c", cost=Decimal("1234567890.25"), dataframes={"series": frame})


def grown(*, unfinished: bool = False) -> None:
    for i, function in enumerate((first, second)):
        ExperimentRegistry.Register(name=function.__name__, retries=0)(function)
        inputs = [0, 1, 2] if unfinished and i else [0, 1]
        try:
            run = BaseExperiment(function, run_name="grown").allocate(
                pl.DataFrame({"n": inputs}), version="auto", engine="inline"
            )
            run[1].result()
        except KeyboardInterrupt:
            assert unfinished


TABLES = ("scalars", "series")


def seen(*tables: str) -> list[pl.DataFrame]:
    found = [
        scythe.read("grown", version, table=t) for t in tables or TABLES for version in ("v1.0.0", "v1.1.0", "all")
    ]
    return [frame.drop("experiment_id", strict=False) for frame in found]


@pytest.mark.parametrize("way", ["copy", "download", "catalog lost"])
def test_what_a_later_version_added_is_there(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    grown()
    before, there = seen(), tmp_path / "there"
    if way == "download":
        scythe.download("grown", there, "all", run="all")
    elif way == "copy":
        copytree(root, there, ignore=ignore_patterns("_catalog"))
    else:
        there = root
        rmtree(root / "_catalog")
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(there))
    if way != "download":
        rebuild(storage())
    for was, now in zip(before, seen(), strict=True):
        assert_frame_equal(was, now, check_column_order=False)


def test_a_run_that_was_not_finished_goes_on_in_a_table_that_holds_its_rows(root: Path) -> None:
    grown(unfinished=True)
    rmtree(root / "_catalog")
    rebuild(storage())
    Path("calm").touch()
    assert scythe.open_run("grown").resume(engine="inline").result().rows == 3
    found = scythe.read("grown")
    assert found["kind"].to_list() == ["c"] * 3
    assert found["cost"].to_list() == [Decimal("1234567890.25")] * 3
    assert found["wall"].struct.field("area").to_list() == [4.0] * 3


def test_units_stay_apart(root: Path) -> None:
    for unit in ("", " [kWh]", " [MWh]"):

        class Out(ExperimentOutputSpec):
            heat: float = Field(description=f"Heat{unit}")

        def heated(spec: First) -> Any:
            return Out(heat=1)

        heated.__annotations__["return"] = Out
        ExperimentRegistry._experiments.clear()
        ExperimentRegistry.Register()(heated)
        BaseExperiment(heated).allocate([First(n=1)], version="auto", engine="inline")
    with pytest.raises(ReadError, match=r"in \[kWh\], \[MWh\]"):
        scythe.read("heated", "all")
    rmtree(root / "_catalog")
    rebuild(storage())
    with pytest.raises(ReadError, match=r"in \[kWh\], \[MWh\]"):
        scythe.read("heated", "all")


# --- references ---------------------------------------------------------------------------------------------------


class Filed(ExperimentOutputSpec):
    file: FileReference


class Load(ExperimentOutputSpec):
    kw: float


def filed(spec: First, tempdir: Path) -> Filed:
    (tempdir / "f.txt").write_text(f"f{spec.n}")
    return Filed(file=tempdir / "f.txt")


def test_references_follow_files_that_came_along_later(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ExperimentRegistry.Register()(filed)
    run, _ = BaseExperiment(filed).allocate(pl.DataFrame({"n": [1, 2]}), engine="inline")
    there = tmp_path / "there"
    copytree(root, there, ignore=ignore_patterns("_catalog", "results"))
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(there))
    rebuild(storage())
    assert all(str(root) in uri for uri in scythe.files("filed")["file"])
    copytree(root / run.experiment_id / "results", there / run.experiment_id / "results")
    for _ in range(2):
        rebuild(storage())
        files = scythe.files("filed")
        assert all(str(there) in uri for uri in files["file"])
        assert [scythe.fetch(uri).read_text() for uri in files["file"]] == ["f1", "f2"]


@pytest.mark.parametrize("packed_since", [False, True])
def test_references_of_a_grown_run_lead_to_the_shards_of_the_run_that_it_reuses(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed_since: bool
) -> None:
    ExperimentRegistry.Register(pack=not packed_since)(filed)
    run, _ = BaseExperiment(filed).allocate(pl.DataFrame({"n": range(4)}), engine="inline")
    mine = tmp_path / "mine"
    scythe.download("filed", mine, where=pl.col("n") < (4 if packed_since else 2))
    if packed_since:
        pack(storage(), run.key, ["file"], delete=True)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(mine))
    larger, _ = scythe.open_run(run.experiment_id).extend(pl.DataFrame({"n": [9]}), engine="inline")
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(root))
    scythe.upload(mine)
    rmtree(mine)
    files = scythe.files("filed", run=larger)["file"]
    assert [scythe.fetch(uri).read_text() for uri in files] == ["f0", "f1", "f2", "f3", "f9"]


def test_a_run_that_is_packed_where_it_was_moved_to_stays_packed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ExperimentRegistry.Register()(filed)
    run, _ = BaseExperiment(filed).allocate(pl.DataFrame({"n": [1, 2]}), engine="inline")
    there = tmp_path / "there"
    copytree(root, there)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(there))
    rebuild(storage())
    pack(storage(), run.key, ["file"])
    rebuild(storage())
    files = scythe.files("filed")["file"]
    assert files.str.starts_with("scythe+file://").all()
    assert [scythe.fetch(uri).read_text() for uri in files] == ["f1", "f2"]


def test_an_upload_holds_dataframes_against_those_of_its_version(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: list[Any] = []

    def framed(spec: First) -> Load:
        return Load(kw=1, dataframes={"series": pl.DataFrame({"value": values})})

    ExperimentRegistry.Register()(framed)
    told = {"v1.0.0": (root, [1]), "v1.0.1": (tmp_path / "same", [2]), "v1.0.2": (tmp_path / "other", ["text"])}
    for version, (where, values) in told.items():  # noqa: B007 - the function has them
        monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(where))
        BaseExperiment(framed).allocate([First(n=1)], version, engine="inline")[1].result()
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(root))
    assert len(scythe.upload(tmp_path / "same").runs) == 1
    with pytest.raises(TransferError, match=r"is not what it was in v1\.0\.1:\n  value: changed from int to str"):
        scythe.upload(tmp_path / "other")
    assert scythe.read("framed", "all", table="series")["value"].to_list() == [1, 2]
