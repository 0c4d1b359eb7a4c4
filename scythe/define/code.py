"""The hash of an experiment's code: of the module that defines it, and of every module of the project that it imports.

Equal on two machines whose files are equal, wherever the project lies there. Reads source files; it
imports and runs nothing. What is installed (the standard library, site-packages, Scythe itself)
does not count: that is what versions of packages are for.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import dis
import hashlib
import importlib.util
import inspect
import itertools
import linecache
import pickle
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from importlib.machinery import ModuleSpec, PathFinder
from modulefinder import ModuleFinder
from pathlib import Path
from types import CodeType
from typing import Any, cast

from scythe.define.experiment import Experiment
from scythe.define.loaded import is_edited

_INSTALLED = {"site-packages", "dist-packages"}
_NOT_THE_PROJECTS = {"scythe", "scythe_catalog", "__main__", *sys.stdlib_module_names}
_PLAIN = (bool, int, float, complex, str, bytes, Decimal, dt.date, dt.time, dt.timedelta, Enum)
_STANDARD = tuple(Path(sysconfig.get_path(p)).resolve() for p in ("stdlib", "platstdlib"))


def code_hash(experiment: Experiment, *, unchanged_since: float | None = None) -> str | None:
    """The sha256 of the code that an experiment runs, as it lies on this machine now.

    It covers the relative path and the source of the module that defines the function, and of every module of the
    project that this one imports, directly or through others, within functions too; and the plain values that a function
    made by another one has from it. Of a notebook, or what is typed at a prompt, it covers the function, its models, and what
    they use, values too. Line endings do not count.

    Args:
        experiment: The experiment.
        unchanged_since: When this process has loaded it, where it runs there: a source that is newer is not what runs.

    Returns:
        64 hexadecimal digits; None where there is no source, or a newer one.
    """
    target = experiment.target
    if experiment.included is not None:
        return None
    file = _file_of(target)
    if file is not None:
        sources, modules = {}, _closure([_Module(_name_of(target.__module__, file), file)])
    else:
        sources, modules = _cells([target, experiment.input_model, experiment.output_model])
    if unchanged_since is not None and any(_is_newer(m, unchanged_since if m.file == file else None) for m in modules):
        return None
    sources |= {module.path: source for module, source in modules.items()}
    return _digest(sources | _enclosed(target)) if sources else None


def _is_newer(module: _Module, loaded_at: float | None) -> bool:
    """Whether its file was changed since this process has loaded it: at `loaded_at`, where that is known."""
    edited = is_edited(module.name, module.file)
    return edited if loaded_at is None else edited or module.file.stat().st_mtime > loaded_at


def _digest(sources: dict[str, str]) -> str:
    found = hashlib.sha256()
    for path, source in sorted(sources.items()):
        for text in (path, source):
            raw = text.replace("\r\n", "\n").encode(errors="surrogatepass")
            found.update(len(raw).to_bytes(8, "big") + raw)
    return found.hexdigest()


# --- modules ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Module:
    """A module of the project, by its name and the file that it was or would be loaded from."""

    name: str
    file: Path

    @property
    def is_package(self) -> bool:
        return self.file.name == "__init__.py"

    @property
    def path(self) -> str:
        """Its file, relative to the folder that Python would find it in."""
        return "/".join(self.name.split(".")) + ("/__init__.py" if self.is_package else ".py")

    @property
    def package(self) -> str:
        """What its relative imports are relative to."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


def _closure(first: list[_Module]) -> dict[_Module, str]:
    """The sources of some modules and of what they import of the project."""
    sources: dict[_Module, str] = {}
    waiting, known = list(first), {module.file for module in first}
    while waiting:
        module = waiting.pop()
        with contextlib.suppress(OSError, UnicodeDecodeError, SyntaxError):  # a damaged neighbour is nobody's code
            sources[module] = source = module.file.read_text()
            for name in _imports(source, module.package):
                found = _find(name)
                if found is not None and found.file not in known:
                    known.add(found.file)
                    waiting.append(found)
    return sources


@lru_cache(maxsize=256)
def _imports(source: str, package: str) -> tuple[str, ...]:
    """`_imported` of a source, each name once; found once, for a loop allocates many runs of the same code. Raises SyntaxError."""
    return tuple(dict.fromkeys(_imported(_compiled(source), package)))


