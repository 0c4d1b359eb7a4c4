"""Keeps pyarrow from importing pandas before anybody else does.

pyarrow imports pandas, where it is installed, when it makes its first scalar or array. That costs every
process at its start as much as all the rest of Scythe. So it is told once that there is no pandas,
and told otherwise as soon as pandas is imported: what pyarrow does with pandas objects never changes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pyarrow as pa


def postpone_pandas() -> None:
    """Does nothing where pandas is loaded already, or where pyarrow's hook for it is not what we know."""
    if "pandas" in sys.modules or not hasattr(type(_api()), "compat"):
        return
    finder = _OnImport()
    sys.meta_path.insert(0, finder)
    pa.scalar(0)
    finder.blocking = False


def _api() -> Any:
    return getattr(pa.lib, "_pandas_api", None)  # pyright: ignore[reportAttributeAccessIssue]


class _OnImport(MetaPathFinder):
    """Refuses the import of pandas while pyarrow asks, then waits until pandas is really loaded.

    Being asked where pandas is (`find_spec`, as Polars and others do) is not yet its import: only what
    the loader runs is.
    """

    blocking = True

    def __init__(self) -> None:
        self._asking = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "pandas" or getattr(self._asking, "others", False):
            return None
        if self.blocking:
            raise ImportError("pandas is not loaded yet")
        self._asking.others = True
        try:
            spec = importlib.util.find_spec("pandas")
        finally:
            self._asking.others = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Told(spec.loader, self)
        return spec


class _Told(Loader):
    """Loads pandas, then lets pyarrow know."""

    def __init__(self, loader: Any, finder: MetaPathFinder) -> None:
        self._loader, self._finder = loader, finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self._finder)
        with contextlib.suppress(ImportError):  # a pandas that is too old for pyarrow is none to it, as ever
            _ = _api().compat  # looks for pandas anew, and finds it
