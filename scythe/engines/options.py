"""The options of engines, as `allocate(engine=...)` and `Register(engine_options=...)` take them. Loads no engine."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

#: Scythe's own engines; packages bring others.
EngineName = Literal["inline", "local", "hatchet", "slurm"]


class EngineOptions(BaseModel):
    """What an engine can be told of a run: `allocate(engine=LocalOptions(workers=4))`.

    An engine of your own inherits from it, names itself in `engine`, and adds its fields.

    Examples:
        >>> from typing import ClassVar, Literal
        >>> class QueueOptions(scythe.EngineOptions):
        ...     engine: ClassVar[str] = "queue"
        ...     priority: int = 0
        >>> QueueOptions(priority=3)
        QueueOptions(priority=3)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: The name of the engine that takes them.
    engine: ClassVar[str]


class LocalOptions(EngineOptions):
    """Options of the engine `local`.

    Attributes:
        workers: How many worker processes there are; `SCYTHE_WORKERS`, else all cores, if not given.

    Examples:
        >>> options = scythe.LocalOptions(workers=2)  # for allocate(engine=options), or Register(engine_options=...)
        >>> options.engine, options.workers
        ('local', 2)
    """

    engine: ClassVar[str] = "local"

    workers: int | None = Field(default=None, ge=1)


class HatchetOptions(EngineOptions):
    """Options of the engine `hatchet`.

    Attributes:
        any_code: Whether workers whose code is another than the caller's may run it; `SCYTHE_ANY_CODE` if not given.

    Examples:
        >>> scythe.HatchetOptions(any_code=True).engine
        'hatchet'
    """

    engine: ClassVar[str] = "hatchet"

    any_code: bool | None = None


class SlurmOptions(EngineOptions):
    """Options of the engine `slurm`: what `sbatch` is told of each element of the job array; also by settings, `SCYTHE_SLURM_TIME`.

    Attributes:
        account: Who pays, as `sbatch` has it.
        partition: Which nodes, as `sbatch` has it.
        qos: Quality of service, as `sbatch` has it.
        reservation: Nodes that are reserved, as `sbatch` has it.
        constraint: Features that nodes must have, as `sbatch` has it.
        nodelist: Nodes by name, as `sbatch` has it.
        time: Limit of one element, as `sbatch` takes it: `"04:00:00"`. What is not finished by then is run by another.
        cpus: Processes of an element, each with a core of its own; 1 if not given.
        mem: Memory of an element, as `"4G"`.
        gpus: How many GPUs an element gets, as `sbatch` has it; the gather job asks for none.
        gres: Other devices, as `sbatch` has it; the gather job asks for none.
        array_limit: How many elements run at the same time.
        setup: Lines of shell that come first: `["module load energyplus"]`.
        sbatch: Other options by their names: `{"exclude": "n[1-3]", "exclusive": True}`.
        python: The interpreter on the nodes; this one if not given.
        warn_seconds: So long before its time limit an element stops, and keeps what is finished [s].

    Examples:
        >>> options = scythe.SlurmOptions(partition="short", time="02:00:00", cpus=8, setup=["module load energyplus"])
        >>> options.engine, options.cpus
        ('slurm', 8)
    """

    engine: ClassVar[str] = "slurm"

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    time: str | None = None
    cpus: int = Field(default=1, ge=1)
    mem: str | None = None
    gpus: str | int | None = None
    gres: str | None = None
    array_limit: int | None = Field(default=None, ge=1)
    setup: tuple[str, ...] = ()
    sbatch: dict[str, str | int | bool] = Field(default_factory=dict[str, "str | int | bool"])
    python: str | None = None
    warn_seconds: int = Field(default=60, ge=5)
