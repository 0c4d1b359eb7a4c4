"""Values of modules that are others than their files say: set since the module was loaded, or by a script as it goes on.

Reads source files; changes nothing.
"""

from __future__ import annotations

import dis
import itertools
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, TypeGuard

import cloudpickle

from scythe.define.sources.arguments import ARGUMENTS, Arguments
from scythe.define.sources.bindings import Bindings, bindings_of
from scythe.define.sources.loaded import is_edited
from scythe.define.sources.modules import LOADED_SCRIPT, SCRIPTS, is_own
from scythe.define.sources.objects import told_apart
from scythe.define.sources.outside import set_somewhere
from scythe.define.sources.snapshot import read_source
from scythe.define.sources.values import (
    BARE,
    Noted,
    constants,
    functions_of,
    given,
    is_plain,
    named_by_text,
    noted_in,
    source_of,
    wrapped,
    written,
)

#: So many characters of a value are told of.
_SHOWN = 80
_ABSENT = object()
#: So many members of a collection are looked at for functions.
_MANY = 1000


@dataclass(frozen=True)
class Changed:
    """A value of a module that may be another than the module's file says: it was set after the module was loaded."""

    module: str
    name: str
    now: Any
    #: What the file writes out; None where it is a script that sets it as it goes on.
    in_file: Any = None
    is_of_script: bool = False
    #: Whether its file makes it, in a way that is not written out.
    is_made: bool = False
    #: Whether it is made of the arguments of this program, where other processes have none.
    is_of_arguments: bool = False

    @cached_property
    def text(self) -> str | None:
        """What tells the value from others; None where nothing does."""
        return told_apart(self.now).text

    @property
    def label(self) -> str:
        """Its name; of a module other than the script with that of the module."""
        return self.name if self.is_of_script else f"{self.module}.{self.name}"

    def __str__(self) -> str:
        now, in_file = (textwrap.shorten(repr(value), _SHOWN, placeholder=" …") for value in (self.now, self.in_file))
        if self.is_of_arguments:
            return f"{self.label} is {now} here, by the arguments of this program"
        if self.is_of_script:
            return f"{self.name} is {now} here, as the script sets it"
        if self.is_made:
            return f"{self.module}.{self.name} is {now} here, and another where its file is loaded"
        return f"{self.module}.{self.name} is {now} here, and {in_file} in its file"


def changed_values(first: Iterable[Any], *, of_script: bool = False, of_arguments: bool = False) -> list[Changed]:
    """The values of the project's modules that some functions and classes read, and that were set after the modules were loaded.

    Those that their files write out, once, and are another; and those that these make, where some source may set them: whether it did,
    `fresh` tells. Of a file that was changed since, none. What the functions themselves set, or note something in, does not count. With
    `of_script` also those which a script sets as it goes on, with `of_arguments` those that are made of the arguments of this program.
    """
    found: list[Changed] = []
    made: list[Changed] = []
    reach = _reach(first)
    arguments = _argued(reach) if of_arguments else {}
    for module, name, now in _held(reach):
        if (module.__name__, name) in arguments:
            found.append(arguments[module.__name__, name])
        elif _is_script(module.__name__):
            if of_script and _is_set_on(module, name, now, reach) and is_plain(now):
                found.append(Changed(module.__name__, name, now, is_of_script=True))
        elif module.__name__ in cloudpickle.list_registry_pickle_by_value():
            continue  # it is sent as it is
        elif (said := _read(module)) is _NOTHING:
            continue
        elif name not in (literals := said.literals):
            if not _is_defined_there(module, name, now):
                made.append(Changed(module.__name__, name, now, is_made=True))
        elif type(now) is not type(in_file := literals[name]) or not is_plain(now) or written(now) != written(in_file):
            found.append(Changed(module.__name__, name, now, in_file))
    if made:
        somewhere = set_somewhere({one.name.rpartition(".")[2] for one in made})
        found += [one for one in made if one.name.rpartition(".")[2] in somewhere]
    return [one for one in found if one.text is not None]


def _is_defined_there(module: ModuleType, name: str, now: Any) -> bool:
    """Whether a value is a function or class that the module defines by this name, whose source counts, or what Python itself notes there."""
    home = getattr(now, "__module__", None), getattr(now, "__qualname__", None)
    return name.rpartition(".")[2].startswith("__") or (
        isinstance(now, FunctionType | type) and home == (module.__name__, name)
    )


