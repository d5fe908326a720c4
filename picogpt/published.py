"""OpenAI's own tokenizer, that of 124M to 1558M, ready in less than half the time. Skip this file at the first reading.

Reading encoder.json and checking it takes as long as importing half of NumPy. But its vocabulary follows from the
merges: first come the 256 bytes, in the order of `bytes_to_unicode`, then what each merge makes, then <|endoftext|>. So
where both files have the SHA-256 of OpenAI's, which says that nothing in them is wrong, the merges are enough.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from picogpt.encoder import CACHED_WORDS, END_OF_TEXT, SYMBOL_OF, Encoder, get_encoder
from picogpt.files import VOCABULARY, read_bytes, sha256

FILES = {  # bytes, SHA-256
    "encoder.json": (1042301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "vocab.bpe": (456318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}

SYMBOLS = [*SYMBOL_OF.values()]
ID_OF = {symbol: token_id for token_id, symbol in enumerate(SYMBOLS)}


def tokenizer(directory: Path, vocabulary_file: str = "encoder.json", merges_file: str = "vocab.bpe") -> Encoder:
    """What `get_encoder` returns, sooner if the files are OpenAI's. Raises UserError as it does."""
    found = encoder_of(directory / vocabulary_file, directory / merges_file)
    return found or get_encoder(directory.name, directory.parent, vocabulary_file, merges_file)


def encoder_of(vocabulary: Path, merges: Path) -> PublishedEncoder | None:
    """The tokenizer of two files if they are OpenAI's, else None. Raises UserError as `read_bytes` does."""
    paths = vocabulary, merges
    for path, (size, _) in zip(paths, FILES.values(), strict=True):
        if not os.path.exists(path) or os.path.getsize(path) != size:  # noqa: PTH110, PTH202 any path
            return None
    found = [read_bytes(path, VOCABULARY, "fetch it again") for path in paths]
    if [sha256(data) for data in found] != [digest for _, digest in FILES.values()]:
        return None
    return PublishedEncoder(found[1].decode().split("\n")[1:-1])


class PublishedEncoder(Encoder):
    """The Encoder of these merges, in which `encoder` and `decoder` are made when they are first used."""

    def __init__(self, merges: list[str]):
        self.errors = "replace"
        self.bpe_ranks = dict(zip(merges, range(len(merges)), strict=True))
        self._merges = merges
        self._encode_short_word = lru_cache(CACHED_WORDS)(self._encode_word)

    def __getattr__(self, name: str) -> Any:
        if name not in ("encoder", "decoder"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        tokens = [*SYMBOLS, *(merge.replace(" ", "") for merge in self._merges), END_OF_TEXT]
        self.encoder = {token: token_id for token_id, token in enumerate(tokens)}
        self.decoder = dict(enumerate(tokens))
        return vars(self)[name]

    @property
    def end_of_text(self) -> int:
        return self.largest_id

    @property
    def largest_id(self) -> int:
        return len(SYMBOLS) + len(self._merges)

    def _id(self, token: str) -> int:
        """The id of a token that merging has made: it is in the vocabulary, and one merge makes it."""
        if len(token) == 1:
            return ID_OF[token]
        pairs = (f"{token[:i]} {token[i:]}" for i in range(1, len(token)))
        return len(SYMBOLS) + next(self.bpe_ranks[pair] for pair in pairs if pair in self.bpe_ranks)

    def _token(self, token_id: int) -> str:
        if type(token_id) is not int or not 0 <= token_id < self.largest_id:
            return self.decoder[token_id]
        rank = token_id - len(SYMBOLS)
        return SYMBOLS[token_id] if rank < 0 else self._merges[rank].replace(" ", "")
