"""Which names of modules some source of this process may set from outside of them, or after they were loaded. Reads sources; runs nothing."""

from __future__ import annotations

import ast
import linecache
import re
import sys
from collections.abc import Iterator, Set
from functools import lru_cache

from scythe.define.sources.modules import is_own, text_of
from scythe.define.sources.values import noted_within

#: Functions that set what a text names, as `setattr(sim, "K", 5)` and pytest's `monkeypatch.setattr("sim.K", 5)`.
_SETTING = frozenset({"setattr", "delattr", "setitem", "object", "patch", "__setattr__"})


def set_somewhere(names: Set[str]) -> Set[str]:
    """Those of some names that a source which this process has loaded, or a cell, may set as an attribute, or change in part.

    What is typed at a prompt has no source, but in newer Pythons.
    """
    found = set[str]()
    for source in _sources():
        wanted = names - found
        if any(name in source for name in wanted):
            found |= wanted & _set_in(source)
    return found


def _sources() -> Iterator[str]:
    yield from _cells()
    for name, module in [*sys.modules.items()]:
        if (name == "__main__" or is_own(name)) and (source := text_of(module)) is not None:
            yield source


def _cells() -> Iterator[str]:
    """The cells of a notebook, and other sources that lie in no file."""
    for entry in [entry for entry in list(linecache.cache.values()) if len(entry) == 4]:
        if entry[1] is None:
            yield "".join(entry[2])


@lru_cache(maxsize=512)
def _set_in(source: str) -> frozenset[str]:
    """The names that a source may set: as attributes, by a text, in its functions, and of what it imports in part."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a cell with a magic command
        return frozenset(re.findall(r"\w+", source))
    noted, found = noted_within(tree), set[str]()
    imported = set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(names=names):
                imported |= {one.asname or one.name for one in names}
            case ast.Global(names=names):
                found |= {*names}
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found |= noted_within(node).names
            case ast.Subscript(slice=ast.Constant(value=str(text)), ctx=ast.Store() | ast.Del()):
                found.add(text)  # of vars(sim), or sim.__dict__
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args) if name in _SETTING:
                found |= {
                    part
                    for one in args
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                    for part in one.value.split(".")
                }
            case _:
                pass
    # What an object sets of itself is no module's.
    attributes = {one for (root, *way), is_set in noted.ways if root != "self" or not is_set for one in way}
    return frozenset(found | attributes | (noted.names & imported))


__all__ = ["set_somewhere"]
