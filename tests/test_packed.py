"""Output files that are stored many together: a shard's bytes are the files, wherever the run, its root or its rows go."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.cli import app
from scythe.engines.start import engine_of
from scythe.errors import AllocationError, FetchError, RegistrationError, RunError, SettingsError, StateError
from scythe.gather import packs
from scythe.gather.final import Gather
from scythe.leaf import shards
from scythe.loaders.files import shards as read_shards
from scythe.loaders.files.shards import BLOCK_BYTES, Blocks, Packs
from scythe.loaders.files.source import Files
from scythe.record.plan import RunPlan
from scythe.registry import ExperimentRegistry
from scythe.remote import published
from scythe.remote.cache import cache_folder, clear, usage
from scythe.remote.packed import Packed, packed, taken_apart
from scythe.runs.garbage import collect
from scythe.runs.pack import pack
from scythe.runs.rebuild import rebuild
from scythe.settings import storage
from scythe.utils.filesys import FileReference
from tests.benches.folder_s3 import FolderS3, folder_s3


class Wall(ExperimentInputSpec):
    x: int


class Heat(ExperimentOutputSpec):
    y: float
    hourly: FileReference
    note: FileReference | None = None


class Given(ExperimentInputSpec):
    hourly: FileReference


class Sum(ExperimentOutputSpec):
    total: float


def add(spec: Given) -> Sum:
    return Sum(total=float(np.load(spec.hourly).sum()))


def broken() -> dict[int, str]:
    """What of the inputs fails, and how."""
    return {
        int(i): how for i, _, how in (part.partition(":") for part in os.environ.get("BROKEN", "").split(",") if part)
    }


def simulate(spec: Wall, tempdir: Path) -> Heat:
    np.save(tempdir / "hourly.npy", np.full((3, 2), spec.x, np.float64))
    note = tempdir / "note.txt"
    note.write_text(f"note of {spec.x}" if spec.x % 2 else "")
    match broken().get(spec.x):
        case "raises":
            raise ValueError("broken")
        case "interrupted":
            raise KeyboardInterrupt
        case "breaks its model":
            return Heat.model_construct(y="no number", hourly=tempdir / "hourly.npy", note=note, dataframes={})
        case _:
            return Heat(y=spec.x, hourly=tempdir / "hourly.npy", note=note if spec.x % 3 else None)


@pytest.fixture
def walls(root: Path) -> BaseExperiment:
    return BaseExperiment(ExperimentRegistry.Register(name="walls", retries=0, pack=True)(simulate))


def allocated(walls: BaseExperiment, n: int = 20, **options: Any) -> ExperimentRun:
    run, ref = walls.allocate(pl.DataFrame({"x": range(n)}), **{"engine": "inline", "max_errors": None, **options})
    ref.result()
    return run


def check(n: int = 20, *, table: bool = True) -> None:
    """Every file is what its function wrote, by `fetch`, by what `packs` says, and in a dataset."""
    files = scythe.files("walls")
    assert files["x"].to_list() == [x for x in range(n) if x not in broken()]
    for x, hourly, note in files.select("x", "hourly", "note").iter_rows():
        assert (np.load(scythe.fetch(hourly)) == x).all()
        assert (scythe.fetch(note).read_text() if note else None) == content(x)
    if table:
        told = scythe.read("walls", table="packs")
        where = {
            (i, field): (shard, offset, length)
            for i, field, shard, offset, length in told.select(
                "sort_index", "field", "shard", "offset", "length"
            ).iter_rows()
        }
        assert set(where) == {
            (x, f) for x in files["x"] for f in ("hourly", "note") if f == "hourly" or content(x) is not None
        }
        for (x, field), (shard, offset, length) in where.items():
            raw = storage().read(storage().key(shard))[offset : offset + length]
            assert raw == content(x).encode() if field == "note" else (np.load(io.BytesIO(raw)) == x).all()
    data = scythe.dataset("walls", x=["x"], y=scythe.File("hourly"))
    for batch in data.batches(7, seed=3).at(1):
        assert (batch["y"] == batch["x"][:, :, None]).all()
        assert batch["y"].shape[1:] == (3, 2)


def content(x: int) -> str | None:
    return None if x % 3 == 0 else f"note of {x}" if x % 2 else ""


def shard_files(run: ExperimentRun) -> list[str]:
    return storage().files(run.key.shard("").rstrip("/"))


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_files_of_a_packed_run_are_what_was_written_and_packs_says_where(walls: BaseExperiment, engine: str) -> None:
    run = allocated(walls, engine=engine, chunk=4)
    check()
    assert len(shard_files(run)) == 1, "small shards are joined"
    assert not (Path(storage().folder or "") / run.key.output_file("hourly", "")).exists()
    assert scythe.files("walls").columns[-2:] == ["hourly", "note"]


def test_an_input_that_fails_leaves_no_address_and_its_retry_joins_the_others(
    walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", "3:raises,4:breaks its model,19:raises")
    run = allocated(walls, engine="local", workers=1, chunk=5)
    check()
    before = shard_files(run)
    monkeypatch.delenv("BROKEN")
    ref = run.retry_errors(engine="inline")
    assert ref is not None
    ref.result()
    check()
    assert set(before) < set(shard_files(run)), "what earlier rows name stays"


def test_a_shard_is_cut_where_it_is_full(walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (shards, packs):
        monkeypatch.setattr(module, "MOST_BYTES", 1000)
    monkeypatch.setattr(packs, "_SMALL_BYTES", 500)
    run = allocated(walls)
    check()
    assert len(shard_files(run)) > 3


def test_some_fields_are_packed_where_they_are_named(root: Path) -> None:
    walls = BaseExperiment(ExperimentRegistry.Register(name="walls")(simulate))
    allocated(walls, pack=["hourly"])
    files = scythe.files("walls")
    assert files["hourly"].str.starts_with("scythe+file://").all()
    assert files["note"].drop_nulls().str.starts_with("file://").all()
    allocated(walls, version="keep")
    assert scythe.files("walls")["hourly"].str.starts_with("file://").all()
    with pytest.raises(AllocationError, match=r"'hours'.*hourly, note"):
        walls.allocate(pl.DataFrame({"x": [1]}), pack=["hours"])
    with pytest.raises(RegistrationError, match="must be True, False or a list"):
        ExperimentRegistry.Register(name="others", pack="hourly")(simulate)


def test_a_root_that_is_moved_takes_its_packed_files_along(
    walls: BaseExperiment, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated(walls)
    moved = root.with_name("elsewhere, with ? and %20")
    root.rename(moved)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(moved))
    rebuild(storage())
    check()


def test_a_download_takes_whole_shards_or_single_files_out_of_them(
    walls: BaseExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = allocated(walls)
    scythe.download("walls", tmp_path / "all")
    few = scythe.download("walls", tmp_path / "few", files=["hourly"], where=pl.col("x") < 4)
    again = scythe.download("walls", tmp_path / "few", files=["hourly"], where=pl.col("x") < 4)
    assert (few.present, again.files) == (0, 0)
    here = sorted(p.name for p in (tmp_path / "few" / run.key.path / "results").rglob("*") if p.is_file())
    assert len(here) == 4
    (Path(storage().folder or "") / run.key.shard(shard_files(run)[0])).rename(tmp_path / "gone.bin")
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "few"))
    uris = scythe.files("walls")["hourly"]
    assert [int(np.load(scythe.fetch(uri))[0, 0]) for uri in uris[:4]] == [0, 1, 2, 3]
    with pytest.raises(FetchError, match="does not exist"):
        scythe.fetch(uris[4])
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "all"))
    check()


def test_a_shard_that_was_changed_is_told(walls: BaseExperiment) -> None:
    run = allocated(walls)
    shard = Path(storage().folder or "") / run.key.shard(shard_files(run)[0])
    raw = bytearray(shard.read_bytes())
    raw[200] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(FetchError, match="was changed or cut short"):
        [scythe.fetch(uri) for uri in scythe.files("walls")["hourly"]]


@pytest.mark.parametrize("pack", [True, False])
def test_a_file_that_is_gone_is_named_by_its_row_and_its_input(walls: BaseExperiment, pack: bool) -> None:
    run = allocated(walls, pack=pack)
    data = scythe.dataset("walls", x=["x"], y=scythe.File("hourly"))
    assert data[3]["y"].shape == (3, 2)
    anew = scythe.dataset("walls", x=["x"], y=scythe.File("hourly"))
    shutil.rmtree(Path(storage().folder or "") / run.key.path / "results")
    with pytest.raises(FetchError, match=rf"y: the file of row \d+, input \d+ of {run.key.path}: .*does not exist"):
        anew.batches(4).at(0)[0]


def test_packed_files_are_inputs_of_another_experiment(walls: BaseExperiment) -> None:
    ExperimentRegistry.Register(name="sums")(add)
    allocated(walls, 4)
    BaseExperiment(add).allocate(scythe.files("walls").select("hourly"), engine="inline")[1].result()
    assert scythe.read("sums")["total"].to_list() == [0.0, 6.0, 12.0, 18.0]


# --- afterwards -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delete", [False, True])
def test_a_finished_run_is_packed_afterwards_and_its_files_stay_unless_told(root: Path, delete: bool) -> None:
    walls = BaseExperiment(ExperimentRegistry.Register(name="walls")(simulate))
    run = allocated(walls)
    folder = root / run.key.output_file("hourly", "")
    held = scythe.dataset("walls", x=["x"], y=scythe.File("hourly"))
    for field in ("hourly", "note"):
        said = CliRunner().invoke(app, ["pack", "walls", field, *(["--delete"] if delete else [])])
        assert said.exit_code == 0, said.output
        assert "packed" in said.output
    check()
    assert len(list(folder.glob("*"))) == (0 if delete else 20)
    if not delete:
        assert (held[2]["y"] == 2).all(), "a dataset of before reads what it was made of"
    again = CliRunner().invoke(app, ["pack", "walls", "hourly", "--delete"])
    assert again.output == "all files were in shards already; by themselves they are removed\n"
    assert list(folder.glob("*")) == [], "what an earlier call has left goes, too"
    missing = CliRunner().invoke(app, ["pack", "walls", "hourl"])
    assert missing.exit_code
    assert "did you mean 'hourly'" in str(missing.exception or missing.output)
    rebuild(storage())
    check()


def test_a_packed_run_is_one_of_the_engine_that_ran_it(root: Path) -> None:
    walls = BaseExperiment(ExperimentRegistry.Register(name="walls")(simulate))
    run = allocated(walls, engine="local")
    pack(storage(), run.key, ["hourly"])
    assert [attempt.engine for attempt in run.attempts] == ["local", "inline"]
    assert engine_of(RunPlan.load(storage(), run.key)).name == "local"


def test_large_files_are_packed_block_by_block(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = allocated(BaseExperiment(ExperimentRegistry.Register(name="walls")(simulate)))
    size, put = 176, shards.Shards.put
    monkeypatch.setattr("scythe.runs.pack._BLOCK", 100)
    blocks: list[int] = []

    def watched(into: shards.Shards, i: int, content: Iterable[bytes], name: str) -> str:
        def told() -> Iterator[bytes]:
            for block in content:
                blocks.append(len(block))
                yield block

        return put(into, i, told(), name)

    monkeypatch.setattr(shards.Shards, "put", watched)
    assert pack(storage(), run.key, ["hourly"]).bytes == 20 * size
    assert blocks == [100, size - 100] * 20
    check(table=False)


def test_a_run_of_which_a_file_is_gone_is_not_packed(root: Path) -> None:
    walls = BaseExperiment(ExperimentRegistry.Register(name="walls")(simulate))
    run = allocated(walls)
    lost = min((root / run.key.output_file("hourly", "")).glob("*"))
    content = lost.read_bytes()
    lost.unlink()
    said = CliRunner().invoke(app, ["pack", "walls", "hourly", "--delete"])
    assert f"{lost} is not there, though {run.experiment_id} names it" in str(said.exception or said.output)
    lost.write_bytes(content)
    check(table=False)
    assert CliRunner().invoke(app, ["pack", "walls", "hourly"]).exit_code == 0
    check(table=False)


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_packing_that_fails_in_the_middle_leaves_nothing_staged(
    where: str, root: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "bucket":
        request.getfixturevalue("bucket")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = allocated(BaseExperiment(ExperimentRegistry.Register(name="walls")(simulate)))
    storage().delete([storage().key(scythe.files("walls")["hourly"][-1])])
    with pytest.raises(RunError, match="is not there, though"):
        pack(storage(), run.key, ["hourly"])
    assert staged_files(root, tmp_path) == []


@pytest.mark.parametrize("pack", [False, True])
def test_a_chunk_that_is_interrupted_leaves_nothing_staged(
    pack: bool, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("BROKEN", "7:interrupted")
    walls = BaseExperiment(ExperimentRegistry.Register(name="walls", pack=pack)(simulate))
    with pytest.raises(KeyboardInterrupt):
        allocated(walls)
    assert staged_files(root, tmp_path) == []


def staged_files(root: Path, temporary: Path) -> list[Path]:
    """What waits to be stored: beside a folder, or in folders of this machine for a bucket."""
    return [*(root / ".staging").glob("*"), *temporary.glob("scythe-staging-*")]


def test_a_packed_run_is_mended_after_it_was_packed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walls = BaseExperiment(ExperimentRegistry.Register(name="walls", retries=0)(simulate))
    monkeypatch.setenv("BROKEN", "5:raises")
    run = allocated(walls, engine="local", workers=1)
    assert CliRunner().invoke(app, ["pack", "walls", "hourly"]).exit_code == 0
    monkeypatch.delenv("BROKEN")
    ref = run.retry_errors(engine="inline")
    assert ref is not None
    ref.result()
    check(table=False)
    assert scythe.read("walls", table="packs").height == 19


def test_shards_that_nothing_names_are_garbage(walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    run = allocated(walls)
    mine = shard_files(run)
    storage().write(run.key.shard("000000000000-0badcafe.bin"), b"of a process that died")
    assert collect(storage()).files == 0, "it may be of one that is at work"
    monkeypatch.setattr("scythe.runs.garbage._YOUNG_SECONDS", -10.0)
    collect(storage())
    assert shard_files(run) == mine
    check()


def test_shards_of_a_download_without_the_table_that_names_them_are_no_garbage(
    walls: BaseExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated(walls)
    scythe.download("walls", tmp_path / "some", tables=["scalars", "result_file_refs"])
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "some"))
    monkeypatch.setattr("scythe.runs.garbage._YOUNG_SECONDS", -10.0)
    collect(storage())
    check(table=False)


def test_what_a_retry_that_died_has_done_is_not_lost_by_packing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walls = BaseExperiment(ExperimentRegistry.Register(name="walls", retries=0)(simulate))
    monkeypatch.setenv("BROKEN", "3:raises,5:raises")
    run = allocated(walls, engine="local", workers=1)
    monkeypatch.delenv("BROKEN")
    with monkeypatch.context() as dying:
        dying.setattr(Gather, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.retry_errors(engine="inline")
    with pytest.raises(RunError, match="resume it first"):
        pack(storage(), run.key, ["hourly"])
    run.resume(engine="inline").result()
    pack(storage(), run.key, ["hourly", "note"])
    check()


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_empty_files_alone_in_a_shard_are_read_and_no_rows_are_no_files(root: Path) -> None:
    walls = BaseExperiment(ExperimentRegistry.Register(name="walls", pack=["note"])(simulate))
    walls.allocate(pl.DataFrame({"x": [2, 4]}), engine="inline")[1].result()
    size = scythe.File("note", load=lambda content: np.array([len(content)]))
    data = scythe.dataset("walls", y=size)
    assert [data[i]["y"].item() for i in range(2)] == [0, 0]
    allocated(walls, 3, pack=["hourly"])
    assert scythe.dataset("walls", y=scythe.File("hourly")).sources["y"].take(np.arange(0)).shape == (0, 3, 2)


# --- addresses ------------------------------------------------------------------------------------------------


@given(
    st.text("abc /?&=%+-._é", min_size=1), st.integers(0, 2**50), st.integers(0, 2**40), st.integers(0, 2**32 - 1),
    st.text("abc012-._+", min_size=1),
)  # fmt: skip
def test_an_address_says_what_it_was_made_of(path: str, offset: int, length: int, crc: int, name: str) -> None:
    file = Packed(f"file:///{path}", offset, length, crc, name)
    assert packed(file.uri) == file
    assert taken_apart(pl.Series([None, file.uri, f"file:///{path}"])).row(1) == tuple(file)


# --- a bucket -------------------------------------------------------------------------------------------------


@pytest.fixture
def served(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An S3 server that counts what it is asked for."""
    with folder_s3(tmp_path / "s3") as server:
        (tmp_path / "s3" / "bucket").mkdir(parents=True)
        for name, value in {**server.environment, "SCYTHE_STORAGE_BUCKET": "bucket"}.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """So many bytes are asked of a shard at once, and arrays do not stay in memory."""
    for module in ("files.shards", "batches"):
        monkeypatch.setattr(f"scythe.loaders.{module}.BLOCK_BYTES", 512)
    monkeypatch.setattr("scythe.loaders.files.source._KEPT_BYTES", 512)
    return 512


