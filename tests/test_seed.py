"""The specification's own example, as it is printed there: the code runs, and what lies in the root is what it shows.

Added to the printed code: the import of `Literal`, a comma, bodies for `...`.
"""

import asyncio
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import scythe
from scythe.allocate import BaseExperiment, ExperimentRun, SemVer
from scythe.base import ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference, OptionalFileReference

MODELS = '''
from typing import Literal

from pydantic import Field
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.utils.filesys import FileReference

class BuildingSimulationInput(ExperimentInputSpec):
    """Simulation inputs for a building energy model."""

    r_value: float = Field(default=..., description="The R-Value of the building [m2K/W]", ge=0, le=15)
    lpd: float = Field(default=..., description="Lighting power density [W/m2]", ge=0, le=20)
    setpoint: float = Field(default=..., description="Thermostat setpoint [deg.C]", ge=12, le=30)
    economizer: Literal["NoEconomizer", "DifferentialDryBulb", "DifferentialEnthalpy"] = Field(default=..., description="The type of economizer to use")
    weather_file: FileReference = Field(default=..., description="Weather file [.epw]") # (1)!
    design_day_file: FileReference = Field(default=..., description="Weather file [.ddy]")


class BuildingSimulationOutput(ExperimentOutputSpec):
    """Simulation outputs for a building energy model."""

    heating: float = Field(default=..., description="Annual heating energy usage, kWh/m2", ge=0)
    cooling: float = Field(default=..., description="Annual cooling energy usage, kWh/m2", ge=0)
    lighting: float = Field(default=..., description="Annual lighting energy usage, kWh/m2", ge=0)
    equipment: float = Field(default=..., description="Annual equipment energy usage, kWh/m2", ge=0)
    fans: float = Field(default=..., description="Annual fans energy usage, kWh/m2", ge=0)
    pumps: float = Field(default=..., description="Annual pumps energy usage, kWh/m2", ge=0)
'''

TIMESERIES = '    timeseries: FileReference = Field(default=..., description="High-res Timeseries data.") # (2)!\n'

WITHOUT_TEMPDIR = '''
from scythe.registry import ExperimentRegistry

@ExperimentRegistry.Register()
def simulate_energy(input_spec: BuildingSimulationInput) -> BuildingSimulationOutput:
    """Initialize and execute an energy model of a building."""

    # do some work!
    import tempfile
    from pathlib import Path

    import pandas as pd

    input_spec.log("at work")
    timeseries_fpath = Path(tempfile.mkdtemp()) / "timeseries.csv"
    timeseries_fpath.write_text(input_spec.weather_file.read_text())

    return BuildingSimulationOutput(
        heating=input_spec.r_value,
        cooling=input_spec.lpd,
        lighting=1.0,
        equipment=2.0,
        fans=3.0,
        pumps=4.0,
        timeseries=timeseries_fpath,
        dataframes={"monthly": pd.DataFrame({"month": range(1, 13), "kwh": input_spec.setpoint})},
    )
'''

WITH_TEMPDIR = """
from scythe.registry import ExperimentRegistry
from pathlib import Path

@ExperimentRegistry.Register()
def simulate_energy(input_spec: BuildingSimulationInput, tempdir: Path) -> BuildingSimulationOutput:
    import pandas as pd

    timeseries = pd.DataFrame({"hour": range(24), "kw": input_spec.lpd})
    timeseries_fpath = tempdir / "timeseries.pq"
    timeseries.to_parquet(timeseries_fpath)

    return BuildingSimulationOutput(
        heating=input_spec.r_value,
        cooling=input_spec.lpd,
        lighting=1.0,
        equipment=2.0,
        fans=3.0,
        pumps=4.0,
        timeseries=timeseries_fpath # (1)!
    )
"""

