"""Models in the formats of other programs: the way out.

hf    what transformers loads           to_huggingface.py
tf    what OpenAI's own code restores   to_tensorflow.py
gguf  what llama.cpp runs               to_gguf.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from picogpt import files
from picogpt.arrays import Array
from picogpt.encoder import BYTE_OF, END_OF_TEXT, SYMBOL_OF, Encoder
from picogpt.errors import UserError

FORMATS = {"hf": "to_huggingface", "tf": "to_tensorflow", "gguf": "to_gguf"}
DTYPES = {"hf": ("f32",), "tf": ("f32",), "gguf": ("f32", "f16", "q8_0")}


class Whole(NamedTuple):
    """All that makes up a model. The tensors have OpenAI's names, as in `param_shapes`."""

    encoder: Encoder
    hparams: Mapping[str, int]
    tensors: Mapping[str, Array]


def writer(kind: str, dtype: str) -> Callable[[Whole, Path], None]:
    """The function that writes a model into an empty directory. Raises UserError if its package is missing."""
    if kind not in FORMATS:
        raise UserError(f"format: expected {', '.join(FORMATS)}, found {files.quoted(kind)}")
    if dtype not in DTYPES[kind]:
        raise UserError(f"dtype: expected {', '.join(DTYPES[kind])} for {kind}, found {files.quoted(dtype)}")
    module = import_module(f"picogpt.weights.{FORMATS[kind]}")
    found: Callable[[Whole, Path], None] = module.writer(dtype)
    return found


@contextmanager
def new_directory(directory: Path, n_bytes: int) -> Iterator[Path]:
    """A directory to write to, which is renamed to `directory` when all is written, and removed if that fails.

    Raises UserError if `directory` exists, or if its disk has fewer than `n_bytes` free.
    """
    check_new(directory)
    files.check_space(directory.parent, n_bytes, "for the export")
    start = f".{directory.name[:60]}.new-"
    with files.only_one(directory), files.explained(directory.parent):
        for path in directory.parent.iterdir():
            if path.name.startswith(start):  # left by a run that was killed
                _remove(path)
        unfinished = directory.parent / f"{start}{os.urandom(4).hex()}"
        unfinished.mkdir()
        try:
            yield unfinished
            for path in (*unfinished.iterdir(), unfinished):
                files.sync(path)
            check_new(directory)
            unfinished.rename(directory)
        finally:
            with suppress(OSError):
                _remove(unfinished)
        files.sync(directory.parent)


def check_new(directory: Path) -> None:
    """Raise UserError unless a directory of this name can be made."""
    if files.is_there(directory):
        raise UserError(f"{directory}: expected the name of a new directory, found one that exists: choose another")
    if not files.is_dir(directory.parent):
        raise UserError(f"{directory}: expected a directory to make it in, found none: make {directory.parent} first")


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path)


# the files of the tokenizer, byte for byte as OpenAI published them


def write_vocabulary(encoder: Encoder, path: Path) -> None:
    """encoder.json, which others call vocab.json."""
    path.write_text(json.dumps(vocabulary(encoder)), encoding="utf-8")


def write_merges(encoder: Encoder, path: Path) -> None:
    """vocab.bpe, which others call merges.txt."""
    lines = "".join(f"{merge}\n" for merge in encoder.bpe_ranks)
    path.write_text(f"#version: 0.2\n{lines}", encoding="utf-8", newline="\n")


def vocabulary(encoder: Encoder) -> dict[str, int]:
    """Token, written in symbols, to id, in the order of ids."""
    return dict(sorted(encoder.encoder.items(), key=lambda item: item[1]))


def added_tokens(encoder: Encoder) -> dict[int, str]:
    """Id to text of the tokens that no text is encoded to: neither a byte nor the result of a merge.

    >>> encoder = Encoder({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, ["a b"])
    >>> added_tokens(encoder)
    {3: '<|endoftext|>'}
    """
    made = {merge.replace(" ", "") for merge in encoder.bpe_ranks} | set(SYMBOL_OF.values())
    added = {}
    for token, token_id in vocabulary(encoder).items():
        if token not in made or token == END_OF_TEXT:
            with suppress(UnicodeDecodeError):  # bytes that are no text
                added[token_id] = token.translate(BYTE_OF).encode("latin-1").decode("utf-8")
    return added
