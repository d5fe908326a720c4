"""A writer of TensorFlow's checkpoints, without TensorFlow, in pieces of which wrong files can be made too."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from picogpt.weights.bundle import DTYPES, FOOTER, MAGIC
from picogpt.weights.crc32c import masked


def varint(number: int) -> bytes:
    data = b""
    while number >= 0x80:
        data, number = data + bytes([number & 0x7F | 0x80]), number >> 7
    return data + bytes([number])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def shape_of(*sizes: int) -> bytes:
    return message(2, b"".join(message(2, number(1, size)) for size in sizes))


def entry(shape=(2,), offset=0, size=8, dtype=1, crc=0, shard=0, more=b"") -> bytes:
    data = number(1, dtype) + shape_of(*shape) + number(3, shard) + number(4, offset) + number(5, size)
    return data + varint(6 << 3 | 5) + crc.to_bytes(4, "little") + more


HEADER = number(1, 1) + number(2, 0) + message(3, number(1, 1))


def record(n_shared: int, rest: bytes, value: bytes) -> bytes:
    return varint(n_shared) + varint(len(rest)) + varint(len(value)) + rest + value


def records(pairs, share=True) -> bytes:
    data, before = b"", b""
    for key, value in pairs:
        n_shared = len(os.path.commonprefix([before, key])) if share else 0  # noqa: RUF071 of bytes
        data += record(n_shared, key[n_shared:], value)
        before = key
    return data


def block(data: bytes, restarts: bytes = bytes(4) + b"\1\0\0\0", compression: int = 0) -> bytes:
    data = data + restarts + bytes([compression])
    return data + masked(data).to_bytes(4, "little")


def place(offset: int, data: bytes) -> bytes:
    return varint(offset) + varint(len(data) - 5)


def table(*blocks: bytes, empty: bytes = block(b""), magic: bytes = MAGIC) -> bytes:
    """A file of finished blocks; the keys of the index are one more than any in the block, as a reader may expect."""
    offsets = [0, *itertools.accumulate(map(len, (*blocks, empty)))]
    index = block(records([(bytes([255, i]), place(offsets[i], data)) for i, data in enumerate(blocks)]))
    return finished(b"".join(blocks) + empty, place(offsets[-2], empty), index, magic)


def finished(blocks: bytes, empty: bytes, index: bytes, magic: bytes = MAGIC) -> bytes:
    footer = empty + place(len(blocks), index)
    return blocks + index + footer.ljust(FOOTER - 8, b"\0") + magic


def index_of(**entries: bytes) -> bytes:
    return table(block(records([(b"", HEADER), *((name.encode(), value) for name, value in entries.items())])))


# whole checkpoints


def save(prefix: Path, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write a checkpoint as OpenAI's are. One tensor is in memory at a time."""
    numbers, entries, offset = {name: number for number, name in DTYPES.items()}, {}, 0
    with prefix.with_name(f"{prefix.name}.data-00000-of-00001").open("wb") as file:
        for name, tensor in tensors:
            data = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
            entries[name] = entry(tensor.shape, offset, data.size, numbers[tensor.dtype.name], masked(data))
            file.write(data)
            offset += data.size
    prefix.with_name(f"{prefix.name}.index").write_bytes(index_of(**dict(sorted(entries.items()))))
    prefix.with_name(f"{prefix.name}.meta").write_bytes(b"\nthe graph, which is not read")
    prefix.with_name("checkpoint").write_text(f'model_checkpoint_path: "{prefix.name}"\n')


def as_published(tensors: Iterable[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """A model's tensors by their names and in their shapes in OpenAI's checkpoints."""
    for name, tensor in tensors:
        yield f"model/{name}", tensor[None] if name.endswith("/w") else tensor
