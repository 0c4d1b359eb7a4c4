"""Compiles a pydantic model to a `TableSchema`, once, and keeps what ties the two together.

What has no faithful column is refused here, naming model, field, type and the ways out.
Never touches a value: `convert` and `check` do.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
import types
import typing
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal as PyDecimal
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
from pydantic import AnyUrl, AwareDatetime, BaseModel, NaiveDatetime, SecretBytes, SecretStr, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.networks import _BaseUrl  # pyright: ignore[reportPrivateUsage]
from pydantic.types import AllowInfNan, PathType, Strict

from scythe_catalog.errors import SchemaError
from scythe_catalog.markers import FileMarker
from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.table_schema import Column, TableSchema

#: Column that holds, as JSON, what instances carry beyond the fields of their model.
EXTRA_COLUMN = "extra"

_UNIT = re.compile(r"\[([^\[\]]+)\]\s*$")
#: Patterns that mean the same to Arrow's engine and to pydantic's: no classes that depend on Unicode tables, no flags.
_PLAIN_PATTERN = re.compile(r"(?:[^\\(]|\((?!\?)|\\[^A-Za-z0-9])*")
_MEASURED = (k.Int, k.Float, k.Decimal)
_BOUNDS: dict[type, str] = {
    at.Ge: "ge",
    at.Gt: "gt",
    at.Le: "le",
    at.Lt: "lt",
    at.MinLen: "min_length",
    at.MaxLen: "max_length",
}
_VALUE_CHANGING_CONFIG = (
    "str_strip_whitespace", "str_to_lower", "str_to_upper", "str_min_length", "str_max_length", "strict",
)  # fmt: skip
_SCALARS: dict[Any, k.Kind] = {
    bool: k.Bool(),
    int: k.Int(),
    float: k.Float(),
    str: k.Str(),
    bytes: k.Bytes(),
    dt.date: k.Date(),
    dt.time: k.Time(),
    dt.datetime: k.Timestamp(aware=False),
    NaiveDatetime: k.Timestamp(aware=False),
    AwareDatetime: k.Timestamp(aware=True),
    dt.timedelta: k.Duration(),
    uuid.UUID: k.Uuid(),
}


@dataclass(frozen=True)
class CompiledModel:
    """A model and the table schema of its fields."""

    model: type[BaseModel]
    schema: TableSchema
    #: True where column checks say all that the model would: no validators of its own, no nesting.
    declarative: bool
    #: True where instances may carry values beyond the fields.
    allows_extra: bool


@dataclass
class _Found:
    """What one annotation says."""

    kind: k.Kind
    nullable: bool = False
    bounds: dict[str, Any] = field(default_factory=dict[str, Any])
    opaque: bool = False


@lru_cache(maxsize=512)
def compile_model(model: type[BaseModel], skip: tuple[str, ...] = ()) -> CompiledModel:
    """The schema of a model, one column a field (but those in `skip`), in the order of their definition.

    Raises:
        SchemaError: a field that no column can hold faithfully.
    """
    columns, opaque = _columns(model, (model,), skip)
    allows_extra = model.model_config.get("extra") == "allow"
    if allows_extra and any(c.name == EXTRA_COLUMN for c in columns):
        raise SchemaError(
            f"{model.__name__}.{EXTRA_COLUMN}: the values beyond the fields are kept in a column of that name, so rename it"
        )
    declarative = not opaque and not _has_own_rules(model) and all(c.kind.flat for c in columns)
    return CompiledModel(model, TableSchema(columns), declarative, allows_extra)


def compile_type(annotation: Any, *, where: str) -> tuple[k.Kind, bool]:
    """The kind and the nullability of a bare annotation, as of a property's return type."""
    found = _Walk(where, (), {}).kind(annotation, ())
    return found.kind, found.nullable


