"""A script with an experiment of its own, run in the working folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def run_script(text: str, *flags: str, **how: Any) -> subprocess.CompletedProcess[str]:
    Path("script.py").write_text(SCRIPT + text)
    return subprocess.run(
        [sys.executable, *flags, "script.py"], capture_output=True, text=True, timeout=120, check=False, **how
    )


SCRIPT = """
import os, sys
import polars as pl
import scythe
from scythe import BaseExperiment, ExperimentInputSpec, ExperimentOutputSpec, ExperimentRegistry

class Tick(ExperimentInputSpec):
    n: int

class Seen(ExperimentOutputSpec):
    text: str

@ExperimentRegistry.Register(retries=0)
def look(spec: Tick) -> Seen:
    flags = sys.flags
    return Seen(text=f"{flags.optimize} {flags.dont_write_bytecode} {flags.utf8_mode} {sys.warnoptions}")

def go(**how):
    ref = BaseExperiment(look).allocate(pl.DataFrame({"n": [1, 2]}), engine="local", workers=1, **how)[1]
    return ref.result(timeout=100)

"""
