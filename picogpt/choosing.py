"""From logits to the next token id, the same one whichever way the logits were computed.

Logits are sums of rounded numbers. They differ in their last digits if a text is computed alone, beside others in a
batch, or several tokens at a time. Where this could decide between two tokens, the logits are computed once more, in
the one way that depends on nothing but the ids so far: all of them in one pass without a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from picogpt import filters
from picogpt.arrays import Array
from picogpt.errors import UserError
from picogpt.penalties import DROPPED
from picogpt.sampling import Sampling

# relative to the largest logit: how much the difference of two logits may change if sums are computed in another order
TOO_CLOSE = 2e-5


class Chooser:
    """Chooses the tokens of one text, one after another.

    ids    the tokens so far, the prompt's and those that were chosen
    rng    where random numbers come from; None if nothing is drawn
    again  a function that computes the logits after `ids` from nothing but `ids`; without it, the first ones count

    A draw takes the largest of logits + noise, where each token has its own random number (Gumbel 1954). Two tokens are
    then seldom close. A draw by cumulative probability is close to a border for every unlikely token.
    """

    def __init__(
        self, sampling: Sampling, ids: Sequence[int], rng: np.random.Generator | None = None,
        again: Callable[[list[int]], Array] | None = None,
    ):  # fmt: skip
        self.sampling = sampling
        self.ids = list(ids)
        self.rng = rng
        self.again = again
        self.logits = np.empty(0, np.float32)  # from which the last token was chosen

    def next(self, logits: Array) -> int:  # [n_vocab] -> an id
        """The token that follows.

        Raises UserError if the logits are not finite, which means that the weights are damaged.

        >>> Chooser(Sampling(repetition_penalty=2.0), [1]).next(np.float32([0, 2, 1.5]))
        2
        """
        noise = None if self.rng is None else gumbel(len(logits), self.rng)
        token_id, sure = self.best(logits, noise)
        if not sure and self.again is not None:
            logits = self.again(self.ids)
            token_id, _ = self.best(logits, noise)
        self.logits = logits
        self.ids.append(token_id)
        return token_id

    def best(self, logits: Array, noise: Array | None) -> tuple[int, bool]:
        """The token to choose, and whether it is the same for all logits that differ by rounding alone."""
        largest = float(logits.max())
        check_finite(largest)
        how = self.sampling
        error = TOO_CLOSE * max(largest, -float(logits.min()))
        x = how.processed(logits, self.ids)
        if how.repetition_penalty != 1:
            error *= max(how.repetition_penalty, 1 / how.repetition_penalty)
        if noise is None:
            token_id = int(x.argmax())
            return token_id, np.count_nonzero(x >= x[token_id] - error) == 1
        temperature = min(max(how.temperature or 0.0, 1e-6), 1e30)  # others could overflow float32
        return drawn((x - x.max()) / temperature, noise, how, error / temperature)


def next_ids(sampling: Sampling, logits: Array, rngs: Sequence[np.random.Generator] = ()) -> Array:
    # [..., n_vocab] -> [...]
    """The next token of each row, whatever was before it; one rng per row. Raises UserError as Chooser.next does.

    >>> next_ids(Sampling(), np.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])).tolist()
    [1, 0]
    """
    rows = logits.reshape(-1, logits.shape[-1])
    ids = [Chooser(sampling, [], rngs[i] if rngs else None).next(row) for i, row in enumerate(rows)]
    return np.array(ids).reshape(logits.shape[:-1])


def check_finite(largest: float | Array) -> None:
    """Raise UserError if the largest logit, or that of a row, is not a finite number."""
    if not np.isfinite(largest).all():
        raise UserError(
            "the model's logits are not finite numbers: its weights are damaged; check them with "
            "python -m picogpt.verify MODEL, or fetch the model again"
        )


def drawn(x: Array, noise: Array, how: Sampling, error: float) -> tuple[int, bool]:  # [n_vocab], [n_vocab]
    """The token with the largest x + noise among those that the filters keep, and whether it is sure.

    It is if no other token comes close that the filters might keep, and if they keep this one in any case. `error` is
    how much the difference of two x may change.
    """
    left, doubt = x, 0.0
    sure: Any = True
    possible: Any = True
    for rule, setting in how.filters():
        border = rule(left, setting, error, doubt)
        sure = sure & (border.score > border.sure)
        possible = possible & ((border.score >= border.possible) | (left == DROPPED))
        left = filters.kept(left, border)
        doubt = probability_of(possible & ~sure, x, sure)
    token_id = int(draw(left, noise))
    close = (x + noise >= x[token_id] + noise[token_id] - error) & possible
    return token_id, bool(np.count_nonzero(close) == 1 and (sure is True or sure[token_id]))


def probability_of(tokens: Array, x: Array, others: Array) -> float:  # 3 x [n_vocab]
    """The probability of some tokens, relative to that of others."""
    if not tokens.any():
        return 0.0
    weights = np.exp(x)
    return float(weights[tokens].sum() / max(weights[others].sum(), 1e-30))


def gumbel(n: int, rng: np.random.Generator) -> Array:  # -> [n]
    """Random numbers such that argmax(logits + numbers) has the probabilities softmax(logits)."""
    return -np.log(rng.standard_exponential(n).astype(np.float32))


def draw(logits: Array, noise: Array) -> Array:  # [..., n_vocab], [..., n_vocab] -> [...]
    """One id per row with probability softmax(logits), by the noise that `gumbel` returns."""
    return np.asarray(np.argmax(logits + noise, axis=-1))
