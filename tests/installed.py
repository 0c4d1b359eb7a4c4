"""Packages of others, as pip leaves them: a module, and metadata with its entry points."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def install(module: Path, site: Path, entry_points: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a module a package that is installed here, and in the processes that are started from here."""
    about = site / f"{module.stem}-1.0.dist-info"
    about.mkdir(parents=True)
    shutil.copy(module, site)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.stem}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
