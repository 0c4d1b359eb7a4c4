"""Compiles a pydantic model to a `TableSchema`, once, and keeps what ties the two together.

What has no faithful column is refused in `annotations`. Never touches a value: `convert` and `check` do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from pydantic import BaseModel

from scythe_catalog.memo import cached_property
from scythe_catalog.names import folded
from scythe_catalog.schema.annotations import column_of, computed_columns, found_in, is_preprocessed, refuse_twins
from scythe_catalog.schema.carried import has_privates
from scythe_catalog.schema.table_schema import TableSchema

#: Column that holds, as JSON, what instances carry beyond the fields of their model.
EXTRA_COLUMN = "extra"

_VALUE_CHANGING_CONFIG = (
    "str_strip_whitespace", "str_to_lower", "str_to_upper", "str_min_length", "str_max_length", "strict", "validate_default",
)  # fmt: skip


@dataclass(frozen=True)
class CompiledModel:
    """A model and the table schema of its fields."""

    model: type[BaseModel]
    schema: TableSchema
    #: True where column checks say all that the model would: no validators of its own, no nesting.
    declarative: bool
    #: True where instances may carry values beyond the fields.
    allows_extra: bool
    #: Columns that the model computes of the others.
    computed: tuple[str, ...] = ()
    #: Fields that may accept values of any type: a rule of the user's comes before pydantic's.
    loose: frozenset[str] = frozenset()
    #: Fields whose values must be of the very type.
    strict: frozenset[str] = frozenset()
    #: Where the values beyond the fields are kept, as JSON.
    extra_column: str = EXTRA_COLUMN

    @cached_property
    def fields(self) -> TableSchema:
        """The columns that make an instance: all but the computed ones."""
        return self.schema.without(self.computed)

    @cached_property
    def has_privates(self) -> bool:
        """Whether instances have private attributes, which no column holds."""
        return has_privates(self.model, self.schema)

    def beside(self, names: Iterable[str]) -> CompiledModel:
        """The same, with a column for values beyond the fields that is none of these names either."""
        return replace(self, extra_column=_extra_column((*self.schema.names, *names)))


@lru_cache(maxsize=512)
def compile_model(model: type[BaseModel], skip: tuple[str, ...] = (), *, results: bool = False) -> CompiledModel:
    """The schema of a model, one column a field (but those in `skip`), in the order of their definition.

    With `results` the model is what a function gives: its computed fields are columns too, and so are those of
    nested models.

    Raises:
        SchemaError: a field that no column can hold faithfully, or two names that some reader cannot tell apart.
    """
    found = found_in(model, (model,), skip, results=results)
    columns = tuple(column_of(name, info, what) for name, (info, what) in found.items())
    computed = computed_columns(model, (model,)) if results else ()
    refuse_twins(model, (*columns, *computed))
    own = _has_own_rules(model)
    loose = {name for name, (_, what) in found.items() if what.loose or is_preprocessed(model, name)}
    strict = {name for name, (_, what) in found.items() if what.strict or model.model_config.get("strict")}
    opaque = own or any(what.opaque for _, what in found.values())
    return CompiledModel(
        model,
        TableSchema(columns + computed),
        declarative=not opaque and all(c.kind.flat for c in columns),
        allows_extra=model.model_config.get("extra") == "allow",
        computed=tuple(c.name for c in computed),
        loose=frozenset(loose),
        strict=frozenset(strict),
        extra_column=_extra_column(c.name for c in columns),
    )


def _extra_column(names: Iterable[str]) -> str:
    taken, name = {folded(n) for n in names}, EXTRA_COLUMN
    while name in taken:
        name += "_"
    return name


def _has_own_rules(model: type[BaseModel]) -> bool:
    decorators = model.__pydantic_decorators__
    return bool(
        decorators.validators
        or decorators.field_validators
        or decorators.root_validators
        or decorators.model_validators
        or model.model_post_init is not BaseModel.model_post_init
        or model.__init__ is not BaseModel.__init__
        or any(info.validate_default for info in model.model_fields.values())
        or "__get_pydantic_core_schema__" in vars(model)
        or any(model.model_config.get(key) for key in _VALUE_CHANGING_CONFIG)
        or model.model_config.get("allow_inf_nan") is False
    )
