"""The libraries that train on a dataset: their examples in the docs, and their worker processes, which read or say at once why not.

Each runs in a process of its own, which has a limit of time: what hangs fails.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.benches.folder_s3 import folder_s3
from tests.test_docs import script_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dataset.md"
_BLOCK = re.compile(r"^```py(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$", re.M | re.S)
_SECONDS, _AT_ONCE = 120, 5.0


def needs(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install 'scythe-engine[training]'")


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", script],
        cwd=folder, capture_output=True, text=True, check=False, timeout=_SECONDS,
    )  # fmt: skip


# --- the docs -------------------------------------------------------------------------------------------------

EXAMPLES = {
    library: [m for m in _BLOCK.finditer(PAGE.read_text(encoding="utf-8")) if f"import {library}" in m["code"] or f"from {library}" in m["code"]]
    for library in ("torch", "jax", "sklearn")
}  # fmt: skip


def test_the_page_has_an_example_for_each_library() -> None:
    assert {library: len(found) for library, found in EXAMPLES.items()} == {"torch": 3, "jax": 1, "sklearn": 1}


@pytest.mark.parametrize("library", EXAMPLES)
def test_the_examples_of_the_docs_run(library: str, root: Path) -> None:
    needs(library)
    folder, script = Path.cwd(), script_of(PAGE.read_text(encoding="utf-8"))
    for name, code in script.modules.items():
        (folder / name).write_text(code)
    alone = [m for m in EXAMPLES[library] if m["title"]]
    here = [m["code"] for m in EXAMPLES[library] if not m["title"]]
    (folder / "page.py").write_text("\n".join([script.code, *here]))
    done = run(folder, "page.py")
    assert done.returncode == 0, done.stderr
    for block in alone:
        (folder / block["title"]).write_text(block["code"])
        done = run(folder, block["title"])
        assert done.returncode == 0, done.stderr


def test_jax_cuts_no_numbers_to_32_bits_without_a_word(root: Path) -> None:
    needs("jax")
    folder = Path.cwd()
    (folder / "walls.py").write_text(_SIMULATED)
    (folder / "allocate.py").write_text(_ALLOCATE)
    (folder / "wide.py").write_text(_WIDE)
    for script in ("allocate.py", "wide.py"):
        done = run(folder, script)
        assert done.returncode == 0, done.stderr


_WIDE = """
import jax, scythe, scythe.errors
for dtype, narrow in (("float64", "float32"), ("int64", "int32")):
    batches = scythe.dataset("walls", x=["x"], dtype=dtype).batches(8, to="jax")
    try:
        next(iter(batches.at(0)))
    except scythe.errors.ReadError as error:
        assert f"JAX would make {narrow} of {dtype}" in str(error), error
    else:
        raise SystemExit(f"{dtype} was cut")
jax.config.update("jax_enable_x64", True)
assert str(next(iter(batches.at(0)))["x"].dtype) == "int64"
assert str(scythe.dataset("walls", x=["x"]).batches(8, to="jax").at(0)[0]["x"].dtype) == "float32"
"""


_BY_ITSELF = """
import scythe
from torch.utils.data import DataLoader
ds = scythe.dataset("walls", x=["x"], y=scythe.File("hourly"))
seen = [batch for batch in DataLoader(ds, batch_size=10, shuffle=True)]
assert [len(batch["x"]) for batch in seen] == [10, 10, 10, 10, 8]
assert all((batch["y"] == batch["x"]).all() for batch in seen)
assert sorted(int(x) for batch in seen for x in batch["x"]) == sorted(int(row["x"][0]) for row in ds)
for wrong in (ds.batches(8), ds.batches(8).at(0)):
    try:
        next(iter(DataLoader(wrong)))
    except TypeError as error:
        assert "DataLoader(batches.at(epoch), batch_size=None)" in str(error), error
    else:
        raise SystemExit("batches were put into batches")
"""


def test_torchs_own_loader_takes_a_dataset_and_makes_no_batches_of_batches(root: Path) -> None:
    needs("torch")
    folder = Path.cwd()
    for name, code in (("walls.py", _SIMULATED), ("allocate.py", _ALLOCATE), ("itself.py", _BY_ITSELF)):
        (folder / name).write_text(code)
    for script in ("allocate.py", "itself.py"):
        done = run(folder, script)
        assert done.returncode == 0, done.stderr


_ON_GPU = """
import scythe, torch
from torch.utils.data import DataLoader
ds = scythe.dataset("walls", x="x", y=scythe.File("hourly"))
epoch = ds.batches(8, seed=0, to="torch").at(0)
seen = []
torch.cuda._sleep(200_000_000)  # what is copied waits behind it, while its memory is given back and used anew
for batch in DataLoader(epoch, batch_size=None, pin_memory=True):
    assert batch["x"].is_pinned() and batch["y"].is_pinned()
    seen.append({name: tensor.to("cuda", non_blocking=True) for name, tensor in batch.items()})
for batch in seen:
    assert (batch["y"] == batch["x"][:, None]).all()
