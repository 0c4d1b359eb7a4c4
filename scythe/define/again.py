"""Definitions that come again: a module that is loaded anew or under two names, a cell of a notebook that is run again. Defines nothing."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


def loading_of(target: Callable[..., Any]) -> ModuleSpec | None:
    """What tells one loading of the module of a definition from the next; None for a script or a notebook."""
    return getattr(sys.modules.get(target.__module__), "__spec__", None)


def is_again(old: Any, loading: ModuleSpec | None, new: Callable[..., Any]) -> bool:
    """Whether `new` is the definition of `old`, which came with a loading, run again: edited meanwhile, perhaps."""
    before, after = _line(old), _line(new)
    if before is None or after is None:
        return False
    if before == after:
        return True
    in_notebook = new.__module__ == old.__module__ == "__main__" and not Path(after[0]).is_file()
    loaded_anew = loading is not None and loading_of(new) is not loading
    return in_notebook or (loaded_anew and (before[0], old.__qualname__) == (after[0], new.__qualname__))


def is_updated(old: Any, new: Any) -> bool:
    """Whether an older function of a module has been given the code of a newer one in place, as IPython's `%autoreload` does.

    Functions that another one has made, such as what a decorator gives, have one code, too, and are not the same.
    """
    code = getattr(old, "__code__", None)
    return (
        code is not None
        and code is getattr(new, "__code__", None)
        and old.__closure__ is None
        and (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)
    )


def told_of_twin(ours: Any, registered: Any) -> str | None:
    """Why a function or class of a module is not the registered one of its name: None where they are of different places."""
    whole, name = getattr(ours, "__qualname__", None), getattr(ours, "__name__", "")
    if whole != getattr(registered, "__qualname__", ()) or whole != name:
        return None
    mine, theirs = ours.__module__, registered.__module__
    if mine == theirs:
        if getattr(ours, "__wrapped__", None) is registered:
            return f"{name} is decorated once more after it was registered: put @ExperimentRegistry.Register() above its other decorators"
        if mine != "__main__":
            return f"{name} has been defined anew since, and this is the one of before: from {mine} import {name} once more"
        return (
            f"there are two of {name}, for it has been defined anew: run the cell again that registers the experiment, "
            "with @ExperimentRegistry.Register(), and those below it"
        )
    file = _file(ours)
    if file is None or file != _file(registered):
        return None
    return f"{file} is loaded under two names, {mine} and {theirs}, so that there are two of {name}: import it by one of them everywhere"


def _file(what: Any) -> str | None:
    return getattr(sys.modules.get(what.__module__), "__file__", None)


def _line(target: Any) -> tuple[str, int] | None:
    function = getattr(target, "run", target) if isinstance(target, type) else target
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else (code.co_filename, code.co_firstlineno)


__all__ = ["is_again", "is_updated", "loading_of", "told_of_twin"]
