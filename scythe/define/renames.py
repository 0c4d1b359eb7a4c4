"""Fields that were renamed: who says so, what it makes of the difference between two versions, which columns follow. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, get_args

from pydantic import BaseModel

from scythe.base import level_names
from scythe.errors import RegistrationError, VersionError
from scythe.names import RESERVED_TABLES, meant
from scythe_catalog.schema import Change, CompiledModel, Difference, Severity, TableSchema, compare, extra_of

#: The key of `json_schema_extra` that tells the name that a field had, and that of a version's record.
RENAMED_FROM, RENAMED = "renamed_from", "renamed"
_NEAR = 0.9
_OF_MODELS = ("scalars", "errors", "result_file_refs")


@dataclass(frozen=True)
class Renames:
    """The names that columns of an experiment had before a version, and those that they have in it."""

    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Those of the former names that are of index levels, and so of columns of every dataframe.
    levels: frozenset[str] = frozenset()
    #: What fields were called at first, by the names that they have, where these are others.
    first: Mapping[str, str] = field(default_factory=dict[str, str])

    def of(self, table: str) -> Mapping[str, str]:
        """Those of a table: former name -> name."""
        if table in RESERVED_TABLES:
            return self.columns if table in _OF_MODELS else {}
        return {former: name for former, name in self.columns.items() if former in self.levels}

    def to_json(self) -> dict[str, Any]:
        """What is added to the record of a version; nothing where nothing was renamed."""
        told = {"columns": dict(self.columns), "levels": sorted(self.levels), "first": dict(self.first)}
        return {RENAMED: told} if self.columns else {}

    @classmethod
    def from_json(cls, record: Mapping[str, Any] | None) -> Self:
        """Those of a version, by its record."""
        told = (record or {}).get(RENAMED) or {"columns": {}, "levels": []}
        columns = dict(told["columns"])
        # Records of before tell the names in the order in which they were had.
        first = told.get("first", {name: former for former, name in reversed(columns.items())})
        return cls(columns, frozenset(told["levels"]), dict(first))


def name_among(there: Collection[str], name: str, renamed: Mapping[str, str]) -> str | None:
    """What a column that has a name, or ever had it, is called among others; None where it is not among them.

    Args:
        there: Names of one table, or run, of any time.
        name: What is asked for.
        renamed: Former name -> name.
    """
    now = renamed.get(name, name)
    names = (name, now, *(former for former, other in renamed.items() if other == now))
    return next((known for known in names if known in there), None)


def declared(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """The former name and the name of each field (or computed field) of a model that says that it was renamed.

    Raises:
        RegistrationError: what it says is no name, or that of a field that is still there; or it says so by a misspelt key.
    """
    fields = {**model.model_fields, **model.model_computed_fields}
    for name, info in fields.items():
        extra = extra_of(info)
        where = f"{model.__name__}.{name}"
        if RENAMED_FROM not in extra:
            near = [key for key in extra if key.startswith("rename")] or difflib.get_close_matches(
                RENAMED_FROM, [*extra], 1, _NEAR
            )
            if near:
                raise RegistrationError(f"{where}: json_schema_extra has {near[0]!r}: did you mean {RENAMED_FROM!r}?")
            continue
        former = extra[RENAMED_FROM]
        if not isinstance(former, str) or not former:
            raise RegistrationError(f"{where}: renamed_from must be the name that the field had, got {former!r}")
        if former in fields:
            raise RegistrationError(
                f"{where} says renamed_from={former!r}, and {former!r} is a field still: give the new one another name, or remove the old one"
            )
        yield former, name


def _within(annotation: Any, seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, and those in their fields, each once."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in seen:
            return
        seen.add(annotation)
        yield annotation
        for info in annotation.model_fields.values():
            yield from _within(info.annotation, seen)
    for part in get_args(annotation):
        yield from _within(part, seen)


def check_declared(models: Iterable[type[BaseModel]]) -> dict[str, str]:
    """Former name -> name of all fields of some models that say that they were renamed.

    Raises:
        RegistrationError: two were one field once, or one says what cannot be.
    """
    found: dict[str, str] = {}
    for model in models:
        for nested in [*_within(model, set())][1:]:
            for former, name in declared(nested):
                raise RegistrationError(
                    f"{nested.__name__}.{name} says renamed_from={former!r} within {model.__name__}: the fields of {model.__name__} itself "
                    "can be renamed, those within a field cannot"
                )
        for former, name in declared(model):
            if former in found:
                raise RegistrationError(
                    f"{found[former]!r} and {name!r} both say renamed_from={former!r}: one of them can"
                )
            found[former] = name
    return found


def renamed_since(
    recorded: Mapping[str, Any], version: object, schemas: Mapping[str, CompiledModel], given: Mapping[str, str]
) -> tuple[Renames, Difference, Mapping[str, str]]:
    """What was renamed until now, what changed since a version, and what of that was renamed (former name -> name).

    Args:
        recorded: Both schemas of the version, and what was renamed until then.
        version: For messages.
        schemas: Those of now, `input` and `output`.
        given: Former name -> name, as the caller of an allocation has it.

    Raises:
        VersionError: a field is said to be renamed that the version does not have, or one has a former name of another.
    """
    before = {side: TableSchema.from_json(recorded[side]) for side in schemas}
    now = {side: compiled.schema for side, compiled in schemas.items()}
    until = Renames.from_json(recorded)
    fresh: dict[str, str] = {}
    for former, name in _asked(schemas, now, given).items():
        old, new = _side_of(before, former), _side_of(now, name)
        if _side_of(before, name) is not None:
            continue  # it has happened
        if old is None and until.columns.get(former) is None:
            there = [column for schema in before.values() for column in schema.names]
            raise VersionError(
                f"{name!r} is said to be what {former!r} was, but {version} has no field {former!r}{meant(former, there)}; "
                f"it has {', '.join(there)}"
            )
        if old is not None and old != new:
            raise VersionError(
                f"{former!r} was an {old} in {version}, and {name!r} is an {new}: that is another column"
            )
        if old is not None:
            fresh[former] = name
    _check_no_other(until, fresh, now, version)
    changes = Difference(())
    for side, schema in before.items():
        own = {former: name for former, name in fresh.items() if former in schema}
        found = compare(schema.renamed(own), now[side])
        told = [Change(name, f"renamed from {former}", Severity.ADDITIVE) for former, name in own.items()]
        changes += Difference(tuple(replace(c, field=f"{side}.{c.field}") for c in (*told, *found.changes)))
    return _together(until, fresh, schemas), changes, fresh


def _asked(
    schemas: Mapping[str, CompiledModel], now: Mapping[str, TableSchema], given: Mapping[str, str]
) -> dict[str, str]:
    """Former name -> name: as the models and the caller have it.

    Raises:
        VersionError: the caller names a field that there is none of, or one that is there still.
    """
    there = [column for schema in now.values() for column in schema.names]
    for former, name in given.items():
        if name not in there:
            raise VersionError(
                f"rename={{{former!r}: {name!r}}}: there is no field {name!r}{meant(name, there)}; there are {', '.join(there)}"
            )
        if former in there:
            raise VersionError(f"rename={{{former!r}: {name!r}}}: {former!r} is a field still, so it is another column")
    twice = sorted({name for name in given.values() if [*given.values()].count(name) > 1})
    if twice:
        raise VersionError(f"rename= makes one field of two, {twice[0]!r}: one of them can be it")
    return {**check_declared(compiled.model for compiled in schemas.values()), **given}


def _check_no_other(until: Renames, fresh: Mapping[str, str], now: Mapping[str, TableSchema], version: object) -> None:
    """Nothing where a name means one field of an experiment, in whichever version: by a former name its column is asked for.

    Raises:
        VersionError: a field has a former name of another.
    """
    for name in (column for schema in now.values() for column in schema.names):
        if (other := until.columns.get(name)) is not None and fresh.get(other) != name:
            raise VersionError(
                f"{name!r} is what {other!r} was called before {version}: call the field {other!r}, or, if it is another, by a "
                "name that is free; to go on with models of before, name their version"
            )


def _together(until: Renames, fresh: Mapping[str, str], schemas: Mapping[str, CompiledModel]) -> Renames:
    now = {name for compiled in schemas.values() for name in compiled.schema.names}
    columns = {former: fresh.get(name, name) for former, name in until.columns.items()} | dict(fresh)
    columns = {former: name for former, name in columns.items() if former not in now}
    levels = {*until.levels, *(former for former, name in fresh.items() if name in level_names(schemas["input"].model))}
    begun = {name: until.first.get(former, former) for former, name in fresh.items()}
    kept = {name: former for name, former in until.first.items() if name not in fresh}
    first = {name: former for name, former in {**kept, **begun}.items() if name != former}
    return Renames(columns, frozenset(levels & columns.keys()), first)


def _side_of(sides: Mapping[str, TableSchema], name: str) -> str | None:
    return next((side for side, schema in sides.items() if name in schema), None)


__all__ = ["RENAMED", "Renames", "check_declared", "name_among", "renamed_since"]
