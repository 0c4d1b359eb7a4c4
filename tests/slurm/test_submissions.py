"""What happens between `sbatch` and its answer, and where a root lies: on a real Slurm, with commands that are cut off."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import scythe
from scythe.allocate import BaseExperiment
from scythe.cli import app
from scythe.errors import RunError, SettingsError
from tests.slurm.faults import each_once, folder_of, specs
from tests.slurm_server import Slurm, until


def in_its_place(folder: Path, script: str) -> str:
    """A folder for the front of PATH, in which `sbatch` is this script; `$real` is Slurm's own."""
    folder.mkdir()
    program = folder / "sbatch"
    program.write_text(f"#!/bin/sh\nreal={shlex.quote(shutil.which('sbatch') or '')}\n{script}\n")
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_an_answer_of_sbatch_that_is_lost_is_found_in_the_queue(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = 'case "$*" in *--test-only*) exec "$real" "$@";; esac; "$real" "$@" >/dev/null; echo "Socket timed out" >&2; exit 1'
    monkeypatch.setenv("PATH", in_its_place(tmp_path / "bin", lost))

    run, ref = station.allocate(specs(4), engine="slurm", workers=1)
    assert ref.result(120).rows == 4
    (jobs,) = folder_of(run).rounds()
    assert all(number.isdigit() for number in jobs.numbers)
    until(slurm.empty, "an empty queue")
    each_once(run, 4)


#: Shows that no process of a job can make a link.
_LINKS_FAIL = f'{shlex.quote(sys.executable)} -c \'import os; os.link("a", "b")\' || true'
#: As Slurm says it: an array counts with all of its elements, and the gather job counts, too.
_LIMITED = """
most=%d; n=1; for a in "$@"; do case "$a" in --array=0-*) n=$((${a#--array=0-} + 1));; esac; done
case "$*" in *--test-only*) there=0;; *) there=$(squeue --noheader --array | wc -l);; esac
[ $((there + n)) -le $most ] && exec "$real" "$@"
echo "sbatch: error: AssocMaxSubmitJobLimit" >&2
echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)" >&2; exit 1
"""


def test_there_are_as_many_elements_as_the_users_limit_allows(
    slurm: Slurm,
    station: BaseExperiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", in_its_place(tmp_path / "bin", _LIMITED % 7))

    run, ref = station.allocate(specs(20), engine="slurm")
    assert ref.result(120).rows == 20
    (jobs,) = folder_of(run).rounds()
    assert jobs.elements == 6  # 20, 15, 11, 8 and 6: with the gather job there are seven
    assert (
        "6 elements are submitted, not 20, which Slurm does not take: sbatch: error: AssocMax" in capfd.readouterr().err
    )
    until(slurm.empty, "an empty queue")
    each_once(run, 20)


def test_more_elements_than_the_users_limit_are_refused_before_anything_is_written(
    station: BaseExperiment, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", in_its_place(tmp_path / "bin", _LIMITED % 7))
    with pytest.raises(SettingsError, match=r"job submit limit\)\. Ask for fewer \(workers=\)"):
        station.allocate(specs(20), engine="slurm", workers=8)
    assert not root.exists()


def test_what_slurm_refuses_after_all_is_told_in_its_words(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = 'case "$*" in *--test-only*) exec "$real" "$@";; esac; echo "sbatch: error: Access denied" >&2; exit 1'
    with monkeypatch.context() as patched:
        patched.setenv("PATH", in_its_place(tmp_path / "bin", busy))
        with pytest.raises(RunError, match=r"Access denied; it is stored: resume it later"):
            station.allocate(specs(4), engine="slurm")

    run = scythe.open_run("station")
    assert run.resume().result(120).rows == 4
    each_once(run, 4)


def test_who_submits_is_killed_between_the_array_and_the_gather_job_and_the_run_ends_all_the_same(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path
) -> None:
    Path("go.py").write_text(
        "import polars as pl, scythe\nfrom station import station\n"
        "if __name__ == '__main__':\n"
        "    scythe.BaseExperiment(station).allocate(pl.DataFrame({'x': range(6)}), engine='slurm', workers=2)\n"
    )
    killed = 'case "$*" in *--test-only*) exec "$real" "$@";; *--array=*) "$real" "$@"; kill -9 $PPID;; *) exec "$real" "$@";; esac'
    path = in_its_place(tmp_path / "bin", killed)
    done = subprocess.run([sys.executable, "go.py"], env={**slurm.environment, "PATH": path}, check=False)
    assert done.returncode == -9

    run = scythe.open_run("station")
    until(lambda: run.result is not None, "the end of the run", 120)
    until(slurm.empty, "an empty queue")
    assert run.status == "finished"
    each_once(run, 6)


def test_a_file_system_without_hard_links_serves_as_well(
    slurm: Slurm, station: BaseExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import errno, os\n\n\ndef link(*_, **__):\n    raise OSError(errno.EPERM, 'no hard links')\n\n\nos.link = link\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))  # each process on a node loads it when it starts

    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", no_link)
    run, ref = station.allocate(specs(40), engine=scythe.SlurmOptions(setup=[_LINKS_FAIL]), workers=2)
    assert ref.result(120).rows == 40
    assert "no hard links" in (folder_of(run).logs / "element-0.log").read_text()
    until(slurm.empty, "an empty queue")
    each_once(run, 40)


def test_a_root_in_a_bucket_serves_as_well(slurm: Slurm, station: BaseExperiment, bucket: str, tmp_path: Path) -> None:
    inputs = specs(20, fails=pl.col("x") == 7)
    run, ref = station.allocate(inputs, engine=scythe.SlurmOptions(setup=["echo from the node"]), workers=2)

    assert ref.result(120).rows == 19
    assert run.objects.root.startswith(f"s3://{bucket}")
    assert scythe.read("station").get_column("sort_index").to_list() == [x for x in range(20) if x != 7]
    assert scythe.read("station", table="errors").get_column("sort_index").to_list() == [7]
    told = CliRunner().invoke(app, ["logs", run.experiment_id, "--element", "0"])
    assert (told.exit_code, told.output.strip()) == (0, "from the node")  # below the folder from which it was submitted
    until(slurm.empty, "an empty queue")
