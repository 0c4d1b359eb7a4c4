"""File references: fields whose value is a local path, an s3 URL or a web address.

The types alone live here, light to import; `scythe.remote.fetch` brings their bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AnyUrl, FilePath, HttpUrl, UrlConstraints

from scythe_catalog.markers import FileMarker


class S3Url(AnyUrl):
    """A URL of an object in a bucket, as `s3://bucket/key`; a pydantic type.

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

    _constraints = UrlConstraints(allowed_schemes=["s3"])


FileReference = Annotated[S3Url | HttpUrl | Path | FilePath, FileMarker()]
"""A file that travels with an experiment: an s3 URL, an http(s) URL or a local path (texts become paths).

The type of a field of a model; not part of a list, a dict or a nested model. In an input, a local file is copied into the run, and
the function sees a local `Path`. In an output, the content of a local file is stored in the run; a URL is kept as it is.

Examples:
    >>> from scythe import ExperimentInputSpec, FileReference
    >>> class Site(ExperimentInputSpec):
    ...     weather_file: FileReference
    >>> Site(experiment_id="any", sort_index=0, weather_file="boston.csv").weather_file.suffix
    '.csv'
    >>> Site(experiment_id="any", sort_index=0, weather_file="s3://weather/boston.csv").weather_file.host
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
