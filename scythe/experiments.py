"""The same as `scythe.allocate`, under the name that some of its users know."""

from scythe.allocate import BaseExperiment, ExperimentRun, RunRef, RunResult, SemVer, VersioningStrategy

__all__ = ["BaseExperiment", "ExperimentRun", "RunRef", "RunResult", "SemVer", "VersioningStrategy"]
