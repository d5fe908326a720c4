"""Tokenizers for small texts: characters, bytes, or a byte-level BPE of a chosen size, saved as GPT-2's files.

All are special cases of byte-level BPE, so encoder.json and vocab.bpe describe them, and picogpt.encoder reads them.
"""

from __future__ import annotations

import json
from itertools import accumulate, pairwise

from picogpt.encoder import END_OF_TEXT, SYMBOL_OF, Encoder
from picogpt.errors import UserError

KINDS = "characters, bytes, a number of tokens such as 1024, or the name of a model"
SMALLEST, LARGEST = 257, 1 << 20  # the bytes and <|endoftext|>; far more than any model has


def learn(kind: str, text: str) -> Encoder:
    """A tokenizer for a text. `kind` is "characters", "bytes", or a number: the size of a byte-level BPE's vocabulary.

    Raises UserError for another kind, or a text without any character.

    >>> learn("characters", "hello").encode("hole")
    [1, 3, 2, 0]
    """
    if kind == "bytes":
        return Encoder({symbol: byte for byte, symbol in sorted(SYMBOL_OF.items())}, [])
    if kind == "characters":
        return characters(text)
    if kind.isdecimal() and SMALLEST <= int(kind[:9]) <= LARGEST:
        return byte_pairs(text, int(kind))
    if kind.isdecimal():
        raise UserError(f"tokenizer: expected {SMALLEST} to {LARGEST} tokens, found {kind[:20]}: try 1024")
    raise UserError(f"tokenizer: expected {KINDS}, found {kind!r:.80}")


def characters(text: str) -> Encoder:
    """Each character of a text as one token, in the order of Unicode.

    The bytes of a character are merged from left to right. No other merge can come in between, because UTF-8 tells the
    first byte of a character from the others. The parts of characters have no ids: a character that is not in the text
    cannot be encoded.

    >>> encoder = characters("é€")
    >>> list(encoder.encoder), list(encoder.bpe_ranks)
    (['Ã©', 'âĤ¬'], ['Ã ©', 'â Ĥ', 'âĤ ¬'])
    """
    if not text:
        raise UserError("expected a text with characters to learn, found an empty one")
    tokens = [symbols(character) for character in sorted(set(text))]
    steps = (step for token in tokens for step in pairwise(accumulate(token)))
    merges = dict.fromkeys(f"{left} {longer[-1]}" for left, longer in steps)
    return Encoder({token: i for i, token in enumerate(tokens)}, merges)


def symbols(text: str) -> str:
    """A text as tokens are written: a symbol for each byte. Raises UserError for a lone surrogate."""
    try:
        return text.encode("utf-8").decode("latin-1").translate(SYMBOL_OF)
    except UnicodeEncodeError:
        raise UserError(f"expected characters, found the lone surrogate {text!r:.20}: remove it") from None


def byte_pairs(text: str, n_vocab: int) -> Encoder:
    """A byte-level BPE like GPT-2's, learnt from a text: <|endoftext|>, the bytes, and merges until n_vocab is reached.

    A short text gives fewer tokens. Raises UserError if the package tokenizers is missing.
    """
    try:
        import tokenizers as huggingface
    except ModuleNotFoundError:
        raise UserError(
            'a BPE is learnt with the package tokenizers, found none: pip install "picogpt-numpy[train]", '
            "or use --tokenizer characters"
        ) from None
    tokenizer = huggingface.Tokenizer(huggingface.models.BPE())
    tokenizer.pre_tokenizer = huggingface.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = huggingface.trainers.BpeTrainer(
        vocab_size=n_vocab, special_tokens=[END_OF_TEXT], show_progress=False,
        initial_alphabet=huggingface.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([text], trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(sorted(learnt["vocab"].items(), key=lambda item: item[1]))
    return Encoder(vocabulary, [" ".join(pair) for pair in learnt["merges"]])
