"""File references: fields whose value is a local path, an s3 URL or a web address.

The types alone live here, light to import; `scythe.remote.fetch` brings their bytes.
"""

from __future__ import annotations

from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

from pydantic import AnyUrl, FilePath, GetCoreSchemaHandler, HttpUrl
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from scythe_catalog.markers import FileMarker


class S3Url(AnyUrl):
    """A URL of an object in a bucket, as `s3://bucket/key` (or of a store that another package brings); a pydantic type.

    Args:
        url: The text.

    Raises:
        pydantic.ValidationError: another scheme.

    Examples:
        >>> from scythe.utils.filesys import S3Url
        >>> url = S3Url("s3://weather/boston.epw")
        >>> url.host, url.path
        ('weather', '/boston.epw')
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            _in_a_bucket, super().__get_pydantic_core_schema__(source, handler)
        )


def _in_a_bucket(url: S3Url) -> S3Url:
    """The URL, if there is a store for such addresses: S3, or one that another package brings; or if it is of a packed file."""
    if url.scheme != "s3" and not url.scheme.startswith("scythe+"):
        from scythe_catalog.storage.provider import known_schemes

        if url.scheme in ("http", "https", "file") or url.scheme not in known_schemes():
            raise PydanticCustomError("url_scheme", "URL scheme should be 's3'")
    return url


class _Reference(FileMarker):
    """Marks a file, and says what one is given by where its content is."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_address, handler(source))


def _address(value: Any) -> Any:
    """A path or URL as Pydantic takes it, wherever it comes from."""
    if isinstance(value, str) and value.startswith("file:///"):  # as in frames and dicts
        from scythe_catalog.schema.kinds import given_path

        return given_path(value)
    if isinstance(value, str):
        with suppress(ValueError):  # out of JSON it would be taken for a path
            return next((kind(value) for start, kind in _URLS.items() if value.startswith(start)), value)
    if isinstance(value, str | PathLike) or hasattr(value, "unicode_string"):
        return value
    way = " (np.save(tempdir / 'name.npy', array), say)" if hasattr(value, "__array__") else ""
    raise PydanticCustomError(
        "file_reference",
        "a file is given by its path or URL, not by its content ({kind}): save it{way}, and give the path",  # type: ignore[arg-type]
        {"kind": type(value).__name__, "way": way},
    )


_URLS: dict[str, type[AnyUrl]] = {"s3://": S3Url, "scythe+": S3Url, "http://": HttpUrl, "https://": HttpUrl}

FileReference = Annotated[S3Url | HttpUrl | Path | FilePath, _Reference()]
"""A file that travels with an experiment: an s3 URL, an http(s) URL or a local path (texts become paths).

The type of a field of a model; not part of a list, a dict or a nested model. In an input, a local file is copied into the run, and
the function sees a local `Path`. In an output, the content of a local file is stored in the run; a URL is kept as it is.

Examples:
    >>> from scythe import ExperimentInputSpec, FileReference
    >>> class Site(ExperimentInputSpec):
    ...     weather_file: FileReference
    >>> Site(weather_file="boston.csv").weather_file.suffix
    '.csv'
    >>> Site(weather_file="s3://weather/boston.csv").weather_file.host
    'weather'
"""

OptionalFileReference = FileReference | None
"""A `FileReference`, or None where there is no file.

Examples:
    >>> from scythe import ExperimentOutputSpec, OptionalFileReference
    >>> class Energy(ExperimentOutputSpec):
    ...     hourly: OptionalFileReference = None
    >>> Energy().hourly is None
    True
"""

__all__ = ["FileReference", "OptionalFileReference", "S3Url"]
