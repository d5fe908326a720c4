"""How a text becomes tokens: the merges of byte pair encoding, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from picogpt.encoder import SYMBOL_OF, Encoder, split_into_words
from picogpt.insight.show import count, padded, visible_symbols, width

LONGEST = 64  # bytes; the merges of a longer word would fill screens


class Merge(NamedTuple):
    """One step: two neighbours that became one symbol, wherever they stood in the word."""

    left: str
    right: str
    rank: int  # the place in the list of merges; the lowest rank goes first
    symbols: list[str]  # the word after this step


def merges(word: str, ranks: dict[str, int]) -> Iterator[Merge]:
    """The steps from a word of symbols to its tokens. `ranks` are those of `encoder.merge_plainly`.

    >>> for step in merges("banana", {"a n": 0, "b an": 1}):
    ...     print(step.left, step.right, step.symbols)
    a n ['b', 'an', 'an', 'a']
    b an ['ban', 'an', 'a']
    """
    symbols = list(word)
    while found := [pair for pair in pairwise(symbols) if " ".join(pair) in ranks]:
        left, right = min(found, key=lambda pair: ranks[" ".join(pair)])
        symbols = merged(symbols, left, right)
        yield Merge(left, right, ranks[f"{left} {right}"], symbols)


def merged(symbols: list[str], left: str, right: str) -> list[str]:
    """Join each `left` to a `right` that follows it, from the first on.

    >>> merged(["a", "a", "a"], "a", "a")
    ['aa', 'a']
    """
    joined: list[str] = []
    rest = iter(range(len(symbols)))
    for i in rest:
        if symbols[i : i + 2] == [left, right]:
            joined.append(left + right)
            next(rest)
        else:
            joined.append(symbols[i])
    return joined


def lines(text: str, encoder: Encoder) -> Iterator[str]:
    """A text's words, the merges of each, and its tokens, as lines to print.

    Raises UserError, before the first line, for a text that cannot be encoded.
    """
    ids = encoder.encode(text)
    words = [word.encode("utf-8", errors="surrogateescape") for word in split_into_words(text)]
    return _lines(words, len(ids), encoder)


def _lines(words: list[bytes], n_tokens: int, encoder: Encoder) -> Iterator[str]:
    n_bytes = sum(map(len, words))
    yield f"{count(len(words), 'word')}, {count(n_bytes, 'byte')}, {count(n_tokens, 'token')}"
    seen: set[bytes] = set()
    for word in words:
        yield ""
        symbols = word.decode("latin-1").translate(SYMBOL_OF)
        yield from word_lines(symbols, encoder, again=word in seen)
        seen.add(word)


def word_lines(word: str, encoder: Encoder, again: bool = False) -> Iterator[str]:
    """A word byte by byte, after each merge, and at last its tokens with their ids."""
    steps = list(merges(word, encoder.bpe_ranks))
    tokens = steps[-1].symbols if steps else list(word)
    if len(word) > LONGEST:
        yield f"  a word of {len(word)} bytes: its {len(steps)} merges are not shown"
    elif not again:
        columns = width(" ".join(map(visible_symbols, word))) + 3
        yield "  " + " ".join(map(visible_symbols, word))
        for step in steps:
            left, right = visible_symbols(step.left), visible_symbols(step.right)
            shown = padded(" ".join(map(visible_symbols, step.symbols)), columns)
            yield f"  {shown}{left} + {right}, merge {step.rank + 1}"
    yield "  = " + "  ".join(f"{visible_symbols(token)} {encoder.encoder[token]}" for token in tokens)
