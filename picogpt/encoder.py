r"""Byte-level byte pair encoding (BPE): text to token ids and back, with the ids of OpenAI's encoder.py.

    "it's  hot"  --split-->  "it" "'s" " " " hot"  --bytes, written as symbols-->  "i t" "' s" "Ġ" "Ġ h o t"
                 --merge-->  "it" "'s" "Ġ" "Ġhot"  --look up-->  [270, 338, 220, 3024]

A word is split off by one regular expression and becomes UTF-8 bytes. Each byte is written as one printable character,
a *symbol*. Then neighbouring symbols are merged, always the pair that comes first in the list of merges, until no
neighbours are in the list. The results are tokens, and the vocabulary gives each its id.

Any text can be encoded, because any text is bytes and each byte is also a token.

Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
On a first reading, skip `merge_quickly`: it returns what `merge_plainly` returns.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from heapq import heappop, heappush
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from picogpt.errors import UserError
from picogpt.files import VOCABULARY, quoted, read_json, read_text

END_OF_TEXT = "<|endoftext|>"

# OpenAI's pattern: from left to right, the first of these alternatives that matches is the next word
PATTERN = "|".join(
    [
        r"'(?:[stmd]|re|ve|ll)",  # the end of a contraction: it's, don't, I'm, I'd, we're, we've, we'll
        r" ?[\p{L}]+",  # letters, with the space before them
        r" ?[\p{N}]+",  # digits, with the space before them
        r" ?[^\s\p{L}\p{N}]+",  # anything else that is not white space, with the space before it
        r"\s+(?!\S)",  # white space; before a word, all but its last character, which may belong to the word
        r"\s+",  # that last character, if it does not belong to the word
    ]
)
ASCII_PATTERN = PATTERN.replace(r"\p{L}", "A-Za-z").replace(r"\p{N}", "0-9")

LONG_WORD = 32  # characters; words up to this length are merged by merge_plainly and cached
CACHED_WORDS = 1 << 16  # about 20 MB of English
ID_LIMIT = 1 << 31

Pair = tuple[str, str]


def split_into_words(text: str) -> list[str]:
    """The words of a text, as PATTERN splits it. Joined, they are the text.

    >>> split_into_words("Hello world, it's  me\\n")
    ['Hello', ' world', ',', ' it', "'s", ' ', ' me', '\\n']
    """
    if text.isascii():  # takes half the time, without importing regex; re.ASCII leaves \x1c to \x1f out of \s
        return re.findall(ASCII_PATTERN, text, re.ASCII)
    import regex  # unlike re, it knows the letters and digits of every script

    return regex.findall(PATTERN, text)


def bytes_to_unicode() -> dict[int, str]:
    """The symbol of each of the 256 bytes: one printable character, so that a vocabulary can be written as text.

    Bytes that print in Latin-1 stand for themselves. The others take the characters from U+0100 on, in order.

    >>> symbols = bytes_to_unicode()
    >>> symbols[ord("A")], symbols[ord(" ")], symbols[ord("\\n")]
    ('A', 'Ġ', 'Ċ')
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


SYMBOL_OF = bytes_to_unicode()
BYTE_OF = {ord(symbol): byte for byte, symbol in SYMBOL_OF.items()}  # both as str.translate takes them
SYMBOLS = re.escape("".join(SYMBOL_OF.values()))  # within a pattern


def merge_plainly(word: str, ranks: dict[str, int]) -> list[str]:
    """The tokens of a word of symbols: byte pair encoding as the paper describes it.

    `ranks` maps merges, "left right", to their places in the list of merges. While any neighbours have a rank, the pair
    with the lowest rank is merged everywhere, from left to right.

    >>> merge_plainly("banana", {"a n": 0, "b an": 1})
    ['ban', 'an', 'a']

    Every round looks at all pairs, so a word of n symbols takes up to n * n steps.
    """
    symbols = list(word)
    while len(symbols) > 1:
        found = [ranks.get(f"{left} {right}", sys.maxsize) for left, right in pairwise(symbols)]
        if (lowest := min(found)) == sys.maxsize:
            break
        i = found.index(lowest)
        pair = symbols[i : i + 2]
        while i < len(symbols):
            if symbols[i : i + 2] == pair:
                symbols[i : i + 2] = ["".join(pair)]
            i += 1
    return symbols


