"""The plan of a run: everything a process needs to work on it, beside the function itself.

Written once before the run starts (`scatter-gather/input/plan.json`), never changed. It holds
pointers, never values, and no secret.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from pydantic import NonNegativeInt

from scythe.define.experiment import Experiment
from scythe.define.schemas import ExperimentSchemas
from scythe.errors import AllocationError, NotFoundError
from scythe.record.format import dump, parse_as
from scythe.record.layout import RunKey, no_plan_left
from scythe.seeds import seed_of
from scythe_catalog.schema import TableSchema
from scythe_catalog.storage.objects import Objects

#: How many inputs may fail until a run stops: a number, a share of all inputs, "alike" (the first that finish all fail
#: alike), or None.
MaxErrors = int | float | Literal["alike"] | None


class Unset(enum.Enum):
    """An argument that was not given, where None means something."""

    UNSET = "as it was allocated"


UNSET = Unset.UNSET

#: Rows of `specs.pq`, in ascending order.
Positions = range | np.ndarray


@dataclass(frozen=True)
class TablePlan:
    """One table of a run: the catalog table it goes to, its columns, and their field ids there."""

    catalog_table: str
    columns: list[dict[str, Any]]
    ids: dict[str, int]

    @property
    def schema(self) -> TableSchema:
        """The columns of this run's rows."""
        return TableSchema.from_json(self.columns)


@dataclass(frozen=True)
class RunPlan:
    """How a run is executed."""

    root: str
    key: RunKey
    #: Rows of `specs.pq`.
    inputs: NonNegativeInt
    workflow_run_id: str | None
    engine: str
    chunk: int | None
    #: Where the function is defined: module, qualified name, source file.
    module: str
    qualname: str
    source: str | None
    computed: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    extra: bool = False
    tables: dict[str, TablePlan] = field(default_factory=dict[str, TablePlan])
    catalog: str | None = None
    #: Whether the sort indexes are simply 0 to n - 1.
    dense: bool = True
    #: The hash of the experiment's schemas: a worker with other models must not run it.
    schema_sha256: str = ""
    #: One model was given: the run is a run of one, without a scatter node.
    single: bool = False
    #: Shape of the scatter tree, where the caller has chosen one.
    factor: int | None = None
    max_depth: int | None = None
    #: What the random numbers of all inputs derive from.
    seed: int = 0
    #: How many growths the run stands on: its own inputs draw other random numbers than those whose rows it has reused.
    stream: int = 0
    max_errors: MaxErrors = None
    #: The file outputs that go into shards.
    pack: list[str] = field(default_factory=list[str])
    #: Where its root lay before, as far as references to there may be left.
    roots: list[str] = field(default_factory=list[str])
    #: The runs, by their `experiment_id`, in whose folders output files lie that reused rows name.
    owners: list[str] = field(default_factory=list[str])

    @property
    def objects(self) -> Objects:
        """The root of all experiments."""
        return Objects.at(self.root)

    @property
    def draws_from(self) -> int:
        """What the random numbers of the inputs derive from that this run runs itself."""
        return seed_of(self.seed, -self.stream) if self.stream else self.seed

    def schemas(self, experiment: Experiment) -> ExperimentSchemas:
        """The experiment's schemas as they are in this run, computed features and extra values included."""
        return replace(experiment.schemas, computed=TableSchema.from_json(self.computed).columns, extra=self.extra)

    def to_json(self) -> bytes:
        """The plan as JSON."""
        return dump(asdict(self), indent=1)

    @classmethod
    def from_json(cls, raw: bytes, where: str = "a run's plan") -> RunPlan:
        """The plan that `to_json` wrote; keys of later versions are passed over.

        Raises:
            RunDamaged: it is no plan.
            FormatError: it is in a format of a later Scythe.
        """
        return parse_as(cls, raw, where)

    @classmethod
    def load(cls, objects: Objects, key: RunKey) -> RunPlan:
        """The plan of a run.

        Raises:
            NotFoundError: the run has none: it is gone, or its allocation never came to an end.
            RunDamaged: it is no plan any more.
        """
        try:
            plan = cls.from_json(objects.read(key.plan), objects.uri(key.plan))
        except FileNotFoundError as error:
            raise NotFoundError(
                f"the run {key.path} has no plan any more ({objects.uri(key.plan)}): put it back, or {no_plan_left(key)}"
            ) from error
        return replace(plan, root=objects.root)


def check_max_errors(given: object) -> None:
    """Nothing where it is what `max_errors` may be.

    Raises:
        AllocationError: it is not.
    """
    fine = given is None or given == "alike"
    if isinstance(given, int | float) and not isinstance(given, bool):
        fine = given >= 0 if isinstance(given, int) else 0 < given < 1
    if not fine:
        raise AllocationError(
            f"max_errors must be a number, a share of all inputs below 1, 'alike' or None, got {given!r}"
        )
