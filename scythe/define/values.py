"""Plain values that code reads: of cells, of the functions that made a function, and of modules where they are others than their files say.

Imports nothing, changes nothing.
"""

from __future__ import annotations

import ast
import contextlib
import datetime as dt
import dis
import hashlib
import inspect
import itertools
import pickle
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeGuard

from scythe.define.loaded import is_edited
from scythe.define.modules import NOT_THE_PROJECTS, is_installed

#: So many characters of a value are told of.
_SHOWN = 80
_PLAIN = (bool, int, float, complex, str, bytes, Decimal, dt.date, dt.time, dt.timedelta, Enum)
#: The methods by which a function notes something in a collection.
NOTING = frozenset({"append", "extend", "insert", "add", "update", "setdefault", "pop", "remove", "discard", "clear"})


@dataclass(frozen=True)
class Noted:
    """What some code changes in place: sets members or attributes of, or calls a method of that notes something in it."""

    #: The names that lead there, as `log` of `log.rows[0] = 1`.
    names: frozenset[str] = frozenset()
    #: The attributes on the way, as `rows`.
    attributes: frozenset[str] = frozenset()


@lru_cache(maxsize=512)
def noted_in(source: str) -> Noted:
    """What a source changes in place; nothing where it is no source."""
    names, attributes = set[str](), set[str]()
    try:
        tree = ast.parse(
            f"if True:\n{source}" if source[:1].isspace() else source
        )  # a method's, texts within left alone
    except (SyntaxError, ValueError):  # the line of a lambda function, say
        return Noted()
    for node in ast.walk(tree):
        within: ast.expr | None = None
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            within = node if isinstance(node, ast.Attribute) else node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in NOTING:
            within = node.func.value
        way = set[str]()
        while isinstance(within, ast.Subscript | ast.Attribute):
            way |= {within.attr} if isinstance(within, ast.Attribute) else set()
            within = within.value
        if isinstance(within, ast.Name):
            names.add(within.id)
            attributes |= way
    return Noted(frozenset(names), frozenset(attributes))


