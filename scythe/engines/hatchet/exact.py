"""Values on their way through Hatchet, whose JSON has neither NaN nor whole numbers beyond 2**53: such are texts there.

Pydantic reads a number from a text as it does from a number.
"""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import BaseModel, TypeAdapter

from scythe.engines.hatchet.connection import connect
from scythe.errors import OutputError

#: Larger whole numbers are rounded where JSON's numbers are floats.
_EXACT = 2**53
#: What a message holds beside input or output.
_ENVELOPE = 16 * 1024


def message_bytes() -> int:
    """So many bytes of input or output a message holds."""
    return connect().config.grpc_max_send_message_length - _ENVELOPE


class Unsent(OutputError):
    """An input that cannot travel to a task of Hatchet's."""


def payload_of(spec: BaseModel, most: int) -> dict[str, Any]:
    """An input as what a task is sent: its model makes the same of it.

    Args:
        spec: The input.
        most: So many bytes a message may have.

    Raises:
        Unsent: it holds bytes that are no text, or a null character, or is too large.
    """
    try:
        plain = spec.model_dump(mode="json")
        found = exact(plain)
        text = json.dumps(found)
    except (ValueError, TypeError) as error:  # bytes that are no UTF-8
        raise Unsent(f"the input cannot be sent to a task of Hatchet's, which takes JSON: {error}") from None
    for name in spec.model_extra or {}:
        if name in found and repr(found[name]) != repr(plain[name]):
            raise Unsent(
                f"the input cannot be sent to a task of Hatchet's: {name} has a number that JSON has not, and is no field that says so"
            )
    if "\\u0000" in text:
        raise Unsent("the input cannot be sent to a task of Hatchet's: it holds a text with a null character")
    if len(text) > most:
        raise Unsent(
            f"the input has {len(text) / 2**20:.1f} MiB, and a task of Hatchet's takes {most / 2**20:.1f}: write what is large into a "
            "file, and give its path"
        )
    return found


def exact(value: Any) -> Any:
    """Plain values in which texts stand for the numbers that JSON would lose."""
    if isinstance(value, dict):
        return {name: exact(member) for name, member in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [exact(member) for member in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, float) and (not math.isfinite(value) or (value == 0.0 and math.copysign(1.0, value) < 0)):
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(str(value), str(value))
    if isinstance(value, int) and not isinstance(value, bool) and not -_EXACT <= value <= _EXACT:
        return str(value)
    return value


class ExactOutput:
    """What the SDK writes the outputs of a task by, in place of pydantic's own: NaN in nested models survives."""

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self._adapter = adapter

    def dump_json(self, output: Any, **options: Any) -> bytes:
        """The output as JSON."""
        return json.dumps(exact(self._adapter.dump_python(output, mode="json", **options))).encode()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


__all__ = ["ExactOutput", "Unsent", "exact", "message_bytes", "payload_of"]
