"""Allocation: from specs to a run that is stored whole, and then started."""

from scythe.allocate.experiment import BaseExperiment
from scythe.engines.engine import RunRef
from scythe.record.results import RunResult
from scythe.record.versions import SemVer, VersioningStrategy
from scythe.runs.run import ExperimentRun

__all__ = ["BaseExperiment", "ExperimentRun", "RunRef", "RunResult", "SemVer", "VersioningStrategy"]
