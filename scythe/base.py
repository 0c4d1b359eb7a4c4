"""The two base classes of a user's models: what an experiment takes, and what it gives.

Holds what a user calls inside a simulation (`log`, `fetch_uri`, `make_multiindex`).
Never runs, stores or reads anything of a run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema, core_schema

from scythe.names import ID_LEVELS
from scythe.seeds import current_seed, seed_of
from scythe_catalog.redaction import redacted

if TYPE_CHECKING:
    import pandas as pd

Scalar = Any

#: The spec that a function is running on, and its file references as they were given before they became local copies.
running_on: ContextVar[tuple[object, Mapping[str, str | None]] | None] = ContextVar("running_on", default=None)


def _seed(spec: Any) -> int:
    """A whole number below 2**63 that follows from the run's seed and `sort_index`, the same over retries and engines."""
    return seed_of(current_seed(), spec.sort_index)


def _prefix(spec: Any) -> str:
    """A text to name files by: `experiment_id/sort_index`."""
    return f"{spec.experiment_id}/{spec.sort_index}"


def _local_path(spec: Any) -> Any:
    """The same as `fetch_uri`, as a method to call with a URI."""
    return spec.fetch_uri


#: What a spec answers beside its own fields, by name. Added after users had models, so theirs come first: these are looked
#: up by the instance's `__getattr__`, which Python asks last. Never stored, never a column.
OFFERED: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"seed": _seed, "prefix": _prefix, "local_path": _local_path}
)


#: What allocation gives an input: required in the stored schema, and with a default before.
_GIVEN = ("experiment_id", "sort_index")


