"""Whatever one file a root has lost (it was copied by half, say): readers give what they gave, or an error that says so."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import scythe
from scythe.allocate import BaseExperiment
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import ScytheError
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference


class Beam(ExperimentInputSpec):
    load: float


class Bent(ExperimentOutputSpec):
    sag: float
    line: FileReference


def beams(spec: Beam, tempdir: Path) -> Bent:
    if spec.load == 3:
        raise ValueError("it broke")
    np.save(tempdir / "line.npy", np.full(4, spec.load, np.float32))
    frames = {"joints": pl.DataFrame({"turn": [spec.load, spec.load + 1]})}
    return Bent(sag=2 * spec.load, line=tempdir / "line.npy", dataframes=frames)


def ran(first: int, last: int, **options: Any) -> str:
    """The folder of a run."""
    ExperimentRegistry.Register(name="beams", retries=0)(beams)
    loads = pl.DataFrame({"load": [float(i) for i in range(first, last)]})
    run, ref = BaseExperiment("beams").allocate(loads, engine="local", workers=1, **options)
    ref.result()
    return run.key.folder


def batch(*of: Any, **options: Any) -> list[Any]:
    groups: dict[str, Any] = {"h": scythe.File("line"), "m": scythe.Frame("joints", ["turn"], rows=2)}
    data = scythe.dataset("beams", *of, x="load", y="sag", **groups, **options)
    return [values.tolist() for values in data.batches(len(data), shuffle=False, ahead=0).at(0)[0].values()]


def looks(tmp_path: Path) -> Mapping[str, Callable[[], Any]]:
    def downloaded() -> Any:
        to = tmp_path / "copy"
        try:
            scythe.download("beams", to)
            with pytest.MonkeyPatch.context() as patched:
                patched.setenv("SCYTHE_STORAGE_ROOT", str(to))
                return scythe.read("beams").rows(), batch()
        finally:
            shutil.rmtree(to, ignore_errors=True)

    return {
        "the latest": lambda: scythe.read("beams").rows(),
        "the latest of the first version": lambda: scythe.read("beams", "v1.0.0", table="joints").rows(),
        "the latest of each version": lambda: scythe.read("beams", "all", table="tasks").rows(),
        "all": lambda: scythe.read("beams", "all", run="all").rows(),
        "a dataset": batch,
        "a dataset of all": lambda: batch("all", run="all"),
        "a dataset of each version": lambda: batch("all"),
        "pairs": lambda: [(b.load, r.sag) for b, r in scythe.rows(beams, "all", run="all")],
        "a download": downloaded,
    }


def one_of_each_kind(root: Path) -> list[Path]:
    """Files of a root, of those whose names differ in hashes and numbers alone the first: runs have names of their own."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    same = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4,})*|\d{5}-|\d+(?=\.npy)")
    return [*{same.sub("", str(path)): path for path in reversed(files)}.values()]


def told(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except ScytheError as error:
        return error


def test_whatever_one_file_is_lost_or_cut_short_nothing_else_is_read_in_silence(root: Path, tmp_path: Path) -> None:
    first = ran(0, 3)
    ran(2, 5, version="keep")
    ran(0, 4, version="bumpminor", pack=True)
    asked = looks(tmp_path)
    whole = {name: look() for name, look in asked.items()}

    wrong, unharmed = list[tuple[str, str, object]](), 0
    for path in one_of_each_kind(root):
        if first in path.parts:
            continue  # the second one is of the same kind, and the latest of its version
        raw, is_of_last = path.read_bytes(), "v1.1.0" in path.parts
        for left in (None, raw[: len(raw) // 2]) if is_of_last else (None,):
            path.unlink()
            if left is not None:
                path.write_bytes(left)
            for name, look in asked.items():
                if name == "a download" and not is_of_last:
                    continue  # it takes as long as all others together
                found = told(look)
                if not isinstance(found, ScytheError):
                    unharmed += 1
                    if found != whole[name]:
                        wrong.append((f"{path.relative_to(root)} {'cut' if left is not None else 'lost'}", name, found))
            path.unlink(missing_ok=True)
            path.write_bytes(raw)

    assert wrong == []
    assert unharmed > 100  # most files matter to few of them
    assert {name: look() for name, look in asked.items()} == whole
