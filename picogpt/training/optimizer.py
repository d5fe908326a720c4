"""AdamW (Loshchilov and Hutter 2019), the learning rate's schedule, and the limit of the gradient's norm.

Everything works on vectors that hold all weights of a model, see parameters.py.
"""

from __future__ import annotations

import math

import numpy as np

from picogpt.arrays import Array
from picogpt.training.settings import Settings

BLOCK = 1 << 15  # elements, so that intermediate values stay in the processor's cache


def learning_rate(step: int, settings: Settings) -> float:
    """The rate at a step, counted from 0: it rises to its maximum, then falls along half a cosine to its minimum.

    >>> settings = Settings(learning_rate=1.0, min_learning_rate=0.1, warmup_steps=10, steps=100)
    >>> [round(learning_rate(step, settings), 2) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.55, 0.1]
    """
    peak, least, warmup = settings.learning_rate, settings.min_learning_rate, settings.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min((step - warmup) / max(settings.steps - warmup, 1), 1.0)
    return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * progress))


def norm(grads: Array) -> float:  # [n]
    """The Euclidean length of a vector."""
    return math.sqrt(sum(float(b @ b) for b in np.split(grads, range(BLOCK, len(grads), BLOCK))))


class AdamW:
    """The state of the optimizer: running means of the gradient and of its square, [n] each."""

    def __init__(self, n: int, n_matrices: int):
        self.mean, self.square = np.zeros(n, np.float32), np.zeros(n, np.float32)
        self.n_matrices = n_matrices

    def update(self, values: Array, grads: Array, scale: float, step: int, settings: Settings, part: slice) -> None:
        """Change a part of the weights in place, given the gradient times 1/scale. The first step is 0.

        m = beta_1 m + (1 - beta_1) g          v = beta_2 v + (1 - beta_2) g^2
        w = w (1 - rate decay) - rate m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + eps)

        >>> optimizer, weights = AdamW(3, n_matrices=0), np.float32([1, 1, 1])
        >>> settings = Settings(learning_rate=0.1, warmup_steps=0)
        >>> optimizer.update(weights, np.float32([5, 0, -5]), 1.0, 0, settings, slice(0, 3))
        >>> weights
        array([0.9, 1. , 1.1], dtype=float32)
        """
        rate = learning_rate(step, settings)
        beta_1, beta_2 = settings.beta_1, settings.beta_2
        rate_1, root_2 = rate / (1 - beta_1 ** (step + 1)), 1 / math.sqrt(1 - beta_2 ** (step + 1))
        for start in range(part.start, part.stop, BLOCK):
            block = slice(start, min(start + BLOCK, part.stop))
            w, m, v = values[block], self.mean[block], self.square[block]
            g = grads[block] * scale
            m *= beta_1
            m += g * (1 - beta_1)
            v *= beta_2
            g *= g
            g *= 1 - beta_2
            v += g
            n_decayed = max(min(self.n_matrices - start, len(w)), 0)
            w[:n_decayed] *= 1 - rate * settings.weight_decay
            np.sqrt(v, out=g)
            g *= root_2
            g += settings.eps
            np.divide(m, g, out=g)
            g *= rate_1
            w -= g
