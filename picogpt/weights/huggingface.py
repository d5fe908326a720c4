"""GPT-2 as Hugging Face's transformers saves it: config.json, model.safetensors, vocab.json and merges.txt.

What a config may ask for is more than this model does: whatever is not GPT-2 as OpenAI made it is refused by name.
The tensors are those of OpenAI's checkpoints under other names; they become float32.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from picogpt import files
from picogpt.errors import UserError
from picogpt.weights import openai
from picogpt.weights.store import check_names, param_shapes
from picogpt.encoder import Encoder, bytes_to_unicode, get_encoder
from picogpt.arrays import Array


WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # where the weights are split over several files

# key in config.json: the values that this model does; the first is that of a key that is not there
EXPECTED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),  # three names of the tanh form
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
    "quantization_config": (None,),
}
HPARAMS = {
    "n_vocab": "vocab_size",
    "n_ctx": "n_positions",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}
LEAVES = {"w": "weight", "g": "weight", "b": "bias"}
HEAD = "lm_head.weight"
MASK = r"h\.\d+\.attn\.(bias|masked_bias)"  # constants, no weights
DTYPES = ("F32", "F16", "BF16")


def is_checkpoint(model_dir: Path) -> bool:
    return (model_dir / "config.json").is_file() and not (model_dir / "hparams.json").is_file()


def read_config(model_dir: Path) -> dict[str, Any]:
    """A config's hyperparameters by OpenAI's names. Raises UserError naming what this model does not do."""
    path = model_dir / "config.json"
    config = files.read_object(path)
    if (found := config.get("model_type")) != "gpt2":
        raise UserError(f"{path}: expected the model_type gpt2, found {found!r}: only GPT-2 can be run")
    for key, values in EXPECTED.items():
        if (found := config.get(key, values[0])) not in values:
            raise UserError(f"{path}: expected {key} {_either(values)}, found {found!r}: this model does not do that")
    hparams = {name: config.get(key, openai.HPARAMS["124M"][name]) for name, key in HPARAMS.items()}
    if (found := config.get("n_inner")) not in (None, 4 * hparams["n_embd"]):
        raise UserError(f"{path}: expected n_inner 4 * n_embd, found {found!r}: this model does not do that")
    return hparams


def _either(values: tuple[Any, ...]) -> str:
    return " or ".join(map(repr, values))


def read_encoder(model_dir: Path, n_vocab: int) -> Encoder:
    """The tokenizer, with the tokens that were added to it and that the model knows."""
    if (model_dir / "vocab.json").is_file():
        encoder = get_encoder(model_dir.name, model_dir.parent, "vocab.json", "merges.txt")
    else:
        encoder = _read_tokenizer(model_dir / "tokenizer.json")
    if len(encoder.encoder) >= n_vocab:
        return encoder
    symbols = {_as_symbols(token): token_id for token, token_id in _added_tokens(model_dir).items()}
    added = {symbol: i for symbol, i in symbols.items() if i < n_vocab and symbol not in encoder.encoder}
    return Encoder({**encoder.encoder, **added}, encoder.bpe_ranks) if added else encoder


def _read_tokenizer(path: Path) -> Encoder:
    """The tokenizer in a tokenizer.json, which newer checkpoints have alone."""
    if not path.is_file():
        raise UserError(f"{path.parent}: expected vocab.json and merges.txt, or tokenizer.json, found neither")
    tokenizer = files.read_object(path)
    try:
        vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    except (KeyError, TypeError):
        vocabulary, merges = {}, []
    if not merges or "ByteLevel" not in json.dumps(tokenizer.get("pre_tokenizer")):
        raise UserError(f"{path}: expected byte-level BPE, found another tokenizer: only GPT-2's can be used")
    return Encoder(vocabulary, [merge if isinstance(merge, str) else " ".join(merge) for merge in merges])


def _added_tokens(model_dir: Path) -> dict[str, int]:
    if (path := model_dir / "added_tokens.json").is_file():
        return files.read_object(path)
    if (path := model_dir / "tokenizer.json").is_file():
        return {token["content"]: token["id"] for token in files.read_object(path).get("added_tokens", [])}
    return {}


def _as_symbols(token: str) -> str:
    symbols = bytes_to_unicode()
    return "".join(symbols[byte] for byte in token.encode("utf-8"))


def fingerprint(model_dir: Path) -> str | None:
    """Tells checkpoints apart by size and date, as `make` does. None where there are no weights."""
    stats = [path.stat() for path in _weight_files(model_dir)]
    return f"{WEIGHTS} {[(stat.st_size, stat.st_mtime_ns) for stat in stats]}" if stats else None


def _weight_files(model_dir: Path) -> list[Path]:
    if (model_dir / WEIGHTS).is_file():
        return [model_dir / WEIGHTS]
    if not (model_dir / INDEX).is_file():
        return []
    names = sorted(set(files.read_object(model_dir / INDEX).get("weight_map", {}).values()))
    for name in names:
        if not (model_dir / Path(name).name).is_file():
            raise UserError(f"{model_dir}: expected the file {name}, which {INDEX} names and which is missing")
    return [model_dir / Path(name).name for name in names]


class _Tensors:
    """The tensors in one or several safetensors files, by their keys without a leading "transformer."."""

    def __init__(self, paths: list[Path], safetensors: Any):
        files = [safetensors.safe_open(path, framework="numpy") for path in paths]
        self.places = {key.removeprefix("transformer."): (file, key) for file in files for key in file.keys()}  # noqa: SIM118

    def read(self, key: str, shape: tuple[int, ...]) -> Array:
        """A tensor as float32. Raises UserError where it is of another shape or of a dtype that is no weight's."""
        file, full_key = self.places[key]
        described = file.get_slice(full_key)
        found, dtype = tuple(described.get_shape()), described.get_dtype()
        if found != shape or dtype not in DTYPES:
            raise UserError(
                f"expected {full_key} of shape {list(shape)} in {', '.join(DTYPES)}, found {list(found)} in {dtype}"
            )
        if dtype == "BF16":
            _import("ml_dtypes")  # makes bfloat16 known to NumPy
        return np.asarray(file.get_tensor(full_key)).astype(np.float32, copy=False)