def _compiled(source: str) -> list[CodeType]:
    """The code of a source, within functions and classes too; raises SyntaxError. (Threads may not share `ast.parse`.)"""
    found = [compile(source, "<hashed>", "exec", dont_inherit=True)]
    for code in found:
        found += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return found


def _imported(code: Iterable[CodeType], package: str) -> Iterator[str]:
    """The names of the modules that a source may import, their packages included; some are no modules."""
    for kind, what in itertools.chain.from_iterable(map(ModuleFinder().scan_opcodes, code)):
        if kind == "absolute_import":
            members, base = what
        elif kind == "relative_import":
            level, members, base = what
            parts = package.split(".") if package else []
            base = ".".join([*parts[: len(parts) - level + 1], *([base] if base else [])])
        else:
            continue
        for name in [base, *(f"{base}.{member}" if base else member for member in members or ())]:
            parts = name.split(".")
            yield from (".".join(parts[:i]) for i in range(1, len(parts) + 1) if parts[0])


def _find(name: str) -> _Module | None:
    """The module of a name, where it is a source file of the project's; imports nothing."""
    top, *below = name.split(".")
    if top in _NOT_THE_PROJECTS:
        return None
    spec = _spec_of_top(top)
    where = _folders(spec)
    for number, part in enumerate(below, 1):
        if not where:
            return None
        path = ".".join([top, *below[:number]])
        try:
            spec = PathFinder.find_spec(path, where)
        except KeyError:  # a namespace package in another, which nobody has imported and Python asks for
            spec = ModuleSpec(path, None, is_package=True)
        if spec is not None and spec.origin is None:
            where = [str(folder) for one in where if (folder := Path(one) / part).is_dir()]
        else:
            where = _folders(spec)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    file = Path(spec.origin).resolve()
    return None if _is_installed(file) else _Module(name, file)


