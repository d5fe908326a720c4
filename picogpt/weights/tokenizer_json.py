"""The tokenizer of a model that transformers saved: tokenizer.json, or vocab.json and merges.txt.

A tokenizer.json may ask for features that GPT-2's tokenizer does not have. Ignoring them could silently give other ids
and thus other texts, so they are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from picogpt import files, published
from picogpt.encoder import Encoder, bytes_to_unicode
from picogpt.errors import UserError

FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json")

# key in tokenizer.json: the values that mean GPT-2's tokenizer; None also stands for a key that is missing
EXPECTED: dict[str, tuple[Any, ...]] = {
    "model.type": ("BPE", None),
    "pre_tokenizer.type": ("ByteLevel",),
    "pre_tokenizer.add_prefix_space": (False,),
    "pre_tokenizer.use_regex": (True, None),
    "decoder.type": ("ByteLevel",),
    "post_processor.type": ("ByteLevel", "TemplateProcessing", None),
    "post_processor.single": (None, [{"Sequence": {"id": "A", "type_id": 0}}]),  # the text alone
    "normalizer": (None,),
    "model.dropout": (None, 0),
    "model.continuing_subword_prefix": (None, ""),
    "model.end_of_word_suffix": (None, ""),
    "model.byte_fallback": (False, None),
    "model.ignore_merges": (False, None),
}
# the same in tokenizer_config.json
EXPECTED_CONFIG: dict[str, tuple[Any, ...]] = {
    "add_prefix_space": (False, None),
    "add_bos_token": (False, None),
    "add_eos_token": (False, None),
}


def read_encoder(model_dir: Path, n_vocab: int) -> Encoder:
    """The tokenizer of a model, with those added tokens that the model knows. Raises UserError."""
    path = model_dir / "tokenizer.json"
    if files.is_there(model_dir / "tokenizer_config.json"):
        config = files.read_object(model_dir / "tokenizer_config.json")
        _check(config, EXPECTED_CONFIG, model_dir / "tokenizer_config.json")
    if files.is_there(path):  # first, as transformers does
        tokenizer = files.read_object(path, files.VOCABULARY)
        encoder, added = _encoder(tokenizer, path), _added_tokens(tokenizer, path)
    elif files.is_there(model_dir / "vocab.json"):
        path = model_dir / "added_tokens.json"
        encoder = published.tokenizer(model_dir, "vocab.json", "merges.txt")
        added = files.read_object(path, files.VOCABULARY) if files.is_there(path) else {}
    else:
        raise UserError(f"{model_dir}: expected vocab.json and merges.txt, or tokenizer.json, found neither")
    return _with_added_tokens(encoder, added, n_vocab, path)


def _check(values: Mapping[str, Any], expected: Mapping[str, tuple[Any, ...]], path: Path) -> None:
    for key, allowed in expected.items():
        if (found := _get(values, key)) not in allowed:
            wanted = files.quoted(allowed[0])
            raise UserError(
                f"{path}: expected {key} {wanted}, found {files.quoted(found)}: only GPT-2's tokenizer is supported"
            )


def _get(value: Any, key: str) -> Any:
    """The value at a path such as "pre_tokenizer.type", or None."""
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _encoder(tokenizer: dict[str, Any], path: Path) -> Encoder:
    _check(tokenizer, EXPECTED, path)
    merges = _get(tokenizer, "model.merges")
    if not isinstance(merges, list):
        raise UserError(f"{path}: expected a list as model.merges, found {files.quoted(merges)}")
    return _checked(_get(tokenizer, "model.vocab"), [_line(merge, path) for merge in merges], path)


def _line(merge: Any, path: Path) -> str:
    """A merge as "left right". Newer files have a list of two instead."""
    line = " ".join(map(str, merge)) if isinstance(merge, list) else merge
    if not isinstance(line, str) or "\n" in line:
        raise UserError(f'{path}: expected merges of the form "left right", found {files.quoted(merge)}')
    return line


def _checked(vocabulary: Any, merges: Iterable[str], path: Path) -> Encoder:
    try:
        return Encoder(vocabulary, merges)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _added_tokens(tokenizer: dict[str, Any], path: Path) -> dict[str, Any]:
    tokens = tokenizer.get("added_tokens") or []
    if not isinstance(tokens, list) or not all(isinstance(_get(token, "content"), str) for token in tokens):
        raise UserError(f"{path}: expected added_tokens with a content each, found {files.quoted(tokens)}")
    return {token["content"]: token.get("id") for token in tokens}


def _with_added_tokens(encoder: Encoder, added: Mapping[str, Any], n_vocab: int, path: Path) -> Encoder:
    """The tokenizer with the added tokens below n_vocab, the number of tokens that the model knows."""
    vocabulary = dict(encoder.encoder)
    for token, token_id in added.items():
        if type(token_id) is not int or token_id < 0:
            raise UserError(f"{path}: expected an id for {files.quoted(token)}, found {files.quoted(token_id)}")
        if token_id < n_vocab and vocabulary.setdefault(_as_symbols(token, path), token_id) != token_id:
            raise UserError(f"{path}: expected one id for {files.quoted(token)}, found {token_id} and another one")
    return encoder if vocabulary == encoder.encoder else _checked(vocabulary, encoder.bpe_ranks, path)


def _as_symbols(token: str, path: Path) -> str:
    symbols = bytes_to_unicode()
    try:
        return "".join(symbols[byte] for byte in token.encode("utf-8"))
    except UnicodeEncodeError:
        raise UserError(f"{path}: expected text as an added token, found {files.quoted(token)}") from None
