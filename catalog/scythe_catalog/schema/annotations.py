"""The way from a field's annotation to the kind of its column.

What has no faithful column is refused here, naming model, field, type and the ways out. Never touches a value.
"""

from __future__ import annotations

import enum
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel, Field, SecretBytes, SecretStr, TypeAdapter
from pydantic.fields import ComputedFieldInfo, FieldInfo

from scythe_catalog.errors import SchemaError
from scythe_catalog.names import twins
from scythe_catalog.schema import kinds as k
from scythe_catalog.schema.metadata import Facts, extra_of, read_metadata
from scythe_catalog.schema.table_schema import Column

#: What says how many digits a Decimal has, not which numbers it takes.
_SIZES = ("max_digits", "decimal_places")
#: Keys of `json_schema_extra` that tell the unit, in lower case.
_UNIT_KEYS = ("unit", "units")
_UNIT = re.compile(r"\[([^\[\]]+)\]\s*$")


@dataclass
class Found:
    """What one annotation says."""

    kind: k.Kind
    nullable: bool = False
    bounds: dict[str, Any] = field(default_factory=dict[str, Any])
    opaque: bool = False
    loose: bool = False
    strict: bool = False


def found_in(
    model: type[BaseModel], seen: tuple[type, ...], skip: tuple[str, ...] = (), *, results: bool
) -> dict[str, tuple[FieldInfo, Found]]:
    """What the annotation of each field says."""
    found: dict[str, tuple[FieldInfo, Found]] = {}
    for name, info in model.model_fields.items():
        if name not in skip:
            walk = Walk(f"{model.__name__}.{name}", seen, model.model_config, results)
            found[name] = info, walk.kind(info.annotation, info.metadata)
    return found


def column_of(name: str, info: FieldInfo | ComputedFieldInfo, found: Found) -> Column:
    return Column(name, found.kind, found.nullable, info.description, _unit(info, found.kind), found.bounds)


def computed_columns(model: type[BaseModel], seen: tuple[type, ...]) -> tuple[Column, ...]:
    """The columns of a model's computed fields."""
    columns: list[Column] = []
    for name, info in model.model_computed_fields.items():
        where = f"{model.__name__}.{name}"
        getter = getattr(info.wrapped_property, "fget", None) or getattr(info.wrapped_property, "func", None)
        told = typing.get_type_hints(getter, include_extras=True).get("return", info.return_type)
        try:
            found = Walk(where, seen, model.model_config, results=True).kind(told, ())
        except SchemaError as error:
            raise SchemaError(f"{error} (a computed field of a result is a column: a plain property is none)") from None
        if found.kind.is_file:
            raise SchemaError(f"{where}: a computed field cannot be a file reference: make it a field")
        columns.append(column_of(name, info, found))
    return tuple(columns)


def refuse_twins(model: type[BaseModel], columns: Iterable[Column]) -> None:
    found = twins(c.name for c in columns)
    if found is not None:
        raise SchemaError(
            f"{model.__name__}: {found[0]!r} and {found[1]!r} become columns of one table, but DuckDB and Spark "
            "do not tell case (or Unicode forms) apart: rename one of them"
        )


def _unit(info: FieldInfo | ComputedFieldInfo, kind: k.Kind) -> str | None:
    told = {key: value for key, value in extra_of(info).items() if key.lower() in _UNIT_KEYS}
    if told:
        (key, unit), *others = told.items()
        if not isinstance(unit, str) or not unit.strip() or any(other != unit for _, other in others):
            raise SchemaError(
                f"json_schema_extra={told!r}: {key!r} is the unit of the values, one text, such as 'm2K/W'"
            )
        return unit.strip()
    while isinstance(kind, k.List):
        kind = kind.item
    match = _UNIT.search(info.description or "")
    return match[1].strip() if match and kind.number else None


def is_preprocessed(model: type[BaseModel], name: str) -> bool:
    """Whether a validator of the model sees a field's value before its type is looked at."""
    decorators = model.__pydantic_decorators__
    fields = [d.info for d in decorators.field_validators.values() if {name, "*"} & set(d.info.fields)]
    older = [d.info for d in decorators.validators.values() if {name, "*"} & set(d.info.fields)]
    whole = [d.info for d in (*decorators.model_validators.values(), *decorators.root_validators.values())]
    return (
        any(info.mode != "after" for info in (*fields, *older, *whole))
        or model.__init__ is not BaseModel.__init__
        or "__get_pydantic_core_schema__" in vars(model)
    )


