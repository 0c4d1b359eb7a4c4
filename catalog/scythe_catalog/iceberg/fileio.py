"""PyIceberg's FileIO on `Objects`, so that metadata and data take the same road with the same credentials."""

from __future__ import annotations

import contextlib
import io
from collections import OrderedDict
from typing import Any

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from scythe_catalog.storage.objects import Objects

IMPLEMENTATION = "scythe_catalog.iceberg.fileio.ObjectsFileIO"
_AVRO = ".avro"


def _split(location: str) -> tuple[Objects, str]:
    scheme, separator, path = location.partition("://")
    if separator and scheme != "file":
        bucket, _, key = path.partition("/")
        return Objects.at(f"{scheme}://{bucket}"), key
    folder, _, name = location.rpartition("/")
    return Objects.at(folder or "/"), name


def _read(location: str) -> bytes:
    objects, key = _split(location)
    return objects.read(key)


#: Manifests, and lists of them, have names of their own: a commit looks at one several times, and at those of the last one.
_KEPT, _KEPT_BYTES = 64, 64 * 1024 * 1024
_kept: OrderedDict[str, bytes] = OrderedDict()


def _read_once(location: str) -> bytes:
    data = _kept.get(location)
    if data is None:
        _keep(location, data := _read(location))
    return data


def _keep(location: str, data: bytes) -> None:
    _kept[location] = data
    while len(_kept) > _KEPT or sum(map(len, list(_kept.values()))) > _KEPT_BYTES:
        with contextlib.suppress(KeyError):  # another thread was faster
            _kept.popitem(last=False)


class _Input(InputFile):
    def __len__(self) -> int:
        objects, key = _split(self.location)
        return objects.size(key)

    def exists(self) -> bool:
        objects, key = _split(self.location)
        return objects.exists(key)

    def open(self, seekable: bool = True) -> InputStream:
        read = _read_once if self.location.endswith(_AVRO) else _read
        return io.BytesIO(read(self.location))  # pyright: ignore[reportReturnType]


class _Output(OutputFile):
    _written: _Buffer | None = None

    def __len__(self) -> int:
        return self._written.size if self._written is not None else len(self.to_input_file())

    def exists(self) -> bool:
        return self.to_input_file().exists()

    def to_input_file(self) -> InputFile:
        return _Input(self.location)

    def create(self, overwrite: bool = False) -> OutputStream:
        self._written = _Buffer(self.location, overwrite)
        return self._written  # pyright: ignore[reportReturnType]


class _Buffer(io.BytesIO):
    """Becomes an object when it is closed without an error."""

    def __init__(self, location: str, overwrite: bool) -> None:
        super().__init__()
        self._location, self._overwrite = location, overwrite
        self.size = 0

    def close(self) -> None:
        if self.closed:
            return
        data = self.getvalue()
        self.size = len(data)
        super().close()
        objects, key = _split(self._location)
        if self._overwrite:
            objects.write(key, data)
        elif not objects.create(key, data):
            raise FileExistsError(f"{self._location} exists already")
        if self._location.endswith(_AVRO):
            _keep(self._location, data)

    def __exit__(self, *error: Any) -> None:
        if error and error[0] is not None:
            super().close()
        self.close()


class ObjectsFileIO(FileIO):
    """Reads metadata files whole: they are small, and one request is cheaper than many."""

    def new_input(self, location: str) -> InputFile:
        return _Input(location)

    def new_output(self, location: str) -> OutputFile:
        return _Output(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        name: Any = location if isinstance(location, str) else location.location
        objects, key = _split(name)
        objects.delete([key])
