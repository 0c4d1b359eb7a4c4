"""What the source of a module says of its names: which it binds once, and to which constants. Runs nothing."""

from __future__ import annotations

import ast
import contextlib
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(frozen=True)
class Bindings:
    """What the source of a module says of its names."""

    #: What it writes out for those that it gives one value, at its top, and never another one while it is loaded.
    literals: Mapping[str, Any]
    #: How often it binds each, more than once in a loop, in the part that a program alone runs, and in functions.
    bound: Counter[str]
    #: How often it may change the value of each by a method.
    touched: Counter[str]
    #: The same of what its functions and classes do when they are called, by their names.
    within: Mapping[str, Counter[str]]


@lru_cache(maxsize=64)
def bindings_of(source: str, *, is_script: bool) -> Bindings:
    """What a source says of the names of its module; raises SyntaxError."""
    tree = ast.parse(source)
    bound, touched = Counter[str](), Counter[str]()
    for name, times, is_touched in _bindings(tree):
        (touched if is_touched else bound)[name] += times
    within = (
        {one.name: Counter(_bound_within(one)) for one in tree.body if isinstance(one, _WITHIN)} if is_script else {}
    )
    found: dict[str, Any] = {}
    _add_literals(tree.body, found, "", lambda name: bound[name] == 1 and not touched[name])
    for one in tree.body:
        if isinstance(one, ast.ClassDef):
            _add_literals(one.body, found, f"{one.name}.", lambda _: True)
    return Bindings(found, bound, touched, within)


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


#: Methods that are known to leave a value as it is.
_LOOKING = frozenset({
    "get", "keys", "values", "items", "copy", "index", "count", "format", "join", "split", "strip", "lower", "upper", "startswith", "endswith",
    "eval", "head", "tail", "mean", "sum", "min", "max", "std", "var", "describe", "select", "filter", "to_numpy", "to_list", "tolist", "to_dict",
    "allocate", "result", "read", "exists", "read_text", "resolve", "debug", "info", "warning", "error", "parse_args", "add_argument", "astype",
})  # fmt: skip
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_WITHIN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _bindings(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """The names that a module binds: each with how often, and whether it is but a method of its value that is called.

    Twice stands for what is bound in a loop, below `if __name__ == "__main__":`, and by a function that says `global`, if that is
    called while the module is loaded.
    """
    called = {
        node.id
        for one in tree.body
        if not isinstance(one, _WITHIN) and not (isinstance(one, ast.If) and is_guard(one.test))
        for node in ast.walk(one)
        if isinstance(node, ast.Name)
    }
    yield from _bindings_of(tree.body, 1, called)


def _bindings_of(nodes: Iterable[ast.AST], times: int, called: Set[str]) -> Iterator[tuple[str, int, bool]]:
    for node in nodes:
        inner, often = ast.iter_child_nodes(node), times
        if isinstance(node, _WITHIN):
            yield node.name, times, False
            if isinstance(node, ast.ClassDef) or node.name in called:
                for one in ast.walk(node):
                    yield from ((name, 2, False) for name in (one.names if isinstance(one, ast.Global) else ()))
            continue
        if isinstance(node, _LOOPS) or (isinstance(node, ast.If) and is_guard(node.test)):
            often = 2
        elif isinstance(node, ast.If | ast.Try):  # of its branches one is taken
            most = Counter[tuple[str, bool]]()
            for branch in _branches(node):
                found = Counter[tuple[str, bool]]()
                for name, more, is_touched in _bindings_of(branch, times, called):
                    found[name, is_touched] += more
                most |= found
            yield from ((name, number, is_touched) for (name, is_touched), number in most.items())
            continue
        yield from ((name, often, is_touched) for name, is_touched in _bound_by(node))
        yield from _bindings_of(inner, often, called)


def _branches(node: ast.If | ast.Try) -> list[list[ast.stmt]]:
    """The statements of each branch, of which one runs; the condition binds nothing as a rule."""
    if isinstance(node, ast.If):
        return [node.body, node.orelse]
    return [
        [*node.body, *node.orelse, *node.finalbody],
        *([*handler.body, *node.finalbody] for handler in node.handlers),
    ]


def _bound_by(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """The names that one node binds, or whose value it changes; and whether it is but a method of the value that is called."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id, False
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).split(".")[0], False
    elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        name, path = _path_of(node)
        if name:  # of a literal: it is changed
            yield name, False
        if path:
            yield path, False
    elif isinstance(node, ast.Call):
        changed = node.func.value if isinstance(node.func, ast.Attribute) and node.func.attr not in _LOOKING else None
        if isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr") and node.args:
            changed = node.args[0]
        if changed is not None and (name := _path_of(changed)[0]):
            yield name, True  # a method may change it


def _path_of(node: ast.expr) -> tuple[str, str]:
    """The name at which an expression begins, and the whole of it where it is of names alone, as `Model.k`; empty where there is none."""
    parts: list[str] = []
    is_path = True
    while isinstance(node, ast.Attribute | ast.Subscript):
        parts.insert(0, node.attr if isinstance(node, ast.Attribute) else "")
        is_path = is_path and isinstance(node, ast.Attribute)
        node = node.value
    if not isinstance(node, ast.Name):
        return "", ""
    return node.id, ".".join([node.id, *parts]) if is_path and parts else ""


def _bound_within(function: ast.AST) -> Iterator[str]:
    """The names of the module that a function binds by `global`, or whose values it may change in part."""
    nodes = list(ast.walk(function))
    shared = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)} - shared
    yield from shared
    for node in nodes:
        if not isinstance(node, ast.Name | ast.alias):
            yield from (name for name, _ in _bound_by(node) if name.split(".")[0] not in own)


def is_guard(test: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(test))


__all__ = ["Bindings", "bindings_of", "is_guard"]
