"""A model as OpenAI published GPT-2: a TensorFlow checkpoint, hparams.json, encoder.json and vocab.bpe.

TensorFlow writes the checkpoint, so it holds all weights in memory for a while.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from picogpt import files
from picogpt.arrays import Array
from picogpt.errors import UserError
from picogpt.weights.export import Whole, write_merges, write_vocabulary
from picogpt.weights.extras import imported
from picogpt.weights.variables import SCOPE


def tensorflow(purpose: str) -> Any:
    """The module, without its messages. Raises UserError if it is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    module = imported("tensorflow", "tensorflow", purpose)
    module.get_logger().setLevel("ERROR")
    return module


def writer(_: str) -> Callable[[Whole, Path], None]:
    tf = tensorflow("an export for OpenAI's code")

    def write(model: Whole, directory: Path) -> None:
        if "lm_head" in model.tensors:
            raise UserError(
                "expected a model whose head is wte, found one with a head of its own, for which OpenAI's format has "
                "no place: export it with --format hf or gguf"
            )
        try:
            write_checkpoint(tf, model.tensors, directory)
        except tf.errors.OpError as error:
            raise UserError(f"cannot write to {directory}: {str(error.message)[:200]}: {files.ROOM}") from None
        (directory / "hparams.json").write_text(json.dumps(dict(model.hparams), indent=2) + "\n", encoding="utf-8")
        write_vocabulary(model.encoder, directory / "encoder.json")
        write_merges(model.encoder, directory / "vocab.bpe")

    return write


def write_checkpoint(tf: Any, tensors: Mapping[str, Array], directory: Path) -> None:
    """Save variables of OpenAI's names and shapes with the class that OpenAI's code restores them with."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.device("/cpu:0"), v1.Session() as session:
        for name, tensor in tensors.items():
            # matrices are the kernels of a convolution of width 1
            value = np.ascontiguousarray(tensor if not name.endswith("/w") else tensor[None])
            start = v1.placeholder(tf.float32, value.shape)
            variable = v1.get_variable(SCOPE + name, initializer=start, use_resource=False)
            session.run(variable.initializer, {start: value})
        v1.train.Saver(save_relative_paths=True).save(session, str(directory / "model.ckpt"))
