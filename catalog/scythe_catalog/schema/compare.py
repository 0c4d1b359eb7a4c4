"""Compares two schemas: identical, additive or breaking, field by field. Knows nothing of versions.

What is unknown (nulls alone so far) binds nobody: it neither changes nor clashes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.table_schema import Column, TableSchema


class Severity(enum.IntEnum):
    """How far two schemas lie apart; a larger one includes the smaller."""

    IDENTICAL = 0
    ADDITIVE = 1
    BREAKING = 2


#: Whether a field is there at all, may be null, has which choices, is of which type, in which unit, and what its categories mean.
About = Literal["field", "null", "choices", "type", "unit", "meaning"]


@dataclass(frozen=True)
class Change:
    """One difference of one field."""

    field: str
    what: str
    severity: Severity
    about: About = "type"

    def __str__(self) -> str:
        return f"{self.field}: {self.what} ({self.severity.name.lower()})"


@dataclass(frozen=True)
class Difference:
    """All that changed between an old schema and a new one; docs and bounds do not count, nor does a unit that one of them lacks."""

    changes: tuple[Change, ...]

    @property
    def severity(self) -> Severity:
        """The gravest of the changes."""
        return max((c.severity for c in self.changes), default=Severity.IDENTICAL)

    def __add__(self, other: Difference) -> Difference:
        return Difference(self.changes + other.changes)

    def __str__(self) -> str:
        return "\n".join(f"  {c}" for c in self.changes) or "  no difference"


def compare(old: TableSchema, new: TableSchema) -> Difference:
    """What became of `old`, field by field; the order of fields does not matter."""
    return Difference(
        (*_members("", [*map(_member, old)], [*map(_member, new)]), *_units(old, new), *_meanings(old, new))
    )


def _meanings(old: TableSchema, new: TableSchema) -> Iterator[Change]:
    """The categories of the same names that mean something else than they did; where one of the schemas does not tell, nothing."""
    before = dict(told for column in old for told in _meanings_of(column.name, column.kind))
    for path, means in (told for column in new for told in _meanings_of(column.name, column.kind)):
        then = before.get(path, {})
        other = [f"{name} was {then[name]} and is {now}" for name, now in means.items() if then.get(name, now) != now]
        if other:
            yield Change(
                path, f"has categories that mean something else: {', '.join(other)}", Severity.BREAKING, "meaning"
            )


def _meanings_of(path: str, kind: k.Kind) -> Iterator[tuple[str, Mapping[str, str]]]:
    """What the categories of a column, and of all that is within it, mean, each by its path."""
    if isinstance(kind, k.Category | k.Str) and kind.means:
        yield path, kind.means
    for name, part in kind.parts:
        yield from _meanings_of(f"{path}.{name}" if isinstance(kind, k.Struct) else f"{path}[]", part)


def _units(old: TableSchema, new: TableSchema) -> Iterator[Change]:
    for name, (before, after) in mixed_units((old, new)).items():
        yield Change(name, f"changed its unit from [{before}] to [{after}]", Severity.BREAKING, "unit")


def mixed_units(schemas: Iterable[TableSchema]) -> dict[str, list[str]]:
    """The columns, and fields within them (`wall.u`), that have other units in one of the schemas than in another: all that they have."""
    found: dict[str, list[str]] = {}
    for column in (column for schema in schemas for column in schema):
        for path, unit in _units_of(column.name, column.unit, column.kind):
            units = found.setdefault(path, [])
            if unit not in units:
                units.append(unit)
    return {name: units for name, units in found.items() if len(units) > 1}


def mixed_meanings(schemas: Iterable[TableSchema]) -> dict[str, str]:
    """The columns, and what is within them, whose categories of one name mean something else in one of the schemas than in another.

    Of each the first such category, and all that it is: `'low' is 10, 20`. Where a schema does not tell, nothing.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for path, means in (told for schema in schemas for c in schema for told in _meanings_of(c.name, c.kind)):
        for name, meaning in means.items():
            known = found.setdefault(path, {}).setdefault(name, [])
            if meaning not in known:
                known.append(meaning)
    unlike = {path: {name: told for name, told in of.items() if len(told) > 1} for path, of in found.items()}
    return {path: f"{(first := next(iter(of)))!r} is {', '.join(of[first])}" for path, of in unlike.items() if of}


