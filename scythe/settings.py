"""Settings from the environment (`SCYTHE_*`); those of a worker are in `worker`, AWS settings are boto3's own."""

from __future__ import annotations

import difflib
import os
import re
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ByteSize, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as UnparsedError

from scythe.durations import seconds_of
from scythe.errors import CatalogError, SettingsError
from scythe.names import CATALOG
from scythe.terminal.console import tell
from scythe_catalog.iceberg.place import as_made
from scythe_catalog.storage.objects import Objects

_PREFIX = "SCYTHE_"
#: How the names begin that settings of their own look at; and one that no class has.
_OTHERS = ("SCYTHE_STORAGE_", "SCYTHE_HATCHET_", "SCYTHE_TIMEOUT_", "SCYTHE_SLURM_", "SCYTHE_WORKER_")
_SINGLE = ("SCYTHE_CACHE_DIR",)
_NEAR = 0.85
#: Which variables have been looked at, by the settings that they are not.
_looked_at: dict[type[BaseSettings], frozenset[str]] = {}
#: The processes in which somebody else tells.
_QUIET: set[int] = set()

#: Names of buckets, of old ones and of access points, too: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")

S = TypeVar("S", bound=BaseSettings)
Limit = Annotated[timedelta, BeforeValidator(lambda text: timedelta(seconds=seconds_of(text)))]


class StorageSettings(BaseSettings):
    """Where experiments lie: a bucket where one is named, else a folder."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_STORAGE_")

    root: str = "scythe-data"
    bucket: str | None = None
    bucket_prefix: str = "scythe"

    @field_validator("root")
    @classmethod
    def _is_known(cls, root: str) -> str:
        root = root or "scythe-data"  # a prefix may be empty, so that empty variables of a storage are read
        if root.startswith("s3:"):
            raise ValueError(
                "name a bucket with SCYTHE_STORAGE_BUCKET, and what is below it with SCYTHE_STORAGE_BUCKET_PREFIX"
            )
        try:
            Objects.at(root)
        except CatalogError as error:
            raise ValueError(str(error)) from error
        return root

    @field_validator("bucket")
    @classmethod
    def _is_a_name(cls, bucket: str | None) -> str | None:
        if bucket and "/" in bucket:
            raise ValueError("give the bucket's name alone, and what is below it with SCYTHE_STORAGE_BUCKET_PREFIX")
        if bucket and not _BUCKET.fullmatch(bucket):
            raise ValueError(f"{bucket!r} cannot be the name of a bucket, which has letters, digits, - and . alone")
        return bucket

    @field_validator("bucket_prefix")
    @classmethod
    def _is_a_path(cls, prefix: str) -> str:
        prefix = prefix.strip("/")
        if prefix and {"", ".", ".."} & {*prefix.split("/")}:
            raise ValueError("parts of a prefix are names, with one / between them: lab/runs")
        return prefix

    def objects(self) -> Objects:
        """The root of all experiments."""
        if self.bucket:
            return Objects.at(
                f"s3://{self.bucket}/{self.bucket_prefix}" if self.bucket_prefix else f"s3://{self.bucket}"
            )
        return Objects.at(self.root)


class EngineSettings(BaseSettings):
    """Which engine runs an experiment, and on how many processes."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_", env_ignore_empty=True)

    engine: str = "local"
    workers: int | None = Field(default=None, ge=1)
    catalog: str | None = None
    #: On a cluster, workers whose code is another than the caller's may run his experiments.
    any_code: bool = False
    #: Whether a run records how the files of its repository differed from the commit.
    record_patch: bool = True


class HatchetSettings(BaseSettings):
    """How the Hatchet engine is reached, beside the SDK's own `HATCHET_CLIENT_*` settings."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_HATCHET_", env_ignore_empty=True)

    #: Start the SDK's embedded engine, where no other is set up: a one-machine Hatchet without Docker.
    embedded: bool = False


class FetchSettings(BaseSettings):
    """Limits of what is fetched, and of the cache that it lies in; a number is seconds or bytes."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_", env_ignore_empty=True)

    #: The least recently used files beyond it are removed.
    cache_size: ByteSize = ByteSize(50 * 10**9)
    #: Of one file of a web server.
    fetch_timeout: Limit = timedelta(minutes=30)
    fetch_size: ByteSize = ByteSize(20 * 10**9)


