"""Addresses of files that lie behind one another in a shard: `scythe+<address of the shard>?offset=&length=&crc32c=&name=`.

Makes and takes apart addresses, one or a column of them. Reads no file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, quote

if TYPE_CHECKING:
    import polars as pl

PREFIX = "scythe+"
_PATTERN = (
    r"^scythe\+(?P<shard>.+)\?offset=(?P<offset>\d+)&length=(?P<length>\d+)&crc32c=(?P<crc32c>[0-9a-f]{8})"
    r"&name=(?P<name>[^&]*)$"
)


class Packed(NamedTuple):
    """Which bytes of which shard a file is."""

    #: The address of the shard.
    shard: str
    offset: int
    length: int
    crc32c: int
    #: What it would be called by itself.
    name: str

    @property
    def uri(self) -> str:
        """Its address."""
        where = f"offset={self.offset}&length={self.length}&crc32c={self.crc32c:08x}"
        return f"{PREFIX}{self.shard}?{where}&name={quote(self.name)}"


def is_packed(uri: str) -> bool:
    """Whether an address is one of a file in a shard."""
    return uri.startswith(PREFIX)


def packed(uri: str) -> Packed:
    """What an address says.

    Raises:
        ValueError: it is none of a file in a shard.
    """
    shard, _, rest = uri.removeprefix(PREFIX).rpartition("?")
    told = {name: values[-1] for name, values in parse_qs(rest).items()}
    try:
        if not (is_packed(uri) and shard):
            raise ValueError(uri)
        return Packed(shard, int(told["offset"]), int(told["length"]), int(told["crc32c"], 16), told["name"])
    except (KeyError, ValueError):
        raise ValueError(
            f"{uri} is no address of a packed file: {PREFIX}<shard>?offset=…&length=…&crc32c=…&name=…"
        ) from None


def taken_apart(uris: pl.Series) -> pl.DataFrame:
    """`shard, offset, length, crc32c, name` of each address of a column; all null where it is none of a file in a shard."""
    import polars as pl  # a worker process, which never has a column of them, starts sooner without it

    found = uris.cast(pl.String).str.extract_groups(_PATTERN).struct.unnest()
    return found.with_columns(
        pl.col("offset", "length").cast(pl.Int64),
        pl.col("crc32c").str.to_integer(base=16, dtype=pl.Int64),
        pl.col("name").str.replace_all("%2B", "+", literal=True),
    )


__all__ = ["PREFIX", "Packed", "is_packed", "packed", "taken_apart"]
