"""The hash of an experiment's code: of the module that defines it, and of every module of the project that it imports.

Equal on two machines whose files are equal, wherever the project lies there. Reads source files; it
imports and runs nothing. What is installed (the standard library, site-packages, Scythe itself)
does not count: that is what versions of packages are for.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import linecache
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scythe.define.experiment import Experiment
from scythe.define.fresh import set_since
from scythe.define.loaded import is_edited
from scythe.define.modules import (
    NOT_THE_PROJECTS,
    Module,
    closure,
    compiled,
    file_of,
    find,
    imported,
    is_installed,
    name_of,
)
from scythe.define.snapshot import Source
from scythe.define.values import Changed, changed_values, constants, enclosed, is_plain, noted_in, told_apart, written

#: The modules whose functions are sent to worker processes as they are: of a script, and of one in a process of `multiprocessing`.
_SENT = ("__main__", "__mp_main__")


@dataclass(frozen=True)
class Code:
    """The code that an experiment runs, as it was at one time: what is recorded of it, and what worker processes load, are of one reading."""

    #: The sha256, as 64 hexadecimal digits; None where there is no source, or what runs was loaded from an earlier one.
    sha256: str | None
    #: The modules of the project.
    modules: tuple[Source, ...] = ()


def read_code(experiment: Experiment, *, here: bool = False) -> Code:
    """The code that an experiment runs, as it lies on this machine now.

    Its hash covers the relative path and the source of the module that defines the function, and of every module of the
    project that this one imports, directly or through others, within functions too; and the plain values that a function
    made by another one has from it. Of a notebook, or what is typed at a prompt, it covers the function, its models, and what
    they use, values too. Line endings do not count.

    Args:
        experiment: The experiment.
        here: It runs in this process, with what this has loaded, and the values that were set since; else other processes load the
            files, but for a script, whose functions they are sent.

    Returns:
        The hash, and the modules that worker processes load.
    """
    if experiment.included is not None:
        return Code(None)
    sources, modules = _sources(experiment)
    found = tuple(Source(m.name, str(m.file), m.is_package, source) for m, source in modules.items())
    if _edited(experiment, modules, here=here):
        return Code(None, found)
    sources |= {module.path: source for module, source in modules.items()} | enclosed(experiment.target)
    if here:
        sources |= {f"<value>/{one.module}.{one.name}": written(one.now) for one in values_set(experiment)}
    return Code(_digest(sources) if sources else None, found)


def edited_files(experiment: Experiment, *, here: bool) -> list[Path]:
    """The files that were changed since this process has loaded them, and that run in another state than is loaded here, or (`here`) lies there."""
    return [
        m.file for m in _edited(experiment, _sources(experiment)[1], here=True) if here or not _is_sent(experiment, m)
    ]


def values_set(experiment: Experiment) -> list[Changed]:
    """The plain values of the project's modules that the experiment reads, and that were set after the modules were loaded."""
    if experiment.included is not None:
        return []
    found = changed_values([experiment.target, experiment.input_model, experiment.output_model])
    return set_since(found, experiment.target.__module__)


def _sources(experiment: Experiment) -> tuple[dict[str, str], dict[Module, str]]:
    """The sources of cells, by their names, and those of modules."""
    target = experiment.target
    file = file_of(target)
    if file is not None:
        return {}, closure([Module(name_of(target.__module__, file), file)])
    return _cells([target, experiment.input_model, experiment.output_model])


def _edited(experiment: Experiment, modules: dict[Module, str], *, here: bool) -> list[Module]:
    """Those of which this process has loaded, and runs or sends, an earlier state than that of the file."""
    own = file_of(experiment.target)
    return [
        module
        for module in modules
        if (here or _is_sent(experiment, module))
        and (
            is_edited(module.name, module.file)
            or (module.file == own and module.file.stat().st_mtime > experiment.defined_at)
        )
    ]


def _is_sent(experiment: Experiment, module: Module) -> bool:
    """Whether a module is the script that defines the experiment: other processes are sent what this one has of it."""
    return experiment.target.__module__ in _SENT and module.file == file_of(experiment.target)


def _digest(sources: dict[str, str]) -> str:
    found = hashlib.sha256()
    for path, source in sorted(sources.items()):
        for text in (path, source):
            raw = text.replace("\r\n", "\n").encode(errors="surrogatepass")
            found.update(len(raw).to_bytes(8, "big") + raw)
    return found.hexdigest()


# --- cells ------------------------------------------------------------------------------------------


def _cells(first: list[Any]) -> tuple[dict[str, str], dict[Module, str]]:
    """The sources of what was defined in cells, of what it uses of other cells, plain values too, and of the project's modules in it."""
    sources: dict[str, str] = {}
    modules: dict[Path, Module] = {}
    waiting, known = list(first), {id(found) for found in first}
    while waiting:
        found = waiting.pop()
        where = vars(sys.modules.get(found.__module__, object))
        file = file_of(found)
        if file is not None:
            if not is_installed(file) and found.__module__.split(".")[0] not in NOT_THE_PROJECTS:
                modules[file] = Module(name_of(found.__module__, file), file)
            continue
        try:
            source = _class_cell(found) if isinstance(found, type) else textwrap.dedent(inspect.getsource(found))
            code = compiled(source)
        except (OSError, TypeError, SyntaxError):
            if found is first[0]:
                return {}, {}
            continue
        own = f"<cell>/{found.__qualname__}"  # which two lambda functions may share
        sources[own] = source if own not in sources else "\0".join(sorted({*sources[own].split("\0"), source}))
        modules |= {module.file: module for module in map(find, imported(code, "")) if module is not None}
        kept = constants(code, noted_in(source))
        for name in {name for block in code for name in block.co_names}:
            used = where.get(name)
            if inspect.ismodule(used):
                module = find(used.__name__)
                if module is not None:
                    modules[module.file] = module
            elif (inspect.isfunction(used) or inspect.isclass(used)) and id(used) not in known:
                known.add(id(used))
                waiting.append(used)
            elif name in where and name in kept and (told := told_apart(used)) is not None:
                sources[f"<value>/{name}"] = told
                for more in (type(used), getattr(used, "func", None)):  # of an instance, and of a partial
                    if (inspect.isfunction(more) or inspect.isclass(more)) and id(more) not in known:
                        known.add(id(more))
                        waiting.append(more)
        if isinstance(found, type):
            own = {name: value for name, value in vars(found).items() if not name.startswith("__") and is_plain(value)}
            sources[f"<class>/{found.__qualname__}"] = written(own)
    return sources, closure(list(modules.values()))


def _class_cell(found: type) -> str:
    """The cell that defines a class, the newest where several do; Python itself finds the sources of functions alone.

    Raises:
        OSError: no cell does.
    """
    for entry in reversed([entry for entry in list(linecache.cache.values()) if len(entry) == 4]):
        source = "".join(entry[2])
        if f"class {found.__name__}" in source:
            with contextlib.suppress(SyntaxError):  # a cell with a magic command
                if any(code.co_name == found.__qualname__ for code in compiled(source)):
                    return source
    raise OSError(f"no source of {found.__qualname__}")


__all__ = ["Code", "edited_files", "read_code", "values_set"]
