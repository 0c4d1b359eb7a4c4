"""The modules of a user's project: which files they are, and which of them a source imports. Reads source files; imports and runs nothing.

What is installed (the standard library, site-packages, Scythe itself) is none of the project's.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import itertools
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from modulefinder import ModuleFinder
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, cast

from scythe.define.sources.snapshot import read_source

_INSTALLED = {"site-packages", "dist-packages"}
NOT_THE_PROJECTS = frozenset({"scythe", "scythe_catalog", "__main__"})
_LOADED = (".py", ".pyc", *EXTENSION_SUFFIXES)
#: The modules of what runs as a program: a script or a notebook, and the same in a process of `multiprocessing`.
SCRIPTS = ("__main__", "__mp_main__")
#: How the module of a script begins that was loaded to go on with its run.
LOADED_SCRIPT = "__scythe_main_"
_FOLDERS = tuple(Path(sysconfig.get_path(p)) for p in ("stdlib", "platstdlib"))
_STANDARD = frozenset({*_FOLDERS, *(folder.resolve() for folder in _FOLDERS)})
#: What loads a module by a name that is written out.
_BY_NAME = frozenset({"import_module", "__import__", "run_module"})


@dataclass(frozen=True)
class Module:
    """A module of the project, by its name and the file that it was or would be loaded from: of Python, or compiled."""

    name: str
    file: Path

    @property
    def is_package(self) -> bool:
        return self.file.stem == "__init__"

    @property
    def is_source(self) -> bool:
        return self.file.suffix == ".py"

    @property
    def _suffix(self) -> str:
        return ".py" if self.is_source else "".join(self.file.suffixes)

    @property
    def path(self) -> str:
        """Its file, relative to the folder that Python would find it in."""
        return "/".join(self.name.split(".")) + ("/__init__" if self.is_package else "") + self._suffix

    @property
    def package(self) -> str:
        """What its relative imports are relative to."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


def closure(first: list[Module]) -> dict[Module, str]:
    """The sources of some modules and of what they import of the project; of one that is compiled the hash of its file."""
    sources: dict[Module, str] = {}
    waiting, known, asked = list(first), {module.file for module in first}, set[str]()
    while waiting:
        module = waiting.pop()
        with contextlib.suppress(OSError, UnicodeDecodeError, SyntaxError):  # a damaged neighbour is nobody's code
            if not module.is_source:
                sources[module] = hashlib.sha256(module.file.read_bytes()).hexdigest()
                continue
            sources[module] = source = read_source(module.file)
            for name in _imports(source, module.package):
                found = find(name) if name not in asked else None
                asked.add(name)
                if found is not None and found.file not in known:
                    known.add(found.file)
                    waiting.append(found)
    return sources


@lru_cache(maxsize=256)
def _imports(source: str, package: str) -> tuple[str, ...]:
    """`imported` of a source, each name once; found once, for a loop allocates many runs of the same code. Raises SyntaxError."""
    return tuple(dict.fromkeys(imported(compiled(source), package)))


def compiled(source: str) -> list[CodeType]:
    """The code of a source, within functions and classes too; raises SyntaxError. (Threads may not share `ast.parse`.)"""
    found = [compile(source, "<hashed>", "exec", dont_inherit=True)]
    for code in found:
        found += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return found


def imported(code: Iterable[CodeType], package: str) -> Iterator[str]:
    """The names of the modules that a source may import, their packages included; some are no modules."""
    code = [*code]
    yield from itertools.chain.from_iterable(_by_name(one, package) for one in code)
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


def _by_name(code: CodeType, package: str) -> Iterator[str]:
    """The modules that code may load by `importlib.import_module("sim.laws")`; more than it does."""
    if _BY_NAME.isdisjoint(code.co_names):
        return
    texts = [text for text in code.co_consts if isinstance(text, str) and text.strip(".")]
    texts = [text for text in texts if all(part.isidentifier() for part in text.lstrip(".").split("."))]
    whole = [text for text in texts if not text.startswith(".")]
    for text in texts:
        name = text.lstrip(".")
        level = len(text) - len(name)
        for base in [package, *whole] if level else [""]:
            above = base.split(".")
            parts = [*filter(None, above[: len(above) - level + 1]), *name.split(".")]
            yield from (".".join(parts[:i]) for i in range(1, len(parts) + 1))


def find(name: str) -> Module | None:
    """The module of a name, where it is a file of the project's, of Python or compiled; imports nothing."""
    top, *below = name.split(".")
    if top in NOT_THE_PROJECTS:
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
    if spec is None or spec.origin is None or not spec.origin.endswith(_LOADED):
        return None
    file = Path(spec.origin).resolve()
    return None if is_installed(file) else Module(name, file)


def _folders(spec: ModuleSpec | None) -> list[str]:
    """Where the modules of a package lie; nowhere where it is none."""
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _spec_of_top(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a module that was made by hand has no spec
        return PathFinder.find_spec(name)


@lru_cache(maxsize=8192)
def _is_installed_at(file: str) -> bool:
    return is_installed(Path(file))


def is_installed(file: Path) -> bool:
    return any(
        not _INSTALLED.isdisjoint(path.parts) or any(path.is_relative_to(folder) for folder in _STANDARD)
        for path in (file, file.resolve())
    )


def is_own(name: str) -> bool:
    """Whether a module that is loaded is a source file of the project, other than the program itself."""
    if name.split(".", maxsplit=1)[0] in NOT_THE_PROJECTS:
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(file, str) and file.endswith(".py") and not _is_installed_at(file)


def text_of(module: ModuleType) -> str | None:
    """The source of a module that is loaded, as its file is now; None where it has none."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    try:
        return _text(file, Path(file).stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError, SyntaxError):
        return None


@lru_cache(maxsize=4096)
def _text(file: str, _changed: int) -> str:
    return read_source(Path(file))


def file_of(target: Callable[..., Any]) -> Path | None:
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


def name_of(module: str, file: Path) -> str:
    """The name under which a file's module is imported; of a script that runs it is that of its file."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    name = spec.name if module == "__main__" and spec is not None else module
    name = name.removesuffix(".__main__") if file.name != "__main__.py" else name
    is_file = name.rpartition(".")[2] in (file.stem, file.parent.name)
    return name if is_file else file.stem


__all__ = [
    "LOADED_SCRIPT",
    "NOT_THE_PROJECTS",
    "SCRIPTS",
    "Module",
    "closure",
    "compiled",
    "file_of",
    "find",
    "imported",
    "is_installed",
    "is_own",
    "name_of",
    "text_of",
]
