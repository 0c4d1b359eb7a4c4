"""What code reads beside its source: plain values, what a function was given when it was made, and what it changes itself.

Imports nothing, changes nothing.
"""

from __future__ import annotations

import ast
import datetime as dt
import dis
import inspect
import itertools
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

BARE = frozenset({type(None), bool, int, float, complex, str, bytes})
PLAIN = (bool, int, float, complex, str, bytes, Decimal, dt.date, dt.time, dt.timedelta, Enum)
#: The methods by which a function notes something in a collection.
NOTING = frozenset({
    "append", "extend", "insert", "add", "update", "setdefault", "pop", "remove", "discard", "clear", "__setitem__", "__delitem__",
})  # fmt: skip


@dataclass(frozen=True)
class Noted:
    """What some code changes in place: sets members or attributes of, or calls a method of that notes something in it."""

    #: The names that lead there, as `log` of `log.rows[0] = 1`.
    names: frozenset[str] = frozenset()
    #: The names and attributes on the way, as `log, rows`, the first empty where it is no name, and `Log()` where it was made by that;
    #: and whether the last one is set, rather than something in what it is.
    ways: frozenset[tuple[tuple[str, ...], bool]] = frozenset()


@lru_cache(maxsize=512)
def noted_in(source: str) -> Noted:
    """What a source changes in place; nothing where it is no source."""
    try:
        tree = ast.parse(
            f"if True:\n{source}" if source[:1].isspace() else source
        )  # a method's, texts within left alone
    except (SyntaxError, ValueError):  # the line of a lambda function, say
        return Noted()
    return noted_within(tree)


def noted_within(tree: ast.AST) -> Noted:
    """What the code of a tree changes in place."""
    names, ways = set[str](), set[tuple[tuple[str, ...], bool]]()
    also = _other_names(tree)
    for node in ast.walk(tree):
        within: ast.expr | None = None
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            within = node if isinstance(node, ast.Attribute) else node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in NOTING:
            within = node.func.value
        if within is not None:
            way = _way(within)
            names.add(way[0])
            if way[0] in also:
                other, is_made = also[way[0]]
                names |= set() if is_made else {other[0]}
                way = (*other[:-1], f"{other[-1]}()" if is_made else other[-1], *way[1:])
            ways.add((way, within is node))
    return Noted(frozenset(names - {""}), frozenset(ways))


def _way(node: ast.expr) -> tuple[str, ...]:
    """The name at which an expression begins, empty where it is none, and the attributes on the way: `log, rows` of `log.rows[0]`."""
    way: list[str] = []
    while True:
        match node:
            case ast.Attribute(value=inner, attr=attribute):
                way.append(attribute)
            case ast.Subscript(value=inner):
                pass
            case ast.Call(func=ast.Name(id="type"), args=[inner]):
                way.append("__class__")
            case _:
                break
        node = inner
    return (node.id if isinstance(node, ast.Name) else "", *reversed(way))


