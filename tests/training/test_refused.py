"""What cannot be trained on as it was meant is refused by name: other rows, other steps, lost digits, damaged files."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference
from scythe.errors import InputError, NotFoundError, ReadError, StateError
from scythe.loaders.arrays import assign
from scythe.runs.rebuild import rebuild

ROWS = 12


class Wall(ExperimentInputSpec):
    x: float
    fails: bool = False


class Heat(ExperimentOutputSpec):
    y: float
    hourly: FileReference


def warm(spec: Wall, tempdir: Path) -> Heat:
    if spec.fails and "WALLS_FAIL" in os.environ:
        raise ValueError("too thin")
    np.save(tempdir / "hourly.npy", np.full(4, spec.x, np.float32))
    return Heat(
        y=2 * spec.x, hourly=tempdir / "hourly.npy", dataframes={"monthly": pl.DataFrame({"kwh": [spec.x] * 3})}
    )


@pytest.fixture
def walls(root: Path) -> BaseExperiment:
    ExperimentRegistry.Register(name="walls", retries=0)(warm)
    return BaseExperiment("walls")


def allocated(walls: BaseExperiment, xs: Any, version: str | None = None, **more: Any) -> scythe.ExperimentRun:
    specs = pl.DataFrame({"x": np.asarray(xs, np.float64), **more})
    run, ref = walls.allocate(specs, version, engine="inline" if not more else "local", max_errors=None)
    ref.result()
    return run


@pytest.fixture
def ds(walls: BaseExperiment) -> scythe.Dataset:
    allocated(walls, range(ROWS))
    return scythe.dataset("walls", x=["x"])


# --- states -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (lambda ds: ds[6:].batches(2, seed=1), "other rows of the same runs"),
        (lambda ds: ds[[5, 4, 3, 2, 1, 0]].batches(2, seed=1), "other rows of the same runs"),
        (lambda ds: scythe.dataset("walls", x=["x"], where=pl.col("x") >= 6).batches(2, seed=1), "other rows of the same runs"),
        (lambda ds: ds[:6].batches(2, seed=1, shuffle=False), "shuffle=True, these batches have shuffle=False"),
        (lambda ds: ds[:6].batches(1, seed=1), "keep size x world as it was"),
        (lambda ds: ds[:6].batches(1, seed=1, rank=0, world=4), "keep size x world as it was"),
        (lambda ds: ds[:6].batches(2, seed=2), "seed=1"),
    ],
)  # fmt: skip
def test_a_state_of_other_batches_is_refused(other: Callable[[Any], Any], told: str, ds: scythe.Dataset) -> None:
    state = json.loads(json.dumps(ds[:6].batches(2, seed=1).state(0, 2)))
    assert len(ds[:6].batches(2, seed=1).resume(state)) == 1
    assert len(ds[:6].batches(1, seed=1, rank=1, world=2).resume(state)) == 1
    with pytest.raises(StateError, match=told):
        other(ds).resume(state)


@pytest.mark.parametrize(
    "change",
    [{"samples": -2}, {"samples": 14}, {"samples": None}, {"epoch": -1}, {"epoch": "two"}, {"runs": 3}],
    ids=str,
)
def test_what_is_no_state_is_refused(change: dict[str, Any], ds: scythe.Dataset) -> None:
    batches = ds.batches(2)
    with pytest.raises(StateError, match="no state of batches"):
        batches.resume({**batches.state(0, 1), **change})
    with pytest.raises(StateError, match=r"has no 'samples', which state\(\) gives"):
        batches.resume({name: value for name, value in batches.state(0, 1).items() if name != "samples"})


def test_a_state_of_before_there_were_its_parts_is_gone_on_from(ds: scythe.Dataset) -> None:
    batches = ds.batches(2)
    old = {name: batches.state(0, 2)[name] for name in ("runs", "rows", "seed", "epoch", "samples")}
    assert len(batches.resume(old)) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ds: ds.batches(2).at(-1), lambda ds: ds.batches(2).at(1.5), lambda ds: ds.batches(2).state(0, 7),
        lambda ds: ds.batches(2).state(0, -1), lambda ds: ds.batches(2).state(0, 0.5), lambda ds: ds.batches(2).state(-1, 0),
        lambda ds: ds.batches(2, seed="a"), lambda ds: ds.batches(2, seed=1.5), lambda ds: ds.batches(2, ahead=-1),
        lambda ds: ds.batches(2, memory="64 MB"), lambda ds: ds.batches(2, rank="0", world="2"), lambda ds: ds.batches(2, normalize={}),
        lambda ds: scythe.dataset("walls", x=["x"], where="x > 2"), lambda ds: scythe.dataset("walls", x=["x", "x"]),
        lambda ds: scythe.dataset("walls", m=scythe.Frame("monthly", ["kwh", "kwh"])), lambda ds: ds[:0].stats(),
        lambda ds: len(ds[:3].batches(4, rank=0, world=5)), lambda ds: list(ds[:3].batches(4, rank=0, world=5).at(0)),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(wrong: Callable[[Any], Any], ds: scythe.Dataset) -> None:
    with pytest.raises(ReadError):
        wrong(ds)


def test_a_window_of_packed_files_is_refused_at_once_where_there_is_no_group_of_files(ds: scythe.Dataset) -> None:
    """Whether files are packed is told by their addresses, which are read with the rows."""
    told = "memory= shuffles blocks of packed files, and this dataset has no group of them: leave it out"
    with pytest.raises(ReadError, match=told):
        ds.batches(2, memory=64 << 20)
    of_files = scythe.dataset("walls", f=scythe.File("hourly")).batches(2, memory=64 << 20)
    with pytest.raises(ReadError, match=told):
        of_files.state(0, 0)


@pytest.mark.parametrize("given", ["False", "no", 0, 1, None, [], np.array([True])], ids=str)
def test_an_option_that_is_true_or_false_is_nothing_else(given: Any, ds: scythe.Dataset) -> None:
    """As a command line gives it, "False" is a text like any other."""
    asked: list[tuple[str, Callable[[Any], Any]]] = [
        ("shuffle", lambda g: ds.batches(2, shuffle=g)),
        ("drop_last", lambda g: ds.batches(2, drop_last=g)),
        ("distinct", lambda g: scythe.dataset("walls", x="x", run="all", distinct=g)),
        ("distinct", lambda g: scythe.read("walls", run="all", distinct=g)),
        ("distinct", lambda g: scythe.scan("walls", run="all", distinct=g)),
        ("ids", lambda g: scythe.read("walls", ids=g)),
        ("path", lambda g: scythe.dataset("walls", f=scythe.File("hourly", load=len, path=g))),
    ]
    for option, ask in asked:
        with pytest.raises(ReadError, match=rf"{option}={re.escape(repr(given))}: it is True or False"):
            ask(given)
        if option != "path":
            assert ask(np.True_) is not None


@pytest.mark.parametrize("told", [{"RANK": "1"}, {"WORLD_SIZE": "2"}, {"RANK": "one", "WORLD_SIZE": "2"}], ids=str)
def test_an_environment_that_says_half_of_a_rank_is_refused(
    told: dict[str, str], ds: scythe.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ReadError, match=r"RANK=.* and WORLD_SIZE=.* are not two whole numbers"):
        ds.batches(2)
    assert len(ds.batches(2, rank=0, world=1)) == 6


@pytest.mark.parametrize("path", ["a_root_of_a_longer_name", "b"])
def test_a_state_of_a_root_that_was_moved_and_rebuilt_outlives_another_end_of_its_run(
    path: str, walls: BaseExperiment, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WALLS_FAIL", "1")
    allocated(walls, range(ROWS), fails=[x % 4 == 3 for x in range(ROWS)])
    before = scythe.dataset("walls", x=["x"]).batches(3, seed=1)
    states = [before.state(0, 1)]
    seen = [batch["x"][:, 0].tolist() for batch in before.at(0)]
    root.rename(tmp_path / path)
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / path))
    rebuild(scythe.settings.storage())
    states.append(scythe.dataset("walls", x=["x"], f=scythe.File("hourly")).batches(3, seed=1).state(0, 1))
    monkeypatch.delenv("WALLS_FAIL")
    scythe.open_run("walls").retry_errors().result()
    now = scythe.dataset("walls", x=["x"])
    assert len(now) == ROWS
    for state in states:
        rest = now.batches(3, seed=1).resume(state)
        assert [batch["x"][:, 0].tolist() for batch in rest] == seen[1:]


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (1e8 + 0.25 * np.arange(ROWS), "float64"), (2.0**24 + np.arange(ROWS), "float64"), (-1e9 - np.arange(ROWS), "float64"),
        (1e6 + np.arange(ROWS), "float32"), (np.float32(1e9) + 64.0 * np.arange(ROWS), "float32"), (293.0 + 0.1 * np.arange(ROWS), "float32"), (np.full(ROWS, 1e9 + 1), "float32"), (1e9 * np.arange(ROWS), "float32"),
        (np.linspace(1990, 2020, ROWS), "float32"), (np.linspace(0, 1, ROWS), "float16"), (np.linspace(500, 501, ROWS), "float32"),
    ],
)  # fmt: skip
def test_numbers_of_which_a_type_would_keep_no_differences_are_refused(
    values: np.ndarray, kept: str, walls: BaseExperiment
) -> None:
    allocated(walls, values)
    groups: dict[str, Any] = {"x": ["x"], "m": scythe.Frame("monthly", ["kwh"], rows=3)}
    for dtype in ("float16", "float32", "float64", "complex64", "complex128"):
        real = np.finfo(dtype).dtype
        for name, group in groups.items():
            ds = scythe.dataset("walls", dtype=dtype, **{name: group})
            if real.itemsize < np.dtype(kept).itemsize:
                with pytest.raises(InputError, match=f"{dtype} rounds by up to|beyond what {dtype} reaches"):
                    ds[0]
            else:
                found = ds.batches(ROWS, shuffle=False).at(0)[0][name].reshape(ROWS, -1)[:, 0]
                assert len(np.unique(found)) == len(np.unique(values))


@pytest.mark.parametrize(("dtype", "reals"), [("complex64", "float32"), ("complex128", "float64")])
def test_complex_numbers_round_as_the_floats_that_they_are_made_of(
    dtype: str, reals: str, walls: BaseExperiment
) -> None:
    def asked(values: list[float], of: str) -> Any:
        allocated(walls, values)
        groups: dict[str, Any] = {"x": "x", "m": scythe.Frame("monthly", ["kwh"])}
        for name, group in groups.items():
            try:
                yield (
                    scythe.dataset("walls", dtype=of, **{name: group}).batches(9, shuffle=False).at(0)[0][name].tolist()
                )
            except InputError as error:
                yield re.sub(r"complex(\d+)", lambda found: f"float{int(found[1]) // 2}", str(error))

    for values in ([0.1, 0.2], [2.0**24, 2.0**24 + 1], [1e8, 1e8 + 0.25], [7.0]):
        assert [*asked(values, dtype)] == [*asked(values, reals)]
    with pytest.raises(InputError, match=r"beyond what complex64 reaches: take a wider one, as dtype='complex128'"):
        assign(np.empty(1, np.complex64), np.array([1e39]), "'x'")


def test_a_file_that_is_damaged_is_named_with_its_input(walls: BaseExperiment) -> None:
    run = allocated(walls, range(ROWS))
    path = Path(scythe.files("walls")["hourly"][5].removeprefix("file://"))
    for content in (b"", path.read_bytes()[:90]):
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=rf"f: the file of input 5 of {run.key.path}, .*{path.name}, cannot be read"
        ):
            scythe.dataset("walls", f=scythe.File("hourly")).batches(ROWS).at(0)[0]
    with pytest.raises(ZeroDivisionError) as caught:
        scythe.dataset("walls", f=scythe.File("hourly", load=lambda data: 1 / 0))[0]
    assert "f: the file of input 0 of walls/" in caught.value.__notes__[0]


def test_a_run_that_was_deleted_before_its_rows_were_read_is_told(walls: BaseExperiment) -> None:
    run = allocated(walls, range(ROWS))
    ds = scythe.dataset("walls", x=["x"])
    run.delete()
    with pytest.raises(NotFoundError, match="is gone"):
        len(ds)


def test_a_deleted_run_among_several_is_told_with_the_way_to_those_that_are_left(walls: BaseExperiment) -> None:
    first, _ = allocated(walls, range(ROWS)), allocated(walls, range(ROWS, ROWS + 3), "keep")
    unread = scythe.dataset("walls", run="all", x=["x"])
    state, pickled = unread.batches(3).state(0, 1), pickle.dumps(unread)
    unread = scythe.dataset("walls", run="all", x=["x"])
    first.delete()
    for ask in (
        lambda: len(unread),
        lambda: len(pickle.loads(pickled)),
        lambda: len(scythe.dataset("walls", run="all", x=["x"]).batches(3).resume(state)),
    ):
        with pytest.raises(
            NotFoundError, match=rf"the run {first.key.path} .*; refresh\(\) gives the dataset of the runs"
        ):
            ask()
    assert len(unread.refresh()) == len(pickle.loads(pickled).refresh()) == 3


def test_what_lies_in_another_table_is_told_with_the_group_that_reads_it(ds: scythe.Dataset) -> None:
    with pytest.raises(NotFoundError, match=r"scythe.Frame\('monthly', \['kwh'\]\)"):
        scythe.dataset("walls", x=["kwh"])[0]
    with pytest.raises(InputError, match=r"scythe.File\('hourly'\)"):
        scythe.dataset("walls", x=["hourly"])[0]


@pytest.mark.parametrize("ends", [True, False])
def test_an_epoch_that_ends_with_its_program_touches_nothing_of_what_is_gone_by_then(
    ends: bool, ds: scythe.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list[Any]()
    epoch = iter(ds.batches(2).at(0))
    next(epoch)
    monkeypatch.setattr(type(ds.batches(2)), "leave", lambda batches: left.append(batches))
    monkeypatch.setattr(sys, "is_finalizing", lambda: ends)
    epoch.close()
    assert bool(left) is not ends


# --- what makes no sense -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (lambda ds: ds.batches(2).at(2**64), "epoch=18446744073709551616: a number of 64 bits is wanted"),
        (lambda ds: ds.batches(2, shuffle="False"), "shuffle='False': it is True or False"),
        (lambda ds: ds.batches(2, drop_last=0), "drop_last=0: it is True or False"),
        (lambda ds: ds.split(by=0.5, train=0.5), "by=0.5: it names columns"),
        (lambda ds: ds.split(by=[], train=0.5), r"by=\[\]: it names columns"),
        (lambda _: scythe.dataset("walls", m=scythe.Frame("monthly", ["kwh"], rows="2")), "rows='2'.: a number of rows"),
        (lambda _: scythe.dataset("walls", m=scythe.Frame("monthly", ["kwh"], rows=-1)), "rows=-1.: a number of rows"),
        (lambda _: scythe.dataset("walls", m=scythe.Frame("monthly", ["kwh"], rows=True)), "rows=True.: a number of rows"),
        (lambda _: scythe.dataset("walls", h=scythe.File("hourly", load=5)), "load=5.: a function of a file's bytes"),
        (lambda _: len(scythe.dataset("walls", x="x", where=pl.col("x", "y") > 0)), "it gives several columns: join them with & or"),
        (lambda _: scythe.Stats.from_dict({"x": {"x": {"mean": 3}}}), "these are no statistics"),
        (lambda _: scythe.Stats.from_dict({"x": 3}), "these are no statistics"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_before_anything_is_read(asked: Any, told: str, ds: scythe.Dataset) -> None:
    with pytest.raises((ReadError, StateError), match=told):
        asked(ds)


def test_statistics_keep_the_order_of_their_columns_whatever_json_does_and_no_other_is_taken(
    walls: BaseExperiment,
) -> None:
    allocated(walls, range(ROWS))
    ds = scythe.dataset("walls", x=["y", "x"])
    stats = ds.stats()
    sorted_by_json = scythe.Stats.from_dict(json.loads(json.dumps(stats.to_dict(), sort_keys=True)))
    assert sorted_by_json == stats
    one, other = (ds.batches(4, normalize=told).at(0)[0]["x"] for told in (stats, sorted_by_json))
    assert (one == other).all()
    assert (stats.denormalized("x", one) == sorted_by_json.denormalized("x", one)).all()
    for columns, told in ((["y"], "y"), (["x", "y"], r"x, y, in this order: .*make stats\(\) and train anew")):
        with pytest.raises(StateError, match=f"normalize= has the columns y, x of 'x', the dataset has {told}$"):
            scythe.dataset("walls", x=columns).batches(4, normalize=stats).at(0)[0]


def test_statistics_may_be_of_some_groups_alone_and_the_others_stay_as_they_are(walls: BaseExperiment) -> None:
    allocated(walls, range(ROWS))
    ds = scythe.dataset("walls", x=["x"], y="y", hourly=scythe.File("hourly"))
    stats = ds.stats("x")
    assert stats.groups == {"x": ds.stats()["x"]}
    batch = ds.batches(ROWS, normalize=stats, shuffle=False).at(0)[0]
    assert (batch["y"].tolist(), float(batch["x"].mean())) == (
        [2.0 * x for x in range(ROWS)],
        pytest.approx(0, abs=1e-6),
    )
    with pytest.raises(ReadError, match=r"'z' is none of the groups: there are statistics of x, y$"):
        ds.stats("x", "z")
    with pytest.raises(ReadError, match=r"'hourly' is of files, which have no columns: there are statistics of x, y$"):
        ds.stats("hourly")


def test_batches_of_no_rows_are_refused(ds: scythe.Dataset) -> None:
    for empty in (ds[:0], scythe.dataset("walls", x=["x"], where=pl.col("x") > ROWS)):
        batches = empty.batches(4)
        for asked in (lambda b=batches: [*b.at(0)], lambda b=batches: len(b.at(1)), lambda b=batches: len(b)):
            with pytest.raises(ReadError, match="there are no rows to draw: an empty part of a split, or a where="):
                asked()


def test_a_state_of_another_experiment_is_refused(ds: scythe.Dataset) -> None:
    def roofs(spec: Wall, tempdir: Path) -> Heat:
        return warm(spec, tempdir)

    ExperimentRegistry.Register(name="roofs")(roofs)
    allocated(BaseExperiment("roofs"), range(ROWS))
    state = scythe.dataset("roofs", x=["x"]).batches(2).state(0, 1)
    with pytest.raises(StateError, match="the state is of the experiment 'roofs', this dataset is of 'walls'"):
        ds.batches(2).resume(state)


def test_predictions_of_a_column_far_from_zero_keep_their_digits_in_its_units(walls: BaseExperiment) -> None:
    allocated(walls, np.arange(ROWS) + 1e9)
    ds = scythe.dataset("walls", x="x", dtype="float64")
    stats = ds.stats()
    scaled = ds.batches(ROWS, shuffle=False, normalize=stats).at(0)[0]["x"]
    for dtype, near in (("float32", 1e-5), ("float16", 1e-2)):
        found = stats.denormalized("x", scaled.astype(dtype)) - 1e9
        assert found == pytest.approx(np.arange(ROWS), abs=near)


@pytest.mark.parametrize("dtype", ["bool", "int32", "uint8", "float16"])
def test_a_group_of_truth_values_stays_as_it_is_in_any_type(walls: BaseExperiment, dtype: str) -> None:
    allocated(walls, range(4), fails=[True, False, False, True])
    ds = scythe.dataset("walls", x=["fails"], dtype=dtype)
    stats = ds.stats()
    values = ds.batches(4, shuffle=False, normalize=stats).at(0)[0]["x"]
    assert (values.dtype, values[:, 0].tolist()) == (dtype, [1, 0, 0, 1])
    assert stats.denormalized("x", values).dtype == dtype


def test_a_state_of_batches_that_were_normalized_otherwise_is_refused(walls: BaseExperiment) -> None:
    allocated(walls, range(ROWS))

    def made(stats: scythe.Stats | None = None) -> Any:
        ds = scythe.dataset("walls", "all", run="all", x=["x"], y="y")
        return ds.batches(2, normalize=stats or ds.stats())

    batches = made()
    state, wanted = json.loads(json.dumps(batches.state(0, 4))), batches.at(0)[4]["x"].tolist()
    kept = scythe.Stats.from_dict(json.loads(json.dumps(batches.normalize.to_dict(), sort_keys=True)))
    allocated(walls, range(100, 120))
    with pytest.raises(StateError, match=r"normalized by other statistics: keep to_dict\(\) of those of then"):
        made().resume(state)
    with pytest.raises(StateError, match="normalized by other statistics"):
        scythe.dataset("walls", "all", run="all", x=["x"], y="y").batches(2).resume(state)
    for told in (state, {name: value for name, value in state.items() if name != "stats"}):
        assert made(kept).resume(told)[0]["x"].tolist() == wanted


def test_sums_that_round_otherwise_on_another_machine_are_the_same_statistics(ds: scythe.Dataset) -> None:
    stats = ds.stats().to_dict()
    near = json.loads(json.dumps(stats))
    near["x"]["x"]["mean"] += 1e-15
    near["x"]["x"]["std"] *= 1 - 1e-15
    far = json.loads(json.dumps(stats))
    far["x"]["x"]["mean"] += 1e-3
    digests = [scythe.Stats.from_dict(told).digest for told in (stats, near, far)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    "taken", [lambda n: slice(6, None), lambda n: slice(-6, None), lambda n: [True, False] * (n // 2)], ids=["to the end", "the last", "mask"]
)  # fmt: skip
def test_a_state_of_a_slice_of_an_experiment_that_has_grown_is_refused_by_name(
    walls: BaseExperiment, taken: Callable[[int], Any]
) -> None:
    def batches() -> Any:
        ds = scythe.dataset("walls", "all", run="all", x=["x"])
        return ds[taken(len(ds))].batches(2)

    allocated(walls, range(ROWS))
    state = batches().state(0, 1)
    allocated(walls, range(100, 120))
    with pytest.raises(StateError, match="a slice or a mask names rows by their positions, which are others by now"):
        batches().resume(state)


def test_what_is_given_in_place_of_names_and_positions_is_told(ds: scythe.Dataset) -> None:
    stats = ds.stats()
    with pytest.raises(ReadError, match=r"groups are named one by one, stats\('x', 'y'\), got \['x'\]"):
        ds.stats(["x"])  # type: ignore[arg-type]
    with pytest.raises(StateError, match="these are no statistics"):
        scythe.Stats.from_dict({"x": {}})
    frames = stats.denormalized("x", (np.zeros((2, 1)), np.zeros((3, 1))))
    assert [frame.shape for frame in frames] == [(2, 1), (3, 1)]
    for wrong in ([True, False], [1.7], ["a"], [None], [ROWS], [-ROWS - 1]):
        with pytest.raises(IndexError, match=r"rows are named by their positions|row -?1[23] of 12"):
            ds.__getitems__(wrong)
    assert [row["x"].item() for row in ds.__getitems__([-1, 0])] == [ROWS - 1, 0]
    assert ds.__getitems__([]) == []


def test_what_a_narrow_type_does_not_reach_is_not_normalized_to_infinity(walls: BaseExperiment) -> None:
    allocated(walls, [-60_000.0, -59_000.0, 30_000.0, -60_000.0])
    ds = scythe.dataset("walls", x="x", dtype="float16")
    stats = ds.stats()
    with pytest.raises(InputError, match=r"^x: it cannot be normalized within what float16 reaches: take a wider one"):
        ds.batches(4, normalize=stats).at(0)[0]
    wide = scythe.dataset("walls", x="x")
    batch = wide.batches(4, normalize=stats).at(0)[0]["x"]
    assert np.isfinite(batch).all()
    assert sorted(stats.denormalized("x", batch).round(-2).tolist()) == [-60_000, -60_000, -59_000, 30_000]


def test_a_column_that_is_not_known_yet_or_did_not_come_along_is_told_apart_from_one_that_is_misspelt(
    walls: BaseExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = allocated(walls, range(3))
    scythe.download("walls", tmp_path / "part", tables=["scalars"])
    run.objects.delete([run.key.result])  # as one that goes on
    run.objects.delete_folder(f"{run.experiment_id}/final")
    with pytest.raises(
        NotFoundError, match=r"no column 'hourly'.*; of walls/.*, which is not finished, there are no files"
    ):
        scythe.dataset("walls", run=run, h=scythe.File("hourly"))
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "part"))
    told = r"there is no column 'yy' .did you mean 'y'.*; it may be one of .*tasks.*, which was left out when"
    with pytest.raises(NotFoundError, match=told):
        scythe.dataset("walls", x="yy")
