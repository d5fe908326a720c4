"""The form in which a model is kept and run: one memory-mapped NumPy file a tensor, made once from a checkpoint.

A converted model is a directory `params` of `.npy` files, named as in OpenAI's checkpoints without the leading "model/"
and with dots for slashes: `wte.npy`, `h0.attn.c_attn.w.npy`, ... Opening takes milliseconds and processes share one
copy. The matrices that `linear` multiplies by, [n_in, n_out], lie in Fortran order: a column, all that one output
needs, is then one run of memory, and a product with one row reads about a tenth faster.

`manifest.json` beside them holds the version of this format, what the model was made from, and the SHA-256 of each
file. The directory appears by one rename when all of it is written, so it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from picogpt import files
from picogpt.errors import UserError
from picogpt.arrays import Array, Params


PARAMS_DIR = "params"
UNFINISHED = f".{PARAMS_DIR}-"
MANIFEST = "manifest.json"
FORMAT = 1


def param_shapes(hparams: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model, as in OpenAI's model.py: 4 + 12 * n_layer of them."""
    n_embd = hparams["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {
        "wte": (hparams["n_vocab"], n_embd),
        "wpe": (hparams["n_ctx"], n_embd),
    }
    for layer in range(hparams["n_layer"]):
        block = f"h{layer}"
        shapes |= _affine(f"{block}/ln_1", n_embd)
        shapes |= _matrix(f"{block}/attn/c_attn", n_embd, 3 * n_embd)
        shapes |= _matrix(f"{block}/attn/c_proj", n_embd, n_embd)
        shapes |= _affine(f"{block}/ln_2", n_embd)
        shapes |= _matrix(f"{block}/mlp/c_fc", n_embd, 4 * n_embd)
        shapes |= _matrix(f"{block}/mlp/c_proj", 4 * n_embd, n_embd)
    return shapes | _affine("ln_f", n_embd)


