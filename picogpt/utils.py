"""Loading a model as the tutorial does: `load_encoder_hparams_and_params` finds, downloads, converts and opens it.

A model is a directory: its tokenizer, its hyperparameters and its weights, as OpenAI published them or as Hugging
Face's transformers saves them (weights/openai.py, weights/huggingface.py). The first use writes the weights as NumPy
files (weights/store.py); later uses open only these. See docs/weights.md.

    python -m picogpt.utils verify MODEL                check every byte of a model
    python -m picogpt.utils export MODEL DIRECTORY      write a model in the format of another program
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from picogpt import files
from picogpt.arrays import Params
from picogpt.encoder import Encoder
from picogpt.errors import UserError
from picogpt.weights import convert, store
from picogpt.weights.find import MODEL_SIZES, bundled_models_dir, find
from picogpt.weights.openai import read_hparams
from picogpt.weights.shapes import HPARAMS

__all__ = [
    "HPARAMS",
    "MODEL_SIZES",
    "bundled_models_dir",
    "delete_checkpoint",
    "export",
    "find_model_dir",
    "load_encoder_and_hparams",
    "load_encoder_hparams_and_params",
    "load_params",
    "read_hparams",
    "weights_fingerprint",
]

AnyPath: TypeAlias = str | os.PathLike[str]


def load_encoder_hparams_and_params(
    model_size: AnyPath, models_dir: AnyPath | None = None
) -> tuple[Encoder, dict[str, int], Params]:
    """Tokenizer, hyperparameters and weights of a model. Missing files of OpenAI's models are downloaded and converted.

    params is {"wte": [n_vocab, n_embd], "wpe": [n_ctx, n_embd], "blocks": [{"attn": {"c_attn": {"w", "b"}, "c_proj"},
    "mlp": {"c_fc", "c_proj"}, "ln_1": {"g", "b"}, "ln_2"}, ...], "ln_f": {"g", "b"}}, read-only float32 arrays.
    A model whose head is not wte also has "lm_head": [n_vocab, n_embd], and "own_head": True among its hyperparameters.

    models_dir is PICOGPT_MODELS_DIR or "models" by default. Raises UserError if a model cannot be found or loaded.

    >>> encoder, hparams, params = load_encoder_hparams_and_params("shakespeare")
    >>> hparams
    {'n_vocab': 1024, 'n_ctx': 256, 'n_embd': 192, 'n_head': 6, 'n_layer': 6}
    >>> params["wte"].shape
    (1024, 192)
    """
    encoder, hparams = load_encoder_and_hparams(model_size, models_dir)
    return encoder, hparams, load_params(model_size, models_dir, hparams)


def load_encoder_and_hparams(
    model_size: AnyPath, models_dir: AnyPath | None = None, fetch: bool = True
) -> tuple[Encoder, dict[str, int]]:
    """The small files alone: enough to encode a prompt and to check its length. Raises UserError."""
    place = find(model_size, models_dir)
    if fetch:
        place.source.fetch_small_files()
    hparams = place.source.read_hparams()
    encoder = place.source.read_encoder(hparams)
    if (largest := encoder.largest_id) >= hparams["n_vocab"]:
        raise UserError(
            f"{place.source.directory}: expected ids below {hparams['n_vocab']} (the size of the vocabulary in the "
            f"hyperparameters), found {largest}: put the tokenizer there that belongs to the model"
        )
    return encoder, hparams


def load_params(model_size: AnyPath, models_dir: AnyPath | None, hparams: Mapping[str, int]) -> Params:
    """The weights, memory-mapped. If they are missing or damaged, the checkpoint is converted first.

    Raises UserError if that fails.
    """
    return convert.open_or_convert(find(model_size, models_dir), hparams)


def params_read_ahead(model_size: AnyPath, models_dir: AnyPath | None = None) -> Params | None:
    """As `load_params`, but another thread begins to read the weights; None if they cannot be opened as they are."""
    place = find(model_size, models_dir)
    try:
        return store.open_params(place.home, place.source.read_hparams(), place.source.fingerprint(), ahead=True)
    except UserError:
        return None


def weights_fingerprint(model_size: AnyPath, models_dir: AnyPath | None = None) -> str:
    """A string that identifies a model's converted weights. Raises UserError."""
    return store.fingerprint(find(model_size, models_dir).home)


def delete_checkpoint(model_size: AnyPath, models_dir: AnyPath | None = None) -> None:
    """Delete OpenAI's TensorFlow checkpoint of a model in models_dir, once the weights made from it are safe on disk.

    In a directory elsewhere nothing is deleted, and a line on stderr says so. Raises UserError.
    """
    place = find(model_size, models_dir)
    if not place.is_ours:
        files.note(f"{place.directory}: not in {place.models_dir}, so its checkpoint stays")
        return
    with files.only_one(place.home):
        store.open_params(place.home, place.source.read_hparams(), place.source.fingerprint())
        place.source.delete_checkpoint()


def export(
    model_size: AnyPath, directory: AnyPath, format: str = "hf", dtype: str = "f32", models_dir: AnyPath | None = None
) -> None:
    """Write a model in the format of another program, completely or not at all, into a new directory.

    format: "hf" for transformers, "tf" for OpenAI's own code, "gguf" for llama.cpp. dtype: "f32"; or "f16" or "q8_0"
    for "gguf". Raises UserError.
    """
    from picogpt.weights import export

    started, target = time.monotonic(), Path(directory).expanduser()
    export.check_new(target)
    write = export.writer(format, dtype)
    encoder, hparams = load_encoder_and_hparams(model_size, models_dir)
    load_params(model_size, models_dir, hparams)
    place = find(model_size, models_dir)
    tensors = store.open_tensors(place.home, hparams, place.source.fingerprint())
    n_bytes = store.n_bytes(hparams) // {"f32": 1, "f16": 2, "q8_0": 3}[dtype]
    with export.new_directory(target, n_bytes) as unfinished:
        write(export.Whole(encoder, hparams, tensors), unfinished)
    files.note(f"exported {len(tensors)} tensors to {target} in {time.monotonic() - started:.1f} s")


def find_model_dir(model_size: AnyPath, models_dir: AnyPath | None = None) -> Path:
    """The directory of a model, which may not exist yet. Raises UserError for an unknown name.

    >>> find_model_dir("shakespeare").name
    'shakespeare'
    """
    return find(model_size, models_dir).directory


if __name__ == "__main__":  # python -m picogpt.utils verify MODEL is python -m picogpt.verify MODEL
    import runpy
    import sys

    command = sys.argv.pop(1) if sys.argv[1:2] in (["verify"], ["export"]) else "verify"
    runpy.run_module(f"picogpt.{command}", run_name="__main__", alter_sys=True)
