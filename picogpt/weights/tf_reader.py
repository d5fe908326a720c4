"""The tensors of a TensorFlow checkpoint, through TensorFlow, which is imported when the first is read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from picogpt.arrays import Array
from picogpt.errors import UserError
from picogpt.weights.shapes import check_names, param_shapes


def require() -> None:
    """Raises UserError where tensorflow is not installed. Importing it would take seconds."""
    from importlib.util import find_spec

    if find_spec("tensorflow") is None:
        raise _missing("No module named 'tensorflow'")


def import_tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow
    except ImportError as error:
        raise _missing(str(error)) from None
    return tensorflow


def _missing(reason: str) -> UserError:
    return UserError(
        f"tensorflow is needed once, to convert OpenAI's checkpoint, and cannot be imported ({reason}): "
        "pip install tensorflow, or try the bundled model with --model_size shakespeare"
    )


def check(where: Path, hparams: Mapping[str, int]) -> None:
    """Raises UserError where a checkpoint, whose files' names begin with `where`, is damaged or not as hparams ask."""
    tf = import_tensorflow()
    with _damage_told(where, tf):
        reader, shapes = tf.train.load_checkpoint(str(where)), param_shapes(hparams)
        found, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        check_names(shapes, {name[6:] for name in found if name.startswith("model/")}, where)
        for name, shape in shapes.items():
            _check_shape(where, name, shape, tuple(found[f"model/{name}"]))
            if (dtype := dtypes[f"model/{name}"]) != tf.float32:
                raise UserError(f"{where}: expected {name} in float32, found {dtype.name}: use a checkpoint in float32")


def tensors(where: Path, hparams: Mapping[str, int]) -> Iterator[tuple[str, Array]]:
    """(name, array) of each tensor of a checkpoint that has passed `check`, read one at a time. Raises UserError."""
    tf = import_tensorflow()
    with _damage_told(where, tf):
        reader = tf.train.load_checkpoint(str(where))
        for name, shape in param_shapes(hparams).items():
            yield name, reader.get_tensor(f"model/{name}").reshape(shape)


@contextmanager
def _damage_told(where: Path, tf: Any) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:  # it raises all of these
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{where}: expected a checkpoint, found a damaged one ({reason}): "
            f"delete {where.name}.* in {where.parent} and fetch it again"
        ) from None


def _check_shape(where: Path, name: str, shape: tuple[int, ...], found: tuple[int, ...]) -> None:
    # matrices are stored as [1, n_in, n_out], the kernels of a convolution of width 1
    if found != shape and not (name.endswith("/w") and found == (1, *shape)):
        raise UserError(f"{where}: expected {name} of shape {list(shape)}, found {list(found)}: hparams.json differs")
