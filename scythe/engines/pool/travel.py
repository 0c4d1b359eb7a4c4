"""An experiment on its way to the processes of this machine: pickled; and where it cannot be, which of its values is why.

What a script or a notebook defines travels as it is, with all that it uses; what a module defines travels by its
name. Nothing pickled crosses a network.
"""

from __future__ import annotations

import functools
import inspect
import io
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any, ClassVar, cast

import cloudpickle

from scythe.define.experiment import Experiment
from scythe.errors import AllocationError

_MAX_DEPTH = 12
#: The name of the main script in a process that `multiprocessing` has started; no other process can import it.
_MAIN_OF_CHILDREN = "__mp_main__"


def _rebuilt_property(function: Any, name: str | None) -> functools.cached_property[Any]:
    rebuilt = functools.cached_property(function)
    rebuilt.attrname = name
    return rebuilt


def _reduced_property(found: functools.cached_property[Any]) -> tuple[Any, ...]:
    return _rebuilt_property, (found.func, found.attrname)


def _rebuilt_cache(function: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _placed(rebuild: Callable[..., CodeType], parts: tuple[Any, ...], file: str) -> CodeType:
    return rebuild(*parts).replace(co_filename=file)


def _reduced_code(code: CodeType) -> tuple[Any, ...]:
    """What cloudpickle makes of it, and the file that it leaves out: tracebacks name it, and show its lines."""
    rebuild, parts, *_ = cast("Any", cloudpickle.Pickler.dispatch_table)[CodeType](code)
    return _placed, (rebuild, parts, code.co_filename)


def _parametrized(origin: Any, args: tuple[Any, ...]) -> Any:
    return origin[args if len(args) != 1 else args[0]]


class _Pickler(cloudpickle.Pickler):
    """cloudpickle, for a `cached_property` as well (until Python 3.12 it holds a lock), and with the places of code.

    A function of a script behind `functools.lru_cache` goes with what it wraps, and an empty cache: by its name no other process finds it.

    A generic model with its parameters, which has a name in no module, is made of the generic one again: its process has that by its name.
    """

    def reducer_override(self, obj: Any) -> Any:
        told = vars(obj).get("__pydantic_generic_metadata__") if isinstance(obj, type) else None
        if told and told["origin"] is not None and not told["parameters"]:
            return _parametrized, (told["origin"], told["args"])
        if isinstance(obj, _CACHED) and _goes_by_value(obj.__wrapped__):
            return _rebuilt_cache, (obj.__wrapped__, obj.cache_parameters())
        return super().reducer_override(obj)

    dispatch_table: ClassVar[Any] = ChainMap(
        {functools.cached_property: _reduced_property, CodeType: _reduced_code},
        cast("Any", cloudpickle.Pickler.dispatch_table),
    )


_CACHED = functools._lru_cache_wrapper  # pyright: ignore[reportPrivateUsage]


def _goes_by_value(function: Any) -> bool:
    """Whether cloudpickle sends a function whole: no other process finds it by its name."""
    module = getattr(function, "__module__", None)
    return module in (None, "__main__", _MAIN_OF_CHILDREN) or module in cloudpickle.list_registry_pickle_by_value()


class _Nowhere(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, b: Any) -> int:
        return len(b)


def packed(value: Any) -> bytes:
    """An experiment, or several with what else goes with them, for processes of this machine.

    Raises:
        AllocationError: it cannot be pickled; the message names what of it, and the way out.
    """
    buffer = io.BytesIO()
    _pickle(value, buffer)
    return buffer.getvalue()


def check_travels(experiment: Experiment) -> None:
    """Nothing, where an experiment can be sent to worker processes; raises AllocationError."""
    _pickle(experiment, io.BufferedWriter(_Nowhere(), 1 << 20))


def _pickle(value: Any, file: Any) -> None:
    main = sys.modules.get(_MAIN_OF_CHILDREN)
    if main is not None:
        cloudpickle.register_pickle_by_value(main)
    try:
        _Pickler(file).dump(value)
    except Exception as error:
        raise AllocationError(_reason(value, error)) from error


def _reason(value: Any, error: Exception) -> str:
    names = [e.name for e in (value if isinstance(value, list) else [value]) if isinstance(e, Experiment)]
    found = next((f for e in _experiments(value) if (f := _culprit(e, "", set(), 0))), None)
    where = found or "something that it uses"
    return (
        f"the experiment {', '.join(map(repr, names))} cannot be sent to worker processes "
        f"({type(error).__name__}: {error}) because of {where}. Create it in the function or in `__init__` of a class "
        "that is the experiment (once a process), or move the experiment into a module"
    )


def _experiments(value: Any) -> Iterator[Any]:
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, Experiment):
            yield from (each.target, each.input_model, each.output_model)
            yield each.options


def _culprit(value: Any, where: str, seen: set[int], depth: int) -> str | None:
    """The innermost value that cannot be pickled, in words; None where this one can."""
    if id(value) in seen or depth > _MAX_DEPTH or _can(value):
        return None
    seen.add(id(value))
    for name, part in _parts(value):
        found = _culprit(part, f"{name} of {where}" if where else name, seen, depth + 1)
        if found is not None:
            return found
    return f"{where or getattr(value, '__qualname__', 'it')} (a {type(value).__qualname__})"


def _can(value: Any) -> bool:
    try:
        _Pickler(io.BufferedWriter(_Nowhere())).dump(value)
    except Exception:  # noqa: BLE001 - any error of any value's own code
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value consists of, each with a name that its author knows."""
    if isinstance(value, FunctionType):
        used = set(_names(value.__code__))
        yield from ((f"the global {n!r}", v) for n, v in list(value.__globals__.items()) if n in used)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield f"the variable {name!r}", cell.cell_contents
            except ValueError:  # not bound yet
                continue
        yield from ((f"the default {d!r}", d) for d in value.__defaults__ or ())
        yield from ((f"the default of {n!r}", d) for n, d in (value.__kwdefaults__ or {}).items())
    elif isinstance(value, staticmethod | classmethod):
        yield "the method", value.__func__
    elif isinstance(value, property):
        for accessor in ("fget", "fset", "fdel"):
            yield "the property", getattr(value, accessor)
    elif isinstance(value, Mapping):
        yield from ((f"the value of {key!r}", part) for key, part in cast("Mapping[Any, Any]", value).items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"item {i}", part) for i, part in enumerate(cast("list[Any]", value)))
    else:
        yield from ((f"the attribute {n!r}", part) for n, part in _attributes(value))


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, type):
        for base in value.__bases__:
            yield base.__qualname__, base
    with_slots = [n for c in inspect.getmro(type(value)) for n in getattr(c, "__slots__", ()) if isinstance(n, str)]
    held = dict(getattr(value, "__dict__", {}))
    for name in with_slots:
        try:
            held.setdefault(name, object.__getattribute__(value, name))
        except AttributeError:
            continue
    yield from held.items()


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
