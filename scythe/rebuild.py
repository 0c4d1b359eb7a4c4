"""The same as `scythe.runs.rebuild`, under the address that scripts have."""

from scythe.runs.rebuild import rebuild

__all__ = ["rebuild"]
