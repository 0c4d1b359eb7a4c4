"""Plain values of modules that are others than their files say: set since the module was loaded, or by a script as it goes on.

Reads source files; changes nothing.
"""

from __future__ import annotations

import ast
import contextlib
import dis
import inspect
import operator
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeGuard

from scythe.define.sources.loaded import is_edited
from scythe.define.sources.modules import SCRIPTS, is_own
from scythe.define.sources.values import constants, functions_of, is_plain, noted_in, source_of, written

#: So many characters of a value are told of.
_SHOWN = 80
_ABSENT = object()


@dataclass(frozen=True)
class Changed:
    """A plain value of a module that is another than the module's file says: it was set after the module was loaded."""

    module: str
    name: str
    now: Any
    #: What the file writes out; None where it is a script that sets it as it goes on.
    in_file: Any = None
    is_of_script: bool = False

    def __str__(self) -> str:
        now, in_file = (textwrap.shorten(repr(value), _SHOWN, placeholder=" …") for value in (self.now, self.in_file))
        if self.is_of_script:
            return f"{self.name} is {now} here, as the script sets it"
        return f"{self.module}.{self.name} is {now} here, and {in_file} in its file"


def changed_values(first: Iterable[Any], *, of_script: bool = False) -> list[Changed]:
    """The values of the project's modules that some functions and classes read, and that were set after the modules were loaded.

    Those alone that their files write out, once; of a file that was changed since, none. What the functions themselves set, or note
    something in, does not count. With `of_script` also those which a script sets as it goes on.
    """
    found: list[Changed] = []
    for module, name, now in _held(first):
        if not is_plain(now):
            continue
        if module.__name__ in SCRIPTS:
            if of_script and _is_set_on(module, name, now):
                found.append(Changed(module.__name__, name, now, is_of_script=True))
            continue
        literals = _read(module).literals
        if name in literals:
            in_file = literals[name]
            if type(now) is not type(in_file) or written(now) != written(in_file):
                found.append(Changed(module.__name__, name, now, in_file))
    return found


def script_values(first: Iterable[Any]) -> dict[str, Any]:
    """What the values are now, by their names, of a script's that some functions and classes read, and that it sets as it goes on.

    That is: more than once, in a loop, below `if __name__ == "__main__":`, within a function, or in a part of the value.
    """
    return {
        name: now for module, name, now in _held(first) if module.__name__ in SCRIPTS and _is_set_on(module, name, now)
    }


def _held(first: Iterable[Any]) -> Iterator[tuple[ModuleType, str, Any]]:
    """The values that some functions and classes, and those which they call, read and leave as they are, with module and name."""
    read, stored = _reach(first)
    for module, name in sorted(read - stored):
        held: Any = sys.modules[module]
        for part in name.split("."):
            held = vars(held).get(part, _ABSENT)
            if held is _ABSENT:
                break
        else:
            yield sys.modules[module], name, held


def _is_set_on(script: ModuleType, name: str, value: Any) -> bool:
    """Whether a script sets a value as it goes on, which is not known from its source alone."""
    if isinstance(value, ModuleType | FunctionType | type):
        return False  # their sources count
    known = _read(script)
    if "." in name and name not in known.literals:
        return False
    if name in known.literals:
        return written(known.literals[name]) != written(value)
    return known.bound[name] != 1 or (is_plain(value) and known.touched[name] > 0)


