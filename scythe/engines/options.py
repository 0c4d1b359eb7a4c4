"""The options of engines, as `allocate(engine=...)` and `Register(engine_options=...)` take them. Loads no engine."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field


class EngineOptions(BaseModel):
    """What an engine can be told of a run: `allocate(engine=LocalOptions(workers=4))`.

    An engine of your own inherits from it, names itself in `engine`, and adds its fields.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: The name of the engine that takes them.
    engine: ClassVar[str]


class LocalOptions(EngineOptions):
    """Options of the engine `local`.

    Attributes:
        workers: How many worker processes there are; the cores of the machine, or `SCYTHE_WORKERS`, if not given.
    """

    engine: ClassVar[str] = "local"

    workers: int | None = Field(default=None, ge=1)


class HatchetOptions(EngineOptions):
    """Options of the engine `hatchet`.

    Attributes:
        any_code: Whether workers whose code is another than the caller's may run it; `SCYTHE_ANY_CODE` if not given.
    """

    engine: ClassVar[str] = "hatchet"

    any_code: bool | None = None