def _columns(
    model: type[BaseModel], seen: tuple[type, ...], skip: tuple[str, ...] = ()
) -> tuple[tuple[Column, ...], bool]:
    columns: list[Column] = []
    opaque = False
    for name, info in model.model_fields.items():
        if name in skip:
            continue
        found = _Walk(f"{model.__name__}.{name}", seen, model.model_config).kind(info.annotation, info.metadata)
        opaque |= found.opaque
        columns.append(
            Column(name, found.kind, found.nullable, info.description, _unit(info, found.kind), found.bounds)
        )
    return tuple(columns), opaque


def _unit(info: FieldInfo, kind: k.Kind) -> str | None:
    extra = info.json_schema_extra
    if isinstance(extra, dict) and isinstance(extra.get("unit"), str):
        return typing.cast(str, extra["unit"])
    while isinstance(kind, k.List):
        kind = kind.item
    match = _UNIT.search(info.description or "")
    return match[1].strip() if match and isinstance(kind, _MEASURED) else None


def _has_own_rules(model: type[BaseModel]) -> bool:
    decorators = model.__pydantic_decorators__
    return bool(
        decorators.validators
        or decorators.field_validators
        or decorators.root_validators
        or decorators.model_validators
        or model.model_post_init is not BaseModel.model_post_init
        or "__get_pydantic_core_schema__" in vars(model)
        or any(model.model_config.get(key) for key in _VALUE_CHANGING_CONFIG)
        or model.model_config.get("allow_inf_nan") is False
    )


