"""File references: fields whose value is a local path, an s3 URL or a web address.

The types alone live here, light to import; `scythe.remote.fetch` brings their bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AnyUrl, FilePath, HttpUrl, UrlConstraints

from scythe_catalog.markers import FileMarker


class S3Url(AnyUrl):
    """`s3://bucket/key`."""

    _constraints = UrlConstraints(allowed_schemes=["s3"])


#: A file that travels with an experiment: an s3 URL, an http(s) URL or a local path (texts become paths).
FileReference = Annotated[S3Url | HttpUrl | Path | FilePath, FileMarker()]

#: The same, or None.
OptionalFileReference = FileReference | None

__all__ = ["FileReference", "OptionalFileReference", "S3Url"]