def constants(code: Iterable[CodeType], noted: Noted) -> set[str]:
    """The names of other cells that some code reads, and keeps as they are: not those of what it notes something in."""
    steps = itertools.chain.from_iterable(map(dis.get_instructions, code))
    return {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")} - noted.names


def enclosed(target: Callable[..., Any]) -> dict[str, str]:
    """The plain values that a function has from the function that made it, by their names."""
    function = inspect.unwrap(target)
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    found: dict[str, str] = {}
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            if is_plain(cell.cell_contents, (tuple, frozenset)):  # a list may be what it notes its calls in
                found[f"<enclosed>/{name}"] = written(cell.cell_contents)
    return found


def is_plain(value: Any, collections: tuple[type, ...] = (list, tuple, set, frozenset, dict), depth: int = 8) -> bool:
    """Whether a value is one that is written alike in every process: numbers, texts, dates, and collections of them."""
    if isinstance(value, collections) and depth:
        members = [*value, *value.values()] if isinstance(value, dict) else value
        return all(is_plain(member, collections, depth - 1) for member in members)
    return value is None or isinstance(value, _PLAIN)


def told_apart(value: Any) -> str | None:
    """What tells a value from another one of the same name; None where nothing does: of a lock, a connection."""
    if is_plain(value):
        return written(value)
    if isinstance(value, partial):
        parts = [told_apart(part) for part in (value.args, value.keywords)]
        return f"partial {getattr(value.func, '__qualname__', value.func)} {parts}" if None not in parts else None
    inner = getattr(value, "__dict__", None)
    if isinstance(inner, dict) and inner and _is_its_attributes(type(value)) and is_plain(inner):
        return f"{type(value).__qualname__} {written(inner)}"
    try:
        return f"{type(value).__qualname__} {hashlib.sha256(pickle.dumps(value, protocol=5)).hexdigest()}"
    except Exception:  # noqa: BLE001 - whatever a class of the user's does
        return None


def _is_its_attributes(of: type) -> bool:
    """Whether the instances of a class hold nothing beside their attributes: not those of a collection, an array, a method, a tensor."""
    plain = of.__reduce_ex__ is object.__reduce_ex__ and of.__reduce__ is object.__reduce__
    return (
        plain and not hasattr(of, "__slots__") and not issubclass(of, (dict, list, tuple, set, frozenset, *_PLAIN[:-1]))
    )


def written(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{written(k)}: {written(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple | set | frozenset):
        texts = map(written, value)
        return f"{type(value).__name__}({', '.join(texts if isinstance(value, list | tuple) else sorted(texts))})"
    return repr(value)


# --- of modules -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Changed:
    """A plain value of a module that is another than the module's file says: it was set after the module was loaded."""

    module: str
    name: str
    now: Any
    in_file: Any

    def __str__(self) -> str:
        now, in_file = (textwrap.shorten(repr(value), _SHOWN, placeholder=" …") for value in (self.now, self.in_file))
        return f"{self.module}.{self.name} is {now} here, and {in_file} in its file"


def changed_values(first: Iterable[Any]) -> list[Changed]:
    """The values of the project's modules that some functions and classes read, and that were set after the modules were loaded.

    Those alone that their files write out, once; of a file that was changed since, none. What the functions themselves set, or note
    something in, does not count.
    """
    read, stored = _reach(first)
    found: list[Changed] = []
    for module, name in sorted(read - stored):
        held = vars(sys.modules[module])
        literals = _literals_of(sys.modules[module])
        if name in literals and name in held and is_plain(held[name]):
            now, in_file = held[name], literals[name]
            if type(now) is not type(in_file) or written(now) != written(in_file):
                found.append(Changed(module, name, now, in_file))
    return found


def _reach(first: Iterable[Any]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """The names, each with its module, that some functions and classes, and those which they call, read as they are; and that they set."""
    waiting, known = list(first), set[int]()
    read: set[tuple[str, str]] = set()
    stored: set[tuple[str, str]] = set()
    while waiting:
        found = inspect.unwrap(waiting.pop())
        if id(found) in known:
            continue
        known.add(id(found))
        if isinstance(found, type):
            waiting += _functions_of(found)
        elif isinstance(found, FunctionType):
            own, code = found.__globals__, _blocks(found.__code__)
            module = str(own.get("__name__"))
            noted = noted_in(_source_of(found.__code__))
            kept = constants(code, noted)
            used = {name for block in code for name in block.co_names}
            for block in code:
                stored |= {(module, s.argval) for s in dis.get_instructions(block) if s.opname == "STORE_GLOBAL"}
            modules = [value for name in used if _is_own_module(value := own.get(name))]
            for one in modules:
                for attribute in used & vars(one).keys():
                    inner = vars(one)[attribute]
                    if _is_code(inner):
                        waiting.append(inner)
                    elif _is_own_module(inner) and inner not in modules:
                        modules.append(inner)
                    elif attribute not in noted.attributes:
                        read.add((one.__name__, attribute))
            waiting += [value for name in used if _is_code(value := own.get(name))]
            if _is_own(module):
                read |= {(module, name) for name in kept & own.keys()}
    return read, stored


@lru_cache(maxsize=512)
def _source_of(code: CodeType) -> str:
    """The source of a function, as it was when it was first asked for; empty where there is none."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError, IndexError, SyntaxError):  # its file is gone, or another
        return ""


def _blocks(code: CodeType) -> list[CodeType]:
    """The code of a function, and that within it."""
    found = [code]
    for block in found:
        found += [inner for inner in block.co_consts if isinstance(inner, CodeType)]
    return found


def _functions_of(found: type) -> Iterator[Any]:
    for member in vars(found).values():
        inner = (
            getattr(member, "__func__", None)
            or getattr(member, "fget", None)
            or getattr(member, "func", None)
            or member
        )
        if isinstance(inner, FunctionType):
            yield inner


def _is_code(value: Any) -> bool:
    """Whether it is a function or a class of the project."""
    if not isinstance(value, FunctionType | type):
        return False
    return value.__module__ == "__main__" or _is_own(value.__module__)


def _is_own_module(value: Any) -> TypeGuard[ModuleType]:
    return isinstance(value, ModuleType) and _is_own(value.__name__)


def _is_own(name: str) -> bool:
    """Whether a module that is loaded is a source file of the project."""
    if name.split(".", maxsplit=1)[0] in NOT_THE_PROJECTS:
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(file, str) and file.endswith(".py") and not is_installed(Path(file))


def _literals_of(module: ModuleType) -> dict[str, Any]:
    """What a module's file writes out for its names; nothing where the file was changed since it was loaded."""
    file = Path(str(module.__file__))
    if is_edited(module.__name__, file):
        return {}
    try:
        return _literals(file.read_text())
    except (OSError, UnicodeDecodeError, SyntaxError, SystemError):
        return {}


@lru_cache(maxsize=64)
def _literals(source: str) -> dict[str, Any]:
    """The names that a source gives one value at its top, written out, and never another one while it is loaded; raises SyntaxError."""
    tree = ast.parse(source)
    bound = Counter(_bound(tree))
    setting: dict[str, set[str]] = {
        one.name: {name for node in ast.walk(one) if isinstance(node, ast.Global) for name in node.names}
        for one in tree.body
        if isinstance(one, ast.FunctionDef)
    }
    called = {
        node.id
        for one in tree.body
        if not isinstance(one, ast.FunctionDef | ast.ClassDef)
        for node in ast.walk(one)
        if isinstance(node, ast.Name)
    }
    set_by_calls = {name for function, names in setting.items() if function in called for name in names}
    found: dict[str, Any] = {}
    for one in tree.body:
        targets = one.targets if isinstance(one, ast.Assign) else [one.target] if isinstance(one, ast.AnnAssign) else []
        value = getattr(one, "value", None)
        if (
            len(targets) == 1
            and isinstance(target := targets[0], ast.Name)
            and value is not None
            and bound[target.id] == 1
        ):
            with contextlib.suppress(ValueError, TypeError):
                literal = ast.literal_eval(value)
                is_empty = isinstance(literal, list | set | dict) and not literal  # in which something is to be noted
                if target.id not in set_by_calls and not is_empty:
                    found[target.id] = literal
    return found


def _bound(tree: ast.Module) -> Iterator[str]:
    """The names that a module binds, as often as it does, but within functions and classes."""
    waiting: list[ast.AST] = [*tree.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]
        elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(
            node.ctx, ast.Load
        ):  # of a literal: it is changed
            inner = node.value
            if isinstance(inner, ast.Name):
                yield inner.id
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            yield node.func.value.id  # a method may change it
        waiting += ast.iter_child_nodes(node)


__all__ = ["Changed", "changed_values", "constants", "enclosed", "is_plain", "noted_in", "told_apart", "written"]
