"""What an input spec answers beside its own fields: names added after users had models, so theirs come first.

They are looked up by the instance's `__getattr__`, which Python asks last: a field, an extra value, a
property or a method of that name wins. Never stored, never a column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from scythe.seeds import current_seed, seed_of


def _seed(spec: Any) -> int:
    return seed_of(current_seed(), spec.sort_index)


def _prefix(spec: Any) -> str:
    return f"{spec.experiment_id}/{spec.sort_index}"


def _local_path(spec: Any) -> Any:
    return spec.fetch_uri


#: Name -> what it is for a spec.
OFFERED: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"seed": _seed, "prefix": _prefix, "local_path": _local_path}
)
