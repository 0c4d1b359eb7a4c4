"""The options of engines, as `allocate(engine=...)` and `Register(engine_options=...)` take them. Loads no engine."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

#: Scythe's own engines; packages bring others.
EngineName = Literal["inline", "local", "hatchet"]


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
