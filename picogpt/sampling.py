"""From logits to the next token id, as in OpenAI's sample.py: temperature, then top-k, then top-p, then a draw.

Every function works on the last axis, n_vocab, and accepts any leading axes. The rows are independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from picogpt.arrays import Array
from picogpt.errors import UserError

DROPPED = np.float32(-math.inf)  # the logit of a token that must not be drawn


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, (int, np.integer)) and bool(value >= 0)


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: one object for all settings, checked when it is made.

    temperature: 0 takes the likeliest token each time (greedy), 1 draws from the model's own distribution, values
        between favour the likeliest tokens; by default 1 if top_k or top_p is given, else 0
    top_k: draw only from the k likeliest tokens; 0 from all
    top_p: draw only from the likeliest tokens that together have probability p; 1 from all
    seed: the same seed gives the same text; by default each run draws another text. Greedy text needs no seed

    Raises UserError for a setting that is out of range.

    >>> Sampling(top_k=40)
    Sampling(temperature=1.0, top_k=40, top_p=1.0, seed=None)
    >>> Sampling().greedy
    True
    >>> Sampling(temperature=0.7, top_p=3)
    Traceback (most recent call last):
    picogpt.errors.UserError: top_p must lie between 0 and 1 (all tokens), found 3: try 0.9
    """

    temperature: float | None = None
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.temperature is None:
            object.__setattr__(self, "temperature", 0.0 if self.top_k == 0 and self.top_p == 1 else 1.0)
        if not (_is_number(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature must be 0 (greedy) or more, found {self.temperature!r}: try 0.7")
        if not _is_whole(self.top_k):
            raise UserError(f"top_k must be a whole number, 0 (all tokens) or more, found {self.top_k!r}: try 40")
        if not (_is_number(self.top_p) and 0 <= self.top_p <= 1):
            raise UserError(f"top_p must lie between 0 and 1 (all tokens), found {self.top_p!r}: try 0.9")
        if self.seed is not None and not _is_whole(self.seed):
            raise UserError(f"seed must be a whole number, 0 or more, found {self.seed!r}: try 1")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def rngs(self, n_rows: int) -> list[np.random.Generator]:
        """A random number generator for each row. The numbers of a row do not depend on how many rows there are.

        The list is empty if nothing is drawn, which saves the import of np.random.
        """
        if self.greedy:
            return []
        return [np.random.default_rng(child) for child in np.random.SeedSequence(self.seed).spawn(n_rows)]

    def next_ids(self, logits: Array, rngs: Sequence[np.random.Generator]) -> Array:  # [..., n_vocab] -> [...]
        """The next token of each row: the likeliest one, or one drawn from what the filters keep.

        Raises UserError if the logits are not finite, which means that the weights are damaged.

        >>> Sampling().next_ids(np.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), []).tolist()
        [1, 0]
        """
        if not np.isfinite(logits.max(axis=-1)).all():
            raise UserError(
                "the model's logits are not finite numbers: its weights are damaged; check them with "
                "python -m picogpt.verify MODEL, or fetch the model again"
            )
        if self.greedy:
            return np.asarray(np.argmax(logits, axis=-1))
        logits = logits / max(self.temperature or 0.0, 1e-6)  # a smaller one could overflow float32
        return draw(top_p_logits(top_k_logits(logits, self.top_k), self.top_p), rngs)


GREEDY = Sampling()


def top_k_logits(logits: Array, k: int) -> Array:  # [..., n_vocab] -> [..., n_vocab]
    """Drop every logit below the k-th largest. Ties with it are kept; k = 0 drops nothing.

    >>> top_k_logits(np.float32([3, 1, 2]), 2)
    array([  3., -inf,   2.], dtype=float32)
    """
    if k == 0 or k >= logits.shape[-1]:
        return logits
    kth_largest = np.partition(logits, -k, axis=-1)[..., -k, None]
    return np.where(logits < kth_largest, DROPPED, logits)


def top_p_logits(logits: Array, p: float) -> Array:  # [..., n_vocab] -> [..., n_vocab]
    """Drop the unlikely tail and keep a nucleus of probability p (Holtzman et al. 2019), as OpenAI's code does.

    Tokens are kept, the likeliest first, while their cumulative probability is at most p. The token that crosses p is
    dropped (other libraries keep it), but at least one token is kept. Ties with the last one kept are kept; p = 1 drops
    nothing.

    >>> top_p_logits(np.log(np.float32([0.5, 0.125, 0.375])), 0.9).round(2)
    array([-0.69,  -inf, -0.98], dtype=float32)
    """
    if p >= 1:
        return logits
    descending = np.sort(logits, axis=-1)[..., ::-1]
    weights = np.exp(descending - descending[..., :1])
    cumulative = np.cumsum(weights / weights.sum(axis=-1, keepdims=True), axis=-1)
    last_kept = np.maximum(np.sum(cumulative <= p, axis=-1, keepdims=True) - 1, 0)
    return np.where(logits < np.take_along_axis(descending, last_kept, axis=-1), DROPPED, logits)


def draw(logits: Array, rngs: Sequence[np.random.Generator]) -> Array:  # [..., n_vocab] -> [...]
    """One id per row with probability softmax(logits), by inverting the cumulative distribution; one rng per row."""
    cumulative = np.cumsum(np.exp(logits - logits.max(axis=-1, keepdims=True)), axis=-1, dtype=np.float64)
    ids = [
        # if rounding gives the total itself, take the last token whose probability is not 0
        min(row.searchsorted(rng.random() * row[-1], side="right"), row.searchsorted(row[-1]))
        for row, rng in zip(cumulative.reshape(-1, logits.shape[-1]), rngs, strict=True)
    ]
    return np.array(ids).reshape(logits.shape[:-1])