def epoch(batches: Any, number: int) -> list[int]:
    found = list[int]()
    for batch in batches.at(number):
        assert (batch["y"] == batch["x"][:, :, None]).all()
        found += batch["x"][:, 0].astype(int).tolist()
    return found


class Length(ExperimentInputSpec):
    k: int


class Letters(ExperimentOutputSpec):
    text: FileReference


def letters(spec: Length, tempdir: Path) -> Letters:
    (tempdir / "text.txt").write_bytes(b"a" * spec.k)
    return Letters(text=tempdir / "text.txt")


@pytest.mark.parametrize("server", ["served", "bucket"])
def test_files_of_a_bucket_that_are_empty_are_packed_joined_and_read_without_a_second_try(
    server: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue("root")
    request.getfixturevalue(server)
    asked, fetched = list[int](), read_shards._fetched

    def counted(address: str, start: int, stop: int) -> np.ndarray:
        asked.append(stop - start)
        return fetched(address, start, stop)

    monkeypatch.setattr(read_shards, "_fetched", counted)
    written = BaseExperiment(ExperimentRegistry.Register(pack=True)(letters))
    for lengths in ([0], [0, 5], [5, 0, 0], [0, 0, 0], [2 * 1024 * 1024, 0]):
        specs = pl.DataFrame({"k": lengths})
        written.allocate(specs, engine="inline", chunk=1)[1].result()
        data = scythe.dataset("letters", y=scythe.File("text", load=lambda content: np.array([len(content)])))
        assert [batch["y"].item() for batch in data.batches(1, shuffle=False).at(0)] == lengths
        uris = scythe.files("letters")["text"]
        assert [scythe.fetch(uri).stat().st_size for uri in uris] == lengths
    assert asked
    assert min(asked) > 0, "a range of no bytes, which servers refuse"
    assert "again" not in capsys.readouterr().err


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("kept", ["arrays", "files of the cache"])
def test_a_second_epoch_asks_the_bucket_for_nothing(
    served: FolderS3, walls: BaseExperiment, pack: bool, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kept != "arrays":
        monkeypatch.setattr("scythe.loaders.files.source._KEPT_BYTES", 0)
    run = allocated(walls, 40, pack=pack)
    ds = scythe.dataset("walls", x=["x"], y=scythe.File("hourly"))
    batches = ds.batches(8, seed=1)
    assert ds.shapes["y"] == (3, 2)
    served.counted.clear()
    first = epoch(batches, 0)
    assert served.counted["GET"] <= (len(shard_files(run)) if pack else 40)
    if kept == "arrays":
        clear()
    served.counted.clear()
    assert sorted(epoch(batches, 1)) == sorted(first) == list(range(40))
    assert not served.counted
    if kept != "arrays":
        anew = scythe.dataset("walls", x=["x"], y=scythe.File("hourly"))
        assert anew.shapes["y"] == (3, 2)
        served.counted.clear()
        epoch(anew.batches(8, seed=1), 2)
        assert served.counted["GET"] == served.counted["HEAD"] == 0


READS = """
import scythe
for batch in scythe.dataset("walls", x=["x"], y=scythe.File("hourly")).batches(8, seed=1).at(0):
    pass
"""


@pytest.mark.parametrize("pack", [True, False])
def test_what_a_process_has_fetched_the_next_one_takes_from_the_cache(
    served: FolderS3, walls: BaseExperiment, pack: bool
) -> None:
    allocated(walls, 40, pack=pack)
    subprocess.run([sys.executable, "-c", READS], check=True)

    def asked() -> int:
        """What the files of an epoch are asked for, in this process."""
        ds = scythe.dataset("walls", x=["x"], y=scythe.File("hourly"))
        assert len(ds) == 40
        served.counted.clear()
        epoch(ds.batches(8, seed=1), 0)
        return served.counted["GET"] + served.counted["HEAD"]

    assert usage().files >= (1 if pack else 40)
    opening = asked()
    clear()
    assert usage().files == 0
    assert asked() == opening + (len(shard_files(scythe.open_run("walls"))) if pack else 40)


@pytest.mark.parametrize(
    ("pack", "cut"), [(True, 1), (True, 47), (True, 175), (True, 4000), (False, 1), (False, 30), (False, 9999)]
)
def test_what_of_the_cache_a_power_cut_has_cut_short_is_fetched_anew(
    served: FolderS3, walls: BaseExperiment, pack: bool, cut: int
) -> None:
    allocated(walls, 40, pack=pack)
    subprocess.run([sys.executable, "-c", READS], check=True)
    kept = min(cache_folder().rglob("*-0-*" if pack else "*-whole"))
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-cut])
    ds = scythe.dataset("walls", x=["x"], y=scythe.File("hourly"))
    assert sorted(epoch(ds.batches(8, seed=1), 0)) == list(range(40))
    subprocess.run([sys.executable, "-c", READS], check=True)  # which has written it when it ends
    assert kept.read_bytes() == whole