SAMPLE = """
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.building_energy import BuildingSimulationInput

def sample(n: int = 100) -> list[BuildingSimulationInput]:
    r_value = np.random.uniform(0, 15, size=n)
    lpd = np.random.uniform(0, 20, size=n)
    setpoint = np.random.uniform(12, 30, size=n)
    economizer = np.random.choice(
        ["NoEconomizer", "DifferentialDryBulb", "DifferentialEnthalpy"], size=n
    )
    weather_file = [
        Path(name)
        for name in np.random.choice(
            [f"{name}" for name in Path("artifacts").glob("*.epw")], size=n
        )
    ]
    design_day_file = [f"artifacts/{Path(name).stem}.ddy" for name in weather_file]
    df = pd.DataFrame( # (1)!
        {
            "r_value": r_value,
            "lpd": lpd,
            "setpoint": setpoint,
            "economizer": economizer,
            "weather_file": weather_file,
            "design_day_file": design_day_file,
            "experiment_id": "placeholder", # (2)!
            "sort_index": list(range(n)),
        }
    )
    specs = [
        BuildingSimulationInput.model_validate(row.to_dict())
        for _, row in df.iterrows()
    ]
    return specs
"""

ALLOCATE = """
from scythe.allocate import BaseExperiment

from experiments.building_energy import simulate_energy
from sample import sample

if __name__ == "__main__":

    experiment = BaseExperiment(
        experiment=simulate_energy

    )
    specs = sample(10)

    run, ref = experiment.allocate(
        specs,
        version="bumpminor", # (1)!
    )
"""

MANIFEST_KEYS = ["experiment_id", "experiment_name", "input_artifacts", "io_spec", "specs_uri", "workflow_run_id"]

INDEX = [
    "experiment_id", "sort_index", "root_workflow_run_id", "workflow_run_id",
    "r_value", "lpd", "setpoint", "economizer", "weather_file", "design_day_file",
]  # fmt: skip

IO_SPEC = """
$defs:
  BuildingSimulationInput:
    additionalProperties: true
    description: Simulation inputs for a building energy model.
    properties:
      design_day_file:
        anyOf:
          - format: uri
            minLength: 1
            type: string
          - format: uri
            maxLength: 2083
            minLength: 1
            type: string
          - format: path
            type: string
          - format: file-path
            type: string
        description: Weather file [.ddy]
        title: Design Day File
      economizer:
        description: The type of economizer to use
        enum:
          - NoEconomizer
          - DifferentialDryBulb
          - DifferentialEnthalpy
        title: Economizer
        type: string
      experiment_id:
        description: The experiment_id of the spec
        title: Experiment Id
        type: string
      lpd:
        description: Lighting power density [W/m2]
        maximum: 20
        minimum: 0
        title: Lpd
        type: number
      r_value:
        description: The R-Value of the building [m2K/W]
        maximum: 15
        minimum: 0
        title: R Value
        type: number
      root_workflow_run_id:
        anyOf:
          - type: string
          - type: "null"
        default: null
        description: The root workflow run id of the leaf.
        title: Root Workflow Run Id
      setpoint:
        description: Thermostat setpoint [deg.C]
        maximum: 30
        minimum: 12
        title: Setpoint
        type: number
      sort_index:
        description: The sort index of the leaf.
        minimum: 0
        title: Sort Index
        type: integer
      weather_file:
        anyOf:
          - format: uri
            minLength: 1
            type: string
          - format: uri
            maxLength: 2083
            minLength: 1
            type: string
          - format: path
            type: string
          - format: file-path
            type: string
        description: Weather file [.epw]
        title: Weather File
      workflow_run_id:
        anyOf:
          - type: string
          - type: "null"
        default: null
        description: The workflow run id of the leaf.
        title: Workflow Run Id
    required:
      - experiment_id
      - sort_index
      - r_value
      - lpd
      - setpoint
      - economizer
      - weather_file
      - design_day_file
    title: BuildingSimulationInput
    type: object
  BuildingSimulationOutput:
    description: Simulation outputs for a building energy model.
    properties:
      cooling:
        description: Annual cooling energy usage, kWh/m2
        minimum: 0
        title: Cooling
        type: number
      equipment:
        description: Annual equipment energy usage, kWh/m2
        minimum: 0
        title: Equipment
        type: number
      fans:
        description: Annual fans energy usage, kWh/m2
        minimum: 0
        title: Fans
        type: number
      heating:
        description: Annual heating energy usage, kWh/m2
        minimum: 0
        title: Heating
        type: number
      lighting:
        description: Annual lighting energy usage, kWh/m2
        minimum: 0
        title: Lighting
        type: number
      pumps:
        description: Annual pumps energy usage, kWh/m2
        minimum: 0
        title: Pumps
        type: number
    required:
      - heating
      - cooling
      - lighting
      - equipment
      - fans
      - pumps
    title: BuildingSimulationOutput
    type: object
description: The input and output schema for the experiment.
properties:
  input:
    $ref: "#/$defs/BuildingSimulationInput"
    description: The input for the experiment.
  output:
    $ref: "#/$defs/BuildingSimulationOutput"
    description: The output for the experiment.
required:
  - input
  - output
title: ExperimentIO
type: object
"""


