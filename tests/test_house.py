"""The house itself: style, the direction of imports, its rooms, public names, and what `import scythe` may load.

Its types are checked by Pyright beside the tests: see CONTRIBUTING.md.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def beside_python(name: str) -> str:
    """A console script of the environment that the tests run in."""
    return str(Path(sys.executable).with_name(name))


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("lint-imports", "--no-cache"),
    ],
    ids=["ruff-check", "ruff-format", "import-direction"],
)
def test_the_code_keeps_the_rules_of_the_house(command: tuple[str, ...]) -> None:
    done = run(beside_python(command[0]), *command[1:])
    assert done.returncode == 0, done.stdout + done.stderr


def loaded_by(statement: str) -> set[str]:
    done = run(sys.executable, "-c", f"{statement}\nimport sys; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import scythe", "import scythe.base, scythe.registry, scythe.allocate, scythe.utils.filesys"],
    ids=["scythe", "the user's imports"],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    heavy = {"hatchet_sdk", "matplotlib", "pandas", "pyiceberg", "boto3", "botocore", "torch", "rich", "typer"}
    assert not loaded_by(statement) & heavy


def test_import_scythe_alone_loads_neither_polars_nor_pyarrow() -> None:
    assert not loaded_by("import scythe") & {"polars", "pyarrow", "pydantic", "numpy"}


def test_arrays_are_made_without_pandas_until_somebody_imports_it() -> None:
    statement = "import scythe_catalog.schema, pyarrow as pa\npa.array([1, 2])"
    assert "pandas" not in loaded_by(statement)
    told = "import pandas as pd\nassert pa.array(pd.Series([1.0, None])).null_count == 1"
    assert "pandas" in loaded_by(f"{statement}\n{told}")


#: Names that users have in their code: the specification's, those of its later versions, and what is public beside them.
PUBLIC = """
scythe.__version__ scythe.read scythe.scan scythe.files scythe.dataset scythe.Dataset scythe.File scythe.Frame scythe.Stats scythe.rows scythe.list_experiments scythe.list_runs scythe.open_run scythe.report scythe.sample scythe.sensitivity
scythe.download scythe.upload scythe.fetch
scythe.BaseExperiment scythe.ExperimentInputSpec scythe.ExperimentOutputSpec scythe.ExperimentRegistry scythe.FileRefs
scythe.FileReference scythe.OptionalFileReference scythe.ScytheError scythe.EngineOptions scythe.LocalOptions scythe.HatchetOptions scythe.SlurmOptions
scythe.base.ExperimentInputSpec scythe.base.ExperimentOutputSpec
scythe.registry.ExperimentRegistry.Register scythe.registry.ExperimentRegistry.Include scythe.registry.ExperimentRegistry.get_runnable
scythe.allocate.BaseExperiment scythe.allocate.ExperimentRun scythe.allocate.RunRef scythe.allocate.RunResult
scythe.allocate.SemVer scythe.allocate.VersioningStrategy
scythe.experiments.BaseExperiment scythe.experiments.SemVer scythe.experiments.SemVer.FromString
scythe.scatter_gather.RecursionMap scythe.worker.ScytheWorkerConfig scythe.worker.ScytheWorkerLabel
scythe.utils.filesys.FileReference scythe.utils.filesys.OptionalFileReference
scythe.rebuild.rebuild scythe.gather.Gather scythe.errors.ScytheError scythe.errors.RunError scythe.errors.AllocationError scythe.engines.engine.Engine scythe.cli.main
"""


@pytest.mark.parametrize("name", PUBLIC.split())
def test_a_name_that_users_have_in_their_code_is_where_they_have_it(name: str) -> None:
    assert pkgutil.resolve_name(name) is not None


def test_no_room_is_too_full_and_no_module_too_long() -> None:
    modules = [p for top in ("scythe", "catalog") for p in (REPOSITORY / top).rglob("*.py")]
    assert [str(p) for p in modules if len(p.read_text().splitlines()) > 400] == []
    rooms = {p.parent for p in modules}
    full = {str(r): n for r in rooms if (n := len([p for p in r.glob("*.py") if p.name != "__init__.py"])) > 14}
    assert full == {}
