"""The footer of a Parquet file, taken apart and put together again, so that row groups can be moved from file to file by their bytes.

Thrift's compact protocol: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md; what the numbers of
fields mean: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift. Fields that nobody here knows
pass through as they are, so that a later Parquet's footers keep what they tell. Reads and writes bytes, never files.
"""

from __future__ import annotations

import struct
from typing import Any

MAGIC = b"PAR1"
_TAIL = struct.Struct("<I4s")

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)

#: A struct by field number, in the order of the file: type and value. Lists are (type of items, items).
Struct = dict[int, tuple[int, Any]]

# FileMetaData
_NUM_ROWS, _ROW_GROUPS = 3, 4
# RowGroup
_COLUMNS, _GROUP_ROWS, _FILE_OFFSET, _ORDINAL = 1, 3, 5, 7
# ColumnChunk
_CHUNK_FILE_OFFSET, _META_DATA, _OFFSET_INDEX, _COLUMN_INDEX = 2, 3, 4, 6
# ColumnMetaData
_DATA_PAGE, _INDEX_PAGE, _DICTIONARY_PAGE, _BLOOM_FILTER = 9, 10, 11, 14

_MOST_ORDINALS = 2**15


def footer_length(tail: bytes) -> int:
    """How long the footer is, by the last 8 bytes of the file.

    Raises:
        ValueError: these are not the last bytes of a Parquet file that is not encrypted.
    """
    length, magic = _TAIL.unpack(tail)
    if magic != MAGIC:
        raise ValueError(f"a Parquet file ends with {MAGIC!r}, this one with {magic!r}")
    return length


class Footer:
    """What a Parquet file says of itself."""

    def __init__(self, raw: bytes) -> None:
        self._fields, _ = _read_struct(raw, 0)

    @property
    def row_groups(self) -> list[Struct]:
        """The row groups, as they are told of."""
        return self._fields[_ROW_GROUPS][1][1]

    def clear(self) -> None:
        """Forgets the row groups: the columns and what is told of the file stay."""
        self._fields[_ROW_GROUPS], self._fields[_NUM_ROWS] = (_LIST, (_STRUCT, [])), (_I64, 0)

    def take(self, other: Footer, moved: int) -> None:
        """Adds the row groups of another footer whose bytes lie `moved` bytes further on here than they did there."""
        groups = self.row_groups
        for group in other.row_groups:
            _shift(group, moved, _FILE_OFFSET)
            for chunk in group[_COLUMNS][1][1]:
                _shift(chunk, moved, _CHUNK_FILE_OFFSET, _OFFSET_INDEX, _COLUMN_INDEX)
                _shift(chunk[_META_DATA][1], moved, _DATA_PAGE, _INDEX_PAGE, _DICTIONARY_PAGE, _BLOOM_FILTER)
            if len(groups) < _MOST_ORDINALS:
                group[_ORDINAL] = (_I16, len(groups))
            else:
                group.pop(_ORDINAL, None)
            groups.append(group)
            self._fields[_NUM_ROWS] = (_I64, self._fields[_NUM_ROWS][1] + group[_GROUP_ROWS][1])

    def to_bytes(self) -> bytes:
        """The end of a file: the footer, its length, and the last bytes."""
        out = bytearray()
        _write_struct(out, self._fields)
        return bytes(out) + _TAIL.pack(len(out), MAGIC)


def _shift(fields: Struct, moved: int, *offsets: int) -> None:
    """Moves those offsets that are set: 0 is none, for a file begins with its magic bytes."""
    for offset in offsets:
        if offset in fields and fields[offset][1]:
            kind, at = fields[offset]
            fields[offset] = (kind, at + moved)


# --- the compact protocol -------------------------------------------------------------------------------


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _read_struct(raw: bytes, at: int) -> tuple[Struct, int]:
    fields: Struct = {}
    number = 0
    while (head := raw[at]) != 0:
        at += 1
        kind, step = head & 0x0F, head >> 4
        if step:
            number += step
        else:
            number, at = _read_zigzag(raw, at)
        value, at = (kind == _TRUE, at) if kind in (_TRUE, _FALSE) else _read(raw, at, kind)
        fields[number] = (kind, value)
    return fields, at + 1


def _read_zigzag(raw: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(raw, at)
    return (value >> 1) ^ -(value & 1), at


def _read(raw: bytes, at: int, kind: int) -> tuple[Any, int]:
    """A value that stands by itself: of a field, or in a list (where a truth value is a byte)."""
    match kind:
        case 5 | 6 | 4:  # I32, I64, I16
            return _read_zigzag(raw, at)
        case 8:  # BINARY
            length, at = _read_varint(raw, at)
            return raw[at : at + length], at + length
        case 12:  # STRUCT
            return _read_struct(raw, at)
        case 9 | 10:  # LIST, SET
            return _read_list(raw, at)
        case 1 | 2 | 3:  # truth values, BYTE
            return raw[at], at + 1
        case 7:  # DOUBLE
            return raw[at : at + 8], at + 8
        case 11:  # MAP
            return _read_map(raw, at)
        case _:
            raise ValueError(f"type {kind} is none of Thrift's compact protocol")


def _read_list(raw: bytes, at: int) -> tuple[tuple[int, list[Any]], int]:
    head = raw[at]
    at += 1
    size, kind = head >> 4, head & 0x0F
    if size == 0x0F:
        size, at = _read_varint(raw, at)
    items: list[Any] = []
    for _ in range(size):
        item, at = _read(raw, at, kind)
        items.append(item)
    return (kind, items), at


def _read_map(raw: bytes, at: int) -> tuple[tuple[int, list[Any]], int]:
    size, at = _read_varint(raw, at)
    if not size:
        return (0, []), at
    kinds = raw[at]
    at += 1
    items: list[Any] = []
    for _ in range(size):
        key, at = _read(raw, at, kinds >> 4)
        value, at = _read(raw, at, kinds & 0x0F)
        items.append((key, value))
    return (kinds, items), at


def _write_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _write_zigzag(out: bytearray, value: int) -> None:
    _write_varint(out, value << 1 if value >= 0 else (-value << 1) - 1)


def _write_struct(out: bytearray, fields: Struct) -> None:
    before = 0
    for number, (told, value) in sorted(fields.items()):
        kind = told if told not in (_TRUE, _FALSE) else _TRUE if value else _FALSE
        if 0 < number - before < 16:
            out.append((number - before) << 4 | kind)
        else:
            out.append(kind)
            _write_zigzag(out, number)
        before = number
        if kind not in (_TRUE, _FALSE):
            _write(out, kind, value)
    out.append(0)


def _write(out: bytearray, kind: int, value: Any) -> None:
    match kind:
        case 5 | 6 | 4:
            _write_zigzag(out, value)
        case 8:
            _write_varint(out, len(value))
            out += value
        case 12:
            _write_struct(out, value)
        case 9 | 10:
            inner, items = value
            if len(items) < 0x0F:
                out.append(len(items) << 4 | inner)
            else:
                out.append(0xF0 | inner)
                _write_varint(out, len(items))
            for item in items:
                _write(out, inner, item)
        case 1 | 2 | 3:
            out.append(value)
        case 7:
            out += value
        case _:  # MAP
            kinds, pairs = value
            _write_varint(out, len(pairs))
            if pairs:
                out.append(kinds)
                for key, item in pairs:
                    _write(out, kinds >> 4, key)
                    _write(out, kinds & 0x0F, item)