def write_project(function: str) -> None:
    """The seed's files in the working folder, and two sites' weather files."""
    folder = Path("experiments")
    folder.mkdir()
    (folder / "building_energy.py").write_text(MODELS + TIMESERIES + function)
    Path("sample.py").write_text(SAMPLE)
    Path("allocate.py").write_text(ALLOCATE)
    Path("artifacts").mkdir()
    for site in ("USA_MA_Boston.Logan_TMYx", "USA_CA_Los.Angeles.LAX_TMYx"):
        for suffix in (".epw", ".ddy"):
            (Path("artifacts") / (site + suffix)).write_text(f"{site}{suffix}")


@pytest.fixture
def project(root: Path, monkeypatch: pytest.MonkeyPatch):
    """The modules `experiments.building_energy` and `sample`, imported from files."""
    monkeypatch.syspath_prepend(str(Path.cwd()))
    names = ("experiments", "experiments.building_energy", "sample")

    def load(function: str = WITH_TEMPDIR) -> tuple[ModuleType, ModuleType]:
        write_project(function)
        return importlib.import_module("experiments.building_energy"), importlib.import_module("sample")

    for name in names:
        sys.modules.pop(name, None)
    yield load
    for name in names:
        sys.modules.pop(name, None)


def test_the_printed_script_finishes_its_run_though_it_ends_without_waiting(root: Path) -> None:
    write_project(WITH_TEMPDIR)
    environment = {**os.environ, "SCYTHE_WORKERS": "2", "PYTHONPATH": "."}

    done = subprocess.run([sys.executable, "allocate.py"], env=environment, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert scythe.read("simulate_energy", "v1.0.0").height == 10
    assert scythe.open_run("simulate_energy").status == "finished"


@pytest.mark.parametrize("function", [WITHOUT_TEMPDIR, WITH_TEMPDIR], ids=["without tempdir", "with tempdir"])
def test_the_printed_experiment_gives_a_run_and_a_reference(project, function: str) -> None:
    building_energy, sample = project(function)

    run, ref = BaseExperiment(experiment=building_energy.simulate_energy).allocate(
        sample.sample(10), version="bumpminor", engine="inline"
    )

    assert isinstance(run, ExperimentRun)
    assert run.model_dump(mode="json")["experiment_id"] == run.experiment_id
    result = ref.result()
    assert result == asyncio.run(ref.aio_result())
    assert ref.workflow_run_id == run.workflow_run_id == result.workflow_run_id
    assert (result.rows, result.errors) == (10, 0)
    assert set(result.uris) >= {"scalars", "result_file_refs", "errors", "tasks"}


def test_the_decorated_function_is_still_the_function(project) -> None:
    building_energy, sample = project(WITHOUT_TEMPDIR)

    output = building_energy.simulate_energy(sample.sample(1)[0])

    assert isinstance(output, building_energy.BuildingSimulationOutput)
    assert output.timeseries.is_file()


def test_scalars_are_read_by_pandas_with_the_inputs_as_index_and_the_outputs_as_columns(project) -> None:
    building_energy, sample = project()
    specs = sample.sample(4)

    run, ref = BaseExperiment(experiment=building_energy.simulate_energy).allocate(specs, engine="inline")
    frame = pd.read_parquet(ref.result().uris["scalars"])

    assert frame.index.names == INDEX
    assert list(frame.columns) == ["heating", "cooling", "lighting", "equipment", "fans", "pumps"]
    assert frame.index.get_level_values("sort_index").tolist() == [0, 1, 2, 3]
    assert set(frame.index.get_level_values("experiment_id")) == {run.experiment_id}
    assert set(frame.index.get_level_values("root_workflow_run_id")) == {run.workflow_run_id}
    assert frame.index.get_level_values("workflow_run_id").is_unique
    assert frame.index.get_level_values("r_value").tolist() == [s.r_value for s in specs]
    assert frame["heating"].tolist() == [s.r_value for s in specs]


def test_result_file_refs_have_the_same_index_and_the_uris_of_the_files(project, root: Path) -> None:
    building_energy, sample = project()

    run, ref = BaseExperiment(experiment=building_energy.simulate_energy).allocate(sample.sample(4), engine="inline")
    scalars = pd.read_parquet(ref.result().uris["scalars"])
    refs = pd.read_parquet(ref.result().uris["result_file_refs"])

    assert refs.index.equals(scalars.index)
    assert refs.index.names == INDEX
    assert list(refs.columns) == ["timeseries"]
    ids = refs.index.get_level_values("workflow_run_id")
    assert refs["timeseries"].tolist() == [f"{run.uri}/results/timeseries/{i}.pq" for i in ids]
    assert all(pd.read_parquet(uri).shape == (24, 2) for uri in refs["timeseries"])
    assert scythe.files("simulate_energy", "v1.0.0")["timeseries"].to_list() == refs["timeseries"].tolist()


def test_a_dataframe_without_an_index_of_its_own_gets_the_inputs_as_index(project) -> None:
    building_energy, sample = project(WITHOUT_TEMPDIR)
    specs = sample.sample(3)

    _, ref = BaseExperiment(experiment=building_energy.simulate_energy).allocate(specs, engine="inline")
    monthly = pd.read_parquet(ref.result().uris["monthly"])

    assert monthly.index.names == INDEX
    assert list(monthly.columns) == ["month", "kwh"]
    assert monthly["month"].tolist() == [*range(1, 13)] * 3
    assert monthly["kwh"].tolist() == [s.setpoint for s in specs for _ in range(12)]


def test_the_manifest_has_the_printed_keys_in_the_printed_order_before_any_other(project, root: Path) -> None:
    building_energy, sample = project()

    run, ref = BaseExperiment(experiment=building_energy.simulate_energy).allocate(sample.sample(2), engine="inline")
    manifest = yaml.safe_load((root / run.experiment_id / "manifest.yml").read_text())

    assert list(manifest)[:6] == MANIFEST_KEYS
    assert {key: manifest[key] for key in MANIFEST_KEYS} == {
        "experiment_id": run.experiment_id,
        "experiment_name": "scythe_experiment_simulate_energy",
        "input_artifacts": f"{run.uri}/input_artifacts.yml",
        "io_spec": f"{run.uri}/experiment_io_spec.yml",
        "specs_uri": f"{run.uri}/specs.pq",
        "workflow_run_id": ref.workflow_run_id,
    }
    assert run.experiment_id == f"simulate_energy/v1.0.0/{run.run_datetime:%Y-%m-%d_%H-%M-%S}"
    assert {"python", "packages", "git_commit", "host"} <= set(manifest)
    assert manifest["packages"]["pydantic"]


def test_input_artifacts_list_each_file_once_under_its_field(project, root: Path) -> None:
    building_energy, sample = project()
    specs = sample.sample(20)

    run, _ = BaseExperiment(experiment=building_energy.simulate_energy).allocate(specs, engine="inline")
    listed = yaml.safe_load((root / run.experiment_id / "input_artifacts.yml").read_text())

    assert list(listed) == ["files"]
    assert list(listed["files"]) == ["design_day_file", "weather_file"]
    for field, uris in listed["files"].items():
        used = {Path(getattr(spec, field)).name for spec in specs}
        assert sorted(uris) == sorted(f"{run.uri}/artifacts/{field}/{name}" for name in used)
        assert {(root / run.experiment_id / "artifacts" / field / name).read_text() for name in used} == used


def test_the_io_spec_is_the_printed_json_schema(root: Path) -> None:
    module: dict = {"__name__": "building_energy"}
    exec(MODELS, module)  # the printed schema is of the models without `timeseries`

    model, output = module["BuildingSimulationInput"], module["BuildingSimulationOutput"]

    def simulate_energy(input_spec: model) -> output:  # type: ignore[valid-type]
        return output(heating=1, cooling=1, lighting=1, equipment=1, fans=1, pumps=1)

    ExperimentRegistry.Register()(simulate_energy)
    Path("a.epw").write_text("epw")
    spec = model(
        experiment_id="x", sort_index=0, r_value=1, lpd=1, setpoint=20, economizer="NoEconomizer",
        weather_file="a.epw", design_day_file="a.epw",
    )  # fmt: skip
    run, _ = BaseExperiment(experiment=simulate_energy).allocate([spec], engine="inline")

    text = (root / run.experiment_id / "experiment_io_spec.yml").read_text()
    assert yaml.safe_load(text) == yaml.safe_load(IO_SPEC)
    assert text.splitlines()[:3] == IO_SPEC.splitlines()[1:4]


def test_the_root_is_laid_out_as_the_specification_draws_it(project, root: Path) -> None:
    building_energy, sample = project(WITHOUT_TEMPDIR)

    run, _ = BaseExperiment(experiment=building_energy.simulate_energy).allocate(sample.sample(5), engine="inline")
    folder = root / "simulate_energy" / "v1.0.0" / f"{run.run_datetime:%Y-%m-%d_%H-%M-%S}"

    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"manifest.yml", "experiment_io_spec.yml", "input_artifacts.yml", "specs.pq"} <= files
    assert {f"final/{n}.pq" for n in ("scalars", "result_file_refs", "monthly", "errors", "tasks")} <= files
    assert len([f for f in files if f.startswith("results/timeseries/") and f.endswith(".csv")]) == 5
    assert {f.split("/")[1] for f in files if f.startswith("artifacts/")} == {"weather_file", "design_day_file"}
    assert (folder / "scatter-gather" / "input").is_dir()
    assert (folder / "scatter-gather" / "output").is_dir()
    assert {p.name for p in folder.iterdir()} == {
        "manifest.yml", "experiment_io_spec.yml", "input_artifacts.yml", "specs.pq",
        "artifacts", "scatter-gather", "final", "results",
    }  # fmt: skip
    assert [p.name for p in root.iterdir() if not p.name.startswith(("_", "."))] == ["simulate_energy"]


