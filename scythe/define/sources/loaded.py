"""Which of the project's modules this process has loaded, and how old their files were then. Reads no source."""

from __future__ import annotations

import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path

_INSTALLED = ("site-packages", "dist-packages", *(sysconfig.get_path(p) for p in ("stdlib", "platstdlib")))
#: Module -> its specification, which is another when it is loaded anew, and when its file was changed by then [s since 1970].
_seen: dict[str, tuple[ModuleSpec | None, float]] = {}
#: Module -> which one it was when it was noted: another may have come in its place.
_known: dict[str, int] = {}


def note_loaded() -> None:
    """Notes the modules that have come since it was called last; to be called when an experiment is defined."""
    new = {name: id(module) for name, module in [*sys.modules.items()] if _known.get(name) != id(module)}
    _known.update(new)
    for name in new:
        file = getattr(sys.modules.get(name), "__file__", None)
        if (
            isinstance(file, str)
            and file.endswith((".py", *EXTENSION_SUFFIXES))
            and not any(part in file for part in _INSTALLED)
        ):
            is_edited(name, Path(file))


def is_edited(name: str, file: Path) -> bool:
    """Whether a module's file was changed since this process has loaded it; of one that was not noted it is noted now."""
    try:
        changed = file.stat().st_mtime
    except OSError:
        return False
    if name not in sys.modules:
        return False
    spec = getattr(sys.modules[name], "__spec__", None)
    before = _seen.get(name)
    if before is None or before[0] is not spec:
        _seen[name] = before = spec, changed
    return before[1] != changed


__all__ = ["is_edited", "note_loaded"]
