"""Byte-level byte pair encoding (BPE): text to token ids and back, as in OpenAI's encoder.py.

    text --split--> words --bytes--> symbols --merge--> ids

A word is split off by one regular expression (spaces stick to the front of the word after them),
becomes UTF-8 bytes, each byte becomes one printable character (a *symbol*), and neighbouring symbols
are merged, the most frequent pair of the training text first, until no known pair is left.

Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
"""

from __future__ import annotations

import codecs
import heapq
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

from picogpt.errors import UserError

END_OF_TEXT = "<|endoftext|>"

CACHED_WORDS = 1 << 16  # at most; about 20 MB of them
CACHED_WORD_LENGTH = 64  # longer words are merged anew each time


@cache
def split_into_words(ascii_only: bool) -> Callable[[str], list[str]]:
    """The function that splits a text. For ASCII it takes half the time, and `regex` need not be imported."""
    if ascii_only:
        return re.compile(_pattern("A-Za-z", "0-9", "\\t-\\r ")).findall
    import regex

    return regex.compile(_pattern(r"\p{L}", r"\p{N}", r"\s")).findall


def _pattern(letters: str, digits: str, space: str) -> str:
    return (
        "'(?:[stmd]|re|ve|ll)"  # contractions
        f"| ?[{letters}]+| ?[{digits}]+| ?[^{space}{letters}{digits}]+"  # words, numbers, other signs
        f"|[{space}]+(?![^{space}])|[{space}]+"  # white space, but for the space that belongs to the next word
    )


