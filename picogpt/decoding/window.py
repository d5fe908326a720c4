"""Text without end: past n_ctx tokens, a model goes on from the last of them.

A token's keys and values belong to its position and to the tokens before it. Once tokens are dropped at the beginning,
those that are left have other positions, so they go through the model again. There are two ways to do that:

crop  each token is chosen from the last n_ctx tokens, `ids[-n_ctx:]`, as in the tutorials. Past n_ctx, every token
      costs a pass over n_ctx positions.
half  once n_ctx tokens have been seen, the older half is dropped, and the newer one goes through the model again. Then
      tokens cost one position each until n_ctx are seen again: two positions per token on average. A token is chosen
      from the last n_ctx / 2 to n_ctx tokens.

Up to n_ctx tokens, the text is that of gpt2.generate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from picogpt.arrays import Array, ArrayLike, Params
from picogpt.choosing import Chooser
from picogpt.decoding import lookahead as ahead
from picogpt.decoding.lookahead import Guesser, PromptLookup
from picogpt.errors import UserError
from picogpt.gpt2 import Start, Watch, check_ids, check_length, head_of, hidden_states, logits, start
from picogpt.sampling import GREEDY, Sampling

WINDOWS = ("crop", "half")


def first_seen(n_tokens: int, n_ctx: int, window: str) -> int:
    """The first token that is seen when the one after n_tokens is chosen. It depends on nothing else.

    >>> [first_seen(n, 8, "crop") for n in (7, 8, 9, 10, 11, 12, 13, 14)]
    [0, 0, 1, 2, 3, 4, 5, 6]
    >>> [first_seen(n, 8, "half") for n in (7, 8, 9, 10, 11, 12, 13, 14)]
    [0, 0, 5, 5, 5, 5, 5, 10]
    """
    if window == "crop" or n_tokens <= n_ctx:
        return max(n_tokens - n_ctx, 0)
    step = n_ctx + 1 - max(n_ctx // 2, 1)  # tokens that are dropped at a time, so that half of n_ctx are left
    return -(-(n_tokens - n_ctx) // step) * step


class NoGuesses:
    """A Guesser that makes no guesses."""

    def append(self, token_id: int) -> None:
        """Nothing is kept."""

    def guess(self, limit: int) -> list[int]:
        """No guesses."""
        return []


def seen(ids: Sequence[int], n_ctx: int, window: str) -> list[int]:
    """The last of some tokens, from which the next one is chosen."""
    return list(ids[first_seen(len(ids), n_ctx, window) :])


def check(window: object, draft: object = None) -> None:
    """Raise UserError for a window of an unknown kind, or beside a draft."""
    if window not in WINDOWS:
        raise UserError(f"sliding_window must be {' or '.join(WINDOWS)}, found {window!r:.60}")
    if draft is not None:
        raise UserError("sliding_window: expected no draft, found one: its own context is full too, so leave one out")


def generate(
    inputs: ArrayLike, params: Params, n_head: int, n_tokens_to_generate: int, *,
    window: str, sampling: Sampling = GREEDY, stop_id: int | None = None, watch: Watch | None = None,
    lookahead: bool = True, start: Start = start, row: int = 0,
) -> Iterator[int]:  # fmt: skip
    """As lookahead.generate, for any number of tokens. Settings that look at the tokens so far see all of them.

    row: the number of this text among several samples, which have random numbers of their own

    Raises UserError for ids outside the vocabulary.

    >>> import picogpt
    >>> model = picogpt.load("shakespeare")
    >>> ids = generate(model.encode("LEONTES:"), model.params, 6, 300, window="half")
    >>> model.decode(list(ids)[-9:])
    "PAULINA:\\nI'll"
    """
    check(window)
    ids = check_ids(inputs, len(params["wte"])).tolist()
    check_length(len(ids), n_tokens_to_generate, sys.maxsize)
    sampling.check_ids(len(params["wte"]))
    rngs = sampling.rngs(row + 1)
    text = Chooser(sampling, ids, rngs[row] if rngs else None, again(params, n_head, window))
    guesser = PromptLookup(ids) if lookahead else NoGuesses()
    return _generate(text, params, n_head, n_tokens_to_generate, window, stop_id, watch, guesser, start, row)


def _generate(
    text: Chooser, params: Params, n_head: int, n_left: int, window: str, stop_id: int | None,
    watch: Watch | None, guesser: Guesser, start: Start, row: int,
) -> Iterator[int]:  # fmt: skip
    n_ctx = len(params["wpe"])
    ended = False

    def noted(_: int, token_id: int, at: Array) -> bool:
        nonlocal ended
        ended = watch is not None and watch(row, token_id, at)
        return ended

    while n_left and not ended:
        shown = seen(text.ids, n_ctx, window)
        n_new = min(n_ctx + 1 - len(shown), n_left)  # tokens until the window moves
        new_ids = ahead._generate(shown, params, n_head, n_new, text, stop_id, noted, guesser, start)
        for token_id in new_ids:
            yield token_id
            n_left -= 1
        ended = ended or text.ids[-1] == stop_id


def samples(
    inputs: ArrayLike, params: Params, n_head: int, n_tokens_to_generate: int, *, nsamples: int,
    stop_id: int | None = None, **how: Any,
) -> Iterator[list[int]]:  # fmt: skip
    """As gpt2.generate with nsamples, for any number of tokens. Each row is computed by itself."""
    request = inputs, params, n_head, n_tokens_to_generate
    texts = [generate(*request, stop_id=stop_id, row=row, **how) for row in range(nsamples)]
    return _in_steps(texts, stop_id)


def _in_steps(texts: list[Iterator[int]], stop_id: int | None) -> Iterator[list[int]]:
    """The next id of each text. One that has ended repeats its last id, or stop_id, until all have."""
    ids = [-1 if stop_id is None else stop_id] * len(texts)
    for new in zip_longest(*texts):
        ids = [old if token_id is None else token_id for old, token_id in zip(ids, new, strict=True)]
        yield ids


def again(params: Params, n_head: int, window: str) -> Callable[[list[int]], Array]:
    """A function that computes the logits after ids, [n_vocab], in one pass over those that the window shows."""

    def compute(ids: list[int]) -> Array:
        shown = seen(ids, len(params["wpe"]), window)
        with np.errstate(all="ignore"):
            at: Array = logits(hidden_states(shown, **params, n_head=n_head, n_last=1), head_of(params))[-1]
        return at

    return compute