def test_blocks_that_failed_are_asked_for_again_by_the_next_epoch(
    served: FolderS3, small_blocks: int, walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated(walls, 60)
    batches = scythe.dataset("walls", x=["x"], y=scythe.File("hourly")).batches(6, seed=1)
    batches.assembled(np.arange(1))
    with monkeypatch.context() as away:
        away.setattr(
            "scythe.loaders.files.shards.published", lambda *_: (_ for _ in ()).throw(FetchError("the network is away"))
        )
        with pytest.raises(FetchError, match=r"y: the file of row \d+, input \d+ of walls/.*: the network is away$"):
            epoch(batches, 0)
    assert sorted(epoch(batches, 0)) == list(range(60))


def test_a_failure_that_an_epoch_before_has_met_is_not_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, into, comes = Blocks(), bytearray(8), threading.Event()
    answers = iter([FetchError("the network is away"), b"12345678"])

    def fetched(*_: object) -> bytes:
        comes.wait(30)
        if isinstance(answer := next(answers), FetchError):
            raise answer
        return answer

    monkeypatch.setattr("scythe.loaders.files.shards.published", fetched)
    monkeypatch.setattr(blocks, "_done", lambda block, begun: None)  # which comes after whoever waits has been told
    blocks.ready([("s3://bucket/shard", 0, 8)])
    comes.set()
    blocks.read("s3://bucket/shard", 0, 8, 0, memoryview(into))
    assert into == b"12345678"


def test_blocks_that_the_cache_has_lost_are_fetched_ahead_by_the_next_epoch(
    served: FolderS3, small_blocks: int, walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scythe.loaders.files.shards.FRESH_BYTES", 1024)
    allocated(walls, 60)
    batches = scythe.dataset("walls", x=["x"], y=scythe.File("hourly")).batches(6, seed=1)
    assert sorted(epoch(batches, 0)) == list(range(60))
    clear()
    ahead, ready = list[list[Any]](), Blocks.ready
    monkeypatch.setattr(Blocks, "ready", lambda self, blocks: ready(self, ahead.append(list(blocks)) or ahead[-1]))
    assert sorted(epoch(batches, 1)) == list(range(60))
    assert {block for blocks in ahead for block in blocks}


def test_blocks_of_rows_that_are_in_memory_are_not_fetched_again(
    served: FolderS3, small_blocks: int, walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scythe.loaders.files.source._KEPT_BYTES", 2**20)
    monkeypatch.setattr("scythe.loaders.files.shards.FRESH_BYTES", 1024)
    allocated(walls, 60)
    batches = scythe.dataset("walls", x=["x"], y=scythe.File("hourly")).batches(6, seed=1)
    epoch(batches, 0)
    clear()
    served.counted.clear()
    assert sorted(epoch(batches, 1)) == list(range(60))
    assert not served.counted


@pytest.mark.parametrize("how", ["one after the other", "by number"])
def test_blocks_that_nothing_keeps_are_fetched_many_at_once(
    how: str, served: FolderS3, small_blocks: int, walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that is full, or swept by another process, and little memory."""
    allocated(walls, 60)
    batches = scythe.dataset("walls", x=["x"], y=scythe.File("hourly")).batches(6, seed=1)
    batches.assembled(np.arange(1))
    monkeypatch.setattr("scythe.loaders.files.shards.FRESH_BYTES", 1024)
    monkeypatch.setattr(published._KEEPER, "keep", lambda path, data: None)
    clear()
    lock, under_way, most = threading.Lock(), [0], list[int]()
    second = threading.Event()

    def counted(*block: Any) -> Any:
        with lock:
            under_way[0] += 1
            most.append(under_way[0])
            if under_way[0] > 1:
                second.set()
        second.wait(5)  # for another one that is under way at the same time
        try:
            return fetched(*block)
        finally:
            with lock:
                under_way[0] -= 1
                if not under_way[0]:
                    second.clear()

    fetched = published.published
    monkeypatch.setattr("scythe.loaders.files.shards.published", counted)
    for number in (1, 2):
        most.clear()
        epoch = batches.at(number)
        seen = [batch["x"] for batch in (epoch if how == "one after the other" else map(epoch.__getitem__, range(10)))]
        assert sorted(np.concatenate(seen)[:, 0]) == list(range(60))
        assert max(most) > 1
        assert len(most) <= 10 * 6 * 2


def test_an_epoch_that_is_collected_while_blocks_are_looked_through_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, goes_on = Blocks(), threading.Event()
    monkeypatch.setattr("scythe.loaders.files.shards.published", lambda *_: goes_on.wait(30) and b"12345678")
    waiting = blocks.ready([("s3://bucket/shard", 8 * i, 8 * i + 8) for i in range(40)])

    def leave() -> None:
        with blocks._lock:  # as Python does it, wherever a thread makes an object
            blocks.leave()

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    thread.join(10)
    goes_on.set()
    assert not thread.is_alive()
    assert sum(block.cancelled() for block in waiting if block is not None) == 8


@given(
    files=st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 40 * 2**20), st.integers(0, 9 * 2**20)), min_size=1),
    data=st.data(),
)
def test_the_blocks_of_rows_are_those_that_hold_their_bytes(
    files: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    shard, offset, length = (np.array(column, np.int64) for column in zip(*files, strict=True))
    sizes = np.zeros(4, np.int64)
    np.maximum.at(sizes, shard[shard >= 0], (offset + length)[shard >= 0])
    packs = Packs([f"s3://bucket/{i}" for i in range(4)], sizes, shard, offset, length)
    rows = np.array(data.draw(st.lists(st.integers(0, len(files) - 1), max_size=8)), np.int64)
    expected = {
        int(packs.begins[s]) + block
        for s, o, n in (files[row] for row in rows)
        if s >= 0 and n > 0
        for block in range(o // BLOCK_BYTES, (o + n - 1) // BLOCK_BYTES + 1)
    }
    found = packs.blocks_of(rows).tolist()
    assert found == sorted(expected)
    assert all(block < packs.begins[-1] for block in found)


def test_an_epoch_that_is_left_fetches_no_more_than_it_has_begun(
    served: FolderS3, walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, begun = threading.Event(), list[object]()

    def slowly(address: str, start: int, stop: int) -> bytes:
        begun.append(start)
        assert goes_on.wait(30)
        return bytes(stop - start)

    with monkeypatch.context() as slow:
        slow.setattr("scythe.loaders.files.shards.published", slowly)
        blocks, into = Blocks(), bytearray(8)
        blocks.ready(("s3://bucket/shard", 8 * i, 8 * i + 8) for i in range(200))
        blocks.leave()
        goes_on.set()
        blocks.read("s3://bucket/shard", 8 * 199, 8 * 200, 0, memoryview(into))
        blocks._pool.shutdown()
    assert len(begun) <= 33

    told = list[Files]()
    allocated(walls, 20)
    batches = scythe.dataset("walls", x=["x"], y=scythe.File("hourly")).batches(2, seed=1).at(0)
    with monkeypatch.context() as heard:
        heard.setattr(Files, "leave", lambda files: told.append(files))
        one = iter(batches)
        next(one)
        one.close()
    assert len(told) == 1


def test_a_setting_of_the_cache_that_makes_no_sense_is_told(
    served: FolderS3, walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated(walls, 2)
    monkeypatch.setenv("SCYTHE_CACHE_SIZE", "much")
    published._limit.cache_clear()
    with pytest.raises(SettingsError, match="CACHE_SIZE"):
        epoch(scythe.dataset("walls", x=["x"], y=scythe.File("hourly")).batches(2), 0)


def test_a_cache_that_cannot_be_written_is_an_error_at_once(
    served: FolderS3, walls: BaseExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated(walls, 2)
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(FetchError, match=r"cannot be written: .*SCYTHE_CACHE_DIR"):
        epoch(scythe.dataset("walls", x=["x"], y=scythe.File("hourly")).batches(2), 0)


def test_blocks_that_stay_in_memory_no_longer_are_asked_for_once_all_the_same(
    served: FolderS3, small_blocks: int, walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("files.shards", "batches"):
        monkeypatch.setattr(f"scythe.loaders.{module}.FRESH_BYTES", 1024)
    run = allocated(walls, 60)
    blocks = sum(-(-run.objects.size(run.key.shard(name)) // small_blocks) for name in shard_files(run))
    for options in ({}, {"memory": 2048}, {"shuffle": False}):
        clear()
        anew = scythe.dataset("walls", x=["x"], y=scythe.File("hourly")).batches(6, seed=1, **options)
        anew.assembled(np.arange(1))
        served.counted.clear()
        assert sorted(epoch(anew, 0)) == list(range(60))
        assert served.counted["GET"] <= blocks


def test_a_chunk_of_packed_files_is_one_request(served: FolderS3, walls: BaseExperiment) -> None:
    allocated(walls, 40, chunk=20, engine="local", workers=1)
    assert len([path for path in served.written if "/results/" in path]) == 3, "two chunks, which are joined"
    check(40)


def test_windows_of_blocks_are_shuffled_within_and_can_be_gone_on_with(
    served: FolderS3, small_blocks: int, walls: BaseExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated(walls, 60)
    ds = scythe.dataset("walls", x=["x"], y=scythe.File("hourly"))
    batches = ds.batches(6, seed=1, memory=2048)
    order = epoch(batches, 0)
    assert sorted(order) == list(range(60))
    assert order != epoch(batches, 1)
    assert order == epoch(ds.batches(6, seed=1, memory=2048), 0)
    near = np.abs(np.diff(order))
    assert np.median(near) < np.median(np.abs(np.diff(epoch(ds.batches(6, seed=1), 0)))), "neighbours stay near"
    state = batches.state(0, 4)
    rest = [int(x) for batch in batches.resume(state) for x in batch["x"][:, 0]]
    assert rest == order[24:]
    with pytest.raises(StateError, match="memory"):
        ds.batches(6, seed=1).resume(state)
    with pytest.raises(StateError, match="files that lay in other shards"):
        batches.resume({**state, "blocks": "of others"})
    assert len(batches.resume({name: value for name, value in state.items() if name != "blocks"})) == 6, "of before"
    monkeypatch.setattr("scythe.loaders.files.shards.FRESH_BYTES", 1024)
    clear()
    assert epoch(scythe.dataset("walls", x=["x"], y=scythe.File("hourly")).batches(6, seed=1, memory=2048), 0) == order
