"""The format in which weights are stored and run: one memory-mapped NumPy file for a model, made from a checkpoint.

Converted weights are a directory `params` with two files. `weights.npy` is one array of float32: all tensors, in the
order of `param_shapes`, each beginning at a multiple of 64 bytes. `manifest.json` says where in it each tensor lies
(offset, shape, order), gives its SHA-256, and holds the version of this format and what the weights were made from:

    array = np.load("weights.npy", mmap_mode="r")
    tensor = array[offset : offset + math.prod(shape)].reshape(shape, order=order)

Opening takes milliseconds and one file descriptor, and processes share one copy. A matrix lies in the order in which
this machine multiplies by it faster (`quicker_order`); both can be read everywhere. The directory is renamed into place
when it is complete, so it is never half written.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any, BinaryIO, Literal, NamedTuple

import numpy as np

from picogpt import files
from picogpt.arrays import Array, Params
from picogpt.errors import UserError
from picogpt.matmul import has_avx512
from picogpt.weights.shapes import check_names, n_bytes, nested, param_shapes, random_tensors

__all__ = ["n_bytes", "nested", "open_params", "param_shapes", "random_tensors", "save_params", "verify_params"]

PARAMS_DIR = "params"
UNFINISHED = f".{PARAMS_DIR}-"
DATA = "weights.npy"
MANIFEST = "manifest.json"
FORMAT = 2
HEADER = 128  # bytes
ALIGNMENT = 64  # bytes, a line of the processor's cache


class UnusableError(UserError):
    """Converted weights that are missing, damaged, of another format, or made from another checkpoint."""


class Span(NamedTuple):
    """The place of a tensor in the array. The offset is in numbers, not bytes."""

    offset: int
    shape: tuple[int, ...]
    order: Literal["C", "F"]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def padding(self) -> int:
        """Zeros that follow it, so that the next tensor is aligned."""
        return -self.size % (ALIGNMENT // 4)

    @property
    def end(self) -> int:
        """Where the next tensor begins."""
        return self.offset + self.size + self.padding


def quicker_order(name: str, shape: tuple[int, ...]) -> Literal["C", "F"]:
    """The order of a tensor in which a product with one row or a few is quicker.

    With AVX-512, the columns of a matrix [n_in, n_out], each all that one output needs, should be contiguous:
    matmul.py. Elsewhere a row should be, where it is longer than a column: one row times wte.T takes 4.1 ms instead of
    5.7 in 124M, eight rows 14 instead of 18.
    """
    transposed = name in ("wte", "lm_head")  # used as wte.T
    if not (transposed or name.endswith("/w")):
        return "C"
    n_in, n_out = reversed(shape) if transposed else shape
    by_rows = n_out > n_in and not has_avx512()
    return "C" if by_rows != transposed else "F"


# opening


def open_params(model_dir: Path, hparams: Mapping[str, int], source: str | None = None, ahead: bool = False) -> Params:
    """The weights of a converted model as gpt2.py takes them, see `open_tensors`."""
    return nested(open_tensors(model_dir, hparams, source, ahead))


def open_tensors(
    model_dir: Path, hparams: Mapping[str, int], source: str | None = None, ahead: bool = False
) -> dict[str, Array]:  # fmt: skip
    """The tensors of a converted model by their names, memory-mapped and read-only.

    Everything that does not require reading them is checked: format, names, shapes and length, and that they were made
    from `source`, if both are known. Raises UnusableError naming the first problem, or another UserError if the weights
    may be good but cannot be read now. With `ahead`, another thread begins to read them.
    """
    directory = model_dir / PARAMS_DIR
    manifest = _read_manifest(directory)
    made_from = manifest["source"]
    if None not in (source, made_from) and source != made_from:
        raise UnusableError(f"{directory}: made from another checkpoint than the one that is there now")
    expected = spans(hparams, manifest["tensors"], directory / MANIFEST)
    with _open(directory / DATA, expected) as file:
        mapped = _map(file, directory / DATA)
    if ahead:
        _read_ahead(mapped)
    return {
        name: np.frombuffer(mapped, np.float32, span.size, HEADER + 4 * span.offset).reshape(
            span.shape, order=span.order
        )
        for name, span in expected.items()
    }


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    try:
        manifest = {"source": None, "tensors": None, **files.read_object(path, files.TABLE, advice="")}
    except files.UnreadableError:
        raise
    except UserError as error:
        if not files.is_there(directory):
            raise UnusableError(f"{directory}: expected converted weights, found nothing") from None
        raise UnusableError(str(error)) from None
    if (version := manifest.get("format")) != FORMAT:
        raise UnusableError(f"{path}: expected format {FORMAT}, found {files.quoted(version)}")
    if not isinstance(manifest["tensors"], dict):
        raise UnusableError(f"{path}: expected an object as tensors, found {files.quoted(manifest['tensors'])}")
    return manifest


def spans(hparams: Mapping[str, int], entries: Mapping[str, Any], path: Path) -> dict[str, Span]:
    """Where each tensor of a model lies, as the entries of the manifest at `path` say. Raises UnusableError."""
    shapes = param_shapes(hparams)
    check_names(shapes, entries, path, UnusableError)
    found, offset = {}, 0
    for name, shape in shapes.items():
        entry = entries[name] if isinstance(entries[name], dict) else {}
        for key, values in (("shape", [[*shape]]), ("offset", [offset]), ("order", ["C", "F"])):
            if entry.get(key) not in values:
                wanted = " or ".join(map(str, values))
                raise UnusableError(f"{path}: expected {name} of {key} {wanted}, found {files.quoted(entry.get(key))}")
        found[name] = Span(offset, shape, entry["order"])
        offset = found[name].end
    return found


def _open(path: Path, expected: Mapping[str, Span]) -> BinaryIO:
    """The file of the weights, after its header. Raises UnusableError if the header or the length is wrong."""
    n_numbers = max(span.end for span in expected.values())
    header, n_bytes = _header(n_numbers), HEADER + 4 * n_numbers
    try:
        file = files.open_file(path, advice="")
    except files.UnreadableError:
        raise
    except UserError as error:
        raise UnusableError(str(error)) from None
    with files.readable(path):
        found, begins = os.fstat(file.fileno()).st_size, file.read(len(header))
    if found == n_bytes and begins == header:
        return file
    file.close()
    if found != n_bytes:
        raise UnusableError(f"{path}: expected {n_bytes} bytes, found {found}")
    raise UnusableError(f"{path}: expected an array of {n_numbers} float32, found another header: it is damaged")


def _map(file: BinaryIO, path: Path) -> mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # too little memory, or a file system that cannot
        raise files.UnreadableError(f"{path}: cannot map it: {error}: {files.LATER}") from None


def _read_ahead(mapped: mmap.mmap) -> None:
    """Touch every page in another thread, so that it is in memory, and the system has entered it in its tables.

    For 124M in the page cache this takes 20 ms, in which this thread does something else.
    """
    pages = np.frombuffer(mapped, np.uint32, offset=HEADER)[:: mmap.PAGESIZE // 4]
    with suppress(RuntimeError):  # no new threads
        Thread(target=np.bitwise_or.reduce, args=(pages,), daemon=True).start()  # without the interpreter's lock


def _header(length: int) -> bytes:
    """The header of a .npy file of `length` float32.

    It is not written by NumPy, because two versions of NumPy may write it differently.
    """
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({length},), }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER - 10) + text.ljust(HEADER - 11).encode() + b"\n"


# verifying


def verify_params(model_dir: Path, hparams: Mapping[str, int]) -> tuple[int, int]:
    """Compare every byte of a converted model with its digests, and return the numbers of tensors and bytes.

    Raises UnusableError naming the first tensor that differs.
    """
    directory = model_dir / PARAMS_DIR
    entries = _read_manifest(directory)["tensors"]
    expected = spans(hparams, entries, directory / MANIFEST)
    path = directory / DATA
    with _open(path, expected) as file, files.readable(path):
        for name, span in expected.items():
            found = _digest(file, 4 * span.size)
            if found != (digest := entries[name].get("sha256")):
                raise UnusableError(
                    f"{path}: expected {name} with SHA-256 {files.quoted(digest)}, found {found}: damaged"
                )
            if any(file.read(4 * span.padding)):
                raise UnusableError(f"{path}: expected zeros after {name}, found a damaged file")
        return len(expected), file.tell()


def _digest(file: BinaryIO, n_bytes: int) -> str:
    import hashlib

    state = hashlib.sha256()
    while n_bytes and (chunk := file.read(min(n_bytes, 1 << 20))):
        state.update(chunk)
        n_bytes -= len(chunk)
    return state.hexdigest()


def fingerprint(model_dir: Path) -> str:
    """A digest of the digests of all tensors, which identifies converted weights. Raises UnusableError."""
    entries = _read_manifest(model_dir / PARAMS_DIR)["tensors"]
    digests = {name: entry.get("sha256") for name, entry in entries.items()}
    return files.sha256(json.dumps(digests, sort_keys=True).encode())


# writing


def save_params(tensors: Iterable[tuple[str, Array]], model_dir: Path, source: str | None = None) -> None:
    """Write tensors, (name, array) each, as converted weights, completely or not at all.

    One tensor is held at a time. `source` says what they come from. Existing converted weights are replaced.
    """
    unfinished = model_dir / f"{UNFINISHED}{os.urandom(4).hex()}"
    unfinished.mkdir()
    try:
        with (unfinished / DATA).open("wb") as file:
            entries = _write(file, tensors)
            _sync(file)
        with (unfinished / MANIFEST).open("w", encoding="utf-8") as file:
            file.write(_manifest(source, entries))
            _sync(file)
        _replace(model_dir / PARAMS_DIR, unfinished)
    except BaseException:
        with suppress(OSError):
            _remove(unfinished)
        raise


def _write(file: BinaryIO, tensors: Iterable[tuple[str, Array]]) -> dict[str, dict[str, Any]]:
    """Write the array of all tensors, and return the entry of each in the manifest."""
    entries, offset = {}, 0
    file.write(bytes(HEADER))
    for name, tensor in tensors:
        span = Span(offset, tensor.shape, quicker_order(name, tensor.shape))
        data = np.asarray(tensor, "<f4", order=span.order).ravel(order="K").view(np.uint8).data
        file.write(data)
        file.write(bytes(4 * span.padding))
        entries[name] = {**span._asdict(), "sha256": files.sha256(data)}
        offset = span.end
    file.seek(0)
    file.write(_header(offset))
    return entries


def _manifest(source: str | None, entries: Mapping[str, dict[str, Any]]) -> str:
    """The text of manifest.json, a line for each tensor."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
    return f'{{\n "format": {FORMAT},\n "source": {json.dumps(source)},\n "tensors": {{\n{lines}\n }}\n}}\n'


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _replace(directory: Path, new: Path) -> None:
    """Rename a directory to the path of another one, if there is one, so that neither is ever there in part."""
    if files.is_there(directory) and _exchange(directory, new):
        _remove(new)
    elif files.is_there(directory):  # for a moment, there is none
        old = new.with_name(f"{new.name}-old")
        directory.replace(old)
        new.replace(directory)
        _remove(old)
    else:
        new.replace(directory)
    files.sync(directory.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two directories at once. False if the system cannot do it."""
    if sys.platform != "linux":
        return False
    import ctypes  # only for a run that replaces weights

    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except AttributeError:  # an old C library
        return False
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _remove(path: Path) -> None:
    import shutil  # only for a run that writes

    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def remove_unfinished(model_dir: Path) -> None:
    """Remove what killed conversions left. The caller must hold the model's lock."""
    for directory in model_dir.glob(f"{UNFINISHED}*"):
        _remove(directory)
