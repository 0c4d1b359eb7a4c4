"""Hatchet as an engine of Scythe: its workers run the inputs, wherever they are. Loads the SDK when it is used."""

from __future__ import annotations

import os

from scythe.define.experiment import Experiment
from scythe.engines.engine import Engine, Launch, RunRef
from scythe.engines.options import HatchetOptions
from scythe.record.plan import RunPlan


class HatchetEngine(Engine):
    """The workers of a Hatchet cluster, or of the embedded one."""

    name = "hatchet"
    options = HatchetOptions
    names_runs = True

    def check_ready(self, experiment: Experiment, *, single: bool) -> None:
        from scythe.engines.hatchet.client.trigger import check_cluster

        check_cluster(experiment, single=single)

    def start(self, work: Launch) -> RunRef:
        from scythe.engines.hatchet.client.trigger import run_hatchet

        any_code = work.options.any_code if isinstance(work.options, HatchetOptions) else None
        return run_hatchet(work.plan, work.experiment, work.open_ranges, any_code=any_code, show=work.show)

    def attach(self, plan: RunPlan) -> RunRef | None:
        from scythe.engines.hatchet.client.trigger import attached

        return attached(plan)

    def cancel(self, plan: RunPlan) -> None:
        from scythe.engines.hatchet.client.trigger import cancel_run

        cancel_run(plan)

    def outlook(self, plan: RunPlan) -> str | None:
        if "HATCHET_CLIENT_TOKEN" not in os.environ:
            return None
        from scythe.engines.hatchet.client.outlook import outlook

        return outlook(plan)
