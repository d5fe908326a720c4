"""TensorFlow's checkpoints, read without TensorFlow.

A checkpoint is two files. `NAME.data-00000-of-00001` is the tensors' bytes, one tensor after the other. `NAME.index`
says where each lies. It is a table in LevelDB's format. Its keys are the tensors' names, in order:

    block        records, the numbers of some of them (not needed to read all), how many such numbers: uint32 each
      record     bytes shared with the key before, further bytes of the key, bytes of the value; rest of the key; value
    after each   1 byte 0: not compressed; masked CRC-32C of the block and that byte: uint32
    the blocks   those with tensors; an empty one; one whose values are the places of those with tensors
    footer       the places of the last two, 40 bytes; MAGIC, 8 bytes

Numbers without a size are "varints": seven bits a byte, the lowest first, with the eighth bit set in all but the last.
Values are Protocol Buffers messages: the first, with an empty key, describes the file, and each other one a tensor:
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto

Nothing in these files is trusted. Memory and time are bounded by the size of the index, which is bounded too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from picogpt import files
from picogpt.arrays import Array
from picogpt.errors import UserError
from picogpt.weights.crc32c import masked
from picogpt.weights.mapped import AGAIN, DAMAGED, MappedFile, named

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER, TRAILER = 48, 5  # bytes
LONGEST_NAME = 512  # bytes; keys share bytes, so that a small file could hold many very long ones
MOST_DIMENSIONS = 32  # as NumPy 1.26
VERSION = 1  # of the format
VARINT, BYTES, FIXED32 = 0, 2, 5  # how a field of a message is written
FLOAT32 = "float32"
DTYPES = {1: FLOAT32, 2: "float64", 3: "int32", 7: "string", 9: "int64", 14: "bfloat16", 19: "float16"}
RESAVE = "save it again with tf.train.Saver: whole variables of float32 in one file, on a little-endian machine"


class Entry(NamedTuple):
    """What the index says about a tensor. Offset and size are in bytes; the checksum is masked."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    crc32c: int


class Bundle:
    """The tensors of a checkpoint. Each is read on request.

    Use it in a `with` statement; arrays stay valid after it.

    entries  what the index says about each tensor, by name
    """

    def __init__(self, prefix: Path):
        """Read the index of a checkpoint whose files' names begin with `prefix`. Raises UserError."""
        self.entries = read_index(prefix.with_name(f"{prefix.name}.index"))
        self._file = MappedFile(prefix.with_name(f"{prefix.name}.data-00000-of-00001"))
        end = max((entry.offset + entry.size for entry in self.entries.values()), default=0)
        if end > self._file.size:
            self.close()
            with named(self._file.path):
                raise UserError(f"expected {end} bytes, found {self._file.size}: {DAMAGED}")

    def read(self, name: str) -> Array:
        """A tensor as a read-only view into the file, after its checksum was compared. Raises UserError."""
        entry = self.entries[name]
        with named(self._file.path):
            if entry.dtype != FLOAT32:
                raise UserError(f"expected {name} in {FLOAT32}, found {entry.dtype}: {RESAVE}")
            data = self._file.part(entry.offset, entry.size)
            if (found := masked(data)) != entry.crc32c:
                raise UserError(f"expected {name} with checksum {entry.crc32c:08x}, found {found:08x}: {DAMAGED}")
            return data.view("<f4").reshape(entry.shape)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_index(path: Path) -> dict[str, Entry]:
    """What the index of a checkpoint says about each tensor, in the order of names. Raises UserError."""
    data = files.read_bytes(path, files.SMALL, AGAIN)
    with named(path):
        records = [record for block in _blocks(data) for record in _records(block)]
        if not records or records[0][0] != b"":
            raise UserError(f"expected an entry for the file, found none: {DAMAGED}")
        for (before, _), (key, _) in pairwise(records):
            if key <= before:
                raise UserError(f"expected names in order, found {_quoted(key)} after {_quoted(before)}: {DAMAGED}")
        _check_header(records[0][1])
        entries = {_name(key): _entry(key, value) for key, value in records[1:]}
        _check_overlap(entries)
    return entries


# the table


def _blocks(data: bytes) -> list[bytes]:
    """The blocks with tensors. All blocks must lie one after the other and fill the file, so none is read twice."""
    end = len(data) - FOOTER
    if end < 0 or data[-len(MAGIC) :] != MAGIC:
        raise UserError(f"expected the index of a TensorFlow checkpoint, found {len(data)} bytes of another: {DAMAGED}")
    empty, at = _place(data, end)
    index, _ = _place(data, at)
    places = [_place(value, 0)[0] for _, value in _records(_block(data[:end], *index))]
    expected = 0
    for offset, size in (*places, empty, index):
        if offset != expected:
            raise UserError(f"expected a block at byte {expected}, found it at {offset}: {DAMAGED}")
        expected = offset + size + TRAILER
    if expected != end:
        raise UserError(f"expected the footer at byte {expected}, found it at {end}: {DAMAGED}")
    _block(data[:end], *empty)
    return [_block(data[:end], *place) for place in places]