def _other_names(tree: ast.AST) -> dict[str, tuple[tuple[str, ...], bool]]:
    """The way to what a name is besides: of `cache` to `_CACHE` after `cache = _CACHE`; and whether it was made by that, as by a class.

    Those alone that are bound to nothing else anywhere: after `state = X0; state = state.copy()` it may be another thing.
    """
    bound: dict[str, list[tuple[tuple[str, ...], bool]]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=ast.expr() as value):
                pass
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                targets = [target]
            case ast.arg(arg=name):
                bound.setdefault(name, []).append((("",), False))
                continue
            case _:
                continue
        is_made = isinstance(value, ast.Call)
        way = _way(value.func if isinstance(value, ast.Call) else value)
        for target in targets:
            if isinstance(target, ast.Name):
                bound.setdefault(target.id, []).append((way, is_made))
    stores = Counter(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    return {
        name: ways[0]
        for name, ways in bound.items()
        if {*ways} == {ways[0]} and stores[name] == len(ways) and ways[0][0][0] not in ("", name)
    }


def constants(code: Iterable[CodeType], noted: Noted) -> set[str]:
    """The names of other cells that some code reads, and keeps as they are: not those of what it notes something in."""
    blocks = [*code]
    steps = itertools.chain.from_iterable(map(dis.get_instructions, blocks))
    loaded = {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return (loaded | set[str]().union(*map(named_by_text, blocks))) - noted.names


#: What gives a name that is written out as a text.
_BY_TEXT = frozenset({"globals", "vars", "getattr", "attrgetter", "__dict__"})


def named_by_text(code: CodeType) -> set[str]:
    """The names that code may ask for by a text: `globals()["K"]`, `getattr(sim, "K")`; more than it does."""
    if _BY_TEXT.isdisjoint(code.co_names):
        return set()
    texts = (
        text for one in code.co_consts for text in (one if isinstance(one, tuple) else (one,)) if isinstance(text, str)
    )
    return {part for text in texts for part in text.split(".") if part.isidentifier()}


@lru_cache(maxsize=512)
def source_of(code: CodeType) -> str:
    """The source of a function, as it was when it was first asked for; empty where there is none."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError, IndexError, SyntaxError):  # its file is gone, or another
        return ""


def is_plain(value: Any, collections: tuple[type, ...] = (list, tuple, set, frozenset, dict), depth: int = 8) -> bool:
    """Whether a value is one that is written alike in every process: numbers, texts, dates, and collections of them.

    A subclass of a collection may hold more than its members: it is none.
    """
    if type(value) in collections and depth:
        members = [*value, *value.values()] if type(value) is dict else value
        kinds = set(map(type, members))
        if kinds <= BARE:
            return True
        others = {kind for kind in kinds if kind not in BARE and kind not in collections}
        if not all(issubclass(kind, PLAIN) and not issubclass(kind, Enum) for kind in others):
            return False
        return all(is_plain(member, collections, depth - 1) for member in members if type(member) in collections)
    if isinstance(value, Enum):
        return is_plain(value.value, collections, depth - 1)
    return value is None or isinstance(value, PLAIN)


def written(value: Any) -> str:
    """A plain value as a text that equal ones share in every process."""
    if isinstance(value, dict):
        if set(map(type, value)) | set(map(type, value.values())) <= BARE:
            return f"{{{', '.join([f'{k!r}: {v!r}' for k, v in value.items()])}}}"
        return f"{{{', '.join([f'{written(k)}: {written(v)}' for k, v in value.items()])}}}"
    if isinstance(value, list | tuple | set | frozenset):
        texts = map(repr if set(map(type, value)) <= BARE else written, value)
        return f"{type(value).__name__}({', '.join(texts if isinstance(value, list | tuple) else sorted(texts))})"
    return repr(value)


# --- what a function was given when it was made -------------------------------------------------------


def given(function: Any) -> dict[str, Any]:
    """What a function, and those that wrap it, hold beside their sources, by their names; not what they change themselves."""
    found: dict[str, Any] = {}
    for one in wrapped(function):
        code = one.__code__
        cells = dict(_contents(code.co_freevars, one.__closure__ or ()))
        positional = code.co_varnames[: code.co_argcount]
        defaults = dict(
            zip(positional[len(positional) - len(one.__defaults__ or ()) :], one.__defaults__ or (), strict=True)
        )
        held = cells | defaults | (one.__kwdefaults__ or {})
        attributes = vars(one).keys() - _OF_WRAPPERS
        if held or attributes:
            source = source_of(code)
            noted = noted_in(source)
            changed = noted.names | _literal_defaults(source)
            changed |= {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_DEREF"}
            found = {name: value for name, value in held.items() if name not in changed} | found
            own = {way[1] for way, _ in noted.ways if len(way) > 1 and way[0] in (one.__name__, code.co_name)}
            found |= {f".{name}": vars(one)[name] for name in sorted(attributes - own)}
    return found


#: Attributes that say nothing of a function beside its source.
_OF_WRAPPERS = frozenset({"__wrapped__", "__annotations__", "__doc__", "__isabstractmethod__"})


def wrapped(function: Any) -> list[FunctionType]:
    """A function, and those that it wraps as `functools.wraps` says, its own first; none where it is something else."""
    found: list[FunctionType] = []
    known = set[int]()
    while function is not None and id(function) not in known and not isinstance(function, type | ModuleType):
        known.add(id(function))
        if isinstance(function, FunctionType):
            found.append(function)
        function = (getattr(function, "__dict__", None) or {}).get("__wrapped__")
    return found


def functions_of(found: type) -> Iterator[FunctionType]:
    """The methods of a class, and the functions of its properties."""
    for member in vars(found).values():
        inner = (
            getattr(member, "__func__", None)
            or getattr(member, "fget", None)
            or getattr(member, "func", None)
            or member
        )
        if isinstance(inner, FunctionType):
            yield inner


def _contents(names: Iterable[str], cells: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(names, cells, strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # an empty one
            continue


@lru_cache(maxsize=512)
def _literal_defaults(source: str) -> frozenset[str]:
    """The arguments of the function of a source whose defaults it writes out as literals."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return frozenset()
    first = tree.body[0] if tree.body else None
    if not isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef):
        return frozenset()
    args = [*first.args.posonlyargs, *first.args.args]
    pairs = [*zip(args[len(args) - len(first.args.defaults) :], first.args.defaults, strict=True)]
    pairs += [(arg, value) for arg, value in zip(first.args.kwonlyargs, first.args.kw_defaults, strict=True) if value]
    return frozenset(arg.arg for arg, value in pairs if _is_literal(value))


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


__all__ = [
    "BARE",
    "PLAIN",
    "Noted",
    "constants",
    "functions_of",
    "given",
    "is_plain",
    "named_by_text",
    "noted_in",
    "noted_within",
    "source_of",
    "wrapped",
    "written",
]
