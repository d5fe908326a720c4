"""The door to a model's files: `load_encoder_hparams_and_params` finds, downloads, converts and opens them.

A model is a directory: its tokenizer, its hyperparameters and its weights, as OpenAI published them (openai.py,
fetched by download.py) or as Hugging Face's transformers saves them (huggingface.py). The first use writes the weights
as NumPy files (checkpoint.py); from then on those are opened and nothing else is needed.

    python -m picogpt.utils verify MODEL     read every byte of a model and compare it with what was written
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from picogpt import files
from picogpt.errors import UserError
from picogpt.commands import cli
from picogpt.weights import store, huggingface, openai
from picogpt.encoder import Encoder, get_encoder
from picogpt.arrays import Params


MODEL_SIZES = tuple(openai.HPARAMS)
HPARAMS = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")
CONVERTED = ".converted"  # in models_dir: the weights of models that lie elsewhere


def load_encoder_hparams_and_params(
    model_size: str, models_dir: str | Path | None = None
) -> tuple[Encoder, dict[str, int], Params]:
    """Tokenizer, hyperparameters and weights of a model; what is missing of OpenAI's is downloaded and converted.

    params is {"wte": [n_vocab, n_embd], "wpe": [n_ctx, n_embd], "blocks": [{"attn": {"c_attn": {"w", "b"}, "c_proj"},
    "mlp": {"c_fc", "c_proj"}, "ln_1": {"g", "b"}, "ln_2"}, ...], "ln_f": {"g", "b"}}, read-only float32 arrays.

    models_dir None is PICOGPT_MODELS_DIR, or "models". Raises UserError where a model cannot be found, fetched or read.
    """
    encoder, hparams = load_encoder_and_hparams(model_size, models_dir)
    return encoder, hparams, load_params(model_size, models_dir, hparams)


def load_encoder_and_hparams(model_size: str, models_dir: str | Path | None) -> tuple[Encoder, dict[str, int]]:
    """The small files alone: enough to encode a prompt and to see whether it fits."""
    model_dir = find_model_dir(model_size, models_dir)
    if model_size in MODEL_SIZES:
        _fetch_tokenizer(model_size, model_dir)
    return _read_small_files(model_size, model_dir)


def _read_small_files(model_size: str, model_dir: Path) -> tuple[Encoder, dict[str, int]]:
    if huggingface.is_checkpoint(model_dir):
        path = model_dir / "config.json"
        hparams = read_hparams(path)
        encoder = huggingface.read_encoder(model_dir, hparams["n_vocab"])
    else:
        path = model_dir / "hparams.json"
        hparams = read_hparams(path)
        if hparams == openai.HPARAMS.get(model_size):
            openai.check_files(model_size, model_dir, openai.TOKENIZER)
        encoder = get_encoder(model_dir.name, model_dir.parent)
    if max(encoder.decoder, default=-1) >= hparams["n_vocab"]:
        raise UserError(
            f"{model_dir}: expected ids below {hparams['n_vocab']} (the vocabulary's size in {path.name}), "
            f"found {max(encoder.decoder)}"
        )
    return encoder, hparams


def load_params(
    model_size: str, models_dir: str | Path | None, hparams: dict[str, int], delete_checkpoint: bool = False
) -> Params:
    """The weights, memory-mapped; made from the checkpoint where they are not there yet, or are no more as they were.

    With delete_checkpoint, OpenAI's TensorFlow checkpoint is deleted once the weights made from it are safe on disk.
    """
    model_dir = find_model_dir(model_size, models_dir)
    home = _home(model_dir, models_dir)
    try:
        params = store.open_params(home, hparams, _fingerprint(model_dir))
    except store.UnusableError as problem:
        if (home / store.PARAMS_DIR).exists():
            _check_can_rebuild(model_size, model_dir, home, problem)
        _make_params(model_size, model_dir, home, hparams)
        params = store.open_params(home, hparams, _fingerprint(model_dir))
    if delete_checkpoint and home == model_dir:
        openai.delete_checkpoint(model_dir)
    return params


def _check_can_rebuild(model_size: str, model_dir: Path, home: Path, problem: UserError) -> None:
    """Raises UserError, telling what to do, where weights are no use and there is no checkpoint to make them anew."""
    if _fingerprint(model_dir) is not None:
        files.note(f"{problem}: making the weights anew from the checkpoint")
    elif model_dir.parent == bundled_models_dir():
        raise UserError(f"{problem}: install picogpt again")
    else:
        advice = "to fetch it again" if model_size in MODEL_SIZES else "with its checkpoint put there"
        raise UserError(f"{problem}: delete {home / store.PARAMS_DIR} and run again {advice}")


def _make_params(model_size: str, model_dir: Path, home: Path, hparams: dict[str, int]) -> None:
    """Fetch what is missing of a checkpoint and convert it, unless another process has done so meanwhile."""
    if model_size not in MODEL_SIZES and _fingerprint(model_dir) is None:
        raise UserError(f"{model_dir}: expected {openai.DATA} or {huggingface.WEIGHTS}, found neither: put one there")
    with files.only_one(home), files.explained(home):
        try:
            store.open_params(home, hparams, _fingerprint(model_dir))
        except store.UnusableError:
            if model_size in MODEL_SIZES:
                _fetch_checkpoint(model_size, model_dir, hparams)
            _convert(model_size, model_dir, home, hparams)


def _fetch_tokenizer(model_size: str, model_dir: Path) -> None:
    if openai.missing(model_dir, openai.TOKENIZER_FILES):
        with files.only_one(model_dir):
            _fetch(model_size, model_dir, openai.missing(model_dir, openai.TOKENIZER_FILES))


def _fetch_checkpoint(model_size: str, model_dir: Path, hparams: dict[str, int]) -> None:
    """Only for whoever holds the model's lock."""
    missing = openai.missing(model_dir, openai.CHECKPOINT_FILES)
    to_fetch = sum(openai.known(model_size, name).size or 1 << 20 for name in missing)
    there = sum(path.lstat().st_size for path in model_dir.glob("*.part"))
    converted = store.n_bytes(hparams)
    purpose = f"{files.size(to_fetch - there)} to fetch, {files.size(converted)} converted"
    files.check_space(model_dir, to_fetch - there + converted, purpose)
    _fetch(model_size, model_dir, missing)