assert sum(len(batch["x"]) for batch in seen) == 48
"""


def test_pinned_batches_arrive_whole_on_a_gpu(root: Path) -> None:
    needs("torch")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here that PyTorch can use")
    folder = Path.cwd()
    for name, code in (("walls.py", _SIMULATED), ("allocate.py", _ALLOCATE), ("gpu.py", _ON_GPU)):
        (folder / name).write_text(code)
    for script in ("allocate.py", "gpu.py"):
        done = run(folder, script)
        assert done.returncode == 0, done.stderr


# --- worker processes -----------------------------------------------------------------------------------------

_SIMULATED = """
from pathlib import Path
import numpy as np
from scythe import ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry, FileReference

class Wall(ExperimentInputSpec):
    x: int

class Heat(ExperimentOutputSpec):
    hourly: FileReference

@ExperimentRegistry.Register()
def walls(spec: Wall, tempdir: Path) -> Heat:
    np.save(tempdir / "hourly.npy", np.full(24, spec.x, np.float32))
    return Heat(hourly=tempdir / "hourly.npy")
"""

_ALLOCATE = """
import polars as pl
from scythe import BaseExperiment
from walls import walls
for pack in (False, True):
    BaseExperiment(walls).allocate(pl.DataFrame({"x": range(48)}), "keep", engine="inline", pack=pack)[1].result()
"""

_TRAIN = """
import sys, time
import scythe
from torch.utils.data import DataLoader

def load(path):
    import numpy as np
    return np.load(path)

if __name__ == "__main__":
    context, what = sys.argv[1:]
    if what == "FileRefs":
        frame = scythe.files("walls")
        data = scythe.FileRefs(frame, "hourly", load)
        data[0]
        options = {"batch_size": 8}
        seen = lambda batch: batch[0]["x"].tolist()
    else:
        ds = scythe.dataset("walls", run="all", x="x", y=scythe.File("hourly"), where=None)
        ds[0]
        data = ds.batches(8, seed=0, to="torch").at(0)
        options = {"batch_size": None}
        seen = lambda batch: batch["x"].int().tolist()
    began = time.monotonic()
    try:
        found = [x for batch in DataLoader(data, num_workers=2, multiprocessing_context=context, **options) for x in seen(batch)]
    except scythe.errors.ForkError as error:
        assert "forkserver" in str(error)
        print("ForkError", time.monotonic() - began)
    else:
        print("epoch", sorted(found) == sorted(list(range(48)) * (1 if what == "FileRefs" else 2)))
"""


@pytest.fixture
def trained(
    root: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], str]]:
    """Runs an epoch in a process of its own, of a run in a folder or a bucket; gives what it printed."""
    needs("torch")
    folder = Path.cwd()
    for name, code in (
        ("walls.py", _SIMULATED),
        ("allocate.py", _ALLOCATE),
        ("train.py", _TRAIN.replace("import scythe\n", "import scythe, scythe.errors\n", 1)),
    ):
        (folder / name).write_text(code)

    def train(context: str, what: str) -> str:
        done = subprocess.run(
            [sys.executable, "train.py", context, what],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    with folder_s3(tmp_path / "s3") as server:
        if request.param == "bucket":
            (tmp_path / "s3" / "bucket").mkdir(parents=True)
            for name, value in {**server.environment, "SCYTHE_STORAGE_BUCKET": "bucket"}.items():
                monkeypatch.setenv(name, value)
        made = run(folder, "allocate.py")
        assert made.returncode == 0, made.stderr
        yield train


@pytest.mark.parametrize("trained", ["folder", "bucket"], indirect=True)
@pytest.mark.parametrize("what", ["dataset", "FileRefs"])
def test_workers_read_a_whole_epoch_or_say_at_once_that_they_were_forked(
    trained: Callable[[str, str], str], what: str
) -> None:
    for context in ("forkserver", "spawn"):
        assert trained(context, what) == "epoch True"
    word, _, rest = trained("fork", what).partition(" ")
    assert (word, float(rest) < _AT_ONCE) == ("ForkError", True)


def test_ranks_that_torchrun_starts_draw_each_row_once(root: Path) -> None:
    needs("torch")
    folder = Path.cwd()
    (folder / "walls.py").write_text(_SIMULATED)
    (folder / "allocate.py").write_text(_ALLOCATE)
    (folder / "rank.py").write_text(
        "import os, scythe\nds = scythe.dataset('walls', x='x')\n"
        "batches = ds.batches(5, seed=0, to='torch')\n"
        "rows = [int(x) for batch in batches.at(0) for x in batch['x']]\n"
        "open(f'rank{os.environ[\"RANK\"]}', 'w').write(f'{len(batches)} {rows}')\n"
    )
    assert run(folder, "allocate.py").returncode == 0
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "rank.py"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=_SECONDS, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [(folder / f"rank{rank}").read_text().partition(" ") for rank in range(2)]
    assert told[0][0] == told[1][0], "equal numbers of steps"
    rows = [int(x) for _, _, found in told for x in found.strip("[]").split(", ")]
    assert len(rows) == len(set(rows))
    assert set(rows) <= set(range(48))
    assert time.monotonic() - began < _SECONDS