def bytes_to_unicode() -> dict[int, str]:
    """One printable character for each of the 256 bytes, so that vocabularies can be written as text.

    Bytes that print in Latin-1 stand for themselves; the others take the characters from U+0100 on, in order
    (so a space is "Ġ").
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


class _WordCache(dict[str, list[int]]):
    """word -> ids, filled by `encode_word` when a word is asked for the first time; emptied when full."""

    def __init__(self, encode_word: Callable[[str], list[int]]):
        self._encode_word = encode_word

    def __missing__(self, word: str) -> list[int]:
        ids = self._encode_word(word)
        if len(word) <= CACHED_WORD_LENGTH:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids


class Encoder:
    """A byte-level BPE tokenizer.

    encoder: symbol string -> id (encoder.json); merges: lines "left right", most frequent first (vocab.bpe).
    """

    def __init__(self, encoder: dict[str, int], merges: Iterable[str], errors: str = "replace"):
        self.encoder = encoder
        self.decoder = {token_id: symbol for symbol, token_id in encoder.items()}
        self.errors = errors
        self.bpe_ranks = {merge: rank for rank, merge in enumerate(merges)}
        self._symbols = str.maketrans({chr(byte): symbol for byte, symbol in bytes_to_unicode().items()})
        self._bytes = str.maketrans({symbol: chr(byte) for byte, symbol in bytes_to_unicode().items()})
        self._cache = _WordCache(self._encode_word)

    @property
    def end_of_text(self) -> int | None:
        """The id of <|endoftext|>, or None where the vocabulary has none."""
        return self.encoder.get(END_OF_TEXT)

    def start_of_text(self) -> list[int]:
        """What OpenAI's unconditional samples begin with: <|endoftext|>, where there is one."""
        return [] if self.end_of_text is None else [self.end_of_text]

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Token ids of a text.

        >>> get_encoder("124M", "models").encode("Not all heroes wear capes.")  # doctest: +SKIP
        [3673, 477, 10281, 5806, 1451, 274, 13]

        "<|endoftext|>" is text like any other, unless `allow_special` asks for its one special id. Bytes that came
        as surrogate escapes (U+DC80..U+DCFF, see PEP 383) are encoded as those bytes.

        Raises UserError for other lone surrogates, and for a character that the vocabulary cannot write.
        """
        if allow_special and self.end_of_text is not None:
            first, *rest = map(self.encode, text.split(END_OF_TEXT))
            return first + [token_id for ids in rest for token_id in (self.end_of_text, *ids)]
        words = split_into_words(text.isascii())(text)
        return list(chain.from_iterable(map(self._cache.__getitem__, words)))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD. Raises UserError for an unknown id."""
        return self.decode_bytes(ids).decode("utf-8", errors=self.errors)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of token ids, which may end in the middle of a character. Raises UserError for an unknown id."""
        try:
            symbols = "".join([self.decoder[token_id] for token_id in ids])
        except KeyError as error:
            raise UserError(
                f"unknown token id {error.args[0]}: this vocabulary has the ids 0 to {max(self.decoder)}"
            ) from None
        return symbols.translate(self._bytes).encode("latin-1")

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of token ids piece by piece, as they come: "".join() of it is decode(ids).

        The bytes of a character that is split over tokens are held back until it is whole, or until the ids end.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(self.errors)
        for token_id in ids:
            if piece := decoder.decode(self.decode_bytes([token_id])):
                yield piece
        if piece := decoder.decode(b"", final=True):
            yield piece

    def _encode_word(self, word: str) -> list[int]:
        try:
            word_bytes = word.encode("utf-8", errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise UserError(
                f"the text holds a lone surrogate, U+{ord(word[error.start]):04X}, which is no character: remove it"
            ) from None
        try:
            return [
                self.encoder[symbol] for symbol in self._merge(word_bytes.decode("latin-1").translate(self._symbols))
            ]
        except KeyError as error:
            raise UserError(
                f"{word!r} cannot be written in this vocabulary: encoder.json has no token {error.args[0]!r}"
            ) from None

    def _merge(self, word: str) -> list[str]:
        """Merge the symbols of a word, the pair of lowest rank first and from left to right.

        A heap holds the pairs that could be merged and a linked list the symbols that are left, so a word of n
        symbols takes n log n steps (looking at all pairs before each merge would take n * n).
        """
        ranks = self.bpe_ranks
        symbols = list(word)
        n = len(symbols)
        before = list(range(-1, n - 1))
        after = list(range(1, n + 1))  # n marks the end
        heap = [
            (rank, i, pair)
            for i in range(n - 1)
            if (rank := ranks.get(pair := f"{symbols[i]} {symbols[i + 1]}")) is not None
        ]
        heapq.heapify(heap)
        while heap:
            _, left, pair = heapq.heappop(heap)
            right = after[left]
            # a merge since then may have taken either half of the pair
            if right == n or f"{symbols[left]} {symbols[right]}" != pair:
                continue
            symbols[left] += symbols[right]
            symbols[right] = ""
            after[left] = after[right]
            if after[left] < n:
                before[after[left]] = left
            for i in (before[left], left):
                if i >= 0 and after[i] < n:
                    pair = f"{symbols[i]} {symbols[after[i]]}"
                    if (rank := ranks.get(pair)) is not None:
                        heapq.heappush(heap, (rank, i, pair))
        return [symbol for symbol in symbols if symbol]


def get_encoder(
    model_name: str, models_dir: str | Path, vocabulary_file: str = "encoder.json", merges_file: str = "vocab.bpe"
) -> Encoder:
    """The tokenizer of the model in models_dir/model_name, from its encoder.json and vocab.bpe.

    Raises UserError when a file is missing or is not what it should be.
    """
    path = Path(models_dir) / model_name / vocabulary_file
    vocabulary = _read(path)
    merges = _read(path.with_name(merges_file))
    try:
        encoder = json.loads(vocabulary)
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, found {error}; fetch the file again") from None
    if not isinstance(encoder, dict) or not all(isinstance(token_id, int) for token_id in encoder.values()):
        raise UserError(f"{path}: expected an object of token: id; fetch the file again")
    # the first line is a version
    return Encoder(encoder, (line for line in merges.split("\n")[1:] if line))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot read the tokenizer's file: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8, found {error.reason} at byte {error.start}; fetch it again") from None
