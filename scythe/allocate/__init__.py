"""Allocation: from specs to a run that is stored whole, and then started."""

from scythe.allocate.experiment import BaseExperiment
from scythe.allocate.trial import Estimate, Trial
from scythe.engines.engine import RunRef
from scythe.record.results import RunResult
from scythe.record.versions import SemVer, VersioningStrategy
from scythe.runs.run import ExperimentRun

__all__ = [
    "BaseExperiment",
    "Estimate",
    "ExperimentRun",
    "RunRef",
    "RunResult",
    "SemVer",
    "Trial",
    "VersioningStrategy",
]
