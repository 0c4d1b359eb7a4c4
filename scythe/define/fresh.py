"""What values the modules of a project have in a process that has just loaded them: asked of one. Changes nothing in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache

from scythe.define.values import Changed, written

_SECONDS = 120.0
_MARK = "scythe-values:"
_PROGRAM = """
import sys
sys.path[:] = {path!r}
import importlib, json
from scythe.define.values import written
from scythe.source import loading
loading.set("a module")
for name in {modules!r}:
    importlib.import_module(name)
print({mark!r} + json.dumps([written(getattr(sys.modules[module], name, None)) for module, name in {names!r}]))
"""


def set_since(found: Sequence[Changed], module: str) -> list[Changed]:
    """Those of some values that a process which has loaded a module, and theirs, has not: nobody sets them while modules are loaded.

    A process is started where there are any, once for the same ones; of modules that cannot be loaded there, none are given.
    """
    if not found:
        return []
    first = () if module in ("__main__", "__mp_main__") else (module,)
    names = tuple((one.module, one.name) for one in found)
    values = _values(first, names)
    return [one for one, value in zip(found, values, strict=True) if value != written(one.now)] if values else []


@lru_cache(maxsize=64)
def _values(first: tuple[str, ...], names: tuple[tuple[str, str], ...]) -> list[str] | None:
    path = [entry for entry in sys.path if isinstance(entry, str)]  # pyright: ignore[reportUnnecessaryIsInstance]
    modules = list(dict.fromkeys([*first, *(module for module, _ in names)]))
    program = _PROGRAM.format(path=path, modules=modules, names=names, mark=_MARK)
    try:
        ran = subprocess.run(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = [line for line in ran.stdout.splitlines() if line.startswith(_MARK)]
    return json.loads(told[-1].removeprefix(_MARK)) if told else None


__all__ = ["set_since"]
