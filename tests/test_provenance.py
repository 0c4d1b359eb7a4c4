"""Each run records which code it came from: the commit, how the files differed from it, packages and machine."""

import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from scythe.define.code import Code
from scythe.define.experiment import Experiment
from scythe.errors import FormatError, RunDamaged
from scythe.record import provenance as recorded
from scythe.record.provenance import Provenance, begin, provenance

SCRIPT = """
import polars as pl
import yaml
from helper import half
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry


class In(ExperimentInputSpec):
    x: float


class Out(ExperimentOutputSpec):
    y: float


@ExperimentRegistry.Register()
def halve(spec: In) -> Out:
    return Out(y=half(spec.x))


if __name__ == "__main__":
    run, _ = BaseExperiment(halve).allocate(pl.DataFrame({"x": [1.0]}), engine="inline")
    print(run.uri.removeprefix("file://"))
"""


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a script, a module that it imports and a binary file, all committed."""
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "halve.py").write_text(SCRIPT)
    (folder / "src" / "helper.py").write_text("def half(x):\n    return x / 2\n")
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 40)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    monkeypatch.setenv("SCYTHE_STORAGE_ROOT", str(tmp_path / "root"))
    return folder


def allocated(project: Path) -> Provenance:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "halve.py"], cwd=project / "src", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Provenance.from_json(
        (Path(done.stdout.strip()) / "scatter-gather/input/provenance/000000.json").read_bytes()
    )


def test_a_run_of_committed_code_names_its_commit_and_its_codes_hash(project: Path) -> None:
    found = allocated(project)

    assert found.git_commit == git(project, "rev-parse", "HEAD").strip() == found.described
    assert (found.dirty, found.patch, found.no_patch) == (False, None, None)
    assert (found.engine, found.python) == ("inline", sys.version.split()[0])
    assert {"polars", "pydantic"} <= found.packages.keys()
    assert found.packages["PyYAML"] == version("PyYAML")  # which is imported as yaml
    assert "helper" not in found.packages
    assert found.code is not None
    assert len(found.code) == 64


def test_what_differs_from_the_commit_is_recorded_without_its_secrets_and_nothing_else_changes(project: Path) -> None:
    first = allocated(project)
    helper, index = project / "src" / "helper.py", project / ".git" / "index"
    helper.write_text("SOURCE = 'https://me:hunter2hunter2@example.org/x'\ndef half(x):\n    return 0.5 * x\n")
    (project / "weights.bin").write_bytes(bytes(range(256)) * 41)
    (project / "notes.txt").write_text("not known to git")
    os.utime(project / "src" / "halve.py", (1, 1))  # of another time, and the same content
    before = index.stat().st_mtime_ns, index.read_bytes()

    found = allocated(project)

    assert found.dirty is True
    assert found.described == f"{found.git_commit}-dirty"
    assert found.patch is not None
    assert "+    return 0.5 * x" in found.patch
    assert "hunter2" not in found.patch
    assert "Binary files a/weights.bin and b/weights.bin differ" in found.patch
    assert "not known to git" not in found.patch
    assert "halve.py" not in found.patch
    assert found.code != first.code
    assert (index.stat().st_mtime_ns, index.read_bytes()) == before

    os.environ["SCYTHE_RECORD_PATCH"] = "0"
    try:
        without = allocated(project)
    finally:
        del os.environ["SCYTHE_RECORD_PATCH"]
    assert (without.dirty, without.patch, without.no_patch) == (True, None, "SCYTHE_RECORD_PATCH is off")


def experiment_in(project: Path) -> Experiment:
    """As much of an experiment as is looked at: where its file is."""

    class Stand:
        source = str(project / "src" / "halve.py")
        module = "halve"

    return Stand()  # type: ignore[return-value]


def test_a_patch_that_is_too_large_or_takes_too_long_is_left_out_with_the_reason(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "src" / "helper.py").write_text("x = 1\n" * 300_000)
    found = provenance(experiment_in(project), "local", Code(None))
    assert (found.dirty, found.patch, found.no_patch) == (True, None, "it is larger than 1,048,576 bytes")

    (project / "src" / "helper.py").write_text("x = 1\n")
    bin_folder = project.parent / "bin"
    bin_folder.mkdir()
    fake = bin_folder / "git"
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *diff*) exec sleep 60;; esac\n'
        'echo "# branch.oid 0123456789"; echo "1 .M N... helper.py"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.setattr(recorded, "_GIT_SECONDS", 0.5)
    began = time.monotonic()
    found = provenance(experiment_in(project), "local", Code(None))
    assert time.monotonic() - began < 20
    assert found.described == "0123456789-dirty"
    assert found.no_patch == "git took longer than 0.5 s, or failed"


def test_without_a_repository_or_without_git_there_is_no_commit(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "bare" / "src").mkdir(parents=True)
    assert provenance(experiment_in(tmp_path / "bare"), "local", Code(None)).described is None
    monkeypatch.setenv("PATH", "")
    assert provenance(experiment_in(project), "local", Code(None)).described is None


def test_what_goes_wrong_while_looking_is_raised_where_it_is_waited_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "_packages", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        begin(experiment_in(project), "local", Code(None))()


def test_a_record_passes_over_what_it_does_not_know_and_refuses_what_it_cannot_read() -> None:
    record = Provenance("local", "host", "3.11.7", {"polars": "1.0"}, "abc", True, "a patch")
    assert Provenance.from_json(record.to_json()) == record
    later = {**json.loads(record.to_json()), "weather": "rain"}
    assert Provenance.from_json(json.dumps(later).encode()) == record
    with pytest.raises(FormatError, match="upgrade"):
        Provenance.from_json(json.dumps({**later, "format": 99}).encode())
    with pytest.raises(RunDamaged):
        Provenance.from_json(b'{"host": "host"}')
