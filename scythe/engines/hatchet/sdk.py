"""Loads the Hatchet SDK without building what is never called: validators of its 300 REST methods, a third of its import.

Each is built when its method is called first. Knows nothing of engines.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any


def load() -> None:
    """Imports `hatchet_sdk`, if it has not been imported yet."""
    if "hatchet_sdk" in sys.modules:
        return
    import pydantic

    at_once: Any = pydantic.validate_call
    pydantic.validate_call = functools.partial(_when_called, at_once)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        import hatchet_sdk  # noqa: F401  # pyright: ignore[reportUnusedImport]
    finally:
        pydantic.validate_call = at_once


def _when_called(validated: Any, function: Callable[..., Any], /) -> Callable[..., Any]:
    build = functools.cache(lambda: validated(function))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return build()(*args, **kwargs)

    return call
