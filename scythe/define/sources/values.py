"""What code reads beside its source: plain values, and objects of any kind, told apart by a text that equal ones share in every process.

Imports nothing, changes nothing.
"""

from __future__ import annotations

import ast
import datetime as dt
import dis
import hashlib
import inspect
import io
import itertools
import pickle
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import cached_property, lru_cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from scythe.define.sources.modules import LOADED_SCRIPT, SCRIPTS, is_own

_BARE = frozenset({type(None), bool, int, float, complex, str, bytes})
_PLAIN = (bool, int, float, complex, str, bytes, Decimal, dt.date, dt.time, dt.timedelta, Enum)
#: The methods by which a function notes something in a collection.
NOTING = frozenset({"append", "extend", "insert", "add", "update", "setdefault", "pop", "remove", "discard", "clear"})
#: So deep are objects within objects looked at.
_DEEP = 20
#: Of more members, no two are told apart by the sources of their functions.
_MANY = 10_000


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
    also = _other_names(tree)
    for node in ast.walk(tree):
        within: ast.expr | None = None
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            within = node if isinstance(node, ast.Attribute) else node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in NOTING:
            within = node.func.value
        root, way = _root(within)
        attributes |= way
        if root is not None:
            names |= {root, *also.get(root, ())}
    return Noted(frozenset(names), frozenset(attributes))


def _root(node: ast.expr | None) -> tuple[str | None, set[str]]:
    """The name at which an expression begins, as `log` of `log.rows[0]`, and the attributes on the way."""
    way = set[str]()
    while isinstance(node, ast.Subscript | ast.Attribute):
        way |= {node.attr} if isinstance(node, ast.Attribute) else set()
        node = node.value
    return (node.id if isinstance(node, ast.Name) else None), way


def _other_names(tree: ast.AST) -> dict[str, set[str]]:
    """The names by which a name is known besides: `cache` is one of `_CACHE` after `cache = _CACHE`."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and (root := _root(node.value)[0]) is not None:
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, set()).add(root)
    return found


def constants(code: Iterable[CodeType], noted: Noted) -> set[str]:
    """The names of other cells that some code reads, and keeps as they are: not those of what it notes something in."""
    steps = itertools.chain.from_iterable(map(dis.get_instructions, code))
    return {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")} - noted.names


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
        if kinds <= _BARE:
            return True
        others = {kind for kind in kinds if kind not in _BARE and kind not in collections}
        if not all(issubclass(kind, _PLAIN) and not issubclass(kind, Enum) for kind in others):
            return False
        return all(is_plain(member, collections, depth - 1) for member in members if type(member) in collections)
    if isinstance(value, Enum):
        return is_plain(value.value, collections, depth - 1)
    return value is None or isinstance(value, _PLAIN)


def written(value: Any) -> str:
    """A plain value as a text that equal ones share in every process."""
    if isinstance(value, dict):
        if set(map(type, value)) | set(map(type, value.values())) <= _BARE:
            return f"{{{', '.join([f'{k!r}: {v!r}' for k, v in value.items()])}}}"
        return f"{{{', '.join([f'{written(k)}: {written(v)}' for k, v in value.items()])}}}"
    if isinstance(value, list | tuple | set | frozenset):
        texts = map(repr if set(map(type, value)) <= _BARE else written, value)
        return f"{type(value).__name__}({', '.join(texts if isinstance(value, list | tuple) else sorted(texts))})"
    return repr(value)


# --- what a function was given when it was made -------------------------------------------------------


def enclosed(target: Callable[..., Any]) -> dict[str, str]:
    """The values that a function has from the function that made it, and as defaults that its source does not write out."""
    found = {f"<enclosed>/{name}": told_apart(value).text for name, value in given(target).items()}
    return {name: text for name, text in found.items() if text is not None}


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
        if held:
            source = source_of(code)
            changed = noted_in(source).names | _literal_defaults(source)
            changed |= {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_DEREF"}
            found = {name: value for name, value in held.items() if name not in changed} | found
        found |= {f".{name}": value for name, value in vars(one).items() if name not in _OF_WRAPPERS}
    return found


#: Attributes that say nothing of a function, or its wrapper's part in it; the last ones are of `Register`.
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


# --- objects ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """What tells a value from another one of the same name."""

    #: None where nothing does: of a lock, a connection.
    text: str | None
    #: The functions, classes and modules in it, whose sources tell as well.
    code: tuple[Any, ...] = ()


def told_apart(value: Any) -> Told:
    """What tells a value from another one of the same name, and the functions, classes and modules in it, however deep."""
    telling = _Telling()
    text = telling.text(value)
    telling.code.setdefault(id(type(value)), type(value))
    return Told(text, tuple(telling.code.values()))


class _Telling:
    """Writes an object as a text, a part at a time."""

    def __init__(self) -> None:
        #: By their identity: the functions, classes and modules that were met.
        self.code: dict[int, Any] = {}
        self._deep = 0
        self._within: set[int] = set()

    def text(self, value: Any) -> str | None:
        """A text that equal values share; None where there is none."""
        if is_plain(value) and not isinstance(value, Enum):
            return written(value)
        if self._deep > _DEEP or id(value) in self._within:
            return type(value).__qualname__
        self._deep += 1
        self._within.add(id(value))
        try:
            return self._text(value)
        finally:
            self._deep -= 1
            self._within.discard(id(value))

    def _text(self, value: Any) -> str | None:
        if isinstance(value, ModuleType | type):
            self.code[id(value)] = value
            return f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', value.__name__)}"
        self.code.setdefault(id(type(value)), type(value))
        if isinstance(value, Enum):
            return f"{type(value).__qualname__}.{value.name} {self.text(value.value)}"
        if (parts := _attributes_of(value)) is not None:
            return self._attributes(type(value), parts)
        if _is_tensor(value):
            return _tensor(value)
        if functions := wrapped(value):
            return self._function(functions)
        if isinstance(value, partial):
            return f"partial {self._all([value.func, value.args, value.keywords])}"
        if isinstance(value, MethodType):
            return f"method {self._all([value.__func__, value.__self__])}"
        if type(value) in _COLLECTIONS and len(value) <= _MANY:
            if isinstance(value, dict):
                return f"{{{', '.join(f'{self._all([k])}: {self._all([v])}' for k, v in value.items())}}}"
            texts = self._all(value)
            return f"{type(value).__name__} {texts if isinstance(value, list | tuple) else sorted(texts)}"
        if type(value) in _COLLECTIONS:
            for kind in set(map(type, value.values() if isinstance(value, dict) else value)):
                self.code.setdefault(id(kind), kind)
            return _hashed(value, lambda target: pickle.dump(value, target, protocol=5))
        return _hashed(value, lambda target: _Pickler(target, self).dump(value))

    def _all(self, values: Iterable[Any]) -> list[str]:
        """Of each its text; of what has none, such as a lock, what it is."""
        return [self.text(value) or type(value).__qualname__ for value in values]

    def _function(self, functions: list[FunctionType]) -> str:
        self.code |= {id(one): one for one in functions}
        told = {name: self.text(value) for name, value in given(functions[0]).items()}
        last = functions[-1]
        code = last.__code__
        inner = [code.co_code.hex(), code.co_names, [one for one in code.co_consts if is_plain(one)]]
        which = written(inner) if "<lambda>" in last.__qualname__ else ""  # a line may define several
        return f"{last.__module__} {last.__qualname__} {written(told)} {which}"

    def _attributes(self, of: type, values: Mapping[str, Any]) -> str:
        """Of an object that is its attributes: what no process shares, such as a lock, is left out."""
        told = {name: text for name, value in values.items() if (text := self.text(value)) is not None}
        return f"{of.__qualname__} {written(told)}"


def _is_tensor(value: Any) -> bool:
    """Whether it is one of PyTorch's, whose pickles name the address of its memory."""
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "untyped_storage")


