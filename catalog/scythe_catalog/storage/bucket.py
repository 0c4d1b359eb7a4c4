"""A root that is a bucket: objects over a network, small ones many at a time, large ones in ranges and parts.

Knows no provider: how one is reached, and what its failures mean, its `Provider` says.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from scythe_catalog.errors import StorageError, StorageRefused
from scythe_catalog.storage import staging
from scythe_catalog.storage.objects import Found, Objects
from scythe_catalog.storage.provider import Provider, provider_of
from scythe_catalog.storage.ranged import PART_BYTES, Ranged, RangedFile, read_range

A = TypeVar("A")
T = TypeVar("T")

#: An object in a bucket has 10,000 parts at most.
_MAX_PARTS = 9_000
_AT_ONCE = 32
#: Where each is a few small requests, one after the other.
_LOOKS_AT_ONCE = 128
#: In which of an object's headers the call that made it left its name.
_MAKER = "scythe-maker"
#: Which buckets heed `If-Match` when something is written: S3 does since 2024, and not all that speak its language.
_HEEDS_TAGS: dict[str, bool] = {}
_NO_TAG = '"none"'
#: Which buckets are known to be some: they have listed something, or lack an object that nobody has made.
_STORES: set[str] = set()


@dataclass(frozen=True)
class Bucket(Objects):
    """The objects below `s3://bucket/prefix`, or below the address of another provider."""

    @property
    def provider(self) -> Provider:
        """How the bucket is reached."""
        return provider_of(self.root)

    def read(self, key: str) -> bytes:
        return self._tried(lambda: bytes(obstore.get(self.provider.store(), key).bytes()))

    def read_dated(self, key: str) -> tuple[bytes, float]:
        def attempt() -> tuple[bytes, float]:
            got = obstore.get(self.provider.store(), key)
            return bytes(got.bytes()), got.meta["last_modified"].timestamp()

        return self._tried(attempt)

    def read_tagged(self, key: str) -> tuple[bytes, str | None]:
        def attempt() -> tuple[bytes, str | None]:
            got = obstore.get(self.provider.store(), key)
            return bytes(got.bytes()), got.meta["e_tag"]

        return self._tried(attempt)

    def read_all(self, keys: Iterable[str]) -> list[bytes]:
        return _at_once(self.read, keys)

    def each(self, look: Callable[[A], T], at: Iterable[A]) -> list[T]:
        return _at_once(look, at, _LOOKS_AT_ONCE)

    def reader(self, key: str) -> BinaryIO:
        return cast(BinaryIO, RangedFile.open(self.provider, key))

    def download(self, key: str, path: Path) -> None:
        Ranged(self.provider, key).save(path)

    def part(self, key: str, start: int, stop: int, tag: str | None) -> memoryview:
        return read_range(self.provider, key, start, stop, tag)

    def described(self, keys: Iterable[str]) -> list[Found]:
        def one(key: str) -> Found | None:
            try:
                return _found(self._tried(lambda: obstore.head(self.provider.store(), key)))
            except FileNotFoundError:
                return None

        return [found for found in _at_once(one, keys) if found is not None]

    def direct(self, prefix: str) -> list[Found]:
        listed = self._tried(lambda: obstore.list_with_delimiter(self.provider.store(), prefix + "/"))
        return self._trusted([_found(meta) for meta in listed["objects"]])

    def size(self, key: str) -> int:
        return self._tried(lambda: obstore.head(self.provider.store(), key)["size"])

    def found(self, prefix: str) -> list[Found]:
        return self._trusted(
            self._tried(
                lambda: [_found(meta) for batch in obstore.list(self.provider.store(), prefix + "/") for meta in batch]
            )
        )

    def _listing(self, prefix: str) -> tuple[list[str], list[str]]:
        below = prefix + "/" if prefix else None
        listed = self._tried(lambda: obstore.list_with_delimiter(self.provider.store(), below))
        folders, keys = listed["common_prefixes"], [meta["path"] for meta in listed["objects"]]
        self._trusted([*folders, *keys])
        return [p.rstrip("/").rsplit("/", 1)[-1] for p in folders], [k.rsplit("/", 1)[-1] for k in keys]

    def polars_source(self, key: str) -> str:
        return self.uri(key)

    @property
    def polars_options(self) -> dict[str, Any]:
        return self.provider.polars_options()

    def write(self, key: str, data: bytes) -> None:
        self._tried(lambda: obstore.put(self.provider.store(), key, data, use_multipart=False))

    def create(self, key: str, data: bytes) -> bool:
        """The answer to a creation may be lost on its way and the request be sent again: then the object that is there
        already is our own. It is told from another's by a name that this call gives it.
        """
        name = uuid.uuid4().hex

        def attempt() -> bool:
            try:
                obstore.put(
                    self.provider.store(), key, data, mode="create", use_multipart=False, attributes={_MAKER: name}
                )
            except AlreadyExistsError:
                return self._maker(key) == name
            return True

        return self._tried(attempt)

    def replace(self, key: str, data: bytes, tag: str) -> str | None:
        """`If-Match`; whatever goes wrong with it is for the caller's other way to tell, so that nothing is repeated."""
        try:
            return self._replaced(key, data, tag)
        except (BaseError, FileNotFoundError, NotImplementedError):
            return None

    def _replaced(self, key: str, data: bytes, tag: str) -> str | None:
        return obstore.put(self.provider.store(), key, data, mode={"e_tag": tag}, use_multipart=False)["e_tag"]

    def heeds_tags(self, key: str, data: bytes) -> bool:
        if self.root not in _HEEDS_TAGS:
            _HEEDS_TAGS[self.root] = self._refuses(key, data) and self._refuses_absent(key.rpartition("/")[0])
        return _HEEDS_TAGS[self.root]

    def _refuses_absent(self, folder: str) -> bool:
        """Whether a tag of nothing is refused: some look at tags only where there is an object, and what was removed would be there again."""
        absent = f"{folder}/.{uuid.uuid4().hex}"
        if self._refuses(absent, b""):
            return True
        with contextlib.suppress(StorageError):
            self.delete([absent])
        return False

    def _refuses(self, key: str, data: bytes) -> bool:
        """Whether a wrong tag is refused; False, too, where the answer is another, as that there are no such requests."""
        try:
            self._replaced(key, data, _NO_TAG)
        except (PreconditionError, FileNotFoundError):
            return True
        except (BaseError, NotImplementedError):
            return False
        return False

    def _maker(self, key: str) -> object:
        try:
            got = obstore.get(self.provider.store(), key, options={"head": True})
        except FileNotFoundError:
            return None
        found: dict[str, object] = dict(got.attributes)
        return found.get(_MAKER)

    def upload(self, path: Path, key: str) -> None:
        size = path.stat().st_size
        if size <= PART_BYTES:
            self.write(key, path.read_bytes())
            return
        part = max(PART_BYTES, -(-size // _MAX_PARTS))

        def attempt() -> None:
            with path.open("rb") as source:
                obstore.put(self.provider.store(patient=True), key, source, chunk_size=part, max_concurrency=8)

        self._tried(attempt)

    def take_in(self, files: Iterable[tuple[Path, str]], came: Callable[[Path], None] | None = None) -> None:
        def copy(pair: tuple[Path, str]) -> None:
            self.upload(*pair)
            if came is not None:
                came(pair[0])

        _at_once(copy, files)

    def staging_file(self, name: str) -> Path:
        return staging.private(name)

    def publish_all(self, files: Iterable[tuple[Path, str]]) -> None:
        def upload(pair: tuple[Path, str]) -> None:
            self.upload(*pair)
            staging.drop(pair[0])

        given = list(files)
        try:
            _at_once(upload, given)
        finally:
            for path, _ in given:
                staging.drop(path)

    def publish_new(self, files: Iterable[tuple[Path, str]]) -> list[tuple[Path, str]]:
        """Of what is sent in parts no store takes a condition that all of them know: an empty object keeps its place before."""

        def upload(pair: tuple[Path, str]) -> bool:
            path, key = pair
            is_small = path.stat().st_size <= PART_BYTES
            if not self.create(key, path.read_bytes() if is_small else b""):
                return False
            if not is_small:
                try:
                    self.upload(path, key)
                except BaseException:
                    with contextlib.suppress(OSError, BaseError):
                        self.delete([key])
                    raise
            staging.drop(path)
            return True

        given = list(files)
        return [pair for pair, is_there in zip(given, _at_once(upload, given), strict=True) if not is_there]

    def link(self, source: str, target: str) -> None:
        if self.size(source) <= self.provider.copied_bytes:
            self._tried(lambda: obstore.copy(self.provider.store(), source, target))
            return
        staged = self.staging_file(target.rsplit("/", 1)[-1])
        try:
            self.download(source, staged)
            self.upload(staged, target)
        finally:
            staging.drop(staged)

    def delete(self, keys: Iterable[str]) -> None:
        given = list(keys)
        for start in range(0, len(given), 1000):
            batch = given[start : start + 1000]
            try:
                self._tried(lambda batch=batch: obstore.delete(self.provider.store(), batch))
            except FileNotFoundError:
                for key in batch:
                    with contextlib.suppress(FileNotFoundError):
                        self._tried(lambda key=key: obstore.delete(self.provider.store(), key))

    def _trusted(self, listed: list[T]) -> list[T]:
        """What a bucket has listed. Nothing is listed, too, by a page that is shown in its place, as of a portal that wants a login: it has whatever
        it is asked for.

        Raises:
            StorageRefused: it is such a page.
        """
        if not listed and self.root not in _STORES:
            try:
                obstore.head(self.provider.store(), f".{uuid.uuid4().hex}")
            except FileNotFoundError:
                pass
            except BaseError:
                return listed  # it cannot be told now
            else:
                raise StorageRefused(
                    f"what answers for {self.root} is no store of objects, but a page that is the same for all: check the network, and the "
                    "endpoint (AWS_ENDPOINT_URL)"
                )
        _STORES.add(self.root)
        return listed

    def _tried(self, call: Callable[[], T]) -> T:
        return self.provider.attempted(call)


def _found(meta: obstore.ObjectMeta) -> Found:
    return Found(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])


def _at_once(call: Callable[[A], T], arguments: Iterable[A], most: int = _AT_ONCE) -> list[T]:
    """All results in order, many calls at a time."""
    given = list(arguments)
    if len(given) < 2:
        return [call(one) for one in given]
    with ThreadPoolExecutor(min(most, len(given))) as pool:
        return list(pool.map(call, given))
