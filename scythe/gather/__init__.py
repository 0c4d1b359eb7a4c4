"""From the rows of chunks to the tables of a finished run: parts, their merge, and what the catalog shows."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`Gather`, under the address that scripts have: loaded when it is asked for."""
    if name == "Gather":
        from scythe.gather.final import Gather

        return Gather
    raise AttributeError(f"module 'scythe.gather' has no attribute {name!r}")
