"""Look-ahead without loss: guess the next tokens, verify all of them in one pass, keep those that hold.

A pass over 8 positions takes twice as long as one over a single position, over 32 four times (see matmul.py), so tokens
whose guesses hold are cheap. What is generated is what gpt2.generate would generate: at each position the model's own
token is taken, greedy or drawn, and a guess only decides whether the positions after it were worth computing. (Rounding
differs between the two. Where it could decide, a greedy token is computed again; a drawn one differs when its random
number falls between two roundings of a probability's border.)

Idea: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding"; guesses from the text
itself: Saxena 2023, "Prompt Lookup Decoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Protocol

import numpy as np

from picogpt.arrays import Array, Params
from picogpt.gpt2 import check_request, new_cache, next_logits
from picogpt.sampling import GREEDY, Sampling

NGRAM = 3  # tokens that must have stood together before for a guess
MAX_GUESSES = 31
MAX_DRAFTED = 8
TOO_CLOSE = 2e-5  # of the largest logit: below, rounding in another order of additions could change the order of two


class Guesser(Protocol):
    """What `generate` asks for guesses."""

    def append(self, token_id: int) -> None:
        """Take note of the next token of the text."""

    def guess(self, limit: int) -> list[int]:
        """The next tokens, `limit` of them or fewer."""


class PromptLookup:
    """Guesses that the text goes on as it did the last time that its last NGRAM tokens stood together.

    Every guess is compared with what really came, used or not. As many are used as held in a row, none where fewer
    than two did: text that does not repeat itself is generated as if there were no look-ahead.

    >>> lookup = PromptLookup([1, 2, 3, 4, 5, 1, 2, 3, 4, 5])
    >>> lookup.guess(4)
    [1, 2]
    """

    def __init__(self, ids: list[int]):
        self.ids: list[int] = []
        self.after: dict[tuple[int, ...], int] = {}  # NGRAM tokens -> the position after them
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
            self.source = self.after.get(key)
            self.after[key] = len(self.ids)

    def guess(self, limit: int) -> list[int]:
        """The next tokens, `limit` of them or fewer."""
        n = min(self.held, limit, MAX_GUESSES)
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
                self.n_guesses = min(self.n_guesses + 1, MAX_DRAFTED)

    def guess(self, limit: int) -> list[int]:
        """The next tokens, `limit` of them or fewer."""
        # the last token goes through the model with the one before it: a pass over a single position would wake BLAS's
        # threads, which would be in the way of the pass that verifies, see matmul.py
        held = takewhile(lambda pair: pair[0] == pair[1], zip(self.cached, self.ids[:-2], strict=False))
        self.kv_cache.truncate(len(list(held)))
        new, guesses = self.ids[self.kv_cache.length :], []
        for _ in range(min(self.n_guesses, limit)):
            at = next_logits(new, self.params, self.n_head, self.kv_cache, n_last=2)[-1]  # [n_vocab]
            guesses.append(int(np.argmax(at)))
            new = [new[-1], guesses[-1]]
            self.kv_cache.truncate(self.kv_cache.length - 1)
        if guesses:
            self.cached = self.ids + guesses[:-1]  # the last one has not been through the model
        self.pending = list(guesses)
        return guesses


def generate(
    inputs: list[int], params: Params, n_head: int, n_tokens_to_generate: int, *,
    sampling: Sampling = GREEDY, stop_id: int | None = None, guesser: Guesser | None = None,
) -> Iterator[int]:  # fmt: skip
    """The ids of gpt2.generate for the same arguments, faster where guesses hold (PromptLookup's by default).

    Raises UserError as gpt2.generate does.
    """
    check_request(inputs, params, n_tokens_to_generate)
    ids = np.asarray(inputs).tolist()
    return _generate(ids, params, n_head, n_tokens_to_generate, sampling, stop_id, guesser or PromptLookup(ids))


def _generate(
    new: list[int], params: Params, n_head: int, n_left: int, sampling: Sampling, stop_id: int | None, guesser: Guesser
) -> Iterator[int]:
    kv_cache = new_cache(params, n_head, len(new) + n_left)
    rngs = sampling.rngs(1)
    may_guess = False  # after the whole prompt
    while n_left:
        guesses = guesser.guess(n_left - 1) if may_guess else []
        n_past = kv_cache.length + len(new)
        at = next_logits(new + guesses, params, n_head, kv_cache, n_last=len(guesses) + 1)
        may_guess, n_found = True, 0
        for row, guess in zip(at, [*guesses, None], strict=True):
            if guesses and sampling.greedy and too_close(row):
                may_guess = False  # decide by a pass over this position alone
                break
            token_id = int(sampling.next_ids(row, rngs))
            if token_id == stop_id:
                return
            yield token_id
            guesser.append(token_id)
            new = [token_id]
            n_found += 1
            if token_id != guess:
                break
        kv_cache.truncate(n_past + n_found - 1)  # forget wrong guesses; the last token goes through the model next
        n_left -= n_found


def too_close(row: Array) -> bool:  # [n_vocab]
    """Whether the two largest logits are so near to one another that rounding decides.

    >>> too_close(np.float32([1, 1 - 1e-6, 0])), too_close(np.float32([1, 0.9, 0]))
    (True, False)
    """
    return bool(np.count_nonzero(row > row.max() - TOO_CLOSE * np.abs(row).max()) > 1)
