"""The tensors of a model in a TensorFlow checkpoint, where they are variables in the scope `model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from picogpt import files
from picogpt.arrays import Array
from picogpt.errors import UserError
from picogpt.weights.bundle import FLOAT32, Bundle
from picogpt.weights.shapes import check_names, param_shapes

SCOPE = "model/"  # the prefix of each tensor's name


def check(prefix: Path, hparams: Mapping[str, int]) -> None:
    """Raise UserError if the index is damaged, or if names, shapes or types are not those of the model."""
    with Bundle(prefix) as bundle:
        _check(bundle, param_shapes(hparams), prefix)


def tensors(prefix: Path, hparams: Mapping[str, int]) -> Iterator[tuple[str, Array]]:
    """(name, array) of each tensor, after the same check. The arrays are views into the file. Raises UserError."""
    shapes = param_shapes(hparams)
    with Bundle(prefix) as bundle:
        _check(bundle, shapes, prefix)
        for name, shape in shapes.items():
            yield name, bundle.read(SCOPE + name).reshape(shape)


def _check(bundle: Bundle, shapes: Mapping[str, tuple[int, ...]], where: Path) -> None:
    found = {name.removeprefix(SCOPE): entry for name, entry in bundle.entries.items() if name.startswith(SCOPE)}
    check_names(shapes, found, where)
    for name, shape in shapes.items():
        entry = found[name]
        # matrices are stored as [1, n_in, n_out], the kernels of a convolution of width 1
        if entry.shape != shape and not (name.endswith("/w") and entry.shape == (1, *shape)):
            expected = f"{name} of shape {list(shape)}"
            raise UserError(
                f"{where}: expected {expected}, found {files.quoted(list(entry.shape))}: hparams.json differs"
            )
        if entry.dtype != FLOAT32:
            raise UserError(f"{where}: expected {name} in {FLOAT32}, found {entry.dtype}: save it in {FLOAT32}")