def merge_quickly(word: str, pairs: list[Pair], ranks: dict[Pair, int]) -> list[str]:
    """The same tokens as `merge_plainly`, in about n log n steps for a word of n symbols.

    `pairs` are the merges, lowest rank first, and `ranks` their places in that list.

    >>> merge_quickly("banana", [("a", "n"), ("b", "an")], {("a", "n"): 0, ("b", "an"): 1})
    ['ban', 'an', 'a']

    The word is not searched again for each merge. Instead, `places[rank]` lists where the pair of that rank stands, and
    grows as merging makes new pairs. A place is the position of a pair's left symbol. Symbols do not move: a merged
    one stays at the place of its left half, and its right half becomes "". So the neighbours of a symbol are not those
    at i - 1 and i + 1, but those at before[i] and after[i].
    """
    symbols = ["", *word, ""]  # no merge has an empty symbol, so nothing is merged with the two ends
    before = list(range(-1, len(symbols) - 1))
    after = list(range(1, len(symbols) + 1))
    places = defaultdict(list)
    for i, rank in enumerate(map(ranks.get, pairwise(symbols))):
        if rank is not None:
            places[rank].append(i)
    waiting = sorted(places)  # a heap: the ranks that have places, the lowest first
    while waiting:
        rank = heappop(waiting)
        first, second = pairs[rank]
        merged = first + second
        for left in sorted(places.pop(rank)):
            right = after[left]
            if symbols[left] != first or symbols[right] != second:
                continue  # an earlier merge has taken one of them
            symbols[left], symbols[right] = merged, ""
            start, end = before[left], after[right]
            after[left], before[end] = end, left
            for i, pair in (start, (symbols[start], merged)), (left, (merged, symbols[end])):
                if (rank := ranks.get(pair)) is not None:
                    if rank not in places:
                        heappush(waiting, rank)
                    places[rank].append(i)
    return [symbol for symbol in symbols if symbol]


