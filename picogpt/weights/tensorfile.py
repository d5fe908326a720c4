"""Files in the format safetensors, read and written: https://huggingface.co/docs/safetensors

    8 bytes     the size of the header: uint64, little-endian
    header      {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}, then spaces
    data        the tensors' bytes, little-endian; offsets count from here, and every byte is in one tensor

The key "__metadata__" maps names to texts. Nothing in these files is trusted.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from picogpt import files
from picogpt.arrays import Array
from picogpt.errors import UserError
from picogpt.weights.mapped import DAMAGED, MappedFile, named

LARGEST_HEADER = 4 << 20  # bytes; 50 times that of the largest GPT-2
MOST_DIMENSIONS = 32  # as NumPy 1.26
ALIGNMENT = 8  # bytes
METADATA = "__metadata__"
BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
         "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip
READ = ("F32", "F16", "BF16")


class Entry(NamedTuple):
    """What the header says about a tensor. Its data is the bytes from `start` up to `end`."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class TensorFile:
    """The tensors of a file. Each is read on request.

    Use it in a `with` statement; arrays stay valid after it.

    entries   what the header says about each tensor, by name
    metadata  texts by name
    """

    def __init__(self, path: Path):
        """Read the header. Raises UserError if it does not describe every byte of the data."""
        self._file = MappedFile(path)
        try:
            with named(path):
                header, self._start = _header(self._file)
                self.metadata = _metadata(header.pop(METADATA, {}))
                self.entries = {name: _entry(name, value) for name, value in header.items()}
                _check_places(self.entries, self._file.size - self._start)
        except BaseException:
            self.close()
            raise

    def read(self, name: str) -> Array:
        """A tensor as float32: a read-only view into the file if it is stored as float32. Raises UserError."""
        dtype, shape, start, end = self.entries[name]
        if dtype not in READ:
            raise UserError(f"{self._file.path}: expected {name} in {', '.join(READ)}, found {dtype}: save it as F32")
        data = self._file.part(self._start + start, end - start)
        if dtype == "BF16":  # the upper half of a float32
            data = (data.view("<u2").astype("<u4") << 16).view(np.uint8)
        return data.view("<f2" if dtype == "F16" else "<f4").astype(np.float32, copy=False).reshape(shape)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    n_bytes = int.from_bytes(file.part(0, min(8, file.size)).tobytes(), "little")
    if file.size < 8 + n_bytes or n_bytes > LARGEST_HEADER:
        found = f"one of {n_bytes} bytes in a file of {file.size}"
        raise UserError(f"expected a header of at most {files.size(LARGEST_HEADER)}, found {found}: {DAMAGED}")
    try:
        text = file.part(8, n_bytes).tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"expected a header in UTF-8, found {error.reason} at byte {error.start}: {DAMAGED}") from None
    return files.json_object_from(text, "header", DAMAGED), 8 + n_bytes


def _metadata(values: Any) -> dict[str, str]:
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise UserError(f"expected texts as {METADATA}, found {files.quoted(values)}: {DAMAGED}")
    return values


def _entry(name: str, value: Any) -> Entry:
    try:
        dtype, shape, (start, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        right = dtype in BYTES and len(shape) <= MOST_DIMENSIONS
        right = right and all(type(number) is int and number >= 0 for number in (*shape, start, end))
    except (TypeError, KeyError, ValueError):
        right = False
    if not right:
        expected = f"dtype, shape and data_offsets of {files.quoted(name)}"
        raise UserError(f"expected {expected}, found {files.quoted(value)}: {DAMAGED}")
    if end - start != BYTES[dtype] * math.prod(shape):
        found = f"bytes {files.quoted(start)} to {files.quoted(end)}"
        raise UserError(f"expected {files.quoted(name)} {files.quoted(shape)} in {dtype}, found {found}: {DAMAGED}")
    return Entry(dtype, shape, start, end)


def _check_places(entries: Mapping[str, Entry], size: int) -> None:
    """Raise UserError unless the tensors lie one after the other and fill the data."""
    expected = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != expected:
            found = files.quoted(entry.start)
            raise UserError(f"expected {files.quoted(name)} at byte {expected} of the data, found {found}: {DAMAGED}")
        expected = entry.end
    if expected != size:
        raise UserError(f"expected {files.quoted(expected)} bytes of data, found {size}: {DAMAGED}")


# writing


def save(
    path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None, advice: str = files.ROOM
) -> None:
    """Write tensors as float32, byte for byte as Hugging Face's library does, completely or not at all.

    One copy of a tensor is held at a time. transformers requires the metadata {"format": "pt"}. Raises UserError.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    with files.explained(path.parent, advice):
        try:
            with unfinished.open("wb") as file:
                _write(file, dict(sorted(tensors.items())), metadata)
            files.sync(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def _write(file: BinaryIO, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None) -> None:
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + 4 * tensor.size
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // ALIGNMENT) * ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        file.write(np.asarray(tensor, "<f4", order="C").ravel().view(np.uint8).data)
