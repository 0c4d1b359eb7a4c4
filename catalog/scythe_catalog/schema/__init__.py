"""Schemas: pydantic models compiled to Arrow, values converted and checked, two schemas compared."""

from scythe_catalog.schema.bounds import check_bounds, rule_problems
from scythe_catalog.schema.check import conform
from scythe_catalog.schema.compare import (
    Change,
    Difference,
    Severity,
    clashes,
    compare,
    facts_of,
    mixed_meanings,
    mixed_units,
    united,
)
from scythe_catalog.schema.compile import CompiledModel, compile_model
from scythe_catalog.schema.convert import (
    arrow_to_models,
    builder,
    column_to_arrow,
    columns_to_arrow,
    iterate_models,
    models_to_arrow,
    to_list,
)
from scythe_catalog.schema.families import families, mixture
from scythe_catalog.schema.lift import Frame, aliases, arrow_table
from scythe_catalog.schema.metadata import extra_of
from scythe_catalog.schema.problems import Problem
from scythe_catalog.schema.stored import joined, loses, refitted, same_names, to_storage
from scythe_catalog.schema.table_schema import KIND_KEY, SCHEMA_KEY, Column, TableSchema

__all__ = [
    "KIND_KEY",
    "SCHEMA_KEY",
    "Change",
    "Column",
    "CompiledModel",
    "Difference",
    "Frame",
    "Problem",
    "Severity",
    "TableSchema",
    "aliases",
    "arrow_table",
    "arrow_to_models",
    "builder",
    "check_bounds",
    "clashes",
    "column_to_arrow",
    "columns_to_arrow",
    "compare",
    "compile_model",
    "conform",
    "extra_of",
    "facts_of",
    "families",
    "iterate_models",
    "joined",
    "loses",
    "mixed_meanings",
    "mixed_units",
    "mixture",
    "models_to_arrow",
    "refitted",
    "rule_problems",
    "same_names",
    "to_list",
    "to_storage",
    "united",
]
