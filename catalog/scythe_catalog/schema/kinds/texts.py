"""Kinds that Arrow holds as text or bytes: what their texts mean differs."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from pydantic import AnyUrl, TypeAdapter
from pydantic.networks import _BaseUrl  # pyright: ignore[reportPrivateUsage]

from scythe_catalog.memo import cached_property
from scythe_catalog.schema.kinds.kind import Kind, Values, each_once, is_class, of_classes

if TYPE_CHECKING:
    import polars as pl


def _is_text(dtype: pa.DataType) -> bool:
    t = pa.types
    return t.is_string(dtype) or t.is_large_string(dtype) or t.is_string_view(dtype)


def _is_bytes(dtype: pa.DataType) -> bool:
    t = pa.types
    sized = t.is_fixed_size_binary(dtype) or t.is_binary_view(dtype)
    return t.is_binary(dtype) or t.is_large_binary(dtype) or sized


@dataclass(frozen=True)
class Str(Kind):
    name = "str"
    stored = pa.string()
    annotations: ClassVar[tuple[Any, ...]] = (str,)
    classes: ClassVar[tuple[type, ...]] = (str,)
    arrow: ClassVar[Callable[[pa.DataType], bool] | None] = staticmethod(_is_text)
    #: What some of the texts mean, of a column that was widened from a `Category`.
    means: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, repr=False)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Kind:
        return cls(means=dict(data.get("means", {})))

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), **({"means": dict(self.means)} if self.means else {})}

    def dump(self, values: Values) -> Values:
        of_classes(values, str)  # Arrow would take bytes for text
        return values


@dataclass(frozen=True)
class Json(Str):
    """Any JSON value as text; holds what a model carries beyond its fields."""

    name = "json"
    flat = False
    annotations = classes = ()
    arrow = None

    def dump(self, values: Values) -> Values:
        from pydantic_core import to_json

        return [None if not v else to_json(v).decode() for v in values]

    def load(self, values: Values) -> Values:
        from pydantic_core import from_json

        return [{} if v is None else from_json(v) for v in values]


@dataclass(frozen=True)
class Bytes(Kind):
    name = "bytes"
    stored = pa.binary()
    annotations = (bytes,)
    classes = (bytes, bytearray)
    arrow = staticmethod(_is_bytes)

    def dump(self, values: Values) -> Values:
        of_classes(values, bytes, bytearray, memoryview)  # Arrow would take text for bytes
        return values


@dataclass(frozen=True)
class Uuid(Kind):
    """Stored as its text: Polars reads Iceberg's own uuid as raw bytes."""

    name = "uuid"
    stored = pa.string()
    annotations = (uuid.UUID,)
    classes = (str, uuid.UUID)

    def dump(self, values: Values) -> Values:
        for v in values:
            if v is not None and not isinstance(v, uuid.UUID):
                raise TypeError(f"{v!r} is not a UUID")
        return [None if v is None else str(v) for v in values]

    def load(self, values: Values) -> Values:
        return [None if v is None else uuid.UUID(v) for v in values]

    def level(self, value: Any) -> Any:
        return None if value is None else str(value)

    def cast(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        return pa.chunked_array([self.array(self.load(values.to_pylist()))])

    def lift(self, *, strict: bool) -> Callable[[Any], Any] | None:
        return (lambda v: uuid.UUID(v) if isinstance(v, str) else v) if strict else None


@dataclass(frozen=True)
class Uri(Kind):
    """A path or a URL, stored as text. `restore` turns the text into the annotation's own type.

    `file` marks the kinds whose values are files to be carried along, not mere text: a stored `file://` is a path there.
    """

    name = "uri"
    stored = pa.string()
    file: bool = False
    restore: Callable[[str], Any] = field(default=Path, compare=False, repr=False)
    #: Whether the values are paths (True), URLs (False) or either (None): then a URL is known by its `://`.
    paths: bool | None = field(default=True, compare=False, repr=False)
    #: What the annotation makes of a text that a user gives, where that is not what a stored text was.
    given: Callable[[str], Any] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of_annotation(cls, annotation: Any, told: Mapping[str, Any]) -> Kind | None:
        if is_class(annotation, PurePath):
            return cls(restore=annotation if annotation is not PurePath else Path)
        if is_class(annotation, AnyUrl, _BaseUrl):
            return cls(restore=TypeAdapter[Any](annotation).validate_python, paths=False)
        return None

    @property
    def is_file(self) -> bool:
        return self.file

    def dump(self, values: Values) -> Values:
        texts = [None if v is None else str(v) for v in values]
        for v, text in zip(values, texts, strict=True):
            if isinstance(v, str | PurePath) or text is None:
                continue
            if not hasattr(v, "scheme"):
                raise TypeError(f"{v!r} is neither a path nor a URL")
            if self.paths is None and "://" not in text:
                raise ValueError(f"{text!r} is a URL without '://', which a field of paths and URLs takes for a path")
        return texts

    def load(self, values: Values) -> Values:
        seen: dict[str, Any] = {}
        for text in values:
            if text is not None and text not in seen:
                seen[text] = self._loaded(text)
        return [None if v is None else seen[v] for v in values]

    def _loaded(self, text: str) -> Any:
        path = local_path(text) if self.file else None
        if path is None and self.paths is None and "://" not in text:
            path = Path(text)
        return path if path is not None else self.restore(text)

    def level(self, value: Any) -> Any:
        return None if value is None else str(value)

    def cast(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """The texts as the model's own type writes them."""
        return each_once(values.cast(self.storage), self._taken)

    def _taken(self, texts: Values) -> pa.Array:
        take, file = self.given or self.restore, self.file
        return self.array([t if t is None or (file and local_path(t)) else take(t) for t in texts])

    def takes(self, python: type) -> bool:
        return issubclass(python, str | PurePath) or hasattr(python, "unicode_string")

    def lift(self, *, strict: bool) -> Callable[[Any], Any] | None:
        if self.file:
            return lambda v: given_path(v) or v if isinstance(v, str) else v
        return (lambda v: self.restore(v) if isinstance(v, str) else v) if strict else None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Kind:
        return cls(data["file"], restore=str)

    def describe(self) -> str:
        return "file reference" if self.file else "path or URL"


def local_path(uri: str) -> Path | None:
    """The path that a `file://` URI names, None for any other text."""
    return Path(uri.removeprefix("file://")) if uri.startswith("file://") else None


def given_path(uri: str) -> Path | None:
    """`local_path` of what a user gives: as it stands, as Scythe writes it, or percent-encoded, as `Path.as_uri` does."""
    path = local_path(uri)
    return path if path is None or "%" not in uri or path.exists() else Path(unquote(str(path)))


@dataclass(frozen=True)
class Category(Kind):
    """One of a fixed list of texts: an Enum or a Literal. Arrow holds the text, Polars a `pl.Enum`.

    An Enum whose values are not all texts is stored by the names of its members.
    """

    name = "category"
    stored = pa.string()
    classes = (str, enum.Enum, int, float, np.integer, np.floating, np.bool_)
    values: tuple[str, ...]
    python: type[enum.Enum] | None = field(default=None, compare=False, repr=False)
    #: The model holds the members' values, not the members (pydantic's `use_enum_values`).
    as_values: bool = field(default=False, compare=False, repr=False)
    #: A Literal of members, for which pydantic takes the members alone, not their values.
    of_members: bool = field(default=False, compare=False, repr=False)
    #: What members mean that are stored by their names, in Python's words; nothing of those whose values cannot be told so.
    means: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, repr=False)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Kind:
        return cls(tuple(data["values"]), means=dict(data.get("means", {})))

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), **({"means": dict(self.means)} if self.means else {})}

    @classmethod
    def of_annotation(cls, annotation: Any, told: Mapping[str, Any]) -> Kind | None:
        if not is_class(annotation, enum.Enum):
            return None
        if issubclass(annotation, enum.Flag):
            raise ValueError("A combination of flags is none of its members: use one bool field for each flag.")
        for text, member in _by_text(annotation).items():
            other = next((m for m in annotation if m is not member and m.value == text), None)
            if other is not None:
                raise ValueError(
                    f"A table shows the member {member.name} as {text!r}, which is the value of {other.name}: rename one of them."
                )
        return category_of(annotation, as_values=bool(told.get("use_enum_values")))

    @property
    def loose(self) -> bool:
        """An Enum may find members of its own accord."""
        own = (getattr(python._missing_, "__func__", None) for python in (self.python or enum.Enum, enum.Enum))
        return not self.of_members and next(own) is not next(own)

    def polars(self) -> pl.DataType:
        import polars as pl

        return pl.Enum(list(self.values))

    @cached_property
    def members(self) -> Mapping[Any, str]:
        """Every Python value that stands for a category, and the text stored for it."""
        if self.python is None:
            return {text: text for text in self.values}
        known: dict[Any, str] = {}
        for text, member in _by_text(self.python).items():
            if text not in self.values:  # a Literal of some members
                continue
            known[member] = text
            if isinstance(member.value, str | int | float):
                known.setdefault(member.value, text)
        for text in self.values:  # the value of a member comes before the name of another
            known.setdefault(text, text)
        return known

    def by_name(self, *, values: bool) -> dict[Any, enum.Enum]:
        """What readers show of an Enum's members (with `values`, these too) -> member, where pydantic takes it for none."""
        if self.python is None:
            return {}
        known = {text: m for text, m in _by_text(self.python).items() if text in self.values}
        of_values: dict[Any, enum.Enum] = {m.value: m for m in known.values() if isinstance(m.value, str | int | float)}
        return known | of_values if values else {t: m for t, m in known.items() if t not in of_values}

    def dump(self, values: Values) -> Values:
        known = self.members
        return [None if v is None else known[v] for v in values]

    def load(self, values: Values) -> Values:
        if self.python is None:
            return values
        member = {text: m.value if self.as_values else m for text, m in _by_text(self.python).items()}
        return [None if v is None else member[v] for v in values]

    def level(self, value: Any) -> Any:
        return self.dump([value])[0]

    def accepts(self, dtype: pa.DataType) -> bool:
        classes = {type(member.value) for member in self.python or ()}
        numbers = bool(classes & {int, float, bool}) and (pa.types.is_integer(dtype) or pa.types.is_floating(dtype))
        return _is_text(dtype) or numbers or (bool in classes and pa.types.is_boolean(dtype))

    def cast(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """Categories by the values of the Enum's members, or by their texts."""
        return each_once(values, self.array)

    def lift(self, *, strict: bool) -> Callable[[Any], Any] | None:
        members = self.by_name(values=strict or self.of_members)
        return (lambda v: members.get(v, v) if isinstance(v, str | int | float) else v) if members else None

    def describe(self) -> str:
        return f"one of {', '.join(map(repr, self.values[:8]))}{', …' if len(self.values) > 8 else ''}"


def category_of(python: type[enum.Enum], *, as_values: bool = False) -> Category:
    """The category list of an Enum class; `as_values` where the model stores plain values."""
    return Category(tuple(_by_text(python)), python, as_values, means=meanings(python))


def meanings(python: type[enum.Enum]) -> dict[str, str]:
    """What the members of an Enum mean whose stored texts are their names: their values, of those that Python writes out."""
    if all(isinstance(member.value, str) for member in python):
        return {}
    return {text: repr(m.value) for text, m in _by_text(python).items() if _is_written_out(m.value)}


def _is_written_out(value: Any) -> bool:
    if type(value) in (tuple, list):
        return all(map(_is_written_out, value))
    return type(value) in (
        int,
        float,
        bool,
        str,
        bytes,
        complex,
        decimal.Decimal,
        dt.date,
        dt.datetime,
        dt.time,
        dt.timedelta,
        type(None),
    )


def _by_text(python: type[enum.Enum]) -> dict[str, enum.Enum]:
    """The members of an Enum by the texts that are stored for them: their values where all are texts, else their names."""
    by_value = all(isinstance(m.value, str) for m in python)
    return {str(m.value) if by_value else m.name: m for m in python}
