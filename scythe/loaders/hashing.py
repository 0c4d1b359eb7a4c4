"""Hashes that never change: of rows by the values of their inputs, and of positions. Pure; by columns, of texts each different one.

`splitmix64` is the finalizer of Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import polars as pl

_GOLDEN, _ONE, _TWO = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
#: So many positions fit beside 40 random bits into one number.
_PACKED = 1 << 24
#: So many numbers stay in a core's cache from one step to the next.
_PIECE = 1 << 15
#: What the seed of the order within windows is told from that of the windows by.
_WITHIN = 0x5CE5E


def splitmix64(values: np.ndarray) -> np.ndarray:
    """A number of 64 bits for each number of 64 bits, every bit of which depends on all."""
    with np.errstate(over="ignore"):
        z = values.astype(np.uint64)  # a copy, which is worked on in place
        shifted = np.empty_like(z)
        z += _GOLDEN
        for bits, factor in ((30, _ONE), (27, _TWO)):
            z ^= np.right_shift(z, np.uint64(bits), out=shifted)
            z *= factor
        z ^= np.right_shift(z, np.uint64(31), out=shifted)
        return z


def hash_of(text: str) -> np.uint64:
    """The hash of a text."""
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def hash_rows(columns: Mapping[str, pl.Series], rows: int) -> np.ndarray:
    """The hash of each row by the values of its columns: nulls, and the order of the columns, do not count.

    Numbers that are equal have one hash, whatever type they are stored as: whole ones up to 2**53, and decimals that are the same float.
    A day is no instant.
    """
    found = np.zeros(rows, np.uint64)
    with np.errstate(over="ignore"):
        for name, values in columns.items():
            # Texts are looked at whole, each of them once.
            piece = _PIECE if values.dtype.is_numeric() or values.dtype.is_temporal() else max(1, rows)
            for first in range(0, rows, piece):
                part = values.slice(first, piece)
                mixed = splitmix64(_bits(part) ^ hash_of(name))
                if part.null_count():
                    mixed[part.is_null().to_numpy()] = 0
                found[first : first + piece] += mixed
    return splitmix64(found)


def _bits(values: pl.Series) -> np.ndarray:
    """64 bits for each value; those of a null do not count."""
    dtype = values.dtype
    if dtype.is_integer() or dtype == pl.Boolean:
        whole = _without_nulls(values if dtype == pl.Int64 else values.cast(pl.Int64, strict=False), 0)
        bits = _float_bits(whole)
        if len(whole) and not -(1 << 53) <= whole.min() <= whole.max() <= 1 << 53:
            inexact = np.abs(whole) > 1 << 53
            bits[inexact] = splitmix64(whole[inexact].view(np.uint64))
        return bits
    if dtype.is_decimal():  # by its text: that of a scale is divided, which rounds once more
        values, dtype = values.cast(pl.String).cast(pl.Float64), pl.Float64()
    if dtype.is_float():
        return _float_bits(_without_nulls(values if dtype == pl.Float64 else values.cast(pl.Float64), 0.0))
    if dtype.is_temporal():
        return splitmix64(values.to_physical().cast(pl.Int64).fill_null(0).to_numpy().view(np.uint64))
    if isinstance(dtype, pl.Struct):
        return hash_rows({part.name: values.struct.field(part.name) for part in dtype.fields}, len(values))
    if isinstance(dtype, pl.List | pl.Array):
        return _bits_of_lists(values.cast(pl.List(dtype.inner)))
    if isinstance(dtype, pl.Map):
        return _bits_of_lists(values.map.entries(), in_order=False)
    is_bytes = dtype == pl.Binary
    texts = (values.bin.encode("hex") if is_bytes else values.cast(pl.String)).fill_null("")
    unique = texts.unique(maintain_order=True)
    if not len(unique):
        return np.zeros(len(values), np.uint64)
    hashes = pl.Series([hash_of(_text_of(text) if is_bytes else text) for text in unique], dtype=pl.UInt64)
    return texts.replace_strict(unique, hashes).to_numpy()


def _bits_of_lists(values: pl.Series, *, in_order: bool = True) -> np.ndarray:
    """Of each list its items, and how many there are."""
    ends = values.list.len().fill_null(0).to_numpy().astype(np.int64).cumsum()
    begins = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    items = pl.Series("", values.to_arrow().flatten(), values.dtype.inner)  # pyright: ignore[reportAttributeAccessIssue]
    place = (np.arange(len(items)) - np.repeat(begins, ends - begins)).astype(np.uint64) * np.uint64(in_order)
    hashes = splitmix64(hash_rows({"": items}, len(items)) ^ splitmix64(place))
    sums = np.concatenate([np.zeros(1, np.uint64), hashes]).cumsum(dtype=np.uint64)
    return (sums[ends] - sums[begins]) ^ splitmix64((ends - begins).astype(np.uint64))


def _text_of(digits: str) -> str:
    """The text that bytes are, or their digits where they are none."""
    try:
        return bytes.fromhex(digits).decode()
    except UnicodeDecodeError:
        return f"\0{digits}"


def _without_nulls(values: pl.Series, other: float) -> np.ndarray:
    return (values.fill_null(other) if values.null_count() else values).to_numpy()


def _float_bits(values: np.ndarray) -> np.ndarray:
    plain = values + 0.0  # no negative zero
    plain[np.isnan(plain)] = np.nan  # and one NaN
    return plain.view(np.uint64)


def shares(hashes: np.ndarray) -> np.ndarray:
    """Each hash as a number from 0 to 1, below 1."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def order_of_blocks(blocks: np.ndarray, at_once: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of rows, of which each lies in a block: within windows of so many blocks, drawn at random.

    It follows from its arguments alone.
    """
    names, of = np.unique(blocks, return_inverse=True)
    place = np.empty(len(names), np.int64)
    place[order_of(len(names), seed, epoch)] = np.arange(len(names))
    window = place[of] // at_once
    mixed = order_of(len(blocks), seed ^ _WITHIN, epoch)
    return mixed[np.argsort(window[mixed], kind="stable")]


def order_of(rows: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0 to rows - 1 that follows from `seed` and `epoch` alone: by a hash of each place."""
    start = splitmix64(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))[0] ^ np.uint64(epoch)
    start = splitmix64(np.array([start]))[0]
    mask = np.uint64(max(_PACKED, 1 << (rows - 1).bit_length()) - 1)
    drawn = np.empty(rows, np.uint64)
    for first in range(0, rows, _PIECE):
        places = np.arange(first, min(first + _PIECE, rows), dtype=np.uint64)
        piece = drawn[first : first + len(places)]
        np.bitwise_and(_drawn(places, start), ~mask, out=piece)
        piece |= places
    # On one core, a third of NumPy's time, and no thread that a fork could lose.
    drawn = pl.Series(drawn).sort(multithreaded=False).to_numpy()
    order = np.empty(rows, np.uint32 if rows < 1 << 32 else np.int64)
    np.bitwise_and(drawn, mask, out=order, casting="unsafe")
    if rows > _PACKED:  # few bits of a hash are left: those that are alike in them are told apart by all
        alike = np.flatnonzero(drawn[1:] ^ drawn[:-1] <= mask)
        at = np.union1d(alike, alike + 1)
        order[at] = order[at][np.argsort(_drawn(order[at].astype(np.uint64), start))]
    return order


def _drawn(places: np.ndarray, start: np.uint64) -> np.ndarray:
    """A hash of each place."""
    with np.errstate(over="ignore"):
        return splitmix64(places * _GOLDEN + start)