@dataclass(frozen=True)
class _Walk:
    """The way from one annotation to its kind; `where` names the field in errors."""

    where: str
    seen: tuple[type, ...]
    config: Mapping[str, Any]

    def refuse(self, annotation: Any, way_out: str) -> SchemaError:
        shown = getattr(annotation, "__name__", None) if isinstance(annotation, type) else None
        return SchemaError(f"{self.where}: no table column can hold {shown or annotation} faithfully. {way_out}")

    def kind(self, annotation: Any, metadata: Iterable[Any]) -> _Found:
        annotation, metadata = _unwrap(annotation, tuple(metadata))
        facts, opaque = _read_metadata(metadata)
        found = self.bare(annotation, facts)
        found.opaque |= opaque
        if facts.pop("file", False) and isinstance(found.kind, k.Uri):
            found.kind = k.Uri(file=True, restore=found.kind.restore)
        found.bounds.update({key: v for key, v in facts.items() if key not in ("max_digits", "decimal_places")})
        return found

    def bare(self, annotation: Any, facts: Mapping[str, Any]) -> _Found:
        origin, args = get_origin(annotation), get_args(annotation)
        if annotation in _SCALARS:
            return _Found(_SCALARS[annotation])
        if annotation is PyDecimal:
            return _Found(self.decimal(facts))
        if origin is Literal:
            return self.literal(args)
        if origin in (Union, types.UnionType):
            return self.union(args)
        if origin is tuple or annotation is tuple:
            return self.tuple(args)
        if origin in (list, set, frozenset) or origin in (Sequence, typing.Sequence):
            return self.list(origin, args)
        if origin in (dict, Mapping):
            return self.map(args)
        if isinstance(annotation, type):
            return self.of_class(annotation)
        raise self.refuse(annotation, "Annotate it with one concrete type, or leave it out of the model.")

    def of_class(self, cls: type) -> _Found:
        if issubclass(cls, enum.Enum):
            return _Found(k.category_of(cls, as_values=bool(self.config.get("use_enum_values"))))
        if issubclass(cls, PurePath):
            return _Found(k.Uri(restore=cls if cls is not PurePath else Path))
        if issubclass(cls, AnyUrl | _BaseUrl):
            return _Found(k.Uri(restore=TypeAdapter(cls).validate_python))
        if issubclass(cls, BaseModel):
            return self.model(cls)
        if issubclass(cls, SecretStr | SecretBytes):
            raise self.refuse(cls, "Secrets never enter a table: read them from the environment inside the function.")
        if cls in (list, set, frozenset, dict):
            raise self.refuse(
                cls, f"Say what it holds, as in {cls.__name__}[{'str, float' if cls is dict else 'float'}]."
            )
        raise self.refuse(
            cls,
            "Use a plain type (bool, int, float, str, datetime, Enum, a nested model, ...) and convert it in the function.",
        )

    def decimal(self, facts: Mapping[str, Any]) -> k.Decimal:
        precision, scale = facts.get("max_digits"), facts.get("decimal_places")
        if precision is None or scale is None or not 0 < precision <= 38:
            raise self.refuse(
                "Decimal",
                "Give its size: Field(max_digits=12, decimal_places=2), with max_digits of at most 38; or use float.",
            )
        return k.Decimal(precision, scale)

    def literal(self, args: tuple[Any, ...]) -> _Found:
        nullable = None in args
        values = tuple(v for v in args if v is not None)
        if values and all(isinstance(v, enum.Enum) for v in values) and len({type(v) for v in values}) == 1:
            whole = k.category_of(type(values[0]))
            texts = tuple(whole.members[v] for v in values)
            return _Found(k.Category(texts, type(values[0])), nullable)
        if values and all(type(v) is str for v in values):
            return _Found(k.Category(tuple(dict.fromkeys(values))), nullable)
        if values and all(type(v) is bool for v in values):
            return _Found(k.Bool(), nullable, opaque=len(set(values)) == 1)
        if values and all(type(v) is int for v in values):
            return _Found(k.Int(tuple(dict.fromkeys(values))), nullable)
        raise self.refuse(f"Literal{list(args)}", "Let all its values be of one type: text, or integers.")

    def union(self, args: tuple[Any, ...]) -> _Found:
        members = [a for a in args if a is not type(None)]
        nullable = len(members) < len(args)
        if len(members) == 1:
            found = self.kind(members[0], ())
            found.nullable |= nullable
            return found
        if all(get_origin(a) is Literal for a in members):
            found = self.literal(tuple(v for a in members for v in get_args(a)))
            found.nullable |= nullable
            return found
        if set(members) == {int, float}:
            return _Found(k.Float(), nullable)
        union = Union[tuple(members)]  # noqa: UP007 - built at run time
        try:
            found = [self.kind(a, ()) for a in members]
        except SchemaError:
            found = []
        if found and all(isinstance(f.kind, k.Uri) for f in found):
            file = any(isinstance(f.kind, k.Uri) and f.kind.file for f in found)
            restore = TypeAdapter[Any](union).validate_python  # pyright: ignore[reportArgumentType]
            return _Found(k.Uri(file=file, restore=restore), nullable or any(f.nullable for f in found))
        raise self.refuse(
            union, "One column has one type: use one of them, one optional field for each, or a separate experiment."
        )

    def list(self, origin: Any, args: tuple[Any, ...]) -> _Found:
        python: Any = origin if origin in (set, frozenset) else list
        item = self.kind(args[0] if args else Any, ())
        self.no_nested_file(item)
        return _Found(k.List(item.kind, item.nullable, python), opaque=bool(item.bounds) or item.opaque)

    def tuple(self, args: tuple[Any, ...]) -> _Found:
        if len(args) == 2 and args[1] is Ellipsis:
            found = self.list(list, args[:1])
            assert isinstance(found.kind, k.List)
            return _Found(k.List(found.kind.item, found.kind.item_nullable, tuple), opaque=found.opaque)
        if not args or args == ((),):
            raise self.refuse("tuple", "Say what it holds, as in tuple[float, float] or tuple[float, ...].")
        items = [self.kind(a, ()) for a in args]
        for item in items:
            self.no_nested_file(item)
        members = tuple(k.Member(f"item_{i}", item.kind, item.nullable) for i, item in enumerate(items))
        names = [m.name for m in members]
        return _Found(
            k.Struct(members, read=lambda v: dict(zip(names, v, strict=True)), build=lambda d: tuple(d.values()))
        )

    def map(self, args: tuple[Any, ...]) -> _Found:
        key = self.kind(args[0], ()) if args else None
        if key is None or not isinstance(key.kind, k.Str | k.Category) or key.nullable:
            raise self.refuse(f"dict[{', '.join(map(str, args))}]", "Let its keys be text: dict[str, ...].")
        value = self.kind(args[1], ())
        self.no_nested_file(value)
        return _Found(k.Map(key.kind, value.kind, value.nullable))

    def model(self, cls: type[BaseModel]) -> _Found:
        if cls in self.seen:
            raise self.refuse(
                cls, "It contains itself: a column has a fixed depth. Keep a list of identifiers instead."
            )
        columns, _ = _columns(cls, (*self.seen, cls))
        if not columns:
            raise self.refuse(cls, "It has no fields: give it one, or leave it out.")
        if cls.model_config.get("extra") == "allow":
            raise self.refuse(
                cls, 'A nested model cannot keep extra values: drop extra="allow", or use a dict[str, ...] field.'
            )
        members = tuple(k.Member(c.name, c.kind, c.nullable) for c in columns)
        for column in columns:
            self.no_nested_file(_Found(column.kind))
        from scythe_catalog.schema.convert import builder

        return _Found(k.Struct(members, read=vars, build=builder(cls)))

    def no_nested_file(self, found: _Found) -> None:
        if isinstance(found.kind, k.Uri) and found.kind.file:
            raise self.refuse(
                "a file reference inside a list, map or nested model", "Give each file a field of its own."
            )


