"""Lossless look-ahead: guess the next tokens, verify all guesses in one pass, and keep those that are right.

A pass over 8 positions takes twice as long as a pass over one, a pass over 32 four times as long (see matmul.py), so
right guesses are cheap tokens. The text is the one that gpt2.generate generates: at each position the model's own token
is taken, greedy or drawn, and a wrong guess only means that the positions after it are computed again. (Rounding
differs between the two. If it could change a greedy token, that token is computed again. It changes a drawn token in
the rare case that the random number lies right at the border between two tokens.)

Idea: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding"; guesses from the text
itself: Saxena 2023, "Prompt Lookup Decoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Protocol

import numpy as np

from picogpt.arrays import Params
from picogpt.choosing import Chooser
from picogpt.gpt2 import Start, Watch, check_request, choosers, new_cache, next_logits, start
from picogpt.sampling import GREEDY, Sampling

NGRAM = 3  # the last tokens that must have occurred before, as a sequence, to make a guess
MAX_GUESSES = 31
MAX_DRAFTED = 8


class Guesser(Protocol):
    """The interface of a source of guesses."""

    def append(self, token_id: int) -> None:
        """Append the next token of the text."""

    def guess(self, limit: int) -> list[int]:
        """Up to `limit` guesses of the next tokens."""


class PromptLookup:
    """Guesses that the text continues as it did the last time that its last NGRAM tokens occurred.

    A guess is made for every token and compared with it, whether it is used or not. If the last n guesses were right,
    the next n are used, but none if n is 1: text that does not repeat itself costs no extra time.

    >>> lookup = PromptLookup([1, 2, 3, 4, 5, 1, 2, 3, 4, 5])
    >>> lookup.guess(4)
    [1, 2]
    """

    def __init__(self, ids: list[int]):
        self.ids: list[int] = []
        self.after: dict[tuple[int, ...], int] = {}  # NGRAM tokens -> the position after them
        self.source: int | None = None  # the position of the next guess
        self.n_right = 0  # the last guesses that were right, in a row
        for token_id in ids:
            self.append(token_id)

    def append(self, token_id: int) -> None:
        """Append the next token of the text."""
        right = self.source is not None and self.ids[self.source] == token_id
        self.n_right = self.n_right + 1 if right else 0
        self.ids.append(token_id)
        if len(self.ids) >= NGRAM:
            key = tuple(self.ids[-NGRAM:])
            self.source = self.after.get(key)
            self.after[key] = len(self.ids)

    def guess(self, limit: int) -> list[int]:
        """Up to `limit` guesses of the next tokens."""
        n = min(self.n_right, limit, MAX_GUESSES)
        if self.source is None or self.n_right < 2:
            return []
        period = len(self.ids) - self.source  # past the end of the text, a loop repeats its own guesses
        return [self.ids[self.source + i % period] for i in range(n)]


class DraftModel:
    """Guesses that the text continues as a smaller model with the same vocabulary would, greedily.

    If all guesses were right, one more is made next time. If one was wrong, one less is made, but at least one.
    """

    def __init__(self, inputs: list[int], params: Params, n_head: int, max_length: int):
        self.ids = list(inputs)
        self.params = params
        self.n_head = n_head
        self.kv_cache = new_cache(params, n_head, max_length)
        self.cached: list[int] = []  # the ids whose keys and values are in the cache
        self.pending: list[int] = []  # guesses not yet compared with the text
        self.n_guesses = 4

    def append(self, token_id: int) -> None:
        """Append the next token of the text."""
        self.ids.append(token_id)
        if self.pending:
            if self.pending.pop(0) != token_id:
                self.pending = []
                self.n_guesses = max(self.n_guesses - 1, 1)
            elif not self.pending:
                self.n_guesses = min(self.n_guesses + 1, MAX_DRAFTED)

    def guess(self, limit: int) -> list[int]:
        """Up to `limit` guesses of the next tokens."""
        still_valid = takewhile(lambda pair: pair[0] == pair[1], zip(self.cached, self.ids[:-1], strict=False))
        self.kv_cache.truncate(len(list(still_valid)))
        new, guesses = self.ids[self.kv_cache.length :], []
        for _ in range(min(self.n_guesses, limit)):
            at = next_logits(new, self.params, self.n_head, self.kv_cache)[-1]  # [n_vocab]
            guesses.append(int(np.argmax(at)))
            new = guesses[-1:]
        if guesses:
            self.cached = self.ids + guesses[:-1]  # the last one has not been through the model
        self.pending = list(guesses)
        return guesses


def generate(
    inputs: list[int], params: Params, n_head: int, n_tokens_to_generate: int, *,
    sampling: Sampling = GREEDY, stop_id: int | None = None, watch: Watch | None = None,
    guesser: Guesser | None = None, start: Start = start,
) -> Iterator[int]:  # fmt: skip
    """The ids of gpt2.generate for the same arguments, faster if guesses (by default PromptLookup's) are right.

    Raises UserError as gpt2.generate does.
    """
    check_request(inputs, params, n_tokens_to_generate, sampling)
    ids = np.asarray(inputs).tolist()
    [text] = choosers(ids, params, n_head, sampling)
    guesser = guesser or PromptLookup(ids)
    return _generate(ids, params, n_head, n_tokens_to_generate, text, stop_id, watch, guesser, start)


def _generate(
    prompt: list[int], params: Params, n_head: int, n_left: int, text: Chooser, stop_id: int | None,
    watch: Watch | None, guesser: Guesser, start: Start,
) -> Iterator[int]:  # fmt: skip
    if n_left == 0:
        return
    kv_cache, at = start(prompt, params, n_head, len(prompt) + n_left)
    at, new = at[None], prompt  # [n_guesses + 1, n_vocab]
    guesses: list[int] = []
    while True:
        n_past = kv_cache.length - len(guesses)
        n_found = 0
        for row, guess in zip(at, [*guesses, None], strict=True):
            token_id = text.next(row)
            if token_id == stop_id:
                return
            ended = watch is not None and watch(0, token_id, text.logits)
            yield token_id
            if ended:
                return
            guesser.append(token_id)
            new = [token_id]
            n_found += 1
            if token_id != guess:
                break
        n_left -= n_found
        if n_left == 0:
            return
        kv_cache.truncate(n_past + n_found - 1)  # forget wrong guesses; the last token goes through the model next
        guesses = guesser.guess(n_left - 1)
        at = next_logits(new + guesses, params, n_head, kv_cache, n_last=len(guesses) + 1)
