"""What a model learns from: windows of a long text, or examples of the same length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from picogpt.arrays import Array, ArrayLike
from picogpt.errors import UserError

IGNORED = -1  # a target that does not count
WINDOWS = 64  # that are evaluated at a time


class Data(Protocol):
    """Inputs and targets, [n_rows, n_seq] each."""

    def draw(self, rng: np.random.Generator, n_rows: int) -> tuple[Array, Array]:
        """Rows at random, for training."""

    def in_order(self) -> Iterator[tuple[Array, Array]]:
        """All rows, a few at a time, for evaluation."""


class Windows:
    """Windows of n_seq tokens of a text. The targets are the same tokens, one position later.

    tokens  [n], ids; they may be a memory-mapped file

    Raises UserError if the text is not longer than a window.

    >>> text = Windows(np.arange(10), n_seq=4)
    >>> text.draw(np.random.default_rng(0), 2)
    (array([[5, 6, 7, 8],
           [3, 4, 5, 6]]), array([[6, 7, 8, 9],
           [4, 5, 6, 7]]))
    """

    def __init__(self, tokens: ArrayLike, n_seq: int):
        self.tokens, self.n_seq = np.asanyarray(tokens), n_seq
        if self.tokens.ndim != 1 or self.tokens.dtype.kind not in "iu":
            raise UserError(f"expected a list of token ids, found an array {self.tokens.dtype} {self.tokens.shape}")
        if len(self.tokens) <= n_seq:
            raise UserError(
                f"expected a text longer than a window of {n_seq} tokens, found {len(self.tokens)} tokens: "
                "use a longer text or a smaller n_ctx"
            )

    def draw(self, rng: np.random.Generator, n_rows: int) -> tuple[Array, Array]:
        """Windows that begin anywhere."""
        starts = rng.integers(0, len(self.tokens) - self.n_seq, n_rows)
        rows = self.tokens[starts[:, None] + np.arange(self.n_seq + 1)].astype(np.int64)
        return rows[:, :-1], rows[:, 1:]

    def in_order(self) -> Iterator[tuple[Array, Array]]:
        """Windows without overlap: every token but the first is a target once. The last window may be padded."""
        n_rows = -(-(len(self.tokens) - 1) // self.n_seq)
        for first in range(0, n_rows, WINDOWS):
            rows = np.arange(first, min(first + WINDOWS, n_rows))
            at = rows[:, None] * self.n_seq + np.arange(self.n_seq + 1)
            ids = self.tokens[np.minimum(at, len(self.tokens) - 1)].astype(np.int64)
            yield ids[:, :-1], np.where(at[:, 1:] < len(self.tokens), ids[:, 1:], IGNORED)


class Examples:
    """Examples of the same length, with targets of their own.

    inputs, targets  [n_rows, n_seq]; targets below 0 do not count
    """

    def __init__(self, inputs: ArrayLike, targets: ArrayLike):
        self.inputs, self.targets = np.asarray(inputs), np.asarray(targets)
        if self.inputs.ndim != 2 or self.inputs.shape != self.targets.shape or self.inputs.size == 0:
            raise UserError(
                f"expected inputs and targets [n_rows, n_seq], found {self.inputs.shape} and {self.targets.shape}"
            )

    def draw(self, rng: np.random.Generator, n_rows: int) -> tuple[Array, Array]:
        """Examples at random; the same one may come twice."""
        rows = rng.integers(0, len(self.inputs), n_rows)
        return self.inputs[rows], self.targets[rows]

    def in_order(self) -> Iterator[tuple[Array, Array]]:
        """All examples."""
        for first in range(0, len(self.inputs), WINDOWS):
            rows = slice(first, first + WINDOWS)
            yield self.inputs[rows], self.targets[rows]