def test_specs_hold_the_inputs_with_uris_and_the_resolved_experiment_id(project, root: Path) -> None:
    building_energy, sample = project()
    specs = sample.sample(3)

    run, _ = BaseExperiment(experiment=building_energy.simulate_energy).allocate(specs, engine="inline")
    stored = pq.read_table(root / run.experiment_id / "specs.pq").to_pylist()

    assert [row["experiment_id"] for row in stored] == [run.experiment_id] * 3
    assert [row["lpd"] for row in stored] == [s.lpd for s in specs]
    assert [row["weather_file"] for row in stored] == [
        f"{run.uri}/artifacts/weather_file/{s.weather_file.name}" for s in specs
    ]


def test_the_version_goes_on_from_the_latest_run_as_the_specification_says(project) -> None:
    building_energy, sample = project()
    experiment = BaseExperiment(experiment=building_energy.simulate_energy)
    specs = sample.sample(1)

    versions = [
        experiment.allocate(specs, version=version, engine="inline")[0].version
        for version in (SemVer.parse("1.2.3"), "bumpminor", "keep", "bumppatch", "bumpmajor")
    ]

    assert versions == ["v1.2.3", "v1.3.0", "v1.3.0", "v1.3.1", "v2.0.0"]


def test_a_function_sees_local_paths_and_its_tempdir_is_gone_afterwards(project, root: Path) -> None:
    _, sample = project()
    seen: list[tuple[Path, str, Path]] = []

    class Output(ExperimentOutputSpec):
        report: FileReference
        picture: OptionalFileReference = None

    @ExperimentRegistry.Register(name="look")
    def look(input_spec: sample.BuildingSimulationInput, tempdir: Path) -> Output:
        seen.append((input_spec.weather_file, input_spec.weather_file.read_text(), tempdir))
        (tempdir / "report.txt").write_text("done")
        return Output(report=tempdir / "report.txt")

    _, ref = BaseExperiment(experiment=look).allocate(sample.sample(2), engine="inline")

    assert [text for path, text, _ in seen] == [path.name for path, _, _ in seen]
    assert len({tempdir for _, _, tempdir in seen}) == 2
    assert not any(tempdir.exists() for _, _, tempdir in seen)
    refs = pd.read_parquet(ref.result().uris["result_file_refs"])
    assert refs["picture"].isna().all()
    assert [Path(uri.removeprefix("file://")).read_text() for uri in refs["report"]] == ["done", "done"]
