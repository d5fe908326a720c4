"""Which tokens may be drawn: top-k and top-p as in OpenAI's sample.py, min-p and typical-p as in transformers.

Every filter works on the last axis, n_vocab, and accepts any leading axes. The rows are independent.

Logits are sums of rounded numbers. Computed in another order, the difference of two logits changes a little, and a
token at the border of a filter may come to lie on its other side. So each rule also tells, given a bound `error` of
these changes, which tokens are kept in any case, and which may be kept. Skip this at the first reading.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from picogpt.arrays import Array
from picogpt.penalties import DROPPED

SUM_ERROR = 1e-5  # of a cumulative probability in float32


class Border(NamedTuple):
    """What a filter keeps: tokens whose score is not below `lowest`.

    After another rounding, it keeps all those above `sure`, and none of those below `possible`.
    """

    score: Array  # [..., n_vocab], the logits, or another measure
    lowest: Any  # [..., 1]
    sure: Any
    possible: Any


def kept(logits: Array, border: Border) -> Array:  # [..., n_vocab] -> [..., n_vocab]
    return np.where(border.score < border.lowest, DROPPED, logits)


def top_k_logits(logits: Array, k: int) -> Array:  # [..., n_vocab] -> [..., n_vocab]
    """Drop every logit below the k-th largest. Ties with it are kept; k = 0 drops nothing.

    >>> top_k_logits(np.float32([3, 1, 2]), 2)
    array([  3., -inf,   2.], dtype=float32)
    """
    return kept(logits, top_k(logits, k)) if k else logits


def top_k(logits: Array, k: int, error: float = 0, doubt: float = 0) -> Border:
    """The border between the k largest logits and the others."""
    if k >= logits.shape[-1]:
        return Border(logits, DROPPED, DROPPED, DROPPED)
    largest = np.partition(logits, -k - 1, axis=-1)[..., -k - 1 :]
    following, kth_largest = largest[..., :1], largest[..., 1:].min(axis=-1, keepdims=True)
    return Border(logits, kth_largest, following + error, kth_largest - error)


def top_p_logits(logits: Array, p: float) -> Array:  # [..., n_vocab] -> [..., n_vocab]
    """Drop the unlikely tail and keep a nucleus of probability p (Holtzman et al. 2019), as OpenAI's code does.

    Tokens are kept, the likeliest first, while their cumulative probability is at most p. The token that crosses p is
    dropped (other libraries keep it), but at least one token is kept. Ties with the last one kept are kept; p = 1 drops
    nothing.

    >>> top_p_logits(np.log(np.float32([0.5, 0.125, 0.375])), 0.9).round(2)
    array([-0.69,  -inf, -0.98], dtype=float32)
    """
    return kept(logits, top_p(logits, p)) if p < 1 else logits


def top_p(logits: Array, p: float, error: float = 0, doubt: float = 0) -> Border:
    """The border of the nucleus. `doubt` is the probability of tokens that another filter may keep or drop."""
    descending = np.sort(logits, axis=-1)[..., ::-1]
    weights = np.exp(descending - descending[..., :1])
    cumulative = np.cumsum(weights / weights.sum(axis=-1, keepdims=True), axis=-1)
    n_kept = np.maximum(counts(cumulative, p, error + doubt, "right"), 1)
    return border_after(n_kept, logits, descending, error)


def min_p_logits(logits: Array, p: float) -> Array:  # [..., n_vocab] -> [..., n_vocab]
    """Drop every token whose probability is below p times that of the likeliest (Nguyen et al. 2024). p = 0 drops none.

    >>> min_p_logits(np.log(np.float32([0.5, 0.125, 0.375])), 0.3).round(2)
    array([-0.69,  -inf, -0.98], dtype=float32)
    """
    return kept(logits, min_p(logits, p)) if p else logits


def min_p(logits: Array, p: float, error: float = 0, doubt: float = 0) -> Border:
    """The logit at which a token has p times the probability of the likeliest one."""
    lowest = logits.max(axis=-1, keepdims=True) + float(np.log(p))
    return Border(logits, lowest, lowest + error, lowest - error)


def typical_p_logits(logits: Array, p: float) -> Array:  # [..., n_vocab] -> [..., n_vocab]
    """Keep the most typical tokens that together have probability p (Meister et al. 2022). p = 1 drops nothing.

    A token is typical if it is about as surprising as the next token is on average: if -log(its probability) is close
    to the entropy. So the likeliest token may be dropped. The token that crosses p is kept, and ties with it are.

    >>> typical_p_logits(np.log(np.float32([0.5, 0.1, 0.2, 0.2])), 0.3).round(2)
    array([ -inf,  -inf, -1.61, -1.61], dtype=float32)
    """
    return kept(logits, typical_p(logits, p)) if p < 1 else logits


def typical_p(logits: Array, p: float, error: float = 0, doubt: float = 0) -> Border:
    """The border between the most typical tokens and the others; a score is minus the distance from the entropy."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    probs = np.exp(log_probs)
    entropy = -np.sum(probs * np.where(probs > 0, log_probs, 0), axis=-1, keepdims=True)
    score = -np.abs(-log_probs - entropy)
    order = np.argsort(-score, axis=-1)
    descending, cumulative = (np.take_along_axis(x, order, axis=-1) for x in (score, probs))
    cumulative = np.cumsum(cumulative, axis=-1)
    n_kept = counts(cumulative, p, error + doubt, "left") + 1
    return border_after(n_kept, score, descending, (error + 10 * doubt) * (2 + entropy))


def counts(cumulative: Array, p: float, slack: float, side: Literal["left", "right"]) -> Array:
    # [..., n_vocab] -> [..., 3]
    """How many cumulative probabilities are below p, or equal to it (right), surely so, and possibly so."""
    slack += SUM_ERROR
    limits = np.array([p, p - slack, p + slack], cumulative.dtype)
    rows = cumulative.reshape(-1, cumulative.shape[-1])
    return np.array([row.searchsorted(limits, side) for row in rows]).reshape(*cumulative.shape[:-1], 3)


def border_after(n_kept: Array, score: Array, descending: Array, error: Any) -> Border:  # [..., 3], 2 x [..., n_vocab]
    """The border after the best tokens: so many of them, those surely kept, and those possibly kept."""
    places = np.minimum(n_kept + np.array([-1, 0, -1]), score.shape[-1] - 1)
    lowest, following, last = np.moveaxis(np.take_along_axis(descending, places, axis=-1), -1, 0)[..., None]
    return Border(score, lowest, following + error, last - error)
