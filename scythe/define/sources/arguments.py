"""Which values of a module are made of the program's arguments (`sys.argv`) while it is loaded: told by its source. Runs nothing.

Another process has other arguments, or none, and gets another value from the same file.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import ModuleType

from scythe.define.sources.bindings import is_guard
from scythe.define.sources.modules import is_own, text_of

#: What Python has them in.
ARGUMENTS = frozenset({"argv", "orig_argv"})
#: Packages that read them.
_READING = frozenset({
    "absl", "argparse", "click", "cyclopts", "docopt", "fire", "getopt", "hydra", "jsonargparse", "optparse", "plac", "simple_parsing", "tap",
    "typer", "tyro",
})  # fmt: skip
_MENTIONED = re.compile(rf"\b(?:{'|'.join(sorted(ARGUMENTS | _READING))})\b")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
#: Whether a name, or an attribute of what it stands for, is made of arguments.
_Made = Callable[[str, str | None], bool]


@dataclass
class Arguments:
    """What is made of arguments in the modules of one program."""

    #: By module; nothing of one that is being looked at, which imports itself in the end.
    _known: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    @cached_property
    def _are_asked_for(self) -> bool:
        """Whether a module of the project that is loaded, or the program, names arguments, or what reads them."""
        return any(
            _mentions(source)
            for name, module in [*sys.modules.items()]
            if (name == "__main__" or is_own(name)) and (source := text_of(module)) is not None
        )

    def within(self, module: ModuleType) -> frozenset[str]:
        """The names of a module whose values depend on the arguments with which the program was started; `Case.k` of an attribute of a class.

        What runs below `if __name__ == "__main__":` is not of the module as other processes load it.
        """
        name = module.__name__
        if name not in self._known:
            self._known[name] = frozenset()
            if self._are_asked_for and (source := text_of(module)) is not None:
                self._known[name] = frozenset(self._names(_parsed(source), module))
        return self._known[name]

    def _names(self, tree: ast.Module, module: ModuleType) -> set[str]:
        """The names that are assigned from arguments, or where these decide whether they are."""
        packages, found, modules = self._imported(tree, module)
        functions = {one.name: one for one in tree.body if isinstance(one, _FUNCTIONS)}

        def is_made(name: str, attribute: str | None) -> bool:
            if attribute is not None:
                return attribute in modules.get(name, ()) or f"{name}.{attribute}" in found
            return name in packages or name in found

        size = -1
        while size != len(found):
            size = len(found)
            asking = {name: one for name, one in functions.items() if _asks(one, is_made)}
            found |= asking.keys() | {name for one in asking.values() for name in _shared(one)}
            found |= {name for one in tree.body for name in _bound(one, is_made, decided=False)}
        return found - functions.keys() - packages

    def _imported(self, tree: ast.Module, module: ModuleType) -> tuple[set[str], set[str], dict[str, frozenset[str]]]:
        """The names of packages that read arguments, of values made of them elsewhere, and of modules with what is made of them there."""
        packages, made, modules = set[str](), set[str](), dict[str, frozenset[str]]()
        named: list[str] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for one in node.names:
                    name = one.asname or one.name.split(".")[0]
                    named.append(name)
                    packages |= {name} if _reads(one.name) else set()
            elif isinstance(node, ast.ImportFrom):
                of = _module_of(node, module)
                there = self.within(of) if of is not None else frozenset[str]()
                for one in node.names:
                    name = one.asname or one.name
                    named.append(name)
                    packages |= {name} if of is None and (_reads(node.module or "") or one.name in ARGUMENTS) else set()
                    made |= there if name == "*" else {name} if one.name in there else set()
        for name in named:
            other = vars(module).get(name)
            if isinstance(other, ModuleType) and is_own(other.__name__):
                modules[name] = self.within(other)
        return packages, made, modules


@lru_cache(maxsize=4096)
def _mentions(source: str) -> bool:
    return _MENTIONED.search(source) is not None


@lru_cache(maxsize=256)
def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):  # it was changed since it was loaded
        return ast.Module([], [])


def _reads(package: str) -> bool:
    first = package.split(".", maxsplit=1)[0]
    return first in _READING and not is_own(first)


def _module_of(node: ast.ImportFrom, module: ModuleType) -> ModuleType | None:
    """The module of the project that names are imported from."""
    base = node.module or ""
    if node.level:
        package = str(getattr(module, "__package__", None) or "").split(".")
        base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
    return sys.modules.get(base) if is_own(base) else None


def _bound(node: ast.stmt, is_made: _Made, *, decided: bool) -> Iterator[str]:
    """The names that a statement binds, or changes, by arguments; `decided` where these say already whether it runs."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return
        case ast.If(test=test) if is_guard(test):
            return
        case ast.ClassDef(name=name, body=body):
            for one in body:
                yield from (f"{name}.{inner}" for inner in _bound(one, is_made, decided=decided))
            return
        case _:
            pass
    heads, below = list[ast.AST](), list[ast.stmt]()
    for one in ast.iter_child_nodes(node):
        if isinstance(one, ast.stmt):
            below.append(one)
        elif isinstance(one, ast.ExceptHandler | ast.match_case):
            below += one.body
        else:
            heads.append(one)
    if decided or any(_asks(one, is_made) for one in heads):
        yield from (name for one in heads for name in _targets(one))
        decided = True
    for one in below:
        yield from _bound(one, is_made, decided=decided)


def _shared(function: ast.AST) -> Iterator[str]:
    """The names of the module that a function sets."""
    for one in ast.walk(function):
        yield from one.names if isinstance(one, ast.Global) else ()


def _targets(node: ast.AST) -> Iterator[str]:
    """The names that code binds, sets in part, or calls a method of."""
    for one in ast.walk(node):
        match one:
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                yield from _root(one)
            case ast.Call(func=ast.Attribute() as method):
                yield from _root(method)
            case _:
                pass


def _root(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _asks(node: ast.AST, is_made: _Made) -> bool:
    """Whether code asks for arguments, or for what is made of them. The program's own name, `sys.argv[0]`, is none."""
    waiting: list[ast.AST] = [node]
    while waiting:
        one = waiting.pop()
        match one:
            case ast.Subscript(value=ast.Attribute(attr="argv") | ast.Name(id="argv"), slice=ast.Constant(value=0)):
                continue
            case ast.Attribute(attr=attribute) if attribute in ARGUMENTS:
                return True
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if is_made(name, attribute):
                return True
            case ast.Name(id=name, ctx=ast.Load()) if is_made(name, None):
                return True
            case _:
                waiting += ast.iter_child_nodes(one)
    return False


__all__ = ["ARGUMENTS", "Arguments"]
