"""A model as transformers saves GPT-2: config.json, model.safetensors and the files of its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from picogpt.encoder import END_OF_TEXT, Encoder
from picogpt.errors import UserError
from picogpt.weights import huggingface, state_dict, tensorfile
from picogpt.weights.export import Whole, added_tokens, vocabulary, write_merges, write_vocabulary

PREFIX = "transformer."
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def writer(_: str) -> Callable[[Whole, Path], None]:
    return write


def write(model: Whole, directory: Path) -> None:
    """Write the files. The tensors keep their bytes, and each lies as transformers would save it.

    Raises UserError for a tokenizer that transformers cannot read.
    """
    check_merges(model.encoder)
    keyed = {key_of(name): tensor for name, tensor in model.tensors.items()}
    tensorfile.save(directory / huggingface.WEIGHTS, keyed, {"format": "pt"})
    _save(directory / huggingface.CONFIG, config(model))
    write_vocabulary(model.encoder, directory / "vocab.json")
    write_merges(model.encoder, directory / "merges.txt")
    _save(directory / "tokenizer.json", tokenizer(model.encoder))
    _save(directory / "tokenizer_config.json", tokenizer_config(model))


def key_of(name: str) -> str:
    """The key of a tensor in transformers' GPT2LMHeadModel.

    >>> key_of("ln_f/g"), key_of("lm_head")
    ('transformer.ln_f.weight', 'lm_head.weight')
    """
    return ("" if name == "lm_head" else PREFIX) + state_dict.key_of(name)


def check_merges(encoder: Encoder) -> None:
    """Raise UserError if a part of a merge has no id, as the bytes of a character in a vocabulary of characters."""
    parts = {part: None for merge in encoder.bpe_ranks for part in (*merge.split(" "), merge.replace(" ", ""))}
    if missing := [part for part in parts if part not in encoder.encoder]:
        raise UserError(
            f"expected an id for each part of a merge, found none for {missing[0]!r}: transformers cannot read such "
            "a tokenizer; train with --tokenizer bytes or 1024, or export with --format tf or gguf"
        )


def _save(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def config(model: Whole) -> dict[str, Any]:
    """config.json. Rates of dropout are those of OpenAI's models; they matter for training alone."""
    end = model.encoder.end_of_text
    sizes = {key: model.hparams[name] for name, key in huggingface.HPARAMS.items()}
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": end,
        "dtype": "float32",
        "embd_pdrop": 0.1,
        "eos_token_id": end,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": model.hparams["n_ctx"],
        "n_inner": None,
        "resid_pdrop": 0.1,
        "tie_word_embeddings": "lm_head" not in model.tensors,
        **sizes,
    }


def tokenizer(encoder: Encoder) -> dict[str, Any]:
    """tokenizer.json. Merges are texts, "left right", so that older versions read it too."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token_id, "content": text, **flags, "special": text == END_OF_TEXT}
            for token_id, text in added_tokens(encoder).items()
        ],
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": {**BYTE_LEVEL, "trim_offsets": False},
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary(encoder),
            "merges": list(encoder.bpe_ranks),
        },
    }


def tokenizer_config(model: Whole) -> dict[str, Any]:
    """tokenizer_config.json. The class of GPT-2's tokenizer would add <|endoftext|> to a vocabulary without it."""
    settings = {"add_prefix_space": False, "model_max_length": model.hparams["n_ctx"]}
    if model.encoder.end_of_text is None:
        return {**settings, "tokenizer_class": "PreTrainedTokenizerFast"}
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    return {**settings, **special, "tokenizer_class": "GPT2Tokenizer"}