def argued_values(first: Iterable[Any]) -> list[Changed]:
    """The values that some functions and classes read, and that the project's modules make of the arguments of the program as they are loaded.

    And these arguments, where a function reads them itself.
    """
    reach = _reach(first)
    found = [one for one in _argued(reach).values() if one.text is not None]
    return [*found, Changed("sys", "argv", sys.argv[1:], is_of_arguments=True)] if reach.asks else found


def _argued(reach: _Reach) -> dict[tuple[str, str], Changed]:
    arguments = Arguments()
    return {
        (module.__name__, name): Changed(
            module.__name__, name, now, is_of_script=_is_script(module.__name__), is_of_arguments=True
        )
        for module, name, now in _held(reach)
        if name in arguments.within(module) and not _is_defined_there(module, name, now)
    }


def script_values(first: Iterable[Any]) -> dict[str, Any]:
    """What the values are now, by their names, of a script's that some functions and classes read, and that it sets as it goes on.

    That is: more than once, in a loop, below `if __name__ == "__main__":`, within a function, or in a part of the value.
    """
    reach = _reach(first)
    return {
        name: now
        for module, name, now in _held(reach)
        if _is_script(module.__name__) and _is_set_on(module, name, now, reach)
    }


def _held(reach: _Reach) -> Iterator[tuple[ModuleType, str, Any]]:
    """The values that some functions and classes, and those which they call, read and leave as they are, with module and name."""
    for module, name in sorted(reach.read - reach.stored):
        held: Any = sys.modules[module]
        for part in name.split("."):
            held = vars(held).get(part, _ABSENT) if isinstance(held, ModuleType | type) else _ABSENT
        if held is not _ABSENT:
            yield sys.modules[module], name, held


def _is_set_on(script: ModuleType, name: str, value: Any, reach: _Reach) -> bool:
    """Whether a script sets a value as it goes on, which is not known from its source alone; not by the functions that are reached."""
    known = _read(script)
    if name in known.literals:
        return not is_plain(value) or written(known.literals[name]) != written(value)
    others = (bound[name] for function, bound in known.within.items() if (script.__name__, function) not in reach.of)
    often = known.bound[name] + sum(others)
    if name.startswith("__") or isinstance(value, ModuleType | FunctionType | type):
        return often > 1  # their sources count, and which one it is
    return often > ("." not in name and known.bound[name] > 0) or (known.touched[name] > 0 and often > 0)


@dataclass
class _Reach:
    """What some functions and classes, and those which they call, read as they are, and set: names, each with its module."""

    read: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    stored: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    #: Those functions and classes, by their names at the top of their modules.
    of: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    #: Whether one of the functions reads the arguments of the program.
    asks: bool = False


def _reach(first: Iterable[Any]) -> _Reach:
    waiting, known = list(first), set[int]()
    reach = _Reach()
    read, stored = reach.read, reach.stored
    unknown = set[str]()
    while waiting:
        found = waiting.pop()
        if id(found) in known:
            continue
        known.add(id(found))
        if isinstance(found, type | FunctionType):
            reach.of.add((found.__module__, found.__qualname__.split(".")[0]))
        waiting += [
            inner
            for value in (given(found) | dict(enumerate(wrapped(found)[1:]))).values()
            for inner in _code_in(value)
        ]
        if isinstance(found, type):
            waiting += functions_of(found)
            waiting += [base for base in found.__bases__ if _is_code(base)]
            waiting += [member for member in vars(found).values() if _is_code(member)]
            if is_own(found.__module__) or _is_script(found.__module__):
                read |= {(found.__module__, f"{found.__qualname__}.{name}") for name in vars(found)}
        elif isinstance(found, FunctionType):
            own, code = found.__globals__, _blocks(found.__code__)
            module = str(own.get("__name__"))
            noted = noted_in(source_of(found.__code__))
            of_objects = _stored_by(found, noted, stored)
            unknown |= of_objects
            kept = constants(code, noted)
            used = {name for block in code for name in {*block.co_names, *named_by_text(block)}}
            reach.asks |= not ARGUMENTS.isdisjoint(used)
            for block in code:
                stored |= {(module, s.argval) for s in dis.get_instructions(block) if s.opname == "STORE_GLOBAL"}
            modules = [value for name in used if _is_own_module(value := own.get(name))]
            for one in modules:
                for attribute in used & vars(one).keys():
                    inner = vars(one)[attribute]
                    if _is_code(inner):
                        waiting.append(inner)
                    if _is_own_module(inner):
                        modules += [inner] if inner not in modules else []
                    elif attribute not in of_objects:
                        read.add((one.__name__, attribute))
            waiting += [inner for name in used & own.keys() for inner in _code_in(own[name])]
            if is_own(module) or _is_script(module):
                read |= {(module, name) for name in kept & own.keys()}
    reach.read = {(of, name) for of, name in read if "." not in name or name.rpartition(".")[2] not in unknown}
    return reach


