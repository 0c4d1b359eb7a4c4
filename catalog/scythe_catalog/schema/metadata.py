"""What the metadata of an annotation say: declared facts, and rules that only pydantic can check. Never looks at a value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import annotated_types as at
import pyarrow as pa
from pydantic import AfterValidator
from pydantic.fields import ComputedFieldInfo, FieldInfo
from pydantic.types import AllowInfNan, PathType, Strict

from scythe_catalog.compute import pc
from scythe_catalog.markers import FileMarker

#: Patterns that mean the same to Arrow's engine and to pydantic's: no classes that depend on Unicode tables, no flags, and
#: no classes within classes (`[a-z&&[^aeiou]]`), which Arrow's does not know.
_PLAIN_PATTERN = re.compile(r"(?:[^\\(\[]|\((?!\?)|\\[^A-Za-z0-9]|\[(?:[^\\\[\]&~-]|\\[^A-Za-z0-9]|([&~-])(?!\1))+\])*")
_BOUNDS: dict[type, str] = {
    at.Ge: "ge",
    at.Gt: "gt",
    at.Le: "le",
    at.Lt: "lt",
    at.MinLen: "min_length",
    at.MaxLen: "max_length",
}
#: What pydantic's own metadata declare; whatever else they say, only pydantic can check.
_DECLARED = frozenset({"pattern", "max_digits", "decimal_places", "min_length", "max_length"})


@dataclass
class Facts:
    """What the metadata of one annotation say."""

    #: Declared limits by name (ge, gt, ..., max_digits, decimal_places, finite).
    declared: dict[str, Any] = field(default_factory=dict[str, Any])
    #: There are rules that only pydantic can check.
    opaque: bool = False
    #: A rule of the user's runs before the type is looked at: any value may be acceptable.
    loose: bool = False
    #: Values must be of the very type.
    strict: bool = False
    file: bool = False

    def add(self, other: Facts) -> None:
        """Takes in what further metadata say."""
        self.declared |= other.declared
        self.opaque |= other.opaque
        self.loose |= other.loose
        self.strict |= other.strict
        self.file |= other.file


def extra_of(info: FieldInfo | ComputedFieldInfo) -> Mapping[str, Any]:
    """What `json_schema_extra` of a field adds to its JSON schema, be it a dict or a function that changes that schema."""
    extra = info.json_schema_extra
    if not callable(extra):
        return extra or {}
    told: dict[str, Any] = {}
    with suppress(Exception):  # it changes what a whole schema has, and may have told something before
        extra(told)
    return told


def read_metadata(metadata: Iterable[Any]) -> Facts:
    """Everything that the metadata of an annotation say."""
    facts = Facts()
    for item in metadata:
        _read(item, facts)
    pattern = facts.declared.get("pattern")
    if pattern is not None and not (isinstance(pattern, str) and _is_plain(pattern)):
        del facts.declared["pattern"]
        facts.opaque = True
    facts.declared = {name: v for name, v in facts.declared.items() if v is not None and v is not False}
    return facts


def _is_plain(pattern: str) -> bool:
    """Whether a pattern means the same to both engines, and is none that Arrow's refuses, as it does long repetitions."""
    try:
        return bool(_PLAIN_PATTERN.fullmatch(pattern) and pc.match_substring_regex(pa.array([""]), pattern))
    except pa.ArrowInvalid:
        return False


def _read(item: Any, facts: Facts) -> None:
    if isinstance(item, Strict):
        facts.strict |= item.strict
        facts.opaque |= item.strict
    elif isinstance(item, PathType):
        facts.opaque = True
    elif isinstance(item, FileMarker):
        facts.file = True
    elif type(item) in _BOUNDS:
        name = _BOUNDS[type(item)]
        facts.declared[name] = getattr(item, name)
    elif isinstance(item, AllowInfNan):
        facts.declared["finite"] = not item.allow_inf_nan
    elif isinstance(item, FieldInfo):
        facts.add(read_metadata(item.metadata))
    elif isinstance(item, at.GroupedMetadata):
        facts.add(read_metadata(item))
    elif type(item).__name__ == "_PydanticGeneralMetadata":
        told: dict[str, Any] = vars(item)
        facts.declared |= {name: v for name, v in told.items() if name in _DECLARED}
        facts.strict |= bool(told.get("strict"))
        facts.opaque |= any(v for name, v in told.items() if name not in _DECLARED)
    elif isinstance(item, at.BaseMetadata):
        facts.opaque = True
    elif hasattr(item, "__get_pydantic_core_schema__"):
        facts.opaque = True
        facts.loose |= not isinstance(item, AfterValidator)
