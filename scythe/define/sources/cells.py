"""The sources of what was defined in cells: of a notebook, or of what is typed at a prompt. Reads the sources that Python keeps; runs nothing."""

from __future__ import annotations

import ast
import contextlib
import inspect
import linecache
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_args

from scythe.define.sources.modules import (
    NOT_THE_PROJECTS,
    SCRIPTS,
    Module,
    closure,
    compiled,
    file_of,
    find,
    imported,
    is_installed,
    name_of,
)
from scythe.define.sources.objects import told_apart
from scythe.define.sources.values import (
    constants,
    functions_of,
    given,
    is_plain,
    noted_in,
    wrapped,
    written,
)


def cells(first: Iterable[Any]) -> tuple[dict[str, str], dict[Module, str]]:
    """The sources of what was defined in cells, of what it uses of other cells, values too, and of the project's modules in it.

    Nothing where the first one has no source.
    """
    reading, first = _Reading(), list(first)
    reading.take(first)
    while reading.waiting:
        found = reading.waiting.pop()
        if not reading.read(found) and found is first[0]:
            return {}, {}
    return reading.sources, closure(list(reading.modules.values()))


_DEFINING = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class _Reading:
    """What was read of cells, and what is to be read."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.modules: dict[Path, Module] = {}
        self.waiting: list[Any] = []
        self._known: set[int] = set()

    def take(self, found: Iterable[Any]) -> None:
        """Has functions, classes and modules read, once."""
        for one in found:
            if isinstance(one, ModuleType):
                module = find(one.__name__)
                if module is not None:
                    self.modules[module.file] = module
            elif id(one) not in self._known:
                self._known.add(id(one))
                self.waiting.append(one)

    def read(self, found: Any) -> bool:
        """Reads a function or a class, and what it uses; False where it has no source."""
        file = file_of(found)
        if file is not None:
            if not is_installed(file) and found.__module__.split(".")[0] not in NOT_THE_PROJECTS:
                self.modules[file] = Module(name_of(found.__module__, file), file)
            return True
        try:
            sources = _class_cells(found) if isinstance(found, type) else _function_cells(found)
            code = [block for source in sources for block in compiled(source)]
        except (OSError, TypeError, SyntaxError):
            if isinstance(found, type) and found.__module__ in SCRIPTS:  # one that `type` has made, say
                self._put(f"<class>/{found.__qualname__}", self._members(found))
            return False
        for source in sources:
            self._put(f"<cell>/{found.__qualname__}", source)
        self.modules |= {module.file: module for module in map(find, imported(code, "")) if module is not None}
        where = vars(sys.modules.get(found.__module__, object))
        kept = set[str]().union(*(constants(compiled(source), noted_in(source)) for source in sources))
        for name in {name for block in code for name in block.co_names} & where.keys():
            used = where[name]
            if isinstance(used, ModuleType | FunctionType | type):
                self.take([used])
                if given(used):
                    self._put_value(f"<given>/{name}", used)
            elif name in kept:
                self._put_value(f"<value>/{name}", used)
        if isinstance(found, type):
            self.take([*found.__bases__, *_types_in_fields(found)])
            for method in functions_of(found):
                for name, value in given(method).items():
                    self._put_value(f"<given>/{method.__qualname__}/{name}", value)
            self._put(f"<class>/{found.__qualname__}", self._members(found))
        return True

    def _put(self, key: str, text: str) -> None:
        """Two lambda functions may share a name, and both count."""
        texts = {*self.sources[key].split("\0"), text} if key in self.sources else {text}
        self.sources[key] = "\0".join(sorted(texts))

    def _put_value(self, key: str, value: Any) -> None:
        told = told_apart(value)
        self.take(told.code)
        if told.text is not None:
            self.sources[key] = told.text

    def _members(self, found: type) -> str:
        """The attributes of a class, which may have been set since: not its methods, whose source counts."""
        members: dict[str, Any] = {}
        for name, value in vars(found).items():
            if not name.startswith("__") and not hasattr(type(value), "__get__"):
                told = told_apart(value)
                self.take(told.code)
                if told.text is not None:
                    members[name] = value if is_plain(value) else told.text
        return written(members)


def _function_cells(found: FunctionType) -> list[str]:
    """The source of a function, and of the functions of cells that wrap it.

    Raises:
        OSError: it has none.
    """
    own = [one.__code__ for one in wrapped(found)]
    own = [code for code in own if not is_installed(Path(code.co_filename))]
    return [textwrap.dedent(inspect.getsource(code)) for code in own]


def _class_cells(found: type) -> list[str]:
    """The cell that defines a class, which Python itself finds for functions alone: that of its methods, or else the newest one.

    Where several define one of this name and it has no methods, what tells it apart is added.

    Raises:
        OSError: no cell does.
    """
    defining: dict[str, str] = {}
    for entry in [entry for entry in list(linecache.cache.values()) if len(entry) == 4]:
        if f"class {found.__name__}" in (text := "".join(entry[2])):
            with contextlib.suppress(SyntaxError):  # a cell with a magic command
                if (source := _class_within(text, found.__qualname__)) is not None:
                    defining[entry[3]] = source
    if not defining:
        raise OSError(f"no source of {found.__qualname__}")
    for file in (one.__code__.co_filename for one in functions_of(found)):
        if file in defining:
            return [defining[file]]
    newest = list(defining.values())[-1]
    if len(set(defining.values())) == 1:
        return [newest]
    fields = getattr(found, "model_fields", None) or vars(found).get("__annotations__", {})
    return [newest, f"# {re.sub(' at 0x[0-9a-fA-F]+', '', repr(fields))!r}"]


def _class_within(cell: str, qualname: str) -> str | None:
    """The source of a class in that of a cell, decorators and all; None where it defines none of this name. Raises SyntaxError."""
    body: list[ast.stmt] = ast.parse(cell).body
    found: ast.ClassDef | None = None
    for part in qualname.split("."):
        if part != "<locals>":
            inner = [
                node for one in body for node in ast.walk(one) if isinstance(node, _DEFINING) and node.name == part
            ]
            if not inner:
                return None
            body, found = inner[-1].body, inner[-1] if isinstance(inner[-1], ast.ClassDef) else None
    if found is None:
        return None
    first = min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)])
    return textwrap.dedent("\n".join(cell.split("\n")[first - 1 : found.end_lineno]))


def _types_in_fields(found: type) -> Iterator[type]:
    """The classes that the fields of a model are of, which its source may name as texts."""
    fields: Any = getattr(found, "__pydantic_fields__", None)
    waiting = [field.annotation for field in fields.values()] if isinstance(fields, dict) else []
    while waiting:
        one = waiting.pop()
        waiting += get_args(one)
        if isinstance(one, type):
            yield one


__all__ = ["cells"]
