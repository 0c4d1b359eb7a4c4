"""Reads files out of shards, wherever these lie: on a disk, or in a bucket. Keeps nothing, writes nothing."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from scythe.errors import FetchError, StorageError
from scythe.remote.packed import Packed
from scythe.remote.schemes import is_in_bucket, split_object


def content_of(file: Packed) -> bytes:
    """The bytes of a file in a shard, held against their checksum.

    Raises:
        FetchError: the shard is gone, cannot be reached, or is not what it was.
    """
    import google_crc32c

    try:
        data = read_bytes(file.shard, file.offset, file.length)
    except FileNotFoundError as error:
        raise FetchError(f"the shard {file.shard}, in which {file.name} lies, does not exist") from error
    except (OSError, StorageError) as error:
        raise FetchError(f"{file.name} cannot be read from the shard {file.shard}: {error}") from error
    if len(data) != file.length or google_crc32c.value(data) != file.crc32c:
        raise FetchError(f"{file.name} is not what it was: the shard {file.shard} was changed or cut short")
    return data


def read_bytes(shard: str, offset: int, length: int) -> bytes:
    """Some bytes of a shard; fewer where it ends before.

    Raises:
        FileNotFoundError: there is none.
        OSError, StorageError: it cannot be read.
    """
    if is_in_bucket(shard):
        from scythe_catalog.storage.provider import provider_of
        from scythe_catalog.storage.ranged import read_range

        root, key = split_object(shard)
        return bytes(read_range(provider_of(root), key, offset, offset + length, None)) if length else b""
    with local_shard(shard).open("rb") as file:  # one system call gives no more than 2 GiB
        file.seek(offset)
        return file.read(length)


def local_shard(shard: str) -> Path:
    """The path of a shard that lies on a disk of this machine."""
    path = Path(shard.removeprefix("file://"))
    return path if path.exists() else Path(unquote(str(path)))  # a model's URL percent-encodes what is odd in a path


__all__ = ["content_of", "local_shard", "read_bytes"]
