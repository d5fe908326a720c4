"""Changes of the logits that depend on the tokens so far or on a token's id, before anything is drawn.

The functions take the logits of one text, [n_vocab], and return new ones. They mean what they mean in transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from picogpt.arrays import Array

DROPPED = np.float32(-np.inf)  # the logit of a token that must not be chosen


def add_bias(logits: Array, bias: Iterable[tuple[int, float]]) -> Array:  # [n_vocab] -> [n_vocab]
    """Add a number to the logits of some tokens: (id, number), ...

    >>> add_bias(np.float32([1, 2, 3]), [(0, 1.5), (2, -1)])
    array([2.5, 2. , 2. ], dtype=float32)
    """
    logits = logits.copy()
    for token_id, number in bias:
        logits[token_id] += number
    return logits


def penalize_repetition(logits: Array, ids: Sequence[int], penalty: float) -> Array:  # [n_vocab], [n_seq] -> [n_vocab]
    """Make tokens that have occurred less likely (Keskar et al. 2019): divide their logits, or multiply negative ones.

    A token counts once, however often it occurs. A penalty below 1 makes repetition likelier.

    >>> penalize_repetition(np.float32([1, 2, -3, 4]), [1, 2, 1], 2.0)
    array([ 1.,  1., -6.,  4.], dtype=float32)
    """
    logits = logits.copy()
    seen = logits[ids]
    logits[ids] = np.where(seen < 0, seen * penalty, seen / penalty)
    return logits


def ban_repeated_ngrams(logits: Array, ids: Sequence[int], n: int) -> Array:  # [n_vocab], [n_seq] -> [n_vocab]
    """Drop every token that would repeat a sequence of n tokens (Paulus et al. 2017).

    >>> ban_repeated_ngrams(np.float32([1, 2, 3, 4]), [0, 1, 2, 0, 1], 3)  # 0, 1, 2 has occurred
    array([  1.,   2., -inf,   4.], dtype=float32)
    """
    if len(ids) < n:
        return logits
    ngrams = np.lib.stride_tricks.sliding_window_view(np.asarray(ids), n)  # [n_seq - n + 1, n]
    same_start = (ngrams[:, :-1] == ids[len(ids) - n + 1 :]).all(axis=-1)
    return ban(logits, ngrams[same_start, -1])


def ban(logits: Array, ids: Iterable[int]) -> Array:  # [n_vocab] -> [n_vocab]
    """Drop some tokens.

    >>> ban(np.float32([1, 2, 3]), [0, 2])
    array([-inf,   2., -inf], dtype=float32)
    """
    logits = logits.copy()
    logits[list(ids)] = DROPPED
    return logits
