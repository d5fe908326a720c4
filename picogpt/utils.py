"""The door to a model's files: `load_encoder_hparams_and_params` finds, downloads, converts and opens them.

A model is a directory: hparams.json, encoder.json and vocab.bpe, and the weights, as OpenAI's TensorFlow checkpoint
(see download.py) or, after the first use, as NumPy files (see checkpoint.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from picogpt import UserError, checkpoint, download
from picogpt.encoder import Encoder, get_encoder

if TYPE_CHECKING:
    from picogpt.gpt2 import Params

MODEL_SIZES = ("124M", "355M", "774M", "1558M")
HPARAMS = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")


def load_encoder_hparams_and_params(model_size: str, models_dir: str | Path) -> tuple[Encoder, dict[str, int], Params]:
    """Tokenizer, hyperparameters and weights of a model; what is missing of OpenAI's is downloaded and converted.

    params is {"wte": [n_vocab, n_embd], "wpe": [n_ctx, n_embd], "blocks": [{"attn": {"c_attn": {"w", "b"}, "c_proj"},
    "mlp": {"c_fc", "c_proj"}, "ln_1": {"g", "b"}, "ln_2"}, ...], "ln_f": {"g", "b"}}, read-only float32 arrays.

    Raises UserError where the model cannot be found, fetched or read.
    """
    encoder, hparams = load_encoder_and_hparams(model_size, models_dir)
    return encoder, hparams, load_params(model_size, models_dir, hparams)


def load_encoder_and_hparams(model_size: str, models_dir: str | Path) -> tuple[Encoder, dict[str, int]]:
    """The small files alone: enough to encode a prompt and to see whether it fits."""
    model_dir = find_model_dir(model_size, models_dir)
    if model_size in MODEL_SIZES:
        download.fetch_missing(model_size, model_dir, download.TOKENIZER_FILES)
    hparams = read_hparams(model_dir / "hparams.json")
    encoder = get_encoder(model_dir.name, model_dir.parent)
    if max(encoder.decoder, default=-1) >= hparams["n_vocab"]:
        raise UserError(
            f"{model_dir / 'encoder.json'}: expected ids below {hparams['n_vocab']} (n_vocab in hparams.json), "
            f"found {max(encoder.decoder)}"
        )
    return encoder, hparams


def load_params(model_size: str, models_dir: str | Path, hparams: dict[str, int]) -> Params:
    """The weights, memory-mapped; a TensorFlow checkpoint is converted first."""
    model_dir = find_model_dir(model_size, models_dir)
    if not checkpoint.is_converted(model_dir):
        if model_size in MODEL_SIZES:
            download.fetch_missing(model_size, model_dir, download.CHECKPOINT_FILES)
        checkpoint.convert(model_dir, hparams)
    return checkpoint.open_params(model_dir, hparams)


def find_model_dir(model_size: str, models_dir: str | Path) -> Path:
    """The directory of a model: in models_dir, else among those that come with picogpt, else one still to be made."""
    if model_size in ("", ".", "..") or "/" in model_size or "\\" in model_size:
        raise UserError(f"expected the name of a model, found {model_size!r}: a directory is chosen by --models_dir")
    model_dir = Path(models_dir) / model_size
    bundled = bundled_models_dir() / model_size
    if model_dir.is_dir() or model_size in MODEL_SIZES:
        return model_dir
    if bundled.is_dir():
        return bundled
    known = sorted({*MODEL_SIZES, *_models_in(bundled_models_dir()), *_models_in(Path(models_dir))})
    raise UserError(f"unknown model {model_size!r}: expected one of {', '.join(known)}, or a directory in {models_dir}")


def bundled_models_dir() -> Path:
    """Inside the installed package; beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return next((d for d in (package / "models", package.parent / "models") if d.is_dir()), package / "models")


def _models_in(directory: Path) -> list[str]:
    return [path.parent.name for path in directory.glob("*/hparams.json")]


def read_hparams(path: Path) -> dict[str, int]:
    """{"n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"} of a model. Raises UserError where one makes no sense."""
    try:
        hparams = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read the model's hyperparameters: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, found {error}") from None
    if not isinstance(hparams, dict):
        raise UserError(f"{path}: expected an object with {', '.join(HPARAMS)}, found {hparams!r:.40}")
    for name in HPARAMS:
        if type(hparams.get(name)) is not int or hparams[name] < 1:
            raise UserError(f"{path}: expected a whole number from 1 as {name}, found {hparams.get(name)!r}")
    if hparams["n_embd"] % hparams["n_head"]:
        raise UserError(f"{path}: expected n_head to divide n_embd {hparams['n_embd']}, found {hparams['n_head']}")
    return {name: hparams[name] for name in HPARAMS}
