"""The arguments of an allocation, held against what they may be before anything else is done. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from scythe.allocate.growing import Reuse
from scythe.define.experiment import Experiment, packed_fields
from scythe.errors import AllocationError
from scythe.record.plan import check_max_errors
from scythe.scatter_gather import RecursionMap

_LONGEST_NOTE, _LONGEST_TAG, _LONGEST_KEY = 10_000, 100, 1000


def check_arguments(*, chunk: object, workers: object, seed: object, max_errors: object, recursion_map: object) -> None:
    """Nothing where each makes sense.

    Raises:
        AllocationError: one does not.
    """
    for name, number in (("chunk", chunk), ("workers", workers), ("seed", seed)):
        if number is None and name != "seed":
            continue
        if isinstance(number, bool) or not isinstance(number, int):
            raise AllocationError(f"{name} must be a whole number, got {number!r}")
        if name != "seed" and number < 1:
            raise AllocationError(f"{name} must be at least 1, got {number}")
    check_max_errors(max_errors)
    if recursion_map is not None and not isinstance(recursion_map, RecursionMap):
        raise AllocationError(f"recursion_map must be a RecursionMap, got {recursion_map!r}")


def checked_note(note: object) -> str | None:
    """The note of a run, None where it says nothing.

    Raises:
        AllocationError: it is no text, or too long.
    """
    if note is not None and not isinstance(note, str):
        raise AllocationError(f"note must be text, got {note!r}")
    if note is not None and any("\ud800" <= character <= "\udfff" for character in note):
        raise AllocationError(f"note must be text that can be written as UTF-8, got {note!r}")
    if note is not None and len(note) > _LONGEST_NOTE:
        raise AllocationError(f"note must have {_LONGEST_NOTE:,} characters at most, it has {len(note):,}")
    return note or None


def checked_tags(tags: object) -> tuple[str, ...]:
    """The tags of a run, each once, in the order in which they were given.

    Raises:
        AllocationError: it is one text, or one of them is empty, too long, or no text.
    """
    if isinstance(tags, str | bytes):
        raise AllocationError(f"tags={tags!r} is one text: give a list of texts, [{tags!r}]")
    if not isinstance(tags, Iterable):
        raise AllocationError(f"tags must be a list of texts, got {tags!r}")
    found: list[str] = []
    for tag in cast("Iterable[object]", tags):
        if not isinstance(tag, str) or not tag.strip() or len(tag) > _LONGEST_TAG or not tag.isprintable():
            raise AllocationError(f"a tag must be printable text of {_LONGEST_TAG} characters at most, got {tag!r}")
        found.append(str(tag))
    return tuple(dict.fromkeys(found))


def checked_pack(pack: object, experiment: Experiment) -> list[str]:
    """The file outputs of a run that go into shards: those that were registered, where nothing is given.

    Raises:
        AllocationError: there is no such file output.
    """
    given = experiment.options.pack if pack is None else pack
    return packed_fields(given, experiment.schemas.file_outputs, AllocationError)


def checked_key(key: object) -> str | None:
    """The caller's key of a run.

    Raises:
        AllocationError: it is empty, too long, or no text.
    """
    if key is not None and (not isinstance(key, str) or not key.strip() or len(key) > _LONGEST_KEY):
        raise AllocationError(f"key must be a text of {_LONGEST_KEY:,} characters at most, got {key!r}")
    return key


def checked_rename(rename: object) -> dict[str, str]:
    """Former name -> name of the fields that were renamed.

    Raises:
        AllocationError: it is no mapping of names.
    """
    given: object = rename if rename is not None else {}
    if not isinstance(given, Mapping) or not all(isinstance(n, str) and n for pair in given.items() for n in pair):  # pyright: ignore[reportUnknownVariableType]
        raise AllocationError(f'rename must tell former names and names, {{"r": "r_value"}}, got {rename!r}')
    return dict(cast("Mapping[str, str]", given))


def checked_reuse(reuse: object, *, any_code: object, reuse_errors: object) -> Reuse:
    """What is taken over of earlier runs.

    Raises:
        AllocationError: one of them is neither True nor False, or means nothing without `reuse`.
    """
    for name, given in (("reuse", reuse), ("any_code", any_code), ("reuse_errors", reuse_errors)):
        if not isinstance(given, bool):
            raise AllocationError(f"{name} must be True or False, got {given!r}")
        if given and not reuse:
            raise AllocationError(f"{name}=True tells what reuse=True takes over: give both")
    return Reuse(bool(reuse), bool(any_code), bool(reuse_errors))


__all__ = [
    "check_arguments",
    "checked_key",
    "checked_note",
    "checked_pack",
    "checked_rename",
    "checked_reuse",
    "checked_tags",
]