def _reach(first: Iterable[Any]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """The names, each with its module, that some functions and classes, and those which they call, read as they are; and that they set."""
    waiting, known = list(first), set[int]()
    read: set[tuple[str, str]] = set()
    stored: set[tuple[str, str]] = set()
    attributes = set[str]()
    while waiting:
        found = inspect.unwrap(waiting.pop())
        if id(found) in known:
            continue
        known.add(id(found))
        if isinstance(found, type):
            waiting += functions_of(found)
            waiting += [base for base in found.__bases__ if _is_code(base)]
            if is_own(found.__module__) or _is_script(found.__module__):
                read |= {(found.__module__, f"{found.__qualname__}.{name}") for name in vars(found)}
        elif isinstance(found, FunctionType):
            own, code = found.__globals__, _blocks(found.__code__)
            module = str(own.get("__name__"))
            noted = noted_in(source_of(found.__code__))
            attributes |= noted.attributes
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
            if is_own(module) or _is_script(module):
                read |= {(module, name) for name in kept & own.keys()}
    return {
        (module, name) for module, name in read if name.rpartition(".")[2] not in attributes or "." not in name
    }, stored


def _blocks(code: CodeType) -> list[CodeType]:
    """The code of a function, and that within it."""
    found = [code]
    for block in found:
        found += [inner for inner in block.co_consts if isinstance(inner, CodeType)]
    return found


def _is_code(value: Any) -> bool:
    """Whether it is a function or a class of the project."""
    if not isinstance(value, FunctionType | type):
        return False
    return value.__module__ == "__main__" or is_own(value.__module__)


def _is_own_module(value: Any) -> TypeGuard[ModuleType]:
    return isinstance(value, ModuleType) and is_own(value.__name__)


def _is_script(name: str) -> bool:
    """Whether a module is a script that runs as a program, rather than a notebook."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return name in SCRIPTS and isinstance(file, str) and file.endswith(".py")


@dataclass(frozen=True)
class _Read:
    """What the source of a module says of its names."""

    #: What it writes out for those that it gives one value, at its top, and never another one while it is loaded.
    literals: Mapping[str, Any]
    #: How often it binds each, more than once in a loop, in the part that a program alone runs, and in functions.
    bound: Counter[str]
    #: How often it may change the value of each by a method.
    touched: Counter[str]


_NOTHING = _Read({}, Counter(), Counter())


def _read(module: ModuleType) -> _Read:
    """What a module's file says; nothing where the file was changed since it was loaded."""
    file = Path(str(module.__file__))
    if is_edited(module.__name__, file):
        return _NOTHING
    try:
        return _of_source(file.read_text())
    except (OSError, UnicodeDecodeError, SyntaxError, SystemError):
        return _NOTHING


@lru_cache(maxsize=64)
def _of_source(source: str) -> _Read:
    """What a source says of the names of its module; raises SyntaxError."""
    tree = ast.parse(source)
    bound, touched = Counter[str](), Counter[str]()
    for name, times, is_touched in _bindings(tree):
        (touched if is_touched else bound)[name] += times
    found: dict[str, Any] = {}
    _add_literals(tree.body, found, "", lambda name: bound[name] == 1 and not touched[name])
    for one in tree.body:
        if isinstance(one, ast.ClassDef):
            _add_literals(one.body, found, f"{one.name}.", lambda _: True)
    return _Read(found, bound, touched)


def _add_literals(body: list[ast.stmt], found: dict[str, Any], prefix: str, is_constant: Callable[[str], bool]) -> None:
    for one in body:
        targets = one.targets if isinstance(one, ast.Assign) else [one.target] if isinstance(one, ast.AnnAssign) else []
        value = getattr(one, "value", None)
        if len(targets) == 1 and isinstance(target := targets[0], ast.Name) and value is not None:
            with contextlib.suppress(ValueError, TypeError, ArithmeticError, MemoryError, RecursionError):
                if is_constant(target.id):
                    found[prefix + target.id] = _constant(value, found)


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
#: Larger exponents are none that one writes.
_LARGE = 1000


def _constant(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """The value of an expression of literals and of names that are known, as `24 * 3600.0`.

    Raises:
        ValueError: it is none; TypeError and ArithmeticError: its values do not go together.
    """
    match node:
        case ast.Constant(value):
            return value
        case ast.Name(name) if name in known:
            return known[name]
        case ast.UnaryOp(op, operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_constant(operand, known))
        case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
            sides = [_constant(left, known), _constant(right, known)]
            is_large = isinstance(op, ast.Pow) and not abs(sides[1]) < _LARGE
            if all(isinstance(side, int | float | complex) for side in sides) and not is_large:
                return _OPERATORS[type(op)](*sides)
        case ast.Tuple(elts):
            return tuple(_constant(one, known) for one in elts)
        case ast.List(elts):
            return [_constant(one, known) for one in elts]
        case ast.Set(elts):
            return {_constant(one, known) for one in elts}
        case ast.Dict(keys, values) if None not in keys:
            return {
                _constant(key, known): _constant(value, known)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
        case _:
            pass
    raise ValueError(ast.dump(node))


_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_WITHIN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _bindings(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """The names that a module binds: each with how often, and whether it is but a method of its value that is called.

    Twice stands for what is bound in a loop, below `if __name__ == "__main__":` and by a function that says `global`, if
    that is called while the module is loaded.
    """
    called = {
        node.id
        for one in tree.body
        if not isinstance(one, _WITHIN) and not (isinstance(one, ast.If) and _is_guard(one.test))
        for node in ast.walk(one)
        if isinstance(node, ast.Name)
    }
    waiting: list[tuple[ast.AST, int]] = [(one, 1) for one in tree.body]
    while waiting:
        node, times = waiting.pop()
        if isinstance(node, _WITHIN):
            yield node.name, times, False
            if isinstance(node, ast.ClassDef) or node.name in called:
                for inner in ast.walk(node):
                    yield from ((name, 2, False) for name in (inner.names if isinstance(inner, ast.Global) else ()))
            continue
        if isinstance(node, _LOOPS) or (isinstance(node, ast.If) and _is_guard(node.test)):
            times = 2
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id, times, False
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0], times, False
        elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            inner = node.value
            while isinstance(inner, ast.Attribute | ast.Subscript):
                inner = inner.value
            if isinstance(inner, ast.Name):  # of a literal: it is changed
                yield inner.id, times, False
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            yield node.func.value.id, times, True  # a method may change it
        waiting += [(inner, times) for inner in ast.iter_child_nodes(node)]


def _is_guard(test: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(test))


__all__ = ["Changed", "changed_values", "script_values"]