class Encoder:
    """A byte-level BPE tokenizer.

    vocabulary: token, written in symbols -> id, as in encoder.json
    merges: "left right", in the order in which they are applied: a list, or lines as in vocab.bpe; may be empty
    errors: how bytes that are not UTF-8 are decoded, as for bytes.decode

    >>> encoder = Encoder({"a": 0, "b": 1, "ab": 2}, ["a b"])
    >>> encoder.encode("abba")
    [2, 1, 0]

    The attributes `encoder` and `decoder` map tokens to ids and ids to tokens, `bpe_ranks` merges to their places.
    Raises UserError for a malformed vocabulary or malformed merges.
    """

    def __init__(self, vocabulary: dict[str, int], merges: str | Iterable[str], errors: str = "replace"):
        self.encoder = vocabulary
        self.decoder = _tokens_by_id(vocabulary)
        self.errors = errors
        self.bpe_ranks = _ranks_of(merges)
        self._encode_short_word = lru_cache(CACHED_WORDS)(self._encode_word)

    def __reduce__(self) -> tuple[type[Encoder], tuple[dict[str, int], list[str], str]]:
        return Encoder, (self.encoder, list(self.bpe_ranks), self.errors)  # pickle everything but the cache

    @property
    def end_of_text(self) -> int | None:
        """The id of <|endoftext|>, or None if the vocabulary has none."""
        return self.encoder.get(END_OF_TEXT)

    @property
    def largest_id(self) -> int:
        """The largest id of a token."""
        return max(self.decoder)

    def start_of_text(self) -> list[int]:
        """The ids that start a text without a prompt, as in OpenAI's samples: <|endoftext|>, if there is one."""
        return [] if self.end_of_text is None else [self.end_of_text]

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """The token ids of a text.

        >>> encoder = get_encoder("shakespeare", "models")
        >>> encoder.encode("To be, or not")
        [397, 305, 12, 530, 322]

        "<|endoftext|>" is ordinary text, unless `allow_special` is set: then it becomes one special id. Surrogate
        escapes (U+DC80 to U+DCFF, see PEP 383) are encoded as the bytes that they stand for.

        Raises UserError for other lone surrogates, and for bytes that the vocabulary has no token for.
        """
        if allow_special and self.end_of_text is not None:
            first, *rest = map(self.encode, text.split(END_OF_TEXT))
            return first + [token_id for ids in rest for token_id in (self.end_of_text, *ids)]
        ids: list[int] = []
        for word in split_into_words(text):
            ids += self._encode_short_word(word) if len(word) <= LONG_WORD else self._encode_word(word)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD. Raises UserError for an unknown id.

        >>> get_encoder("shakespeare", "models").decode([397, 305, 12, 530, 322])
        'To be, or not'
        """
        return self.decode_bytes(ids).decode("utf-8", errors=self.errors)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of token ids, which may end in the middle of a character. Raises UserError for an unknown id."""
        try:
            symbols = "".join([self._token(token_id) for token_id in ids])
        except KeyError as error:
            raise UserError(
                f"unknown token id {quoted(error.args[0])}: this vocabulary has the ids 0 to {self.largest_id}"
            ) from None
        return symbols.translate(BYTE_OF).encode("latin-1")

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of token ids in pieces, each as soon as its ids are known. Joined, they are decode(ids).

        If several tokens make up a character, their bytes are held back until it is complete or the ids end.

        >>> list(get_encoder("shakespeare", "models").decode_stream([397, 305, 12, 530, 322]))
        ['To', ' be', ',', ' or', ' not']
        """
        return self.decode_chunks(self.decode_bytes([token_id]) for token_id in ids)

    def decode_chunks(self, chunks: Iterable[bytes]) -> Iterator[str]:
        """The text of bytes that come in chunks, which may end in the middle of a character, as soon as possible."""
        decoder = codecs.getincrementaldecoder("utf-8")(self.errors)
        for chunk in chunks:
            if piece := decoder.decode(chunk):
                yield piece
        if piece := decoder.decode(b"", final=True):
            yield piece

    def _encode_word(self, word: str) -> list[int]:
        try:
            word_bytes = word.encode("utf-8", errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise UserError(
                f"the text holds a lone surrogate, U+{ord(word[error.start]):04X}, which is not a character: remove it"
            ) from None
        tokens = self._merge(word_bytes.decode("latin-1").translate(SYMBOL_OF))
        try:
            return [self._id(token) for token in tokens]
        except KeyError as error:
            missing = quoted(_characters(word, tokens, tokens.index(error.args[0])))
            raise UserError(
                f"{quoted(word)} cannot be encoded with this vocabulary, which has no token for {missing}"
            ) from None

    def _id(self, token: str) -> int:
        return self.encoder[token]

    def _token(self, token_id: int) -> str:
        return self.decoder[token_id]

    def _merge(self, word: str) -> list[str]:
        return merge_plainly(word, self.bpe_ranks) if len(word) <= LONG_WORD else merge_quickly(word, *self._pairs)

    @cached_property  # most runs never use it
    def _pairs(self) -> tuple[list[Pair], dict[Pair, int]]:
        pairs = [(left, right) for left, right in (merge.split(" ") for merge in self.bpe_ranks)]
        return pairs, {pair: rank for rank, pair in enumerate(pairs)}


def _characters(word: str, tokens: list[str], i: int) -> str:
    """The characters of a word that token i, written in symbols, stands for. It may be a part of one only."""
    start = len("".join(tokens[:i]))  # in bytes, as the next two
    ends = accumulate(len(character.encode("utf-8", errors="surrogateescape")) for character in word)
    bounds = pairwise([0, *ends])
    return "".join(c for c, (a, b) in zip(word, bounds, strict=True) if a < start + len(tokens[i]) and start < b)


def _tokens_by_id(vocabulary: dict[str, int]) -> dict[int, str]:
    """The inverse of a vocabulary. Raises UserError if it does not have the form that Encoder describes."""
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise UserError(f"expected an object of token: id, found {quoted(vocabulary)}")
    ids = vocabulary.values()
    if set(map(type, ids)) != {int} or (ordered := sorted(ids))[0] < 0 or ordered[-1] >= ID_LIMIT:
        token, found = next(item for item in vocabulary.items() if not _is_id(item[1]))
        raise UserError(f"expected ids from 0 to {ID_LIMIT - 1}, found {quoted(found)} for the token {quoted(token)}")
    tokens = {token_id: token for token, token_id in vocabulary.items()}
    if len(tokens) < len(vocabulary):
        token, found = next(item for item in vocabulary.items() if tokens[item[1]] != item[0])
        raise UserError(f"expected an id for each token, found {found} for {quoted(token)} and {quoted(tokens[found])}")
    if foreign := re.search(f"[^{SYMBOLS}]", "".join(vocabulary)):
        token = next(token for token in vocabulary if foreign[0] in token)
        raise UserError(f"expected tokens written in the symbols of bytes, found {quoted(token)}")
    return tokens


def _is_id(found: object) -> bool:
    return type(found) is int and 0 <= found < ID_LIMIT  # not isinstance, which accepts True


def _ranks_of(merges: str | Iterable[str]) -> dict[str, int]:
    """The place of each merge. Raises UserError if they do not have the form that Encoder describes."""
    try:
        lines = (merges if isinstance(merges, str) else "\n".join(merges)).strip("\n")
    except TypeError:
        raise UserError(f"expected a list of merges, found {quoted(merges)}") from None
    if not lines:
        return {}
    pairs = lines.split("\n")
    if not _are_pairs(lines):
        found = next(pair for pair in pairs if not _are_pairs(pair))
        raise UserError(f'expected merges of the form "left right", found {quoted(found)}')
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    if len(ranks) < len(pairs):
        found = next(pair for rank, pair in enumerate(pairs) if ranks[pair] != rank)
        raise UserError(f"expected each merge once, found {quoted(found)} twice")
    return ranks


def _are_pairs(lines: str) -> bool:
    """Whether each line has one space, with something before and after it. NumPy takes a fifth of a regex's time."""
    codes = np.frombuffer(f"\n{lines}\n".encode("utf-32-le", errors="surrogatepass"), "<u4")
    places = np.flatnonzero(codes <= ord(" "))
    return bool(
        len(places) % 2 == 1
        and (codes[places[::2]] == ord("\n")).all()
        and (codes[places[1::2]] == ord(" ")).all()
        and (np.diff(places) > 1).all()
    )


def get_encoder(
    model_name: str | Path,
    models_dir: str | Path,
    vocabulary_file: str = "encoder.json",
    merges_file: str = "vocab.bpe",
) -> Encoder:
    """The tokenizer of the model in models_dir/model_name, from its encoder.json and vocab.bpe.

    >>> encoder = get_encoder("shakespeare", "models")
    >>> len(encoder.encoder)
    1024

    Raises UserError if a file is missing or malformed.
    """
    directory = Path(models_dir) / model_name
    # unique=False saves 5 ms at each start
    vocabulary = read_json(directory / vocabulary_file, VOCABULARY, "fetch it again", unique=False)
    version, _, merges = read_text(directory / merges_file, VOCABULARY, "fetch it again").partition("\n")
    if not version.startswith("#version"):
        raise UserError(
            f"{directory / merges_file}: expected #version in its first line, found {quoted(version)}: fetch it again"
        )
    try:
        return Encoder(vocabulary, merges.replace("\r\n", "\n"))
    except UserError as error:
        raise UserError(f"{directory}: {error}: fetch {vocabulary_file} and {merges_file} again") from None