def _unwrap(annotation: Any, metadata: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = (*more, *metadata)
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif isinstance(annotation, typing.TypeVar):
            annotation = annotation.__bound__ or Any
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation, metadata


def _read_metadata(metadata: Iterable[Any]) -> tuple[dict[str, Any], bool]:
    """Declared facts by name, and whether there are rules that only pydantic can check."""
    facts: dict[str, Any] = {}
    opaque = False
    for item in metadata:
        if item is None or isinstance(item, Strict | PathType):
            continue
        if isinstance(item, FileMarker):
            facts["file"] = True
        elif type(item) in _BOUNDS:
            name = _BOUNDS[type(item)]
            facts[name] = getattr(item, name)
        elif isinstance(item, AllowInfNan):
            facts["finite"] = not item.allow_inf_nan
        elif isinstance(item, FieldInfo):
            more, hidden = _read_metadata(item.metadata)
            facts.update(more)
            opaque |= hidden
        elif isinstance(item, at.GroupedMetadata):
            more, hidden = _read_metadata(item)
            facts.update(more)
            opaque |= hidden
        elif isinstance(item, at.BaseMetadata) and not hasattr(item, "pattern") and not hasattr(item, "max_digits"):
            opaque |= not _is_general(item)
            facts.update(_general(item))
            opaque |= _changes_values(item)
        elif _is_general(item):
            facts.update(_general(item))
            opaque |= _changes_values(item)
        elif hasattr(item, "__get_pydantic_core_schema__"):
            opaque = True
    pattern = facts.get("pattern")
    if pattern is not None and not (isinstance(pattern, str) and _PLAIN_PATTERN.fullmatch(pattern)):
        del facts["pattern"]
        opaque = True
    return {name: v for name, v in facts.items() if v is not None and v is not False}, opaque


def _is_general(item: Any) -> bool:
    return type(item).__name__ == "_PydanticGeneralMetadata"


def _general(item: Any) -> dict[str, Any]:
    known = ("pattern", "max_digits", "decimal_places", "min_length", "max_length")
    return {name: v for name, v in vars(item).items() if name in known} if _is_general(item) else {}


def _changes_values(item: Any) -> bool:
    harmless = {"pattern", "max_digits", "decimal_places", "min_length", "max_length", "strict"}
    return _is_general(item) and any(v for name, v in vars(item).items() if name not in harmless)