class ExperimentInputSpec(BaseModel):
    """One input of an experiment. Inherit from it and add your fields.

    Every field becomes a column. Values beyond the fields are allowed and kept: the function sees them, and they are stored as
    JSON in the column `extra`. Beside its fields a spec answers these names, unless the model or
    an extra value has one of them. They are never stored:

    - `seed`: a whole number below 2**63 that follows from the run's seed and `sort_index`, the same over retries and engines.
    - `prefix`: a text to name files by, `experiment_id/sort_index`.
    - `local_path(uri)`: the same as `fetch_uri`.

    Attributes:
        experiment_id: `experiment/version/datetime` of the run; `allocate` sets it, before that it is empty.
        sort_index: Position of the input in its run, from 0; `allocate` sets it, before that it is 0.
        workflow_run_id: Identifier of this input, the same over retries; None before the run.
        root_workflow_run_id: Identifier of the run; None before it.

    Raises:
        pydantic.ValidationError: a value does not fit its field.

    Examples:
        >>> from pydantic import Field
        >>> from scythe import ExperimentInputSpec
        >>> class Wall(ExperimentInputSpec):
        ...     r_value: float = Field(description="R-value of the wall [m2K/W]", gt=0)
        >>> wall = Wall(r_value=2.5, architect="Aalto")
        >>> wall.r_value, wall.architect, wall.sort_index
        (2.5, 'Aalto', 0)
    """

    # NaN and infinities survive on their way to a task of Hatchet's, which is of JSON
    model_config = ConfigDict(extra="allow", ser_json_inf_nan="strings")

    #: Where `log` goes; a worker sets it to its own log.
    log_method: ClassVar[Callable[[str], None] | None] = None
    #: Keeps what `log` is given, for the table `logs`; a worker process sets it.
    log_keeper: ClassVar[Callable[[str], None] | None] = None

    experiment_id: str = Field(default="", description="The experiment_id of the spec")
    sort_index: int = Field(default=0, description="The sort index of the leaf.", ge=0)
    workflow_run_id: str | None = Field(default=None, description="The workflow run id of the leaf.")
    root_workflow_run_id: str | None = Field(default=None, description="The root workflow run id of the leaf.")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema as it is stored with runs: every stored input has its two identifiers, whatever they are before."""
        schema = handler(core_schema)
        of_model = handler.resolve_ref_schema(schema)
        given = [name for name in _GIVEN if name in of_model.get("properties", {})]
        for name in given:
            of_model["properties"][name].pop("default", None)
        of_model["required"] = [*given, *(name for name in of_model.get("required", ()) if name not in given)]
        return schema

    def log(self, msg: str) -> None:
        """Writes a message: to Python's logging (logger `scythe.experiment`, level INFO), or to the worker's log.

        Secrets that the message would show are left out.

        Args:
            msg: The text; anything else is shown as its `str`.

        Examples:
            >>> spec = BuildingInput(r_value=2)
            >>> spec.log("the zone is 20 deg.C warm")
        """
        msg = redacted(str(msg))
        if ExperimentInputSpec.log_keeper is not None:
            ExperimentInputSpec.log_keeper(msg)
        if ExperimentInputSpec.log_method is not None:
            ExperimentInputSpec.log_method(msg)
        else:
            logging.getLogger("scythe.experiment").info("%s [%s]: %s", self.experiment_id, self.sort_index, msg)

    def fetch_uri(self, uri: object, use_cache: bool = True) -> Path:
        """A local copy of an `s3://`, `http(s)://` or `file://` URI or of a path, through the shared cache.

        A file of this machine is given as it is, without a copy.

        Args:
            uri: Text, path or URL of the file.
            use_cache: Take a remote file from the cache where its server says that it has not changed; False downloads it again.

        Returns:
            The local path. The file may be shared with other inputs, so read it and never change it.

        Raises:
            scythe.errors.FetchError: it is not there, or its server does not give it.

        Examples:
            >>> spec = BuildingInput(r_value=2)
            >>> _ = Path("boston.csv").write_text("4.5")
            >>> spec.fetch_uri("boston.csv").read_text()
            '4.5'
        """
        from scythe.remote.fetch import fetch

        return fetch(uri, use_cache=use_cache)

    def __getattr__(self, name: str) -> Any:
        """Extra values; beside them `seed`, `prefix` and `local_path`, unless the model has something of that name."""
        try:
            return super().__getattr__(name)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
        except AttributeError:
            if name not in OFFERED or hasattr(type(self), name):
                raise
            return OFFERED[name](self)

    @property
    def computed_features(self) -> Mapping[str, Scalar]:
        """Further index levels, derived from the inputs: override it and return name -> scalar.

        Each becomes a column beside the inputs, in the rows of `errors` too. They are those of the stored input, whatever the
        function does to its spec. A name must not be a field already.

        Returns:
            Name -> scalar; of each name one type over all inputs.

        Examples:
            >>> from scythe import ExperimentInputSpec
            >>> class Wall(ExperimentInputSpec):
            ...     r_value: float
            ...
            ...     @property
            ...     def computed_features(self):
            ...         return {"u_value": 1 / self.r_value}
            >>> Wall(r_value=4).computed_features
            {'u_value': 0.25}
        """
        return {}

    def make_multiindex(
        self,
        additional_index_data: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        n_rows: int = 1,
        include_sort_subindex: bool = True,
        additional_excludes: Set[str] = frozenset(),
    ) -> pd.MultiIndex:
        """A pandas MultiIndex of `n_rows` rows that says which input they belong to.

        Levels: `experiment_id, sort_index, root_workflow_run_id, workflow_run_id`, the scalar input
        fields in the order of their definition, the computed features, then `additional_index_data`
        and `sort_subindex` (0 to n_rows - 1). File fields show the URIs as given, not local copies.

        Args:
            additional_index_data: Further levels: a dict of one value for all rows or of a list of `n_rows` values, or a list
                of `n_rows` dicts.
            n_rows: How many rows.
            include_sort_subindex: Add the level `sort_subindex`, which counts the rows from 0.
            additional_excludes: Names of levels to leave out.

        Raises:
            ImportError: pandas is not installed.
            ValueError: data of another length than `n_rows`, or a level that stands twice.

        Examples:
            >>> spec = BuildingInput(r_value=2)
            >>> index = spec.make_multiindex({"month": [1, 2, 3]}, n_rows=3)
            >>> list(index.names)[-4:], len(index)
            (['r_value', 'setpoint', 'month', 'sort_subindex'], 3)
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("make_multiindex needs pandas: pip install pandas") from error
        own = {
            name: [value]
            for name, value in index_values(self, self.computed_features).items()
            if name not in additional_excludes
        }
        more = _additional(additional_index_data, n_rows)
        twice = next((name for name in more if name in own), None)
        if twice is not None:
            raise ValueError(f"the index level {twice!r} stands twice: rename it in additional_index_data")
        if include_sort_subindex:
            if "sort_subindex" in own or "sort_subindex" in more:
                raise ValueError("the index level 'sort_subindex' stands twice: pass include_sort_subindex=False")
            more["sort_subindex"] = range(n_rows)
        # The levels of one row, repeated: to look at n_rows equal values takes longer than most functions do.
        rows = [pd.MultiIndex.from_arrays(list(v.values())) if v else None for v in (own, more)]
        levels = [level for index in rows if index is not None for level in index.levels]
        codes = [
            c.repeat(n_rows) if index is rows[0] else c for index in rows if index is not None for c in index.codes
        ]
        return pd.MultiIndex(levels, codes, names=[*own, *more], verify_integrity=False)


