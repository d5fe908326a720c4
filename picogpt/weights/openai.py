"""OpenAI's models as they were published: what their files are, and the TensorFlow checkpoint as tensors.

The SHA-256 of all seven files are known for 124M, the sizes for 355M; a data file holds 4 bytes a parameter and nothing
else, which gives its size for the other two. encoder.json and vocab.bpe are the same for all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from picogpt import files
from picogpt.errors import UserError
from picogpt.weights.store import check_names, param_shapes
from picogpt.arrays import Array


DATA = "model.ckpt.data-00000-of-00001"
TOKENIZER_FILES = ("hparams.json", "encoder.json", "vocab.bpe")
CHECKPOINT_FILES = ("checkpoint", "model.ckpt.index", "model.ckpt.meta", DATA)

HPARAMS = {
    model_size: {"n_vocab": 50257, "n_ctx": 1024, "n_embd": n_embd, "n_head": n_head, "n_layer": n_layer}
    for model_size, n_embd, n_head, n_layer in (
        ("124M", 768, 12, 12), ("355M", 1024, 16, 24), ("774M", 1280, 20, 36), ("1558M", 1600, 25, 48)
    )
}  # fmt: skip


class Known(NamedTuple):
    """What is known of a file beforehand; None where it is not."""

    size: int | None = None
    sha256: str | None = None


TOKENIZER = {
    "encoder.json": Known(1042301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "vocab.bpe": Known(456318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}
KNOWN: dict[str, dict[str, Known]] = {
    "124M": {
        **TOKENIZER,
        "hparams.json": Known(90, "d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318"),
        "checkpoint": Known(77, "dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb"),
        "model.ckpt.index": Known(5215, "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687"),
        "model.ckpt.meta": Known(471155, "4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b"),
        DATA: Known(497759232, "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118"),
    },
    "355M": {
        **TOKENIZER,
        "hparams.json": Known(91),
        "model.ckpt.index": Known(10399),
        "model.ckpt.meta": Known(926519),
        DATA: Known(1419292672),
    },
    "774M": {**TOKENIZER, DATA: Known(3096120320)},
    "1558M": {**TOKENIZER, DATA: Known(6230444800)},
}


def known(model_size: str, name: str) -> Known:
    return KNOWN.get(model_size, {}).get(name, Known())


def missing(model_dir: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if not (model_dir / name).exists()]


def check_files(model_size: str, model_dir: Path, names: Iterable[str], deep: bool = False) -> None:
    """Raises UserError naming a file that is there and not as OpenAI published it: by size and, deep, by SHA-256."""
    advice = "delete it and run again, so that it is fetched anew, or put the right one there"
    paths = {name: model_dir / name for name in names}
    expected = {path: known(model_size, name) for name, path in paths.items() if path.exists()}
    for path, (size, _) in expected.items():
        if size not in (None, found := path.stat().st_size):
            raise UserError(f"{path}: expected {size} bytes, found {found}: {advice}")
    for path, (_, sha256) in expected.items() if deep else ():
        if sha256 and sha256 != (digest := files.digest(path, "sha256").hex()):
            raise UserError(f"{path}: expected SHA-256 {sha256}, found {digest}: {advice}")


def prefix(model_dir: Path) -> Path:
    """What the names of the checkpoint's files begin with: the one that the file `checkpoint` names, or model.ckpt."""
    try:
        text = (model_dir / "checkpoint").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    named = re.search(r'^model_checkpoint_path: "([^"]+)"', text, re.MULTILINE)
    return model_dir / (Path(named[1]).name if named else "model.ckpt")


def fingerprint(model_dir: Path) -> str | None:
    """Tells checkpoints apart: the index file holds a checksum of every tensor. None where there is no checkpoint."""
    index = prefix(model_dir).with_name(f"{prefix(model_dir).name}.index")
    return f"{index.name} {files.digest(index, 'sha256').hex()}" if index.is_file() else None


def delete_checkpoint(model_dir: Path) -> None:
    """Delete the checkpoint's files, and nothing else. Raises UserError where that is not allowed."""
    where = prefix(model_dir)
    with files.explained(model_dir):
        for path in (*model_dir.glob(f"{where.name}.*"), model_dir / "checkpoint"):
            path.unlink(missing_ok=True)


def tensors(model_dir: Path, hparams: Mapping[str, int]) -> Iterator[tuple[str, Array]]:
    """The checkpoint's tensors, (name, array) each, read one at a time.

    Raises UserError where tensorflow is missing, the checkpoint damaged, or a tensor not as hparams ask for.
    """
    tf, where = import_tensorflow(), prefix(model_dir)
    try:
        reader = tf.train.load_checkpoint(str(where))
        variables = reader.get_variable_to_shape_map()
        shapes = param_shapes(hparams)
        check_names(shapes, {name[6:] for name in variables if name.startswith("model/")}, where)
        for name, shape in shapes.items():
            _check_shape(where, name, shape, tuple(variables[f"model/{name}"]))
        for name, shape in shapes.items():
            yield name, reader.get_tensor(f"model/{name}").reshape(shape)
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:  # it raises all of these
        if isinstance(error, UserError):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{where}: expected a checkpoint, found a damaged one ({reason}): "
            f"delete {model_dir / 'model.ckpt.*'} and fetch it again"
        ) from None


def _check_shape(where: Path, name: str, shape: tuple[int, ...], found: tuple[int, ...]) -> None:
    # matrices are stored as [1, n_in, n_out], the kernels of a convolution of width 1
    if found != shape and not (name.endswith("/w") and found == (1, *shape)):
        raise UserError(f"{where}: expected {name} of shape {list(shape)}, found {list(found)}: hparams.json differs")


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
