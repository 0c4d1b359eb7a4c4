"""Loads the Hatchet SDK without building what is never used: validators of its 300 REST methods and models, half of its import.

Each is built when it is used first. Knows nothing of engines.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from scythe_catalog.loading import uncollected


def load() -> None:
    """Imports `hatchet_sdk`, if it has not been imported yet."""
    if "hatchet_sdk" in sys.modules:
        return
    import pydantic

    at_once: Any = pydantic.validate_call
    config = pydantic.BaseModel.model_config
    pydantic.validate_call = functools.partial(_when_called, at_once)  # pyright: ignore[reportAttributeAccessIssue]
    pydantic.BaseModel.model_config = {**config, "defer_build": True}
    try:
        with uncollected():
            import hatchet_sdk  # noqa: F401  # pyright: ignore[reportUnusedImport]
    finally:
        pydantic.validate_call = at_once
        pydantic.BaseModel.model_config = config


class _Listener(SpawnProcess):
    """The process in which the SDK listens to the engine; it loads the SDK before it finds what it is to run there."""

    def __reduce__(self) -> Any:
        return _blank, (), self.__dict__


def _blank() -> _Listener:
    load()
    return _Listener.__new__(_Listener)


class _Spawning(SpawnContext):
    Process = _Listener  # pyright: ignore[reportAssignmentType]


def listens_lightly(worker: Any) -> None:
    """Has a worker of the SDK start its listening process so that it loads the SDK as `load` does."""
    worker._ctx = _Spawning()


def _when_called(validated: Any, function: Callable[..., Any], /) -> Callable[..., Any]:
    build = functools.cache(lambda: validated(function))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return build()(*args, **kwargs)

    return call