def tensors(model_dir: Path, hparams: Mapping[str, int]) -> Iterator[tuple[str, Array]]:
    """The tensors, (name, array) each, read one at a time, by OpenAI's names and in float32.

    Raises UserError where safetensors is missing, a file damaged, or a tensor not as hparams ask for.
    """
    safetensors = _import("safetensors")
    shapes = param_shapes(hparams)
    try:
        found = _Tensors(_weight_files(model_dir), safetensors)
        weights = {key for key in found.places if not re.fullmatch(MASK, key)}
        check_names(map(key_of, shapes), weights - {HEAD}, WEIGHTS)
        if HEAD in weights and not np.array_equal(
            found.read(HEAD, shapes["wte"]), found.read("wte.weight", shapes["wte"])
        ):
            raise UserError(f"{HEAD} differs from wte.weight: a model with a head of its own is not supported")
        for name, shape in shapes.items():
            yield name, found.read(key_of(name), shape)
    except UserError as error:
        raise UserError(f"{model_dir}: {error}") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{model_dir}: expected safetensors, found a damaged file ({error}): fetch it again") from None


def key_of(name: str) -> str:
    """h0/attn/c_attn/w as h.0.attn.c_attn.weight, without the "transformer." that some checkpoints put before it."""
    path, _, leaf = re.sub(r"^h(\d+)", r"h.\1", name).replace("/", ".").rpartition(".")
    return f"{path}.{LEAVES[leaf]}" if leaf in LEAVES else f"{leaf}.weight"


def _import(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise UserError(
            f"{library} is needed to read Hugging Face's checkpoints and cannot be imported ({error}): "
            'pip install "picogpt[huggingface]", or pip install safetensors ml_dtypes'
        ) from None