def facts_of(schema: TableSchema) -> dict[tuple[str, str | None], str]:
    """What the columns, and all that is within them, tell beside their types: of each path its unit, and of each of its categories what it means."""
    found: dict[tuple[str, str | None], str] = {}
    for column in schema:
        found |= {(path, None): unit for path, unit in _units_of(column.name, column.unit, column.kind)}
        for path, means in _meanings_of(column.name, column.kind):
            found |= {(path, name): meaning for name, meaning in means.items()}
    return found


def _units_of(path: str, unit: str | None, kind: k.Kind) -> Iterator[tuple[str, str]]:
    """The units of a column and of all that is within it, each by its path."""
    if unit is not None:
        yield path, unit
    if isinstance(kind, k.Struct):
        for member in kind.members:
            yield from _units_of(f"{path}.{member.name}", member.unit, member.kind)
        return
    for _, part in kind.parts:
        yield from _units_of(f"{path}[]", None, part)


def _member(column: Column) -> k.Member:
    return k.Member(column.name, column.kind, column.nullable, column.unit)


def _members(prefix: str, old: list[k.Member], new: list[k.Member]) -> Iterator[Change]:
    before, after = {m.name: m for m in old}, {m.name: m for m in new}
    for name, member in before.items():
        if name not in after and k.known_part(member.kind) is not None:
            yield Change(prefix + name, "removed", Severity.BREAKING, "field")
    for name, member in after.items():
        if name not in before:
            if k.known_part(member.kind) is None:
                continue  # a column of nulls alone says nothing yet
            yield Change(prefix + name, f"added, {member.kind.describe()}", Severity.ADDITIVE, "field")
        else:
            yield from _nullability(prefix + name, before[name].nullable, member.nullable)
            yield from _kinds(prefix + name, before[name].kind, member.kind)


def _nullability(path: str, old: bool, new: bool) -> Iterator[Change]:
    if new and not old:
        yield Change(path, "may be None by now", Severity.ADDITIVE, "null")
    if old and not new:
        yield Change(path, "may no longer be None", Severity.BREAKING, "null")


def _kinds(path: str, old: k.Kind, new: k.Kind) -> Iterator[Change]:
    match old, new:
        case (k.Unknown(), _) | (_, k.Unknown()):
            return
        case k.Category(before), k.Category(after):
            yield from _choices(path, "categories", before, after)
        case k.Int(before), k.Int(after) if before is not None and after is not None:
            yield from _choices(path, "choices", tuple(map(str, before)), tuple(map(str, after)))
        case (k.Int(tuple()), k.Int(None)) | (k.Category(), k.Str()):
            yield Change(path, f"widened from {old.describe()} to {new.describe()}", Severity.ADDITIVE)
        case k.Decimal(p, s), k.Decimal(q, t) if s == t and q > p:
            yield Change(path, f"widened from {old.describe()} to {new.describe()}", Severity.ADDITIVE)
        case k.List(), k.List():
            yield from _nullability(path + "[]", old.item_nullable, new.item_nullable)
            yield from _kinds(path + "[]", old.item, new.item)
        case k.Map(), k.Map():
            yield from _kinds(path + ".keys", old.key, new.key)
            yield from _nullability(path + "[]", old.value_nullable, new.value_nullable)
            yield from _kinds(path + "[]", old.value, new.value)
        case k.Struct(), k.Struct():
            yield from _members(path + ".", list(old.members), list(new.members))
        case _ if old != new:
            yield Change(path, f"changed from {old.describe()} to {new.describe()}", Severity.BREAKING)
        case _:
            return


