"""The schemas of one experiment: what `specs.pq` and each of its tables hold. Pure, compiled once.

An experiment's models in; table schemas out. Of a value it sees no more than the class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec, level_names
from scythe.define.bookkeeping import ErrorRow, LogRow, PackRow, TaskRow, columns_of
from scythe.define.renames import check_declared
from scythe.errors import OutputError, RegistrationError, SchemaError
from scythe.names import ID_LEVELS, RESERVED_TABLES, check_name
from scythe_catalog.memo import cached_property
from scythe_catalog.names import folded, twins
from scythe_catalog.schema import Column, CompiledModel, Severity, TableSchema, compile_model
from scythe_catalog.schema import kinds as k

VERSION_COLUMN = Column("version", k.Str(), True, "Version of the experiment.")
DATETIME_COLUMN = Column("run_datetime", k.Timestamp(aware=True), True, "Start of the run.")
PARTITION = (VERSION_COLUMN, DATETIME_COLUMN)

#: Those of `ID_LEVELS`.
ID_COLUMNS = (
    Column("experiment_id", k.Str(), True, "The experiment, its version and the start of the run."),
    Column("sort_index", k.Int(), False, "The position of the input in the run.", bounds={"ge": 0}),
    Column("root_workflow_run_id", k.Str(), True, "The run."),
    Column("workflow_run_id", k.Str(), True, "The task of this input."),
)
ERROR_COLUMNS, TASK_COLUMNS = columns_of(ErrorRow), columns_of(TaskRow)
#: The table `logs`: there where any input printed something.
LOGS = TableSchema(ID_COLUMNS).plus(columns_of(LogRow))
#: The table `packs`: there where any output file lies in a shard.
PACKS = TableSchema(ID_COLUMNS).plus(columns_of(PackRow))
EXTRA = Column("extra", k.Json(), True, "Values that the input carries beyond its fields, as JSON.")
_TAKEN = {folded(c.name): c.name for c in (*PARTITION, *ERROR_COLUMNS)} | {"sort_subindex": "sort_subindex"}
#: What a function calls on its spec: a field of that name would hide it.
_CALLED = ("log", "fetch_uri", "make_multiindex", "computed_features", "log_method", "log_keeper")
_MOST_CHARACTERS, _MOST_BYTES = 120, 200


@dataclass(frozen=True)
class ExperimentSchemas:
    """The compiled models of an experiment, and the schemas of its tables."""

    input: CompiledModel
    output: CompiledModel
    #: Columns of the computed features, known once the first inputs are there.
    computed: tuple[Column, ...] = ()
    #: Whether any input of the run carries values beyond its fields.
    extra: bool = False

    @property
    def file_inputs(self) -> tuple[str, ...]:
        """Names of the input fields that are file references."""
        return _files(self.input.schema)

    @property
    def file_outputs(self) -> tuple[str, ...]:
        """Names of the output fields that are file references."""
        return _files(self.output.schema)

    @property
    def levels(self) -> TableSchema:
        """The index levels: identifiers, scalar inputs, computed features."""
        names = level_names(self.input.model)[len(ID_LEVELS) :]
        return TableSchema(ID_COLUMNS).plus(self.input.schema.select(names)).plus(self.computed)

    @property
    def inputs(self) -> TableSchema:
        """The index levels, then the inputs that cannot be levels: lists, maps, nested models, extra values."""
        levels = self.levels
        rest = tuple(c for c in self.input.schema if c.name not in levels)
        return levels.plus(rest + ((replace(EXTRA, name=self.input.extra_column),) if self.extra else ()))

    @cached_property
    def tables(self) -> dict[str, TableSchema]:
        """Schema of each table that the models determine, by table name."""
        files = self.file_outputs
        found = {
            "scalars": self.inputs.plus(self.output.schema.without(files)),
            "errors": self.inputs.plus(ERROR_COLUMNS),
            "tasks": TableSchema(ID_COLUMNS).plus(TASK_COLUMNS),
        }
        if files:
            found["result_file_refs"] = self.levels.plus(self.output.schema.select(files))
        return found

    def to_json(self) -> dict[str, Any]:
        """Both models' schemas, for the record of a version."""
        return {"input": self.input.schema.to_json(), "output": self.output.schema.to_json()}


def index_of(table: str, schemas: ExperimentSchemas) -> tuple[str, ...]:
    """The columns of a models' table that pandas reads back as a MultiIndex."""
    return ID_LEVELS if table in ("tasks", "logs", "packs") else schemas.levels.names


def _files(schema: TableSchema) -> tuple[str, ...]:
    return tuple(c.name for c in schema if c.kind.is_file)