class TimeoutSettings(BaseSettings):
    """Default time limits; a number is seconds."""

    model_config = SettingsConfigDict(env_prefix="SCYTHE_TIMEOUT_", env_ignore_empty=True)

    experiment_execution: Limit | None = None
    experiment_schedule: Limit | None = None
    scatter_gather_execution: Limit | None = None
    scatter_gather_schedule: Limit | None = None


def storage() -> Objects:
    """The root of all experiments, as the environment says now; a folder by the name that its tables were made by.

    Raises:
        SettingsError: a setting that makes no sense, or no working folder.
    """
    _check_working_folder()
    first_process()
    return as_made(read(StorageSettings).objects(), CATALOG)


@cache
def first_process() -> int:
    """The process that was the first to use the storage: this one, or one that has been forked since."""
    return os.getpid()


def engine_settings() -> EngineSettings:
    """The engine settings, as the environment says now; raises SettingsError."""
    _check_working_folder()
    return read(EngineSettings)


def _check_working_folder() -> None:
    """PyIceberg looks for its configuration there, and relative paths begin there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise SettingsError(
            "the working folder of this process has been removed: change to one that is there (os.chdir), then try again"
        ) from None


def hatchet_settings() -> HatchetSettings:
    """The settings of the connection to Hatchet, as the environment says now; raises SettingsError."""
    return read(HatchetSettings)


def fetch_settings() -> FetchSettings:
    """The limits of fetching, as the environment says now; raises SettingsError."""
    return read(FetchSettings)


def timeouts() -> TimeoutSettings:
    """The default time limits, as the environment says now; raises SettingsError."""
    return read(TimeoutSettings)


def read(settings: type[S], **given: Any) -> S:
    """Settings as the environment says now, with what is given in its place; raises SettingsError."""
    for told in _misspelt(settings, frozenset(name for name in os.environ if name.startswith(_PREFIX))):
        tell(told)
    try:
        return settings(**given)
    except UnparsedError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = f"{settings.model_config.get('env_prefix', '')}{field[1] if field else ''}".upper()
        raise SettingsError(
            f"{name}={os.environ.get(name)!r} is no JSON, as which lists and mappings are given: "
            """["module load gcc"], or {"begin": "now+1hour"}"""
        ) from error
    except ValidationError as error:
        prefix = str(settings.model_config.get("env_prefix", ""))
        found = "; ".join(
            f"{prefix}{'_'.join(map(str, e['loc']))}".upper() + f"={e['input']!r}: {e['msg']}" for e in error.errors()
        )
        raise SettingsError(found) from error


def leave_to_parent() -> None:
    """In a worker process: of what is misspelt its parent tells."""
    _QUIET.add(os.getpid())


def _misspelt(settings: type[BaseSettings], given: frozenset[str]) -> tuple[str, ...]:
    """What is said of variables that are no setting, but nearly one of these; each once in a process."""
    if os.getpid() in _QUIET:
        return ()
    prefix = str(settings.model_config.get("env_prefix", ""))
    known = [f"{prefix}{name}".upper() for name in settings.model_fields]
    others = [other for other in _OTHERS if not prefix.startswith(other)]
    found: list[str] = []
    for name in sorted(given - _looked_at.get(settings, frozenset())):
        near = difflib.get_close_matches(name, known, 1, _NEAR)
        if near and name not in (*known, *_SINGLE) and not name.startswith(tuple(others)):
            found.append(f"{name} is no setting of Scythe: did you mean {near[0]}?")
    _looked_at[settings] = _looked_at.get(settings, frozenset()) | given
    return tuple(found)
