"""Datasets of roots that were moved, packed or downloaded, and of runs whose folders are gone: the same rows, or a sentence that says why not."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference
from scythe.allocate import ExperimentRun
from scythe.errors import CatalogError, InputError, NotFoundError, ReadError, RunDamaged, StateError
from scythe.rebuild import rebuild
from scythe.runs.pack import pack
from scythe.settings import storage
from scythe.utils.filesys import OptionalFileReference


class Wall(ExperimentInputSpec):
    a: float


class Heat(ExperimentOutputSpec):
    y: float
    hourly: FileReference


def simulate(spec: Wall, tempdir: Path) -> Heat:
    np.save(tempdir / "h.npy", np.full(4, spec.a, np.float32))
    return Heat(y=2 * spec.a, hourly=tempdir / "h.npy")


def ran(first: int = 0, **options: Any) -> ExperimentRun:
    ExperimentRegistry.Register(name="walls")(simulate)
    given = pl.DataFrame({"a": np.arange(20.0) + first})
    return BaseExperiment("walls").allocate(given, engine="inline", **options)[0]


def walls(**options: Any) -> scythe.Dataset:
    return scythe.dataset("walls", x=["a"], y="y", h=scythe.File("hourly"), **options)


def copied(root: Path, monkeypatch: pytest.MonkeyPatch, *, moved: bool = False) -> Path:
    """The root in another place, which is the one that is set now."""
    other = root.with_name("other")
    (shutil.move if moved else shutil.copytree)(root, other)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(other))
    return other


@pytest.mark.parametrize("moved", [False, True])
def test_files_of_a_root_that_was_copied_or_moved_are_not_those_of_before(
    root: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    run = ran()
    other = copied(root, monkeypatch, moved=moved)
    for file in (other / run.key.path / "results" / "hourly").iterdir():
        np.save(file, np.full(4, -1, np.float32))

    with pytest.raises(CatalogError, match=r"has been moved to .*other: .*`scythe rebuild`"):
        walls()[0]
    assert scythe.dataset("walls", y="y")[3]["y"] == 6
    rebuild(storage())

    assert walls()[3]["h"].tolist() == [-1] * 4


class Monthly(ExperimentOutputSpec):
    y: float


class Sited(ExperimentInputSpec):
    weather: OptionalFileReference = None


def test_input_files_of_a_copied_root_are_not_those_of_before_where_the_first_input_has_none(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @ExperimentRegistry.Register(name="sited")
    def sited(spec: Sited) -> Monthly:
        return Monthly(y=1)

    (tmp_path / "w.txt").write_text("sun")
    BaseExperiment("sited").allocate([Sited(), Sited(weather=tmp_path / "w.txt")], engine="inline")
    copied(root, monkeypatch)

    with pytest.raises(CatalogError, match="has been moved to"):
        _ = scythe.dataset("sited", y="y").frame


def test_a_pickled_dataset_finds_its_runs_where_the_root_was_moved_to(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran()
    part = walls().split(train=0.5, test=0.5)["test"]
    state, expected = part.batches(2).state(1, 2), [b["h"].tolist() for b in part.batches(2).at(1)[2:]]
    travelled, unread = pickle.dumps(part), walls()
    assert len(unread) == 20
    copied(root, monkeypatch, moved=True)

    with pytest.raises(NotFoundError, match=r"the root .*root is not there, was it moved\?"):
        unread[3]
    rebuild(storage())
    there = pickle.loads(travelled)

    assert [b["h"].tolist() for b in there.batches(2).resume(state)] == expected


def test_a_pickled_dataset_whose_root_is_nowhere_says_where_it_was(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran()
    travelled = pickle.dumps(walls())
    shutil.rmtree(root)

    with pytest.raises(
        NotFoundError, match=r"is not in file://.*root any more .*the root .* is not there, was it moved\?"
    ):
        len(pickle.loads(travelled))


def test_a_state_of_before_the_files_were_packed_is_gone_on_from_in_a_download(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ran()
    batches = walls().batches(4, seed=3)
    state, expected = batches.state(2, 1), [(b["y"].tolist(), b["h"].tolist()) for b in batches.at(2)[1:]]
    pack(storage(), run.key, ["hourly"])
    scythe.download("walls", tmp_path / "here")
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "here"))

    rest = walls().batches(4, seed=3).resume(state)

    assert [(b["y"].tolist(), b["h"].tolist()) for b in rest] == expected


def test_a_run_whose_folder_is_gone_is_not_left_out(root: Path) -> None:
    lost = ran()
    ran(20, version="keep")
    assert len(walls(run="all")) == 40
    shutil.rmtree(root / lost.key.path)

    with pytest.raises(RunDamaged, match=f"the folder of the run {lost.key.path} is gone"):
        walls(run="all")
    assert len(walls()) == 20


def of_frames(spec: Wall) -> Monthly:
    kwh: list[float | None] = [spec.a, 1.0]
    match spec.a:
        case 2:
            kwh = [1.0, None]
        case 5:
            kwh = [float("nan"), 1.0]
        case 7:
            return Monthly(y=0)
        case _:
            pass
    return Monthly(y=0, dataframes={"monthly": pl.DataFrame({"kwh": kwh}, schema={"kwh": pl.Float64})})


@pytest.mark.parametrize("rows", [2, None])
def test_inputs_whose_dataframe_misses_something_are_left_out_where_that_is_asked_for(
    root: Path, rows: int | None
) -> None:
    ExperimentRegistry.Register(name="walls")(of_frames)
    BaseExperiment("walls").allocate(pl.DataFrame({"a": np.arange(10.0)}), engine="inline")
    groups: Any = {"x": "a", "m": scythe.Frame("monthly", ["kwh"], rows=rows)}

    ds = scythe.dataset("walls", missing="drop", where=pl.col("a") > 0, **groups)

    whole = ds.batches(20, shuffle=False).at(0)[0]
    assert whole["x"].tolist() == [1, 3, 4, 6, 8, 9]
    assert whole["m"][:, 0, 0].tolist() == whole["x"].tolist()
    with pytest.raises(InputError, match='missing="drop"'):
        scythe.dataset("walls", **groups)[0]
    with pytest.raises(InputError, match=r'input 7 of .* has 0 rows in \'monthly\', not 2: .*missing="drop"'):
        scythe.dataset("walls", where=~pl.col("a").is_in([2.0, 5.0]), **groups)[0]


def test_a_version_without_the_dataframe_has_no_row_where_what_misses_something_is_left_out(root: Path) -> None:
    ExperimentRegistry.Register(name="walls")(of_frames)
    for a, version in ((7.0, "1.0.0"), (3.0, "bumpmajor")):
        BaseExperiment("walls").allocate(pl.DataFrame({"a": [a]}), version, engine="inline")

    ds = scythe.dataset("walls", "all", run="all", missing="drop", x="a", m=scythe.Frame("monthly", ["kwh"]))

    assert [ds[i]["x"] for i in range(len(ds))] == [3]


def test_splits_of_other_seeds_are_others_and_each_stays(root: Path) -> None:
    ran()
    ds = walls()

    parts = {seed: ds.split(seed=seed, a=0.5, b=0.5) for seed in (0, 1, 2)}
    rows = {seed: set(both["a"].frame.collect()["a"].to_list()) for seed, both in parts.items()}

    assert rows[0] == set(ds.split(a=0.5, b=0.5)["a"].frame.collect()["a"].to_list())
    assert len({frozenset(some) for some in rows.values()}) == 3
    assert all(len(both["a"]) + len(both["b"]) == 20 for both in parts.values())
    ran(20, version="keep")
    grown = walls(run="all").split(seed=1, a=0.5, b=0.5)["a"].frame.collect()["a"].to_list()
    assert {a for a in grown if a < 20} == rows[1]
    # Within a part, another seed and the same one again both part it anew.
    for seed in (1, 0):
        again = parts[0]["a"].split(seed=seed, c=0.5, d=0.5)
        assert 0 < len(again["c"]) < len(parts[0]["a"])
    for wrong in (0.5, True):
        with pytest.raises(ReadError, match="a part of a split cannot be called seed"):
            ds.split(seed=wrong, a=0.5)  # type: ignore[arg-type]


def test_a_last_batch_with_fewer_rows_can_be_left_out(root: Path) -> None:
    ran()
    ds = walls()

    batches = ds.batches(8, seed=1, drop_last=True)

    assert [len(b["y"]) for b in batches.at(0)] == [8, 8]
    assert [b["y"].tolist() for b in batches.at(0)] == [b["y"].tolist() for b in ds.batches(8, seed=1).at(0)][:2]
    assert [len(b["y"]) for b in batches.resume(batches.state(0, 1))] == [8]
    assert len(ds.batches(10, drop_last=True)) == 2
    ranks = [ds.batches(3, rank=rank, world=4, drop_last=True).at(0) for rank in range(4)]
    assert [len(b["y"]) for one in ranks for b in one] == [3] * 4
    with pytest.raises(ReadError, match="20 rows fill no batch of 21 x 1: drop_last= leaves none"):
        len(ds.batches(21, drop_last=True))


@pytest.mark.parametrize("killed", range(8))
def test_a_loop_of_resumed_epochs_draws_what_one_that_was_never_ended_does(root: Path, killed: int) -> None:
    ran()
    batches = walls(run="all").batches(8, seed=1)
    wanted = [batch["y"].tolist() for epoch in range(3) for batch in batches.at(epoch)]

    def trained(batches: Any, state: Any, most: int) -> tuple[list[Any], Any]:
        seen, epoch = list[Any](), batches.resume(state) if state else batches.at(0)
        while epoch.epoch < 3 and len(seen) < most:
            for done, batch in enumerate(epoch, 1):
                seen.append(batch["y"].tolist())
                state = epoch.state(done)
                if len(seen) == most:
                    break
            else:
                epoch = epoch.batches.at(epoch.epoch + 1)
        return seen, state

    before, state = trained(batches, None, killed)
    ran(20, version="keep")  # the experiment grows
    after, _ = trained(walls(run="all").batches(8, seed=1) if state else batches, state, 100)

    assert before + after == wanted
    (some,) = (batches.at(1)[2:],)
    assert some.state(1) == batches.state(1, 3)
    with pytest.raises(ReadError, match="step=2: here are 1 batches"):
        some.state(2)


def test_of_many_shards_on_a_disk_no_more_are_open_than_a_process_has_handles_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scythe.loaders.files.shards.MAPPED", 2)
    for first in range(0, 100, 20):
        ran(first, pack=True, version="auto" if not first else "keep")
    ds = walls(run="all")

    for epoch in range(2):
        for batch in ds.batches(3, seed=0, ahead=0).at(epoch):
            assert (batch["h"] == np.repeat(batch["x"], 4, axis=1)).all()

    links = [Path(f"/proc/self/fd/{n}") for n in range(1024)]
    shards = {str(ds.sources["h"].packs.addresses[i]).rpartition("/")[2] for i in range(5)}
    held = {link.readlink().name for link in links if link.exists()} & shards
    assert len(shards) == 5
    assert len(held) == (0 if sys.version_info >= (3, 13) else 2), "the others are let go"


def test_what_was_normalized_has_its_units_again(root: Path) -> None:
    ran()
    ds = scythe.dataset("walls", x=["a", "y"], y="y")
    norm = ds.stats()
    plain, scaled = (ds.batches(20, normalize=n).at(0)[0] for n in (None, norm))

    assert np.allclose(norm.denormalized("x", scaled["x"]), plain["x"])
    assert np.allclose(norm.denormalized("x", scaled["x"][3]), plain["x"][3]), "a row by itself"
    assert np.allclose(norm.denormalized("y", scaled["y"]), plain["y"])
    assert np.allclose(norm.denormalized("y", scaled["y"][:, None])[:, 0], plain["y"])  # as a layer of one gives it
    with pytest.raises(
        StateError, match=r"'x' has the columns a, y: an array of 2 columns is wanted, got the shape \(20,\)"
    ):
        norm.denormalized("x", scaled["y"])
    with pytest.raises(StateError, match="there are no statistics of 'z', but of x, y"):
        norm.denormalized("z", scaled["y"])
    with pytest.raises(InputError, match="are fractions"):
        norm.denormalized("y", [1, 2])