def _additional(data: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, n_rows: int) -> dict[str, Sequence[Any]]:
    if data is None:
        return {}
    if isinstance(data, Mapping):
        columns: dict[str, Sequence[Any]] = {}
        for name, value in data.items():
            if isinstance(value, list | tuple):
                if len(value) != n_rows:
                    raise ValueError(f"additional_index_data[{name!r}] has {len(value)} values for {n_rows} rows")
                columns[name] = list(value)
            else:
                columns[name] = [value] * n_rows
        return columns
    rows = list(data)
    if len(rows) != n_rows:
        raise ValueError(f"additional_index_data has {len(rows)} dicts for {n_rows} rows")
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _without_additional(schema: dict[str, Any]) -> None:
    schema.pop("additionalProperties", None)


class ExperimentOutputSpec(BaseModel):
    """What an experiment gives for one input. Inherit from it and add your fields.

    Fields become columns of `scalars`; the files that they name are stored in the run and listed in
    `result_file_refs`; each of the `dataframes` becomes a table of its own, joined over all inputs.

    Attributes:
        dataframes: Table name -> frame of Polars, pandas or Arrow, of any columns and any number of rows. `scalars`, `errors`,
            `tasks`, `result_file_refs`, `logs` and `packs` are taken.

    Raises:
        pydantic.ValidationError: a value does not fit its field, or there is no such field, unless the model says
            `model_config = ConfigDict(extra="ignore")`; in a run that input is a row of `errors`.

    Examples:
        >>> from pydantic import Field
        >>> from scythe import ExperimentOutputSpec
        >>> class Energy(ExperimentOutputSpec):
        ...     heating: float = Field(description="Heating energy [kWh/m2]", ge=0)
        >>> monthly = pl.DataFrame({"month": [1, 2], "kwh": [30.0, 25.0]})
        >>> Energy(heating=55.0, dataframes={"monthly": monthly})
        Energy(heating=55.0)
    """

    # Of the record of a run's models it is no part that other fields are refused.
    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        extra="forbid",
        json_schema_extra=_without_additional,
        ser_json_inf_nan="strings",
    )

    dataframes: SkipJsonSchema[dict[str, Any]] = Field(default_factory=dict, repr=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema, computed = handler(source), frozenset(cls.__pydantic_decorators__.computed_fields)
        if not computed:
            return schema

        def without(data: Any) -> Any:  # what was dumped can be validated again
            return {k: v for k, v in data.items() if k not in computed} if isinstance(data, Mapping) else data  # pyright: ignore[reportUnknownVariableType]

        return core_schema.no_info_before_validator_function(without, schema)


def level_names(model: type[BaseModel]) -> tuple[str, ...]:
    """The levels that come from fields: the four identifiers, then every scalar input field.

    Args:
        model: An input model.

    Raises:
        SchemaError: a field that no column can hold.

    Examples:
        >>> from scythe.base import level_names
        >>> level_names(BuildingInput)[-3:]
        ('workflow_run_id', 'r_value', 'setpoint')
    """
    from scythe_catalog.schema import compile_model

    schema = compile_model(model).schema
    return ID_LEVELS + tuple(c.name for c in schema if c.kind.flat and c.name not in ID_LEVELS)


def index_values(spec: BaseModel, computed: Mapping[str, Any]) -> dict[str, Any]:
    """Level -> value of one input and its computed features: stored values, with file references as the URIs that were given.

    Args:
        spec: An input.
        computed: Its computed features, name -> scalar.

    Raises:
        SchemaError: a field that no column can hold.

    Examples:
        >>> from scythe.base import index_values
        >>> spec = BuildingInput(r_value=2)
        >>> index_values(spec, {"u_value": 0.5})
        {'experiment_id': '', 'sort_index': 0, 'root_workflow_run_id': None, 'workflow_run_id': None,
         'r_value': 2.0, 'setpoint': 20.0, 'u_value': 0.5}
    """
    from scythe_catalog.schema import compile_model

    schema = compile_model(type(spec)).schema
    current = running_on.get()
    given = current[1] if current is not None and current[0] is spec else {}
    values: dict[str, Any] = {}
    for name in level_names(type(spec)):
        values[name] = given.get(name) or schema[name].kind.level(getattr(spec, name))
    return values | dict(computed)