def _place(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position after these numbers."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _block(data: bytes, offset: int, size: int) -> bytes:
    end = offset + size + TRAILER
    if end > len(data):
        raise UserError(f"expected a block of {size} bytes at byte {offset}, found {len(data)} bytes: {DAMAGED}")
    block, compression = data[offset : offset + size], data[offset + size]
    expected, found = int.from_bytes(data[end - 4 : end], "little"), masked(data[offset : end - 4])
    if found != expected:
        raise UserError(f"expected a block with checksum {expected:08x}, found {found:08x}: {DAMAGED}")
    if compression != 0:
        raise UserError(f"expected a block that is not compressed, found compression {compression}: {RESAVE}")
    return block


def _records(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of each record of a block."""
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    if end < 0:
        raise UserError(f"expected the numbers of records, found a block of {len(block)} bytes: {DAMAGED}")
    data, at, key = block[:end], 0, b""
    while at < end:
        n_shared, at = _varint(data, at)
        n_more, at = _varint(data, at)
        n_value, at = _varint(data, at)
        if n_shared > len(key) or n_shared + n_more > LONGEST_NAME or at + n_more + n_value > end:
            raise UserError(f"expected a record, found one that shares {n_shared} bytes, then has {n_more} and "
                            f"{n_value} at byte {at} of {end}: {DAMAGED}")  # fmt: skip
        key, value = key[:n_shared] + data[at : at + n_more], data[at + n_more : at + n_more + n_value]
        at += n_more + n_value
        yield key, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of at most 64 bits, in the fewest bytes, and where the next begins.

    >>> _varint(bytes([0b10101100, 0b00000010]), 0)
    (300, 2)
    """
    number = 0
    for n, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            if number >= 1 << 64 or (byte == 0 and n > 0):
                break
            return number, at + n + 1
    raise UserError(f"expected a number, found {data[at : at + 10].hex() or 'the end'} at byte {at}: {DAMAGED}")


# the messages


def _check_header(message: bytes) -> None:
    fields = _fields(message)
    n_files, big_endian = _number(fields, 1), _number(fields, 2)
    if n_files != 1:
        raise UserError(f"expected a checkpoint with one file of data, found {n_files}: {RESAVE}")
    if big_endian:
        raise UserError(f"expected a checkpoint of a little-endian machine, found a big-endian one's: {RESAVE}")
    if (version := _number(_fields(_message(fields, 3)), 2)) > VERSION:
        raise UserError(f"expected a checkpoint for readers of version {VERSION}, found {version}: {RESAVE}")


def _entry(key: bytes, message: bytes) -> Entry:
    fields = _fields(message)
    shape = _fields(_message(fields, 2))
    sizes = tuple(_number(_fields(dimension), 1) for dimension in shape.get((2, BYTES), []))
    crc32c = int.from_bytes(fields.get((6, FIXED32), [b""])[-1], "little")
    dtype = DTYPES.get(_number(fields, 1), f"type {_number(fields, 1)}")
    entry = Entry(dtype, sizes, _number(fields, 4), _number(fields, 5), crc32c)
    if (7, BYTES) in fields:
        raise UserError(f"expected {_quoted(key)} in one piece, found a partitioned variable: {RESAVE}")
    if len(sizes) > MOST_DIMENSIONS or _number(shape, 3):
        raise UserError(f"expected at most {MOST_DIMENSIONS} dimensions, found {_quoted(key)} with more: {DAMAGED}")
    if _number(fields, 3) != 0:
        raise UserError(f"expected {_quoted(key)} in the only file of data, found it in another: {DAMAGED}")
    if entry.dtype == FLOAT32 and entry.size != 4 * math.prod(sizes):
        found = f"{entry.size} for shape {files.quoted(sizes)}"
        raise UserError(f"expected 4 bytes a number in {_quoted(key)}, found {found}: {DAMAGED}")
    return entry


def _name(key: bytes) -> str:
    if key[:1] == b"\0":  # what the pieces of a partitioned variable are called
        raise UserError(f"expected whole variables, found a piece of a partitioned one, {_quoted(key)}: {RESAVE}")
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"expected names in UTF-8, found {_quoted(key)}: {DAMAGED}") from None


def _check_overlap(entries: dict[str, Entry]) -> None:
    end, before = 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size)):
        if entry.offset < end and entry.size:
            both = f"{files.quoted(before)} and {files.quoted(name)}"
            raise UserError(f"expected each byte in one tensor, found {both} at byte {entry.offset}: {DAMAGED}")
        end, before = max(end, entry.offset + entry.size), name


def _fields(message: bytes) -> dict[tuple[int, int], list[bytes]]:
    """The values of a message by (number of the field, how it is written). Varints are not decoded.

    >>> _fields(bytes([0x08, 0x01, 0x35, 1, 2, 3, 4]))
    {(1, 0): [b'\\x01'], (6, 5): [b'\\x01\\x02\\x03\\x04']}
    """
    fields: dict[tuple[int, int], list[bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        start, end = _value(message, tag & 7, at)
        if end > len(message):
            raise UserError(f"expected {end} bytes in a message, found {len(message)}: {DAMAGED}")
        fields.setdefault((tag >> 3, tag & 7), []).append(message[start:end])
        at = end
    return fields


def _value(message: bytes, kind: int, at: int) -> tuple[int, int]:
    """Start and end of the value of a field."""
    if kind == VARINT:
        return at, _varint(message, at)[1]
    if kind == BYTES:
        size, at = _varint(message, at)
        return at, at + size
    if kind in (1, FIXED32):
        return at, at + (8 if kind == 1 else 4)
    raise UserError(f"expected a field of a message, found one of kind {kind} at byte {at}: {DAMAGED}")


def _number(fields: dict[tuple[int, int], list[bytes]], number: int) -> int:
    """A field that is a varint, or 0 if it is missing. A negative one is a number beyond 2^63."""
    values = fields.get((number, VARINT))
    return _varint(values[-1], 0)[0] if values else 0


def _message(fields: dict[tuple[int, int], list[bytes]], number: int) -> bytes:
    """A field that is itself a message. If it occurs several times, these are parts of one message."""
    return b"".join(fields.get((number, BYTES), []))


def _quoted(key: bytes) -> str:
    return files.quoted(key.decode("utf-8", "backslashreplace"))
