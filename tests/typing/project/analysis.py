"""What a user does with runs: each line is one that two type checkers take, and know the type of."""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import polars as pl
from simulation import (
    BuildingInput,
    BuildingOutput,
    ClimateFiles,
    ClimateModel,
    Wall,
    WallWithFiles,
    simulate_energy,
    simulate_hourly,
)

import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, FileRefs, HatchetOptions, LocalOptions
from scythe.allocate import ExperimentRun, RunResult, SemVer

Pairs = Iterator[tuple[BuildingInput, BuildingOutput]]


def call() -> None:
    spec = BuildingInput(experiment_id="any", sort_index=0, r_value=2, weather=Path("boston.epw"))
    assert_type(simulate_energy(spec), BuildingOutput)
    assert_type(simulate_energy(input_spec=spec), BuildingOutput)
    assert_type(simulate_hourly(building=spec, tempdir=Path()), BuildingOutput)
    assert_type(ClimateModel().run(spec), BuildingOutput)
    assert_type(Wall(experiment_id="any", sort_index=0, thickness=0.2).run(), BuildingOutput)


def allocate(specs: pl.DataFrame) -> RunResult:
    experiment = BaseExperiment(simulate_energy)
    for runnable in ("hourly", ClimateModel, Wall, simulate_hourly):
        BaseExperiment(runnable)
    run, ref = experiment.allocate(specs, version="bumpminor", engine="local", workers=4)
    experiment.allocate(specs, "v1.2.0", engine=LocalOptions(workers=2), max_errors="alike")
    experiment.allocate(specs, SemVer(1, 2, 0), engine=HatchetOptions(any_code=True), max_errors=0.1)
    experiment.allocate(specs, "auto", engine="an_engine_of_another_package", max_errors=None)
    assert_type(run, ExperimentRun)
    return ref.result(timeout=60)


def read(run: ExperimentRun) -> pl.DataFrame:
    assert_type(scythe.scan(simulate_energy, "all", run="all"), pl.LazyFrame)
    scythe.read("hourly", SemVer(1, 0, 0), table="hours", columns=["hour"])
    scythe.read(ClimateModel, run=run, table="errors")
    scythe.read("hourly", run=run.run_datetime)
    return scythe.read(simulate_energy, "v1.0.0", run=run.key.folder, table="scalars", ids=False)


def rows() -> None:
    for building, energy in scythe.rows(simulate_energy):
        assert_type(building, BuildingInput)
        assert_type(energy, BuildingOutput)
        assert_type(energy.heating / building.r_value, float)
    assert_type(scythe.rows(simulate_hourly, "v1.0.0"), Pairs)
    assert_type(scythe.rows(ClimateModel, "all"), Pairs)
    assert_type(scythe.rows(ClimateFiles, run="all"), Pairs)
    assert_type(scythe.rows(Wall), Iterator[tuple[Wall, BuildingOutput]])
    assert_type(scythe.rows(WallWithFiles), Iterator[tuple[WallWithFiles, BuildingOutput]])
    assert_type(scythe.rows("hourly"), Iterator[tuple[ExperimentInputSpec, ExperimentOutputSpec]])


def load() -> None:
    refs = scythe.files(simulate_hourly)
    paths = FileRefs(refs, "hourly")
    assert_type(paths, FileRefs[Path])
    assert_type(paths[0][1], Path)
    frames = FileRefs(refs, "hourly", pl.read_parquet, features=["r_value"])
    assert_type(frames, FileRefs[pl.DataFrame])
    assert_type(frames[1:], FileRefs[pl.DataFrame])
    for features, frame in frames:
        print(frame.height * features["r_value"])


def look_after() -> None:
    run = scythe.open_run("simulate_energy", "v1.0.0")
    scythe.open_run(simulate_energy, SemVer(1, 0, 0), run.key.folder)
    if run.status == "incomplete" and run.problem is None:
        assert_type(run.resume(engine="inline").result(), RunResult)
    result = run.result
    if result is not None and result.errors > 0:
        print(run.retry_errors(workers=2, max_errors=10).result().errors_told)
    for attempt in run.attempts:
        print(attempt.number, attempt.engine)
    assert_type(scythe.list_runs(simulate_energy), pl.DataFrame)
