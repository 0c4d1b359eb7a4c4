"""An experiment whose inputs are told what to do: written into a folder of its own, where jobs find it by its file."""

from __future__ import annotations

import os
import time
from pathlib import Path

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry


class Order(ExperimentInputSpec):
    x: int
    #: A file that it waits for.
    wait_for: str = ""
    #: A file to which it adds a line when it begins.
    tells: str = ""
    #: What it prints when it begins.
    says: str = ""
    megabytes: int = 0
    fails: bool = False


class Done(ExperimentOutputSpec):
    y: int


@ExperimentRegistry.Register(retries=1)
def station(input_spec: Order) -> Done:
    if input_spec.tells:
        with Path(input_spec.tells).open("a") as file:
            file.write(f"{input_spec.x} {os.environ['SLURM_JOB_ID']}\n")
    if input_spec.says:
        print(input_spec.says)
    if input_spec.fails:
        raise ValueError(f"told to fail: {input_spec.x}")
    held = bytearray(input_spec.megabytes << 20)
    while (input_spec.wait_for and not Path(input_spec.wait_for).exists()) or held:
        time.sleep(0.05)  # the file is the signal; memory is held until Slurm ends it
    return Done(y=input_spec.x**2)
