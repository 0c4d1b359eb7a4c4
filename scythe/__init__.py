"""Scythe: run a function over ten to ten million typed inputs, and read the results as a typed table.

    import scythe
    df = scythe.read("simulate_energy", "v1.0.0")

Importing it builds no client, reads no credentials and loads nothing heavy: what stands below is
loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from scythe.allocate import BaseExperiment as BaseExperiment
    from scythe.base import ExperimentInputSpec as ExperimentInputSpec
    from scythe.base import ExperimentOutputSpec as ExperimentOutputSpec
    from scythe.engines.options import EngineOptions as EngineOptions
    from scythe.engines.options import HatchetOptions as HatchetOptions
    from scythe.engines.options import LocalOptions as LocalOptions
    from scythe.errors import ScytheError as ScytheError
    from scythe.loaders.data import Dataset as Dataset
    from scythe.loaders.groups import File as File
    from scythe.loaders.groups import Frame as Frame
    from scythe.loaders.refs import FileRefs as FileRefs
    from scythe.loaders.stats import Stats as Stats
    from scythe.loaders.verb import dataset as dataset
    from scythe.reader.verbs import files as files
    from scythe.reader.verbs import list_experiments as list_experiments
    from scythe.reader.verbs import list_runs as list_runs
    from scythe.reader.verbs import read as read
    from scythe.reader.verbs import rows as rows
    from scythe.reader.verbs import scan as scan
    from scythe.registry import ExperimentRegistry as ExperimentRegistry
    from scythe.remote.fetch import fetch as fetch
    from scythe.reporting.verb import report as report
    from scythe.runs.open import open_run as open_run
    from scythe.transfer.verbs import download as download
    from scythe.transfer.verbs import upload as upload
    from scythe.utils.filesys import FileReference as FileReference
    from scythe.utils.filesys import OptionalFileReference as OptionalFileReference

_HOME = {
    "BaseExperiment": "scythe.allocate",
    "EngineOptions": "scythe.engines.options",
    "ExperimentInputSpec": "scythe.base",
    "ExperimentOutputSpec": "scythe.base",
    "ExperimentRegistry": "scythe.registry",
    "Dataset": "scythe.loaders.data",
    "File": "scythe.loaders.groups",
    "FileRefs": "scythe.loaders.refs",
    "Frame": "scythe.loaders.groups",
    "Stats": "scythe.loaders.stats",
    "dataset": "scythe.loaders.verb",
    "FileReference": "scythe.utils.filesys",
    "HatchetOptions": "scythe.engines.options",
    "LocalOptions": "scythe.engines.options",
    "OptionalFileReference": "scythe.utils.filesys",
    "ScytheError": "scythe.errors",
    "download": "scythe.transfer.verbs",
    "fetch": "scythe.remote.fetch",
    "files": "scythe.reader.verbs",
    "list_experiments": "scythe.reader.verbs",
    "list_runs": "scythe.reader.verbs",
    "open_run": "scythe.runs.open",
    "read": "scythe.reader.verbs",
    "report": "scythe.reporting.verb",
    "rows": "scythe.reader.verbs",
    "scan": "scythe.reader.verbs",
    "upload": "scythe.transfer.verbs",
}

__all__ = [
    "BaseExperiment",
    "Dataset",
    "EngineOptions",
    "ExperimentInputSpec",
    "ExperimentOutputSpec",
    "ExperimentRegistry",
    "File",
    "FileReference",
    "FileRefs",
    "Frame",
    "HatchetOptions",
    "LocalOptions",
    "OptionalFileReference",
    "ScytheError",
    "Stats",
    "dataset",
    "download",
    "fetch",
    "files",
    "list_experiments",
    "list_runs",
    "open_run",
    "read",
    "report",
    "rows",
    "scan",
    "upload",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("scythe-engine")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'scythe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
