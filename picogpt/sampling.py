"""From logits to the next token id, as OpenAI's sample.py does it: temperature, then top-k, then top-p, then a draw.

Every function works on the last axis, n_vocab, and takes any leading axes; each row is treated on its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from picogpt.errors import UserError
from picogpt.arrays import Array


DROPPED = -math.inf  # the logit of a token that shall not be drawn


def check_sampling(temperature: float, top_k: int, top_p: float) -> None:
    """Raises UserError where a setting is out of its range."""
    if not (math.isfinite(temperature) and temperature >= 0):
        raise UserError(f"temperature must be 0 (greedy) or more, found {temperature}: try 0.7")
    if top_k < 0:
        raise UserError(f"top_k must be 0 (all tokens) or more, found {top_k}: try 40")
    if not 0 <= top_p <= 1:
        raise UserError(f"top_p must lie between 0 and 1 (all tokens), found {top_p}: try 0.9")


def top_k_logits(logits: Array, k: int) -> Array:  # [..., n_vocab] -> [..., n_vocab]
    """Drop every logit below the k-th largest. Ties with it all stay; 0 drops nothing."""
    if k == 0 or k >= logits.shape[-1]:
        return logits
    kth_largest = np.partition(logits, -k, axis=-1)[..., -k, None]
    return np.where(logits < kth_largest, np.float32(DROPPED), logits)


def top_p_logits(logits: Array, p: float) -> Array:  # [..., n_vocab] -> [..., n_vocab]
    """Drop the unlikely tail and keep a nucleus of probability p (Holtzman et al. 2019), as OpenAI's code does.

    Going down from the most likely token, the last one kept is the last whose cumulative probability does not
    exceed p: the token that crosses p is left out (other libraries keep it), and at least one stays. Ties with the
    last one kept all stay; 1 drops nothing.
    """
    if p >= 1:
        return logits
    descending = np.sort(logits, axis=-1)[..., ::-1]
    weights = np.exp(descending - descending[..., :1])
    cumulative = np.cumsum(weights / weights.sum(axis=-1, keepdims=True), axis=-1)
    last_kept = np.maximum(np.sum(cumulative <= p, axis=-1, keepdims=True) - 1, 0)
    return np.where(logits < np.take_along_axis(descending, last_kept, axis=-1), np.float32(DROPPED), logits)


def new_rngs(seed: int | None, n_rows: int, temperature: float) -> list[np.random.Generator]:
    """Random numbers for each row of its own: those of a row are the same however many rows there are.

    None at temperature 0, which draws nothing: np.random is not even imported then.
    """
    if temperature == 0:
        return []
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(n_rows)]


def draw(logits: Array, rngs: Sequence[np.random.Generator]) -> Array:  # [..., n_vocab] -> [...]
    """One id per row with probability softmax(logits), by inverting the cumulative distribution; one rng per row."""
    cumulative = np.cumsum(np.exp(logits - logits.max(axis=-1, keepdims=True)), axis=-1, dtype=np.float64)
    ids = [
        # rounding up to the total itself must not go past the last token that has any probability
        min(row.searchsorted(rng.random() * row[-1], side="right"), row.searchsorted(row[-1]))
        for row, rng in zip(cumulative.reshape(-1, logits.shape[-1]), rngs, strict=True)
    ]
    return np.array(ids).reshape(logits.shape[:-1])


def next_ids(
    logits: Array, rngs: Sequence[np.random.Generator], temperature: float, top_k: int, top_p: float
) -> Array:  # [..., n_vocab] -> [...]
    """The next token of each row: the most likely one at temperature 0, else one drawn from what the filters keep."""
    if temperature == 0:
        return np.asarray(np.argmax(logits, axis=-1))
    logits = logits / max(temperature, 1e-6)  # below, float32 could overflow
    return draw(top_p_logits(top_k_logits(logits, top_k), top_p), rngs)