def _fetch(model_size: str, model_dir: Path, names: list[str]) -> None:
    """Only for whoever holds the model's lock."""
    if names:
        from picogpt.weights import download  # and with it requests, which a model that is there does not need

        url = f"{download.weights_url()}/{model_size}"
        looks = {"hparams.json": read_hparams}
        download.fetch_all(url, names, model_dir, lambda name: openai.known(model_size, name), looks)


def _convert(model_size: str, model_dir: Path, home: Path, hparams: dict[str, int]) -> None:
    """Only for whoever holds the model's lock."""
    from tqdm import tqdm

    started = time.monotonic()
    if model_size in MODEL_SIZES:
        if hparams != (expected := openai.HPARAMS[model_size]):
            raise UserError(f"{model_dir / 'hparams.json'}: expected {expected}, found {hparams}: put OpenAI's there")
        openai.check_files(model_size, model_dir, openai.TOKENIZER_FILES + openai.CHECKPOINT_FILES, deep=True)
    home.mkdir(parents=True, exist_ok=True)
    store.remove_unfinished(home)
    n_bytes, n_tensors = store.n_bytes(hparams), len(store.param_shapes(hparams))
    files.check_space(home, n_bytes, "for the converted weights")
    files.note(f"converting {model_dir}, once")
    source = huggingface if huggingface.is_checkpoint(model_dir) else openai
    tensors = tqdm(source.tensors(model_dir, hparams), "converting", n_tensors, unit="tensor", disable=None)
    store.save_params(tensors, home, source.fingerprint(model_dir))
    files.note(f"converted {n_tensors} tensors, {files.size(n_bytes)}, in {time.monotonic() - started:.1f} s")


def _fingerprint(model_dir: Path) -> str | None:
    return huggingface.fingerprint(model_dir) if huggingface.is_checkpoint(model_dir) else openai.fingerprint(model_dir)


def _home(model_dir: Path, models_dir: str | Path | None) -> Path:
    """Where the NumPy files of a model are: with the model, unless it lies outside models_dir and has none yet.

    A directory that somebody names by its path is theirs and may be read-only, so nothing is written there.
    """
    models_dir = _models_dir(models_dir)
    if (model_dir / store.PARAMS_DIR).is_dir() or model_dir.parent == models_dir:
        return model_dir
    full = model_dir.resolve()
    return models_dir / CONVERTED / f"{full.name}-{hashlib.sha256(str(full).encode()).hexdigest()[:12]}"


def _models_dir(models_dir: str | Path | None) -> Path:
    return Path(models_dir or os.environ.get("PICOGPT_MODELS_DIR") or "models").expanduser()


def find_model_dir(model_size: str, models_dir: str | Path | None) -> Path:
    """The directory of a model: in models_dir, else among those that come with picogpt, else one still to be made.

    A name never leads out of models_dir. What has a separator in it, ./x or /x/y or ~/x, is a directory that is there.
    """
    if os.sep in model_size or (os.altsep and os.altsep in model_size):
        model_dir = Path(model_size).expanduser()
        if not model_dir.is_dir():
            raise UserError(f"expected the name of a model or a directory, found {model_size!r}: there is no such one")
        return model_dir
    if model_size in ("", ".", "..") or "\\" in model_size or Path(model_size).name != model_size:
        raise UserError(f"expected the name of a model, found {model_size!r}: a directory has a {os.sep} in it")
    models_dir = _models_dir(models_dir)
    model_dir = models_dir / model_size
    bundled = bundled_models_dir() / model_size
    if model_dir.is_dir() or model_size in MODEL_SIZES:
        return model_dir
    if bundled.is_dir():
        return bundled
    others = {*_models_in(bundled_models_dir()), *_models_in(models_dir)} - {*MODEL_SIZES}
    known = [*MODEL_SIZES, *sorted(others)]
    raise UserError(f"unknown model {model_size!r}: expected one of {', '.join(known)}, or a directory in {models_dir}")


def bundled_models_dir() -> Path:
    """Inside the installed package; beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return next((d for d in (package / "models", package.parent / "models") if d.is_dir()), package / "models")


def _models_in(directory: Path) -> list[str]:
    return [path.parent.name for name in ("hparams", "config") for path in directory.glob(f"*/{name}.json")]


def read_hparams(path: Path) -> dict[str, int]:
    """{"n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"} of a model. Raises UserError where one makes no sense."""
    hparams = huggingface.read_config(path.parent) if path.name == "config.json" else files.read_object(path)
    for name in HPARAMS:
        if type(hparams.get(name)) is not int or hparams[name] < 1:
            raise UserError(f"{path}: expected a whole number from 1 as {name}, found {hparams.get(name)!r}")
    if hparams["n_embd"] % hparams["n_head"]:
        raise UserError(f"{path}: expected n_head to divide n_embd {hparams['n_embd']}, found {hparams['n_head']}")
    return {name: hparams[name] for name in HPARAMS}
