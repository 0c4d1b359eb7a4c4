"""Names: those that Scythe keeps for itself, and which ones of users can be folders, tables and files. Pure."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from scythe.errors import RegistrationError, ScytheError
from scythe_catalog.names import folded

#: The folder of a root that holds its catalog.
CATALOG = "_catalog"
TASK_PREFIX = "scythe_experiment_"

#: Index levels that every run's tables begin with, in this order.
ID_LEVELS = ("experiment_id", "sort_index", "root_workflow_run_id", "workflow_run_id")

#: The tables of a run that are not dataframes of its function.
TableName = Literal["scalars", "errors", "tasks", "result_file_refs", "logs", "packs"]

#: Table names that no dataframe of a user may take.
RESERVED_TABLES: frozenset[str] = frozenset(get_args(TableName))

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\- ]*")
#: A name has so many characters at most; of a longer one a message shows so many.
_LONGEST, _SHOWN = 120, 40


def check_name(name: object, what: str, error: type[ScytheError] = RegistrationError) -> str:
    """The name, if it can be a folder everywhere.

    Raises:
        ScytheError: of the class given, for separators, `..`, control characters and the like; it names the rule that is broken.
    """
    if not isinstance(name, str):
        raise error(f"{name!r} cannot be the name of {what}: a name is a text")
    if (rule := _broken(name)) is not None:
        shown = name if len(name) <= _LONGEST else f"{name[:_SHOWN]}…"
        raise error(f"{shown!r} cannot be the name of {what}: {rule}")
    return name


def check_experiment_name(name: object, what: str, error: type[ScytheError] = RegistrationError) -> str:
    """The name, if experiments or their runs can be called so.

    Raises:
        ScytheError: of the class given, for what `check_name` refuses, and for a name that begins as those of tasks do.
    """
    if isinstance(name, str) and name.startswith(TASK_PREFIX):  # whoever looks it up is given the experiment without it
        raise error(f"{name!r} cannot be the name of {what}: leave out {TASK_PREFIX!r}, with which Scythe names tasks")
    return check_name(name, what, error)


def is_name(name: str) -> bool:
    """Whether `check_name` takes it."""
    return _broken(name) is None


def _broken(name: str) -> str | None:
    """The rule for names that one breaks; None where it breaks none."""
    if len(name) > _LONGEST:
        return f"it has {len(name):,} characters, use {_LONGEST} at most"
    if not _NAME.fullmatch(name):
        return "use the letters A to Z and a to z, digits, '_', '-', '.' and spaces, and start with a letter or digit"
    if ".." in name:
        return "use no two dots together"
    if name.endswith(" "):
        return "do not end with a space"
    return None


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Name -> file name without its ending; names that differ by case alone get file names that differ by more."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names):
        found[name] = name if folded(name) not in taken else f"{name}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        taken.add(folded(found[name]))
    return found


def meant(name: object, there: Sequence[str]) -> str:
    """For a message: which name was meant by one that is not there, empty where none is like it."""
    near = difflib.get_close_matches(name, there, 1) if isinstance(name, str) else []
    return f" (did you mean {near[0]!r}?)" if near else ""