def compile_experiment(inputs: type[BaseModel], outputs: type[BaseModel]) -> ExperimentSchemas:
    """The schemas of an experiment.

    Raises:
        RegistrationError: models of the wrong kind, or names that clash.
        SchemaError: a field that no column can hold.
    """
    if not issubclass(inputs, ExperimentInputSpec):
        raise RegistrationError(
            f"{inputs.__name__} must inherit from scythe.base.ExperimentInputSpec: a function takes one input model, as in "
            "`def f(input_spec: MyInput) -> MyOutput`"
        )
    if not issubclass(outputs, ExperimentOutputSpec):
        raise RegistrationError(f"{outputs.__name__} must inherit from scythe.base.ExperimentOutputSpec")
    if outputs.model_config.get("extra") == "allow":
        raise RegistrationError(
            f'{outputs.__name__} has extra="allow", but values beyond its fields have no column: '
            "make them fields (`converged: bool | None = None`), or one field `dict[str, float]` that holds them"
        )
    compiled_inputs = compile_model(inputs)
    compiled_outputs = compile_model(outputs, skip=("dataframes",), results=True)
    for column in compiled_inputs.schema:
        if column.name in _CALLED:
            raise RegistrationError(f"{inputs.__name__}.{column.name} would hide what every spec has: rename the field")
    taken = (*compiled_inputs.schema.names, *compiled_outputs.schema.names)
    for compiled in (compiled_inputs, compiled_outputs):
        for column in compiled.schema:
            check_column(column.name, compiled.model)
    both = [name for name in compiled_outputs.schema.names if name in compiled_inputs.schema]
    if both:
        raise RegistrationError(
            f"{outputs.__name__}.{both[0]} has the name of a field of {inputs.__name__}: "
            "both become columns of one table, so rename one of them"
        )
    check_twins(taken, f"{inputs.__name__} and {outputs.__name__}")
    check_declared((inputs, outputs))
    return ExperimentSchemas(compiled_inputs.beside(compiled_outputs.schema.names), compiled_outputs)


def check_column(name: str, model: type[BaseModel]) -> None:
    """Nothing where a field or a computed feature of a model may have this name.

    Letters of any script: Parquet, Iceberg, Polars, DuckDB and pandas all take them.

    Raises:
        RegistrationError: it is a column of Scythe's own, or no name.
    """
    if folded(name) in _TAKEN:
        raise RegistrationError(
            f"{model.__name__}.{name}: Scythe's own tables use the column {_TAKEN[folded(name)]!r}, "
            "and some readers do not tell case apart: rename the field"
        )
    plain = name.replace("-", "_").replace(".", "_").replace(" ", "_")
    if not (
        name[:1].isalnum()
        and f"_{plain}".isidentifier()
        and ".." not in name
        and name == name.strip()
        and len(name) <= _MOST_CHARACTERS
        and len(name.encode()) <= _MOST_BYTES
    ):
        raise RegistrationError(
            f"{name!r} cannot be the name of a field of {model.__name__}: use letters (of any script), digits, "
            f"'_', '-' and '.', begin with a letter or digit, and keep below {_MOST_CHARACTERS} characters"
        )


def check_twins(names: Iterable[str], where: str) -> None:
    """Nothing where every reader can tell the names apart.

    Raises:
        RegistrationError: two that are equal but for case or Unicode form, or wholly.
    """
    found = twins(names)
    if found is not None and found[0] == found[1]:
        raise RegistrationError(
            f"{where}: the name of a field, {found[0]!r}, stands twice, and all become columns of one table: rename one"
        )
    if found is not None:
        raise RegistrationError(
            f"{where}: {found[0]!r} and {found[1]!r} become columns of one table, "
            "but DuckDB and Spark do not tell case (or Unicode forms) apart: rename one of them"
        )


def check_result(output: object, model: type[ExperimentOutputSpec]) -> None:
    """Nothing where all that a function returned has its place in the tables.

    Raises:
        OutputError: it is no instance of the model, or one of a subclass that holds more.
    """
    if type(output) is model:
        return
    name = type(output).__name__
    if not isinstance(output, model):
        raise OutputError(f"the function returned {name}, not {model.__name__}: check its return statement")
    more = {*type(output).model_fields, *type(output).model_computed_fields, *(output.model_extra or {})}
    more -= {*model.model_fields, *model.model_computed_fields}
    if more:
        raise OutputError(
            f"the function returned {name}, whose {', '.join(sorted(more))} {model.__name__} has not, so that no table "
            f"holds them: annotate the function with {name}"
        )


def check_dataframe_name(name: object) -> str:
    """The name, if a user's dataframe may have it.

    Raises:
        SchemaError: it is reserved, or no file name.
    """
    if not isinstance(name, str):
        raise SchemaError(f"the name of a dataframe must be text, not {name!r}")
    if name in RESERVED_TABLES:
        raise SchemaError(f"{name!r} is the name of a table of Scythe's own: rename the dataframe")
    return check_name(name, "a dataframe", SchemaError)


__all__ = [
    "ERROR_COLUMNS",
    "ID_COLUMNS",
    "LOGS",
    "PACKS",
    "PARTITION",
    "TASK_COLUMNS",
    "ExperimentSchemas",
    "Severity",
    "check_column",
    "check_dataframe_name",
    "check_result",
    "check_twins",
    "compile_experiment",
    "index_of",
]