def _choices(path: str, word: str, old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[Change]:
    gone = [v for v in old if v not in new]
    more = [v for v in new if v not in old]
    if gone:
        yield Change(path, f"lost the {word} {', '.join(gone)}", Severity.BREAKING, "choices")
    if more:
        yield Change(path, f"gained the {word} {', '.join(more)}", Severity.ADDITIVE, "choices")


def clashes(one: TableSchema, other: TableSchema) -> list[str]:
    """The fields of two schemas that no common column can hold, in words; the order of the two does not matter."""
    kinds = {c.name: c.kind for c in one}
    return [text for c in other if c.name in kinds for text in _clashes(c.name, kinds[c.name], c.kind)]


def _clashes(path: str, one: k.Kind, other: k.Kind) -> Iterator[str]:
    match one, other:
        case (k.Unknown(), _) | (_, k.Unknown()):
            return
        case (k.Category() | k.Str(), k.Category() | k.Str()) if not isinstance(one, k.Json) and not isinstance(
            other, k.Json
        ):
            return
        case (k.Int(), k.Int()) | (k.Json(), k.Json()):
            return
        case k.Decimal(_, s), k.Decimal(_, t) if s == t:
            return
        case k.List(), k.List():
            yield from _clashes(f"{path}[]", one.item, other.item)
        case k.Map(), k.Map():
            yield from _clashes(f"{path}[]", one.value, other.value)
        case k.Struct(), k.Struct():
            members = {m.name: m.kind for m in one.members}
            for m in other.members:
                if m.name in members:
                    yield from _clashes(f"{path}.{m.name}", members[m.name], m.kind)
        case _ if one != other:
            yield f"{path}: changed from {one.describe()} to {other.describe()}"
        case _:
            return


def united(old: TableSchema, new: TableSchema) -> TableSchema:
    """The schema of a table that holds rows of both: `old` widened by what `new` adds.

    Meaningful only where `compare` finds no breaking change in the fields that both have.
    """
    columns: list[Column] = []
    for column in old:
        if column.name not in new:
            columns.append(replace(column, nullable=True))
            continue
        other = new[column.name]
        kind = _wider(column.kind, other.kind)
        # A unit stays that of the column, also where some rows come from models that do not tell it.
        unit = other.unit or column.unit
        columns.append(replace(other, kind=kind, nullable=column.nullable or other.nullable, unit=unit))
    added = (replace(c, nullable=True) for c in new if c.name not in old)
    return TableSchema((*columns, *added))


def _wider(old: k.Kind, new: k.Kind) -> k.Kind:
    match old, new:
        case (kind, k.Unknown()) | (k.Unknown(), kind):
            return kind
        case k.Category(before), k.Category(after):
            return k.Category(tuple(dict.fromkeys((*before, *after))), means={**old.means, **new.means})
        case k.Int(before), k.Int(after) if before is not None and after is not None:
            return k.Int(tuple(dict.fromkeys((*before, *after))))
        case k.Int(), k.Int():
            return k.Int()
        case k.Category() | k.Str(), k.Category() | k.Str() if not isinstance(old, k.Json) and not isinstance(
            new, k.Json
        ):
            return k.Str(means={**old.means, **new.means})
        case k.Decimal(p, s), k.Decimal(q, _):
            return k.Decimal(max(p, q), s)
        case k.List(), k.List():
            return k.List(_wider(old.item, new.item), old.item_nullable or new.item_nullable)
        case k.Map(), k.Map():
            return k.Map(
                _wider(old.key, new.key), _wider(old.value, new.value), old.value_nullable or new.value_nullable
            )
        case k.Struct(), k.Struct():
            after = {m.name: m for m in new.members}
            kept = [
                k.Member(
                    m.name,
                    _wider(m.kind, after[m.name].kind),
                    m.nullable or after[m.name].nullable,
                    after[m.name].unit or m.unit,
                )
                if m.name in after
                else k.Member(m.name, m.kind, True, m.unit)
                for m in old.members
            ]
            known = {m.name for m in old.members}
            return k.Struct(
                (*kept, *(k.Member(m.name, m.kind, True, m.unit) for m in new.members if m.name not in known))
            )
        case _:
            return new
