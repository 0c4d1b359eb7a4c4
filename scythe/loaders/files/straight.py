"""Arrays of `.npy` files on a disk that are alike, brought straight into their places, without looking at more of each than its first bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from scythe.loaders.files.decoding import Npy
from scythe.loaders.files.shards import OnDisk, Packs


def copied(
    form: Npy, out: np.ndarray, packs: Packs | None, at: np.ndarray, shards: Sequence[OnDisk], others: list[int]
) -> None:
    """Copies files from shards.

    Args:
        form: How the files are alike.
        out: An array a file, of the type that the files have.
        packs: Where each row's file lies in its shard.
        at: The rows.
        shards: The shard of each.
        others: Gets the places of those that are not alike.
    """
    raw, header, place = memoryview(out).cast("B"), form.header, 0  # pyright: ignore[reportArgumentType]
    assert packs is not None
    size = form.bytes - len(header)
    begins, alike = packs.offset[at], packs.length[at] == form.bytes
    bodies, ends = begins + len(header), begins + form.bytes
    given = zip(shards, begins.tolist(), bodies.tolist(), ends.tolist(), alike.tolist(), strict=True)
    for i, (shard, begin, body, end, same) in enumerate(given):
        view = shard.view()
        if same and bytes(view[begin:body]) == header and end <= len(view):
            raw[place : place + size] = view[body:end]
        else:
            others.append(i)
        place += size


def filled(form: Npy, out: np.ndarray, paths: Sequence[str], others: list[int]) -> None:
    """Reads single files, likewise: what is done beside the system's calls makes threads wait.

    Args:
        form: How the files are alike.
        out: An array a file, of the type that the files have.
        paths: Where each lies.
        others: Gets the places of those that are not alike.
    """
    raw, header, place = memoryview(out).cast("B"), form.header, 0  # pyright: ignore[reportArgumentType]
    size, whole, head, expected = form.bytes - len(header), form.bytes, bytearray(len(header)), bytearray(header)
    for i, path in enumerate(paths):
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                got = os.readv(handle, (head, raw[place : place + size]))
            finally:
                os.close(handle)
        except OSError:
            got = 0  # it is told by who looks closer
        if got != whole or head != expected:
            others.append(i)
        place += size


def parted(count: int, most: int) -> list[np.ndarray]:
    """Places, parted among so many threads at most."""
    return np.array_split(np.arange(count), min(count, most))


__all__ = ["copied", "filled", "parted"]