def _folders(spec: ModuleSpec | None) -> list[str]:
    """Where the modules of a package lie; nowhere where it is none."""
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _spec_of_top(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a module that was made by hand has no spec
        return PathFinder.find_spec(name)


def _is_installed(file: Path) -> bool:
    return not _INSTALLED.isdisjoint(file.parts) or any(file.is_relative_to(folder) for folder in _STANDARD)


def _file_of(target: Callable[..., Any]) -> Path | None:
    """The source file that defines a function or a class, None for a notebook's cell."""
    module = sys.modules.get(target.__module__)
    named = [getattr(module, "__file__", None)]
    with contextlib.suppress(AttributeError, TypeError):  # of a script whose function was sent to another process
        function = cast(Any, getattr(target, "run", target) if isinstance(target, type) else target)
        named.append(inspect.unwrap(function).__code__.co_filename)
    for path in named:
        if path is not None and path.endswith(".py") and Path(path).is_file():
            return Path(path).resolve()
    return None


def _name_of(module: str, file: Path) -> str:
    """The name under which a file's module is imported; of a script that runs it is that of its file."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    name = spec.name if module == "__main__" and spec is not None else module
    name = name.removesuffix(".__main__") if file.name != "__main__.py" else name
    is_file = name.rpartition(".")[2] in (file.stem, file.parent.name)
    return name if is_file else file.stem


# --- cells ------------------------------------------------------------------------------------------


def _cells(first: list[Any]) -> tuple[dict[str, str], dict[_Module, str]]:
    """The sources of what was defined in cells, of what it uses of other cells, plain values too, and of the project's modules in it."""
    sources: dict[str, str] = {}
    modules: dict[Path, _Module] = {}
    waiting, known = list(first), {id(found) for found in first}
    while waiting:
        found = waiting.pop()
        where = vars(sys.modules.get(found.__module__, object))
        file = _file_of(found)
        if file is not None:
            if not _is_installed(file) and found.__module__.split(".")[0] not in _NOT_THE_PROJECTS:
                modules[file] = _Module(_name_of(found.__module__, file), file)
            continue
        try:
            source = _class_cell(found) if isinstance(found, type) else textwrap.dedent(inspect.getsource(found))
            code = _compiled(source)
        except (OSError, TypeError, SyntaxError):
            if found is first[0]:
                return {}, {}
            continue
        sources[f"<cell>/{found.__qualname__}"] = source
        modules |= {module.file: module for module in map(_find, _imported(code, "")) if module is not None}
        for name in {name for block in code for name in block.co_names}:
            used = where.get(name)
            if inspect.ismodule(used):
                module = _find(used.__name__)
                if module is not None:
                    modules[module.file] = module
            elif (inspect.isfunction(used) or inspect.isclass(used)) and id(used) not in known:
                known.add(id(used))
                waiting.append(used)
            elif name in where and name in _constants(code) and (told := _told(used)) is not None:
                sources[f"<value>/{name}"] = told
                for more in (type(used), getattr(used, "func", None)):  # of an instance, and of a partial
                    if (inspect.isfunction(more) or inspect.isclass(more)) and id(more) not in known:
                        known.add(id(more))
                        waiting.append(more)
        if isinstance(found, type):
            own = {name: value for name, value in vars(found).items() if not name.startswith("__") and _is_plain(value)}
            sources[f"<class>/{found.__qualname__}"] = _written(own)
    return sources, _closure(list(modules.values()))


# --- values -----------------------------------------------------------------------------------------

#: The methods by which a function notes something in a collection.
_NOTING = frozenset({"append", "extend", "insert", "add", "update", "setdefault", "pop", "remove", "discard", "clear"})


def _constants(code: Iterable[CodeType]) -> set[str]:
    """The names of other cells that some code reads, and keeps as they are: not those of what it notes something in."""
    read: set[str] = set()
    changed: set[str] = set()
    for block in code:
        steps = [*dis.get_instructions(block)]
        names = {s.argval for s in steps if s.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        read |= names
        if any(s.opname in ("STORE_SUBSCR", "DELETE_SUBSCR") for s in steps):
            changed |= names
        changed |= {s.argval for s, then in itertools.pairwise(steps) if then.argval in _NOTING}
    return read - changed


def _enclosed(target: Callable[..., Any]) -> dict[str, str]:
    """The plain values that a function has from the function that made it, by their names."""
    function = inspect.unwrap(target)
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    found: dict[str, str] = {}
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            if _is_plain(cell.cell_contents, (tuple, frozenset)):  # a list may be what it notes its calls in
                found[f"<enclosed>/{name}"] = _written(cell.cell_contents)
    return found


def _is_plain(value: Any, collections: tuple[type, ...] = (list, tuple, set, frozenset, dict), depth: int = 8) -> bool:
    """Whether a value is one that is written alike in every process: numbers, texts, dates, and collections of them."""
    if isinstance(value, collections) and depth:
        members = [*value, *value.values()] if isinstance(value, dict) else value
        return all(_is_plain(member, collections, depth - 1) for member in members)
    return value is None or isinstance(value, _PLAIN)


def _told(value: Any) -> str | None:
    """What tells a value from another one of the same name; None where nothing does: of a lock, a connection."""
    if _is_plain(value):
        return _written(value)
    if isinstance(value, partial):
        parts = [_told(part) for part in (value.args, value.keywords)]
        return f"partial {getattr(value.func, '__qualname__', value.func)} {parts}" if None not in parts else None
    inner = getattr(value, "__dict__", None)
    if isinstance(inner, dict) and not hasattr(type(value), "__slots__") and _is_plain(inner):
        return f"{type(value).__qualname__} {_written(inner)}"
    try:
        return f"{type(value).__qualname__} {hashlib.sha256(pickle.dumps(value, protocol=5)).hexdigest()}"
    except Exception:  # noqa: BLE001 - whatever a class of the user's does
        return None


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_written(k)}: {_written(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple | set | frozenset):
        texts = map(_written, value)
        return f"{type(value).__name__}({', '.join(texts if isinstance(value, list | tuple) else sorted(texts))})"
    return repr(value)


def _class_cell(found: type) -> str:
    """The cell that defines a class, the newest where several do; Python itself finds the sources of functions alone.

    Raises:
        OSError: no cell does.
    """
    for entry in reversed([entry for entry in list(linecache.cache.values()) if len(entry) == 4]):
        source = "".join(entry[2])
        if f"class {found.__name__}" in source:
            with contextlib.suppress(SyntaxError):  # a cell with a magic command
                if any(code.co_name == found.__qualname__ for code in _compiled(source)):
                    return source
    raise OSError(f"no source of {found.__qualname__}")


__all__ = ["code_hash"]
