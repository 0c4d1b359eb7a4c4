"""Objects of any kind, told apart by a text that equal ones share in every process, and the code that is in them. Runs what pickles them, no more."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from scythe.define.sources.modules import LOADED_SCRIPT, SCRIPTS, Module, find, is_own
from scythe.define.sources.values import PLAIN, given, is_plain, wrapped, written

#: So deep are objects within objects looked at.
_DEEP = 20
#: Of more members, no two are told apart by the sources of their functions.
_MANY = 10_000


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
            return f"{_home(getattr(value, '__module__', ''))} {getattr(value, '__qualname__', value.__name__)}"
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
        return f"{_home(last.__module__)} {last.__qualname__} {written(told)} {which}"

    def _attributes(self, of: type, values: Mapping[str, Any]) -> str:
        """Of an object that is its attributes: what no process shares, such as a lock, is left out."""
        told = {name: text for name, value in values.items() if (text := self.text(value)) is not None}
        return f"{of.__qualname__} {written(told)}"


def _home(module: str) -> str:
    """The name of a module, one for a script however it was loaded."""
    return SCRIPTS[0] if module in SCRIPTS or module.startswith(LOADED_SCRIPT) else module


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
    if not plain or issubclass(of, (*_COLLECTIONS, *PLAIN)):
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


def enclosed(target: Callable[..., Any]) -> dict[str, str]:
    """The values that a function has from the function that made it, and as defaults that its source does not write out."""
    found = {f"<enclosed>/{name}": told_apart(value).text for name, value in given(target).items()}
    return {name: text for name, text in found.items() if text is not None}


def modules_around(target: Callable[..., Any]) -> Iterator[Module]:
    """The modules of the project that define what wraps a function, and what that was given: `functools.wraps` names that of the inner alone."""
    given_to = [one for value in given(target).values() for one in told_apart(value).code]
    for one in [*wrapped(target), *([] if isinstance(target, type | FunctionType) else [type(target)]), *given_to]:
        if isinstance(one, ModuleType):
            found = find(one.__name__)
        else:
            name = str(one.__globals__.get("__name__")) if isinstance(one, FunctionType) else str(one.__module__)
            found = find(name) if is_own(name) else None
        if found is not None:
            yield found


__all__ = ["Told", "enclosed", "modules_around", "told_apart"]
