"""From a text file to the directory of a run: the tokenizer's files, and the token ids of both parts of the text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from picogpt import files
from picogpt.arrays import Array
from picogpt.encoder import Encoder
from picogpt.errors import UserError

LARGEST = 1 << 32  # bytes of a text
PIECE = 1 << 20  # characters that are encoded at a time
PARTS = ("train", "held_out")


def read_parts(path: Path, held_out: float) -> tuple[str, str]:
    """A text file in two parts: one to train on, and its end to evaluate with. Raises UserError."""
    if not 0 < held_out < 1:
        raise UserError(f"held_out must lie between 0 and 1, found {held_out}: try 0.1")
    text = files.read_text(path, LARGEST, advice="name a text file in UTF-8")
    border = int(len(text) * (1 - held_out))
    return text[:border], text[border:]


def save_tokenizer(encoder: Encoder, directory: Path) -> None:
    """Write encoder.json and vocab.bpe, in the form of OpenAI's files."""
    vocabulary = json.dumps(encoder.encoder, separators=(",", ":"), ensure_ascii=False)
    files.save_text(directory / "encoder.json", vocabulary)
    files.save_text(directory / "vocab.bpe", "\n".join(["#version: 0.2", *encoder.bpe_ranks, ""]))


def save_hparams(hparams: Mapping[str, int], directory: Path) -> None:
    """Write hparams.json, as OpenAI's models have it."""
    files.save_text(directory / "hparams.json", json.dumps(hparams))


def encoded(encoder: Encoder, text: str) -> Array:  # -> [n]
    """The ids of a text, two bytes each if they fit. Raises UserError for a character that has no token."""
    dtype = np.uint16 if encoder.largest_id < 1 << 16 else np.uint32
    return np.concatenate([np.array(encoder.encode(piece), dtype) for piece in pieces(text)])


def pieces(text: str) -> Iterator[str]:
    """A long text in pieces whose ids together are those of the whole.

    A piece ends with a line. The characters before and after its end are visible ones, so a word ends there too.

    >>> [len(piece) for piece in pieces("To be, or not to be\\n" * 100_000)]
    [1048580, 951420]
    """
    start = 0
    while start == 0 or start < len(text):
        end = text.find("\n", start + PIECE) + 1 or len(text)
        while end < len(text) and (text[end].isspace() or text[end - 2].isspace()):
            end = text.find("\n", end) + 1 or len(text)
        yield text[start:end]
        start = max(end, 1)


def save_array(path: Path, array: Array) -> None:
    """Write a .npy file completely or not at all."""
    unfinished = path.with_name(f".{path.name}.new")
    try:
        with unfinished.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