def _affine(name: str, n: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/g": (n,), f"{name}/b": (n,)}


def _matrix(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/w": (n_in, n_out), f"{name}/b": (n_out,)}


def random_tensors(hparams: Mapping[str, int], seed: int, std: float = 0.02) -> Iterator[tuple[str, Array]]:
    """Seeded tensors of a model's shapes for tests and benchmarks: normal, gains around 1, the rest around 0."""
    rng = np.random.default_rng(seed)
    for name, shape in param_shapes(hparams).items():
        tensor = rng.standard_normal(shape, dtype=np.float32) * np.float32(std)
        yield name, tensor + np.float32(name.endswith("/g"))


def n_bytes(hparams: Mapping[str, int]) -> int:
    """What the tensors of a model take in memory and, but for headers, on disk."""
    return 4 * sum(math.prod(shape) for shape in param_shapes(hparams).values())


def nested(tensors: Mapping[str, Array]) -> Params:
    """{"h0/mlp/c_fc/w": ...} as {"blocks": [{"mlp": {"c_fc": {"w": ...}}}]}, the form that gpt2.py takes."""
    params: Params = {}
    for name, tensor in tensors.items():
        *path, last = name.split("/")
        node = params
        for key in path:
            node = node.setdefault(key, {})
        node[last] = tensor
    n_layer = sum(bool(re.fullmatch(r"h\d+", key)) for key in params)
    params["blocks"] = [params.pop(f"h{layer}") for layer in range(n_layer)]
    return params


class UnusableError(UserError):
    """A converted model that is missing, damaged, of another format, or made from another checkpoint."""


def open_params(model_dir: Path, hparams: Mapping[str, int], source: str | None = None) -> Params:
    """The weights of a converted model, memory-mapped and read-only.

    What can be seen without reading them is checked: format, names, shapes, dtypes and lengths, and that the model was
    made from `source`, if both are known. Raises UnusableError naming the first thing that is wrong.
    """
    directory = model_dir / PARAMS_DIR
    made_from = _read_manifest(directory)["source"]
    if None not in (source, made_from) and source != made_from:
        raise UnusableError(f"{directory}: made from another checkpoint than the one that is there now")
    shapes = param_shapes(hparams)
    found = {path.name.removesuffix(".npy").replace(".", "/") for path in directory.glob("*.npy")}
    check_names(shapes, found, directory, UnusableError)
    return nested({name: _open(_path(directory, name), shape) for name, shape in shapes.items()})


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    if not directory.is_dir():
        raise UnusableError(f"{directory}: expected a converted model, found nothing")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableError(f"{path}: expected the list of this model's files, found none ({error})") from None
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise UnusableError(f"{path}: expected format {FORMAT}, found {version!r}")
    return {"source": None, "sha256": {}, **manifest}


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name.replace('/', '.')}.npy"


def _open(path: Path, shape: tuple[int, ...]) -> Array:
    """Map a file that is to the last byte of its length as `_write` makes it for a tensor of this shape."""
    header = _header(path, shape)
    expected = len(header) + 4 * math.prod(shape)
    try:
        with path.open("rb") as file:
            if file.read(len(header)) != header:
                raise UnusableError(f"{path}: expected float32 {list(shape)}, found {_describe(path)}")
            if (found := os.fstat(file.fileno()).st_size) != expected:
                raise UnusableError(f"{path}: expected {expected} bytes, found {found}")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise UnusableError(f"{path}: cannot read it: {error.strerror}") from None
    return np.frombuffer(mapped, np.float32, offset=len(header)).reshape(shape, order=_order(path))


def _order(path: Path) -> Literal["C", "F"]:
    return "F" if path.name.endswith(".w.npy") else "C"


def _header(path: Path, shape: tuple[int, ...]) -> bytes:
    """What a .npy file of a tensor begins with: 128 bytes, so that the data lie well for the processor.

    Ours rather than NumPy's own, because two of its versions may write the same in different ways.
    """
    text = f"{{'descr': '<f4', 'fortran_order': {_order(path) == 'F'}, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117).encode() + b"\n"


def _describe(path: Path) -> str:
    try:
        tensor = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy's parser of damaged headers raises many kinds
        return f"a damaged file ({error})"
    order = "Fortran" if tensor.flags.f_contiguous else "C"
    return f"{tensor.dtype} {list(tensor.shape)} in {order} order"


def verify_params(model_dir: Path, hparams: Mapping[str, int]) -> tuple[int, int]:
    """Read every byte of a converted model and compare it with what was written; returns how many tensors and bytes.

    Raises UnusableError naming the first file that differs.
    """
    open_params(model_dir, hparams)
    directory = model_dir / PARAMS_DIR
    paths = {name: _path(directory, name) for name in param_shapes(hparams)}
    digests = _read_manifest(directory)["sha256"]
    for name, path in paths.items():
        if (found := files.digest(path, "sha256").hex()) != digests.get(name):
            raise UnusableError(f"{path}: expected SHA-256 {digests.get(name)}, found {found}: a damaged file")
    return len(paths), sum(path.stat().st_size for path in paths.values())


def save_params(tensors: Iterable[tuple[str, Array]], model_dir: Path, source: str | None = None) -> None:
    """Write tensors, (name, array) each, as a converted model: all of them or, when anything fails, nothing.

    One tensor is held at a time. `source` says what they come from. A converted model that is there is replaced.
    """
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=model_dir))
    try:
        digests = {name: _write(_path(unfinished, name), tensor) for name, tensor in tensors}
        manifest = {"format": FORMAT, "source": source, "sha256": digests}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        files.sync(unfinished / MANIFEST)
        unfinished.chmod(0o755)  # mkdtemp's own is for one user
        _replace(model_dir / PARAMS_DIR, unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _write(path: Path, tensor: Array) -> str:
    """Write one tensor as a .npy file of float32, matrices in Fortran order; returns its SHA-256."""
    tensor = np.asarray(tensor, np.dtype("<f4"), order=_order(path))
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in (_header(path, tensor.shape), tensor.ravel(order="K").view(np.uint8).data):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _replace(directory: Path, new: Path) -> None:
    """Put a directory in the place of one that may be there: at no moment is half of either to be seen."""
    if directory.exists():
        old = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=directory.parent))
        directory.replace(old / directory.name)
        new.replace(directory)
        shutil.rmtree(old)
    else:
        new.replace(directory)
    files.sync(directory.parent)


def remove_unfinished(model_dir: Path) -> None:
    """Remove what conversions left that were killed. Only for whoever holds the model's lock."""
    for directory in model_dir.glob(f"{UNFINISHED}*"):
        shutil.rmtree(directory)


def check_names(
    expected: Iterable[str], found: Iterable[str], where: Path | str, kind: type[UserError] = UserError
) -> None:
    """Raises UserError, of that kind, where a tensor is missing, or is there that the model does not have."""
    wanted, there = set(expected), set(found)
    if missing := sorted(wanted - there):
        raise kind(f"{where}: expected the tensor {missing[0]}, which is missing{_more(missing)}")
    if extra := sorted(there - wanted):
        raise kind(f"{where}: found the tensor {extra[0]}, which this model does not have{_more(extra)}")


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