def _stored_by(function: FunctionType, noted: Noted, stored: set[tuple[str, str]]) -> set[str]:
    """Adds what a function changes of modules and classes to what is stored; gives the attributes of unknown objects that it may change.

    Of what it has made itself, and of `self`, the class is known: to set an attribute of an object leaves that of its class as it is.
    """
    own, code = function.__globals__, function.__code__
    unknown = set[str]()
    for (root, *way), is_set in noted.ways:
        is_object = root == "self" or root.endswith("()")
        if root in ("self", "cls") and root in code.co_varnames[:1]:
            held: Any = own.get(function.__qualname__.split(".")[0], _ABSENT)
        else:
            held = own.get(root.removesuffix("()"), _ABSENT) if root not in code.co_varnames else _ABSENT
        while way:
            if not isinstance(held, ModuleType | type) and held is not _ABSENT and not is_object:
                held, is_object = type(held), True
            if not isinstance(held, ModuleType | type):
                unknown |= {*(way[:-1] if is_set and "__class__" not in way else way)}
                break
            attribute = way.pop(0)
            if attribute == "__class__" and is_object:
                is_object = False
                continue
            if is_object and is_set and not way:
                break
            where = _where(held, name := attribute.removesuffix("()"))
            held = vars(where).get(name, _ABSENT)
            if way and (name != attribute or isinstance(held, ModuleType | type)):
                is_object = name != attribute
                continue
            of_class = f"{where.__qualname__}." if isinstance(where, type) else ""
            stored.add((where.__module__ if isinstance(where, type) else where.__name__, of_class + name))
            held, is_object = _ABSENT, False
    return unknown


def _where(held: ModuleType | type, attribute: str) -> ModuleType | type:
    """The module or class that has an attribute: of a class it may be a base."""
    bases = held.__mro__ if isinstance(held, type) else ()
    return next((base for base in bases if attribute in vars(base)), held)


def _blocks(code: CodeType) -> list[CodeType]:
    """The code of a function, and that within it."""
    found = [code]
    for block in found:
        found += [inner for inner in block.co_consts if isinstance(inner, CodeType)]
    return found


def _code_in(value: Any, depth: int = 4) -> Iterator[Any]:
    """The functions and classes of the project that a value is, or has: of an instance its class, of a dict its functions."""
    if isinstance(value, ModuleType) or type(value) in BARE:
        return
    if functions := wrapped(value):
        yield from (one for one in functions if _is_code(one))
    if isinstance(value, type):
        if _is_code(value):
            yield value
        return
    if _is_code(type(value)):
        yield type(value)
    if not depth:
        return
    inner: list[Any] = []
    match value:
        case dict():
            inner += itertools.islice(value.values(), _MANY)
        case list() | tuple() | set() | frozenset():
            inner += itertools.islice(value, _MANY)
        case partial():
            inner += [value.func, *value.args, *value.keywords.values()]
        case MethodType():
            inner += [value.__func__, value.__self__]
        case _:
            inner += (getattr(value, "__dict__", None) or {}).values() if _is_code(type(value)) else ()
            inner += [value.pyfunc] if type(value).__name__ == "vectorize" else ()
    for one in inner:
        yield from _code_in(one, depth - 1)


def _is_code(value: Any) -> bool:
    """Whether it is a function or a class of the project."""
    if not isinstance(value, FunctionType | type):
        return False
    return _is_script(value.__module__) or is_own(value.__module__)


def _is_own_module(value: Any) -> TypeGuard[ModuleType]:
    return isinstance(value, ModuleType) and is_own(value.__name__)


def _is_script(name: str) -> bool:
    """Whether a module is a script that runs as a program, rather than a notebook, or one that was loaded to go on with its run."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return (name in SCRIPTS or name.startswith(LOADED_SCRIPT)) and isinstance(file, str) and file.endswith(".py")


_NOTHING = Bindings({}, Counter(), Counter(), {})


def _read(module: ModuleType) -> Bindings:
    """What a module's file says; nothing where the file was changed since it was loaded."""
    file = Path(str(module.__file__))
    if is_edited(module.__name__, file):
        return _NOTHING
    try:
        return bindings_of(read_source(file), is_script=_is_script(module.__name__))
    except (OSError, UnicodeDecodeError, SyntaxError, SystemError):
        return _NOTHING


__all__ = ["Changed", "argued_values", "changed_values", "script_values"]