def _takes_any_path(found: Found) -> bool:
    return isinstance(found.kind, k.Uri) and found.kind.paths is True and not found.opaque


@dataclass(frozen=True)
class Walk:
    """The way from one annotation to its kind; `where` names the field in errors."""

    where: str
    seen: tuple[type, ...]
    config: Mapping[str, Any]
    results: bool = False

    def refuse(self, annotation: Any, way_out: str) -> SchemaError:
        shown = getattr(annotation, "__name__", None) if isinstance(annotation, type) else None
        return SchemaError(f"{self.where}: no table column can hold {shown or annotation} faithfully. {way_out}")

    def kind(self, annotation: Any, metadata: Iterable[Any]) -> Found:
        annotation, metadata = _unwrap(annotation, tuple(metadata))
        facts = read_metadata(metadata)
        if self.config.get("regex_engine") == "python-re" and facts.declared.pop("pattern", None):
            facts.opaque = True
        found = self.bare(annotation, facts)
        found.opaque |= facts.opaque
        found.loose |= facts.loose
        found.strict |= facts.strict
        if facts.file and isinstance(found.kind, k.Uri):
            found.kind = replace(found.kind, file=True)
        found.bounds |= {n: v for n, v in facts.declared.items() if n not in _SIZES}
        return found

    def bare(self, annotation: Any, facts: Facts) -> Found:
        origin, args = get_origin(annotation), get_args(annotation)
        try:
            kind = k.kind_of_annotation(annotation, {**self.config, **facts.declared})
        except ValueError as error:
            raise self.refuse(annotation, str(error)) from None
        if kind is not None:
            return Found(kind, opaque=kind.loose, loose=kind.loose)
        if origin is Literal:
            return self.literal(args)
        if origin in (Union, types.UnionType):
            return self.union(args, facts)
        if origin is tuple or annotation is tuple:
            return self.tuple(args)
        if origin in (list, set, frozenset) or origin in (Sequence, typing.Sequence):
            return self.list(origin, args)
        if origin in (dict, Mapping):
            return self.map(args)
        if isinstance(annotation, type) or origin is np.ndarray:
            return self.of_class(origin or annotation)
        raise self.refuse(annotation, "Annotate it with one concrete type, or leave it out of the model.")

    def of_class(self, cls: type) -> Found:
        if issubclass(cls, BaseModel):
            return self.model(cls)
        if issubclass(cls, np.ndarray):
            raise self.refuse(cls, "Use list[float] and give it array.tolist(), or put it into a dataframe.")
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

    def literal(self, args: tuple[Any, ...]) -> Found:
        nullable = None in args
        values = tuple(v for v in args if v is not None)
        if values and all(isinstance(v, enum.Enum) for v in values) and len({type(v) for v in values}) == 1:
            whole = k.category_of(type(values[0]))
            texts = tuple(whole.members[v] for v in values)
            plain = bool(self.config.get("use_enum_values"))
            means = {text: told for text, told in k.meanings(type(values[0])).items() if text in texts}
            return Found(k.Category(texts, type(values[0]), plain, of_members=True, means=means), nullable)
        if values and all(type(v) is str for v in values):
            return Found(k.Category(tuple(dict.fromkeys(values))), nullable)
        if values and all(type(v) is bool for v in values):
            return Found(k.Bool(), nullable, opaque=len(set(values)) == 1)
        if values and all(type(v) is int for v in values):
            return Found(k.Int(tuple(dict.fromkeys(values))), nullable)
        raise self.refuse(f"Literal{list(args)}", "Let all its values be of one type: text, or integers.")

    def union(self, args: tuple[Any, ...], facts: Facts) -> Found:
        members = [a for a in args if a is not type(None)]
        nullable = len(members) < len(args)
        if len(members) == 1:
            sized: Any = Field(**{n: v for n, v in facts.declared.items() if n in _SIZES})
            found = self.kind(
                members[0], sized.metadata
            )  # as Pydantic does it: Decimal | None = Field(max_digits=12, ...)
            found.nullable |= nullable
            return found
        if all(get_origin(a) is Literal for a in members):
            found = self.literal(tuple(v for a in members for v in get_args(a)))
            found.nullable |= nullable
            return found
        if set(members) == {int, float}:
            return Found(k.Float(), nullable)
        union = Union[tuple(members)]  # noqa: UP007 - built at run time
        try:
            found = [self.kind(a, ()) for a in members]
        except SchemaError:
            found = []
        if found and all(isinstance(f.kind, k.Uri) for f in found):
            file = any(f.kind.is_file for f in found)
            given = TypeAdapter[Any](union).validate_python  # pyright: ignore[reportArgumentType]
            urls = [a for a, f in zip(members, found, strict=True) if isinstance(f.kind, k.Uri) and not f.kind.paths]
            kind = k.Uri(file, given, paths=not urls)
            if 0 < len(urls) < len(members):
                alone: Any = Union[tuple(urls)]  # noqa: UP007 - built at run time
                kind = k.Uri(file, TypeAdapter[Any](alone).validate_python, paths=None, given=given)
            return Found(
                kind,
                nullable or any(f.nullable for f in found),
                opaque=any(f.opaque for f in found) and not any(_takes_any_path(f) for f in found),
                loose=any(f.loose for f in found),
            )
        if len({type(f.kind) for f in found}) == 1 and isinstance(found[0].kind, k.Timestamp):
            raise self.refuse(union, "Instants with and without a time zone cannot be compared: use AwareDatetime.")
        raise self.refuse(
            union, "One column has one type: use one of them, one optional field for each, or a separate experiment."
        )

    def list(self, origin: Any, args: tuple[Any, ...]) -> Found:
        python: Any = origin if origin in (set, frozenset) else list
        item = self.kind(args[0] if args else Any, ())
        return self.made_of(k.List(item.kind, item.nullable, python), item)

    def tuple(self, args: tuple[Any, ...]) -> Found:
        if len(args) == 2 and args[1] is Ellipsis:
            found = self.list(list, args[:1])
            assert isinstance(found.kind, k.List)
            return replace(found, kind=replace(found.kind, python=tuple))
        if not args or args == ((),):
            raise self.refuse("tuple", "Say what it holds, as in tuple[float, float] or tuple[float, ...].")
        items = [self.kind(a, ()) for a in args]
        members = tuple(k.Member(f"item_{i}", item.kind, item.nullable) for i, item in enumerate(items))
        names = [m.name for m in members]
        kind = k.Struct(members, read=lambda v: dict(zip(names, v, strict=True)), build=lambda d: tuple(d.values()))
        return self.made_of(kind, *items)

    def map(self, args: tuple[Any, ...]) -> Found:
        key = self.kind(args[0], ()) if args else None
        if key is None or not isinstance(key.kind, k.Str | k.Category) or key.nullable:
            raise self.refuse(f"dict[{', '.join(map(str, args))}]", "Let its keys be text: dict[str, ...].")
        value = self.kind(args[1], ())
        return self.made_of(k.Map(key.kind, value.kind, value.nullable), key, value)

    def model(self, cls: type[BaseModel]) -> Found:
        if cls in self.seen:
            raise self.refuse(
                cls, "It contains itself: a column has a fixed depth. Keep a list of identifiers instead."
            )
        found = found_in(cls, (*self.seen, cls), results=self.results)
        columns = tuple(column_of(name, info, what) for name, (info, what) in found.items())
        if not columns:
            raise self.refuse(cls, "It has no fields: give it one, or leave it out.")
        if cls.model_config.get("extra") == "allow":
            raise self.refuse(
                cls, 'A nested model cannot keep extra values: drop extra="allow", or use a dict[str, ...] field.'
            )
        computed = computed_columns(cls, (*self.seen, cls)) if self.results else ()
        refuse_twins(cls, (*columns, *computed))
        for column in columns:
            self.no_nested_file(column.kind)
        members = tuple(k.Member(c.name, c.kind, c.nullable, c.unit) for c in (*columns, *computed))
        from scythe_catalog.schema.convert import builder, reader

        names = tuple(c.name for c in computed)
        kind = k.Struct(
            members, read=reader(cls, names, results=self.results), build=builder(cls, dropping=names), python=cls
        )
        loose = any(what.loose or is_preprocessed(cls, name) for name, (_, what) in found.items())
        strict = any(what.strict for _, what in found.values()) or bool(cls.model_config.get("strict"))
        return Found(kind, opaque=True, loose=loose, strict=strict)

    def made_of(self, kind: k.Kind, *parts: Found) -> Found:
        """What a list, a map or a tuple says, given what its parts say."""
        for part in parts:
            self.no_nested_file(part.kind)
        return Found(kind, opaque=True, loose=any(p.loose for p in parts), strict=any(p.strict for p in parts))

    def no_nested_file(self, kind: k.Kind) -> None:
        if kind.is_file:
            raise self.refuse(
                "a file reference inside a list, map or nested model", "Give each file a field of its own."
            )


def _unwrap(annotation: Any, metadata: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    while not k.is_annotation(annotation):
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
            break
    return annotation, metadata
