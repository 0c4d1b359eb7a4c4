"""What the options of `Register` may be. Knows no function and no engine; of `pack`, which names fields, `packed_fields` tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from types import UnionType
from typing import Any

from pydantic import BaseModel

from scythe.durations import seconds_of
from scythe.errors import RegistrationError


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Nothing where each of the options of an experiment is what it may be.

    Raises:
        RegistrationError: one is not; the message names it, its value, and what it may be.
    """
    for option, (told, may_be) in _MAY_BE.items():
        if not may_be(given := options[option]):
            raise RegistrationError(f"{name}: {option} must be {told}, got {given!r}")
    for engine, given in options["engine_options"].items():
        if getattr(given, "engine", engine) != engine:
            raise RegistrationError(f"{name}: engine_options[{engine!r}] holds options of {given.engine!r}")
    for option in ("execution_timeout", "schedule_timeout"):
        try:
            if options[option] is not None:
                seconds_of(options[option])
        except ValueError as error:
            raise RegistrationError(f"{option}: {error}") from None


def _is_text(given: object) -> bool:
    return given is None or isinstance(given, str)


def _is_flag(given: object) -> bool:
    return isinstance(given, bool)


def _is_whole(given: object, least: int) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given >= least


def _is_table(given: Any, may_be: type | UnionType) -> bool:
    """Whether it is a mapping of names (or members of an Enum whose values are some) to values of these types."""
    if not isinstance(given, Mapping):
        return False
    pairs: list[tuple[object, object]] = list(given.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
    names = [name.value if isinstance(name, Enum) else name for name, _ in pairs]
    return all(isinstance(name, str) for name in names) and all(isinstance(value, may_be) for _, value in pairs)


#: What each option may be, in words, and whether a value is that.
_MAY_BE: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "worker": ("a text", _is_text),
    "description": ("a text", _is_text),
    "desired_worker_labels": (
        "a dict of labels, each with a text, a whole number, True, False or a DesiredWorkerLabel of Hatchet's",
        lambda given: given is None or _is_table(given, str | int | BaseModel),
    ),
    "retries": ("a whole number from 0 on", lambda given: _is_whole(given, 0)),
    "overwrite_log_method": ("True or False", _is_flag),
    "inject_workflow_run_id": ("True or False", _is_flag),
    "auto_fetch_files": ("True or False", _is_flag),
    "local_file_location": (
        "'cache' or 'copied-to-tempdir'",
        lambda given: isinstance(given, str) and given in ("cache", "copied-to-tempdir"),
    ),
    "max_inputs_per_process": ("a whole number from 1 on", lambda given: given is None or _is_whole(given, 1)),
    "engine_options": (
        'a dict of options by the name of their engine, {"local": LocalOptions(workers=2)} or {"local": {"workers": 2}}',
        lambda given: _is_table(given, Mapping | BaseModel),
    ),
}


__all__ = ["check_options"]
