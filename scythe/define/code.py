"""The hash of an experiment's code: of the module that defines it, and of every module of the project that it imports.

Equal on two machines whose files are equal, wherever the project lies there. Reads source files; it
imports and runs nothing. What is installed (the standard library, site-packages, Scythe itself)
does not count: that is what versions of packages are for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scythe.define.experiment import Experiment
from scythe.define.sources.cells import cells
from scythe.define.sources.changed import Changed, argued_values, changed_values, script_values
from scythe.define.sources.fresh import set_since
from scythe.define.sources.loaded import is_edited
from scythe.define.sources.modules import LOADED_SCRIPT, SCRIPTS, Module, closure, file_of, name_of
from scythe.define.sources.objects import enclosed, modules_around, told_apart
from scythe.define.sources.snapshot import Source


@dataclass(frozen=True)
class Code:
    """The code that an experiment runs, as it was at one time: what is recorded of it, and what worker processes load, are of one reading."""

    #: The sha256, as 64 hexadecimal digits; None where there is no source, or what runs was loaded from an earlier one.
    sha256: str | None
    #: The modules of the project.
    modules: tuple[Source, ...] = ()
    #: The first digits of the hash of each source and value that it covers, by its name.
    parts: Mapping[str, str] = field(default_factory=dict[str, str])


def read_code(experiment: Experiment, *, here: bool = False, sent: bool = False) -> Code:
    """The code that an experiment runs, as it lies on this machine now.

    Its hash covers the relative path and the source of the module that defines the function, and of every module of the
    project that this one imports, directly or through others, within functions too; and the plain values that a function
    made by another one has from it, and those that the modules make of the program's arguments as they are loaded. Of a notebook, or what is typed at a prompt, it covers the function, its models, and what
    they use, values too. Line endings do not count.

    Args:
        experiment: The experiment.
        here: It runs in this process, with what this has loaded, and the values that were set since; else other processes load the
            files, but for a script, whose functions they are sent.
        sent: What a script sets as it goes on counts as well: its functions run here, or are sent to others with the values of now.

    Returns:
        The hash, and the modules that worker processes load.
    """
    if experiment.included is not None:
        return Code(None)
    sources, modules = _sources(experiment)
    found = tuple(Source(m.name, str(m.file), m.is_package, source) for m, source in modules.items() if m.is_source)
    if _edited(experiment, modules, here=here):
        return Code(None, found)
    sources |= {module.path: source for module, source in modules.items()} | enclosed(experiment.target)
    if here:
        sources |= {f"<value>/{one.module}.{one.name}": str(one.text) for one in values_set(experiment)}
    if here or sent:
        told = {name: told_apart(value).text for name, value in script_values(_read_by(experiment)).items()}
        sources |= {f"<value>/{name}": text for name, text in told.items() if text is not None}
    sources |= {f"<value>/{one.label}": str(one.text) for one in argued_values(_read_by(experiment))}
    if not sources:
        return Code(None, found)
    return Code(
        _digest(sources), found, {name: _digest({"": text})[:_DIGITS] for name, text in sorted(sources.items())}
    )


#: How a part of the code is named for people, by how its name begins; a file of the project is named by its path.
_KINDS = {
    "<value>": "the value {}", "<enclosed>": "the value {}", "<given>": "what {} was made with", "<class>": "the class {}", "<cell>": "{}",
}  # fmt: skip
_DIGITS, _MOST_NAMED = 12, 5


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """In which parts two codes differ, for people, as `Code.parts` tells of each; empty where nothing is known of one of them."""
    if not (one and other):
        return ""
    names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    names.sort(key=lambda name: name not in one or name not in other)  # what was not looked at need not be another
    told = list(dict.fromkeys(_for_people(name) for name in names))
    return ", ".join(told[:_MOST_NAMED]) + (f" and {len(told) - _MOST_NAMED} more" if len(told) > _MOST_NAMED else "")


def _for_people(name: str) -> str:
    kind, separator, rest = name.partition("/")
    return _KINDS[kind].format(rest.removeprefix("__main__.")) if separator and kind in _KINDS else name


def edited_files(experiment: Experiment, *, here: bool) -> list[Path]:
    """The files that were changed since this process has loaded them, and that run in another state than is loaded here, or (`here`) lies there."""
    return [
        m.file for m in _edited(experiment, _sources(experiment)[1], here=True) if here or not _is_sent(experiment, m)
    ]


def values_set(experiment: Experiment, *, of_script: bool = False, of_arguments: bool = False) -> list[Changed]:
    """The plain values of the project's modules that the experiment reads, and that were set after the modules were loaded.

    With `of_script` also those that the script which defines it sets as it goes on, for processes that load it; with `of_arguments` also
    those which are made of the arguments of this program, for processes that are not given them.
    """
    if experiment.included is not None:
        return []
    read = _read_by(experiment)
    found = changed_values(read, of_script=of_script, of_arguments=of_arguments)
    script = file_of(experiment.target) if experiment.target.__module__ in SCRIPTS else None
    found = set_since(found, experiment.target.__module__, script, given=not of_arguments)
    itself = [one for one in argued_values(read) if one.module == "sys" and one.now] if of_arguments else []
    return found + itself


def values_of_loaded_script(experiment: Experiment) -> list[str]:
    """The names of what a script sets as it goes on and the experiment reads, of one that was loaded, and has not gone on."""
    if not experiment.target.__module__.startswith(LOADED_SCRIPT):
        return []
    return sorted(script_values(_read_by(experiment)))


def _read_by(experiment: Experiment) -> list[Callable[..., Any]]:
    return [experiment.target, experiment.input_model, experiment.output_model]


def _sources(experiment: Experiment) -> tuple[dict[str, str], dict[Module, str]]:
    """The sources of cells, by their names, and those of modules."""
    target = experiment.target
    file = file_of(target)
    if file is None:
        return cells(_read_by(experiment))
    first = {file: Module(name_of(target.__module__, file), file)}
    for module in modules_around(target):  # of decorators, and of what they were given
        first.setdefault(module.file, module)
    return {}, closure([*first.values()])


def _edited(experiment: Experiment, modules: dict[Module, str], *, here: bool) -> list[Module]:
    """Those of which this process has loaded, and runs or sends, an earlier state than that of the file."""
    own = file_of(experiment.target)
    return [
        module
        for module in modules
        if (here or _is_sent(experiment, module))
        and (
            is_edited(module.name, module.file)
            or (module.file == own and module.file.stat().st_mtime > experiment.defined_at)
        )
    ]


def _is_sent(experiment: Experiment, module: Module) -> bool:
    """Whether a module is the script that defines the experiment: other processes are sent what this one has of it."""
    return experiment.target.__module__ in SCRIPTS and module.file == file_of(experiment.target)


def _digest(sources: dict[str, str]) -> str:
    found = hashlib.sha256()
    for path, source in sorted(sources.items()):
        for text in (path, source):
            raw = text.replace("\r\n", "\n").encode(errors="surrogatepass")
            found.update(len(raw).to_bytes(8, "big") + raw)
    return found.hexdigest()


__all__ = ["Code", "differing", "edited_files", "read_code", "values_of_loaded_script", "values_set"]
