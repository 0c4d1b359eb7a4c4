"""Errors by their kind: class, place, and message without its values. Counts, and tells the first of each; columns only."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from scythe.names import ID_LEVELS
from scythe.record.results import ErrorKind
from scythe_catalog.compute import pc
from scythe_catalog.schema import TableSchema
from scythe_catalog.schema import kinds as k

#: What differs between two messages of one kind: quoted texts, and numbers.
_VALUES = r"'[^'\n]*'|\"[^\"\n]*\"|0x[0-9a-fA-F]+|[-+]?\d[\d_,.]*(?:[eE][-+]?\d+)?"
_FRAME = r'(?s)\A.*File "([^"\n]+)", line (\d+), in ([^\n]+).*\z'
#: Frames of libraries: what a user looks for is his own line.
_LIBRARY = r' +File "[^"\n]*(?:site-packages|dist-packages|/lib/python\d)[^"\n]*", line [^\n]*\n(?:    [^\n]*\n)*'
_LINE = re.compile(r'File "([^"\n]+)", line (\d+), in ([^\n]+)\n +([^\n]+)')
#: So many kinds are told apart by all that they are; as many more each by class and place, and by class alone.
_MOST_KINDS = 1000
_ANY = "…"
_SHOWN_VALUES, _SHOWN_CHARACTERS = 6, 2000
_OWN = frozenset({*ID_LEVELS, "exception_type", "exception_message", "traceback", "attempts", "extra"})


class News(NamedTuple):
    """The first failure of a kind: which kind it is, the same wherever it is met, and a text for people."""

    kind: str
    text: str


class ErrorKinds:
    """The kinds of errors that have been seen, with their counts."""

    def __init__(self, *told: Iterable[Any]) -> None:
        """None yet, or all that others have `told`, together."""
        self._found: dict[tuple[str, str, str], ErrorKind] = {}
        #: How many of them are told by how much.
        self._at_depth: Counter[int] = Counter()
        for of_one in told:
            for key, plain in of_one:
                self._add(self._counted_as(tuple(key)), ErrorKind.model_validate(plain))

    def told(self, most: int | None = None) -> list[Any]:
        """The most frequent kinds as plain data, for another to count them in."""
        found = sorted(self._found.items(), key=lambda item: -item[1].count)[:most]
        return [[list(key), kind.model_dump()] for key, kind in found]

    def _add(self, key: tuple[str, str, str], kind: ErrorKind) -> None:
        known = self._found.get(key)
        if known is None:
            self._put(key, kind)
        else:
            first = min(known, kind, key=lambda one: one.first)
            self._found[key] = first.model_copy(update={"count": known.count + kind.count})

    def add(self, errors: pa.Table) -> list[News]:
        """Counts rows of `errors`; gives the first of each kind that is new."""
        news: list[News] = []
        for own, first, count in _grouped(errors):
            key = self._counted_as(own)
            known = self._found.get(key)
            if known is not None:
                known.count += count
                known.first = min(known.first, first)
            else:
                (row,) = errors.filter(pc.equal(errors["sort_index"], first)).to_pylist()
                message = _cut(row["exception_message"])
                kind = ErrorKind(exception_type=key[0], place=key[1], message=message, count=count, first=first)
                self._put(key, kind)
                news.append(News(" ".join(key), _told(_as_given(row, errors.schema), kind)))
        return news

    def _counted_as(self, key: tuple[str, str, str]) -> tuple[str, str, str]:
        """The kind that one which is new is counted as: itself, and where there are too many one that is told by less."""
        kind, place, _ = key
        for wider in (key, (kind, place, _ANY), (kind, "", _ANY)):
            if wider in self._found or self._at_depth[_depth(wider)] < _MOST_KINDS:
                return wider
        return _ANY, "", _ANY

    def _put(self, key: tuple[str, str, str], kind: ErrorKind) -> None:
        self._found[key] = kind
        self._at_depth[_depth(key)] += 1

    def all(self) -> list[ErrorKind]:
        """The kinds, the most frequent first."""
        return sorted(self._found.values(), key=lambda kind: (-kind.count, kind.first))


def _depth(key: tuple[str, str, str]) -> int:
    """By how much a kind is told from others: its class, its place, its message."""
    _, place, message = key
    return 3 if message != _ANY else 2 if place else 1


def _grouped(errors: pa.Table) -> Iterable[tuple[tuple[str, str, str], int, int]]:
    """Each kind that is among some rows: what it is, its lowest `sort_index`, and how many there are."""
    if not errors.num_rows:
        return
    found = _kinds(errors).append_column("sort_index", errors["sort_index"])
    found = found.group_by(["kind", "place", "message"], use_threads=False)
    for row in found.aggregate([("sort_index", "min"), ("sort_index", "count")]).to_pylist():
        yield (row["kind"], row["place"], row["message"]), row["sort_index_min"], row["sort_index_count"]


def alike(errors: pa.Table, first: int) -> pa.Table:
    """The rows of `errors` of the same kind as that of the input `first`."""
    kinds = _kinds(errors)
    (kind,) = kinds.filter(pc.equal(errors["sort_index"], first)).to_pylist()
    same = [pc.equal(kinds[name], value) for name, value in kind.items()]
    return errors.filter(pc.and_(pc.and_(same[0], same[1]), same[2]))


def _kinds(errors: pa.Table) -> pa.Table:
    """Of each row class, place and message without its values."""
    traceback = pc.replace_substring_regex(errors["traceback"], pattern=_LIBRARY, replacement="")
    in_code = pc.match_substring(traceback, 'File "')
    place = pc.replace_substring_regex(traceback, pattern=_FRAME, replacement=r"\1:\2 in \3")
    columns = {
        "kind": errors["exception_type"],
        "place": pc.if_else(in_code, place, ""),
        "message": pc.replace_substring_regex(errors["exception_message"], pattern=_VALUES, replacement="…"),
    }
    return pa.table(columns)


def _told(row: dict[str, Any], kind: ErrorKind) -> str:
    """The first of a kind, for people: which input, what was wrong, and where."""
    values = [f"{name}={_named(value)!r}" for name, value in row.items() if name not in _OWN and _is_plain(value)]
    shown = ", ".join(values[:_SHOWN_VALUES]) + (", …" if len(values) > _SHOWN_VALUES else "")
    text = f"input {row['sort_index']} failed{f' ({shown})' if shown else ''}: {kind.name}: {kind.message}"
    lines = _LINE.findall(re.sub(_LIBRARY, "", row["traceback"]))
    if lines:
        file, line, function, code = lines[-1]
        text += f"\n  {file}:{line} in {function}: {code.strip()}"
    return text


def _as_given(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """The values of a row as its input has them: durations are stored as microseconds, and read as what they are."""
    kinds = {column.name: column.kind for column in TableSchema.from_arrow(schema)}
    return {
        name: dt.timedelta(microseconds=value)
        if isinstance(value, int) and isinstance(kinds[name], k.Duration)
        else value
        for name, value in row.items()
    }


def _named(value: Any) -> Any:
    """A moment as its text, and a file by its name alone, which is what tells it from the others."""
    if isinstance(value, dt.date | dt.time | dt.timedelta):
        return str(value)
    if not isinstance(value, str) or "://" not in value:
        return value
    return value.partition("?")[0].rpartition("/")[2] or value


def _is_plain(value: Any) -> bool:
    return value is not None and not isinstance(value, list | dict | bytes)


def _cut(message: str) -> str:
    return message if len(message) <= _SHOWN_CHARACTERS else message[:_SHOWN_CHARACTERS] + " …"
