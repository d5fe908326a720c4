"""OpenAI's checkpoints as NumPy files: the names and shapes of the tensors, conversion once, opening ever after.

A converted model is a directory of `.npy` files, one a tensor, named as in OpenAI's checkpoints without the leading
"model/" and with dots for slashes: `wte.npy`, `h0.attn.c_attn.w.npy`, ... They are opened memory-mapped: opening
takes milliseconds and processes share one copy. The matrices that `linear` multiplies by, [n_in, n_out], lie in
Fortran order: a column, all that one output needs, is then one run of memory, and a product with one row reads
about a tenth faster.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from picogpt import UserError

if TYPE_CHECKING:
    from picogpt.gpt2 import Array, Params

PARAMS_DIR = "params"


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


def is_converted(model_dir: Path) -> bool:
    return (model_dir / PARAMS_DIR).is_dir()


def open_params(model_dir: Path, hparams: Mapping[str, int]) -> Params:
    """The weights of a converted model, memory-mapped and read-only.

    Raises UserError naming the first file that is missing, damaged, too many, or not of the shape that hparams ask for.
    """
    directory = model_dir / PARAMS_DIR
    shapes = param_shapes(hparams)
    check_names(shapes, {path.name.removesuffix(".npy").replace(".", "/") for path in directory.iterdir()}, directory)
    return nested({name: _open(_path(directory, name), shape) for name, shape in shapes.items()})


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name.replace('/', '.')}.npy"


def _open(path: Path, shape: tuple[int, ...]) -> Array:
    advice = f"delete {path.parent} and run again, so that it is made anew"
    try:
        tensor = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected an array, found a damaged file ({error}): {advice}") from None
    if tensor.shape != shape or tensor.dtype != np.float32:
        found = f"{tensor.dtype} {list(tensor.shape)}"
        raise UserError(f"{path}: expected float32 {list(shape)}, found {found}: {advice}")
    return np.asarray(tensor)  # without np.memmap's own bookkeeping, which slows down every slice


def save_params(tensors: Iterable[tuple[str, Array]], model_dir: Path) -> None:
    """Write tensors, (name, array) each, as a converted model: all of them or, when anything fails, nothing."""
    unfinished = Path(tempfile.mkdtemp(prefix=f".{PARAMS_DIR}-", dir=model_dir))
    try:
        for name, tensor in tensors:
            order: Any = "F" if tensor.ndim == 2 and name.endswith("/w") else "C"
            np.save(_path(unfinished, name), np.asarray(tensor, np.float32, order=order), allow_pickle=False)
        unfinished.chmod(0o755)  # mkdtemp's own is for one user
        unfinished.replace(model_dir / PARAMS_DIR)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def check_names(expected: Iterable[str], found: Iterable[str], where: Path | str) -> None:
    """Raises UserError where a tensor is missing, or is there that the model does not have."""
    if missing := sorted(set(expected) - set(found)):
        raise UserError(f"{where}: expected the tensor {missing[0]}, which is missing{_more(missing)}")
    if extra := sorted(set(found) - set(expected)):
        raise UserError(f"{where}: found the tensor {extra[0]}, which this model does not have{_more(extra)}")


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def convert(model_dir: Path, hparams: Mapping[str, int]) -> None:
    """Read the TensorFlow checkpoint in model_dir, one variable at a time, and save it as NumPy files.

    Raises UserError where tensorflow is missing, the checkpoint damaged, or a tensor not as hparams ask for.
    """
    tf = import_tensorflow()
    prefix = tf.train.latest_checkpoint(str(model_dir)) or str(model_dir / "model.ckpt")
    try:
        reader = tf.train.load_checkpoint(prefix)
        found = {name.removeprefix("model/"): shape for name, shape in reader.get_variable_to_shape_map().items()}
        shapes = param_shapes(hparams)
        check_names(shapes, found, prefix)
        for name, shape in shapes.items():
            # matrices are stored as [1, n_in, n_out], the kernels of a convolution of width 1
            if tuple(found[name]) not in (shape, (1, *shape)) or (len(shape) == 1 and tuple(found[name]) != shape):
                raise UserError(f"{prefix}: expected {name} of shape {list(shape)}, found {list(found[name])}")
        tensors = ((name, reader.get_tensor(f"model/{name}").reshape(shape)) for name, shape in shapes.items())
        save_params(tensors, model_dir)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"{prefix}: expected a checkpoint, found a damaged one ({reason}): fetch it again") from None


def import_tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow
    except ImportError as error:
        raise UserError(
            f"tensorflow is needed once, to convert OpenAI's checkpoint, and cannot be imported ({error}): "
            "pip install tensorflow, or try the bundled model with --model_size shakespeare"
        ) from None
    return tensorflow
