"""Lossless look-ahead: guess the next tokens, verify all of them in one pass, keep those that hold.

A pass over 8 positions takes twice as long as one over a single position, over 32 four times (see matmul.py), so tokens
whose guesses hold are cheap. What is generated is what gpt2.generate would: at each position the model's own token is
taken, greedy or drawn, and a guess only decides whether the positions behind it were worth computing. (Rounding differs
between the two. Where it could decide, a greedy token is computed again; a drawn one differs when its random number
falls between two roundings of a probability's border.)

Idea: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding"; guesses from the text
itself: Saxena 2023, "Prompt Lookup Decoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from picogpt import sampling, utils
from picogpt.errors import UserError
from picogpt.gpt2 import check_length, check_request, hidden_states, logits, new_cache, prefill
from picogpt.arrays import Array, Params
from picogpt.encoder import Encoder


NGRAM = 3  # tokens that must have stood together before for a guess
MAX_GUESSES = 31
MOST_DRAFTED = 8
TOO_CLOSE = 2e-5  # of the largest logit: below, rounding in another order of additions could change the order of two


class PromptLookup:
    """Guesses that the text goes on as it did the last time that its last NGRAM tokens stood together.

    Every guess is compared with what really came, used or not. As many are used as held in a row, none where fewer
    than two did: text that does not repeat itself is generated as if there were no look-ahead.
    """

    def __init__(self, ids: list[int]):
        self.ids: list[int] = []
        self.behind: dict[tuple[int, ...], int] = {}  # NGRAM tokens -> the position behind them
        self.source: int | None = None  # where the text that we seem to repeat goes on
        self.held = 0  # guesses in a row
        for token_id in ids:
            self.append(token_id)

    def append(self, token_id: int) -> None:
        """Take note of the next token of the text."""
        held = self.source is not None and self.ids[self.source] == token_id
        self.held = self.held + 1 if held else 0
        self.ids.append(token_id)
        if len(self.ids) >= NGRAM:
            key = tuple(self.ids[-NGRAM:])
            self.source = self.behind.get(key)
            self.behind[key] = len(self.ids)

    def guess(self, most: int) -> list[int]:
        """The next tokens, at most so many."""
        n = min(self.held, most, MAX_GUESSES)
        if self.source is None or self.held < 2:
            return []
        period = len(self.ids) - self.source  # a loop goes on through its own guesses
        return [self.ids[self.source + i % period] for i in range(n)]


class DraftModel:
    """Guesses that the text goes on as a smaller model with the same vocabulary would, greedily.

    One more guess is made next time when all of them held, one less when one failed, and always one.
    """

    def __init__(self, inputs: list[int], params: Params, n_head: int, max_length: int):
        self.ids = list(inputs)
        self.params = params
        self.n_head = n_head
        self.kv_cache = new_cache(params, n_head, max_length)
        self.cached: list[int] = []  # the ids whose keys and values are in the cache
        self.pending: list[int] = []  # guesses not yet compared with what came
        self.n_guesses = 4

    def append(self, token_id: int) -> None:
        """Take note of the next token of the text."""
        self.ids.append(token_id)
        if self.pending:
            held = self.pending.pop(0) == token_id
            if not held:
                self.pending = []
                self.n_guesses = max(self.n_guesses - 1, 1)
            elif not self.pending:
                self.n_guesses = min(self.n_guesses + 1, MOST_DRAFTED)

    def guess(self, most: int) -> list[int]:
        """The next tokens, at most so many."""
        # the last token goes through the model with the one before it: a pass over a single position would wake BLAS's
        # threads, which would be in the way of the pass that verifies, see matmul.py
        held = takewhile(lambda pair: pair[0] == pair[1], zip(self.cached, self.ids[:-2], strict=False))
        self.kv_cache.length = len(list(held))
        new, guesses = self.ids[self.kv_cache.length :], []
        for _ in range(min(self.n_guesses, most)):
            x = hidden_states(new, **self.params, n_head=self.n_head, kv_cache=self.kv_cache, n_last=2)
            guesses.append(int(np.argmax(logits(x, self.params["wte"])[-1])))
            new = [new[-1], guesses[-1]]
            self.kv_cache.length -= 1
        if guesses:
            self.cached = self.ids + guesses[:-1]  # the last one has not been through the model
        self.pending = list(guesses)
        return guesses


def generate(
    inputs: list[int], params: Params, n_head: int, n_tokens_to_generate: int, *,
    temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int | None = None, stop_id: int | None = None,
    guesser: PromptLookup | DraftModel | None = None,
) -> Iterator[int]:  # fmt: skip
    """The ids of gpt2.generate for the same arguments, faster where guesses hold (of PromptLookup, unless said).

    Raises UserError as gpt2.generate does.
    """
    check_request(inputs, params, n_tokens_to_generate, temperature, top_k, top_p)
    kv_cache = new_cache(params, n_head, len(inputs) + n_tokens_to_generate)
    rngs = sampling.new_rngs(seed, 1, temperature)
    guesser = guesser or PromptLookup(inputs)
    new = prefill(inputs, params, n_head, kv_cache).tolist()
    may_guess = False  # behind the whole prompt
    while n_tokens_to_generate:
        guesses = guesser.guess(n_tokens_to_generate - 1) if may_guess else []
        n_past = kv_cache.length + len(new) - 1
        x = hidden_states(new + guesses, **params, n_head=n_head, kv_cache=kv_cache, n_last=len(guesses) + 1)
        may_guess, n_found = True, 0
        for row, guess in zip(logits(x, params["wte"]), [*guesses, None], strict=True):
            if guesses and temperature == 0 and too_close(row):
                may_guess = False  # decide by a pass over this position alone
                break
            token_id = int(sampling.next_ids(row, rngs, temperature, top_k, top_p))
            if token_id == stop_id:
                return
            yield token_id
            guesser.append(token_id)
            new = [token_id]
            n_found += 1
            if token_id != guess:
                break
        kv_cache.length = n_past + n_found  # forget what followed from wrong guesses
        n_tokens_to_generate -= n_found


def too_close(row: Array) -> bool:  # [n_vocab]
    """Whether the two largest logits are so near to one another that rounding decides."""
    return bool(np.count_nonzero(row > row.max() - TOO_CLOSE * np.abs(row).max()) > 1)
