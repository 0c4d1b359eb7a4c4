"""Marks for annotations, light enough to be imported by a user's models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FileMarker:
    """In `Annotated[..., FileMarker()]`: the text of this field names a file to be carried along."""
