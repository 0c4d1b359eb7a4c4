"""Hatchet as an engine of Scythe: its workers run the inputs, wherever they are. Loads the SDK when it is used."""

from __future__ import annotations

import os

from scythe.define.experiment import Experiment
from scythe.engines.engine import Engine, Launch, RunRef
from scythe.engines.hatchet.client.outlook import outlook
from scythe.engines.hatchet.client.trigger import attached, cancel_run, check_cluster, run_hatchet
from scythe.engines.options import HatchetOptions
from scythe.record.plan import RunPlan


class HatchetEngine(Engine):
    """The workers of a Hatchet cluster, or of the embedded one."""

    name = "hatchet"
    runs_code = "theirs"
    options = HatchetOptions
    names_runs = True

    def sends_scripts(self) -> bool:
        return "HATCHET_CLIENT_TOKEN" not in os.environ  # to the worker of the embedded engine

    def check_ready(self, experiment: Experiment, *, single: bool) -> None:
        check_cluster(experiment, single=single)

    def start(self, work: Launch) -> RunRef:
        return run_hatchet(work)

    def attach(self, plan: RunPlan) -> RunRef | None:
        return attached(plan)

    def cancel(self, plan: RunPlan) -> None:
        cancel_run(plan)

    def outlook(self, plan: RunPlan) -> str | None:
        return outlook(plan) if "HATCHET_CLIENT_TOKEN" in os.environ else None
