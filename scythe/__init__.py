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
    from scythe.allocate import BaseExperiment
    from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
    from scythe.engines.options import EngineOptions, HatchetOptions, LocalOptions, SlurmOptions
    from scythe.errors import ScytheError
    from scythe.loaders.data import Dataset
    from scythe.loaders.groups import File, Frame
    from scythe.loaders.refs import FileRefs
    from scythe.loaders.stats import Stats
    from scythe.loaders.verb import dataset
    from scythe.reader.verbs import files, list_experiments, list_runs, read, rows, scan
    from scythe.registry import ExperimentRegistry
    from scythe.remote.fetch import fetch
    from scythe.reporting.verb import report
    from scythe.runs.open import open_run
    from scythe.sampling.sensitivity import sensitivity
    from scythe.sampling.verb import sample
    from scythe.transfer.verbs import download, upload
    from scythe.utils.filesys import FileReference, OptionalFileReference

_NAMES = {
    "scythe.allocate": ("BaseExperiment",),
    "scythe.base": ("ExperimentInputSpec", "ExperimentOutputSpec"),
    "scythe.engines.options": ("EngineOptions", "HatchetOptions", "LocalOptions", "SlurmOptions"),
    "scythe.errors": ("ScytheError",),
    "scythe.loaders.data": ("Dataset",),
    "scythe.loaders.groups": ("File", "Frame"),
    "scythe.loaders.refs": ("FileRefs",),
    "scythe.loaders.stats": ("Stats",),
    "scythe.loaders.verb": ("dataset",),
    "scythe.reader.verbs": ("files", "list_experiments", "list_runs", "read", "rows", "scan"),
    "scythe.registry": ("ExperimentRegistry",),
    "scythe.remote.fetch": ("fetch",),
    "scythe.reporting.verb": ("report",),
    "scythe.runs.open": ("open_run",),
    "scythe.sampling.sensitivity": ("sensitivity",),
    "scythe.sampling.verb": ("sample",),
    "scythe.transfer.verbs": ("download", "upload"),
    "scythe.utils.filesys": ("FileReference", "OptionalFileReference"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

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
    "SlurmOptions",
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
    "sample",
    "scan",
    "sensitivity",
    "upload",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("scythe-engine")
    if name in _HOME:
        from scythe_catalog.loading import uncollected

        with uncollected():
            return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'scythe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
