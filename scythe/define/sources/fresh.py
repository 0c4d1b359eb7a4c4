"""What values the modules of a project have in a process that has just loaded them: asked of one. Changes nothing in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from scythe.define.sources.changed import Changed
from scythe.define.sources.modules import SCRIPTS

_SECONDS = 120.0
_MARK = "scythe-values:"
_PROGRAM = """
import sys
sys.path[:] = {path!r}
sys.argv[:] = {arguments!r}
import functools, importlib, importlib.util, json
from scythe.define.sources.objects import told_apart
from scythe.source import loading
loading.set("a module")
script = {script!r}
loaded = {{}}
if script:
    spec = importlib.util.spec_from_file_location("__scythe_script__", script)
    loaded = dict.fromkeys({scripts!r}, importlib.util.module_from_spec(spec))
    sys.modules["__scythe_script__"] = loaded["__main__"]
    spec.loader.exec_module(loaded["__main__"])
for name in {modules!r}:
    loaded[name] = importlib.import_module(name)
print({mark!r} + json.dumps([
    told_apart(functools.reduce(lambda held, part: getattr(held, part, None), name.split("."), loaded[module])).text
    for module, name in {names!r}
]))
"""


def set_since(
    found: Sequence[Changed], module: str, script: Path | None = None, *, given: bool = True
) -> list[Changed]:
    """Those of some values that a process which has loaded a module, and theirs, has not: nobody sets them while modules are loaded.

    A process is started where there are any, once for the same ones; of modules that cannot be loaded there, none are given. Nor are
    those that each process makes anew (a time, a generator of random numbers), as a second one tells.

    Args:
        found: The values.
        module: The one that defines the experiment.
        script: Its file where it runs as a program: of this the part is loaded that is not guarded.
        given: Whether that process is given the arguments of this program.
    """
    if not found:
        return []
    arguments = tuple(sys.argv) if given else (str(script or ""),)
    of_script = script is not None and any(one.is_of_script for one in found)
    first = () if module in SCRIPTS else (module,)
    names = tuple((one.module, one.name) for one in found)
    of = str(script) if of_script else None
    if (values := _values(first, names, of, arguments)) is None:
        return []
    others = [i for i, one in enumerate(found) if values[i] != one.text]
    again = _values(first, names, of, arguments, again=True) if any(found[i].is_made for i in others) else None
    return [found[i] for i in others if again is None or not found[i].is_made or again[i] == values[i]]


@lru_cache(maxsize=64)
def _values(
    first: tuple[str, ...],
    names: tuple[tuple[str, str], ...],
    script: str | None,
    arguments: tuple[str, ...],
    *,
    again: bool = False,
) -> list[str] | None:
    path = [entry for entry in sys.path if isinstance(entry, str)]  # pyright: ignore[reportUnnecessaryIsInstance]
    modules = [name for name in dict.fromkeys([*first, *(module for module, _ in names)]) if name not in SCRIPTS]
    program = _PROGRAM.format(
        path=path,
        modules=modules,
        names=names,
        mark=_MARK,
        script=script,
        scripts=SCRIPTS,
        arguments=[*arguments],
    )
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