def _tensor(value: Any) -> str | None:
    try:
        held = value.detach().cpu()
        array = (held.double() if str(held.dtype) == "torch.bfloat16" else held).numpy()
    except Exception:  # noqa: BLE001 - of a type that NumPy has not, or without values
        return None
    return f"{type(value).__qualname__} {value.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def _hashed(value: Any, write: Callable[[io.BytesIO], None]) -> str | None:
    target = io.BytesIO()
    try:
        write(target)
    except Exception:  # noqa: BLE001 - whatever a class of the user's does
        return None
    return f"{type(value).__qualname__} {hashlib.sha256(target.getbuffer()).hexdigest()}"


_COLLECTIONS = (list, tuple, set, frozenset, dict)


class _Pickler(pickle.Pickler):
    """Writes functions and classes by what tells them, sets in one order, and objects by their attributes."""

    def __init__(self, target: io.BytesIO, telling: _Telling) -> None:
        super().__init__(target, protocol=5)
        self._telling, self._first = telling, True

    def persistent_id(self, obj: Any) -> Any:
        first, self._first = self._first, False
        if first:
            return None
        if isinstance(obj, ModuleType | type | Enum | set | frozenset | partial | MethodType):
            return self._told(obj)
        if _is_tensor(obj) or wrapped(obj):
            return self._told(obj)
        return None

    def reducer_override(self, obj: Any) -> Any:
        return NotImplemented if _attributes_of(obj) is None else (str, (self._told(obj),))

    def _told(self, obj: Any) -> str:
        text = self._telling.text(obj)
        if text is None:
            raise pickle.PicklingError(f"nothing tells a {type(obj).__qualname__}")
        return text


def _attributes_of(value: Any) -> dict[str, Any] | None:
    """The attributes of an object that holds nothing beside them; None of a collection, an array, and what is not the project's.

    What a `functools.cached_property` keeps is none.
    """
    of = type(value)
    if of is SimpleNamespace:
        return vars(value)
    if not (of.__module__ in SCRIPTS or of.__module__.startswith(LOADED_SCRIPT) or is_own(of.__module__)):
        return None  # which may hold connections, caches and what not
    plain = of.__reduce_ex__ is object.__reduce_ex__ and of.__reduce__ is object.__reduce__
    bases = of.__mro__[:-1]
    if not plain or issubclass(of, (*_COLLECTIONS, *_PLAIN)):
        return None
    if any("__getstate__" in vars(base) and "__slots__" not in vars(base) for base in bases):
        return None
    names = [name for base in bases for name in _slots(base)]
    found = {name: getattr(value, name) for name in names if name != "__dict__" and hasattr(value, name)}
    found |= getattr(value, "__dict__", None) or {}
    return {name: held for name, held in found.items() if not isinstance(getattr(of, name, None), cached_property)}


def _slots(of: type) -> Iterable[str]:
    found = vars(of).get("__slots__", ())
    return (found,) if isinstance(found, str) else found


__all__ = [
    "Noted",
    "Told",
    "constants",
    "enclosed",
    "functions_of",
    "given",
    "is_plain",
    "noted_in",
    "source_of",
    "told_apart",
    "wrapped",
    "written",
]
