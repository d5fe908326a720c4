"""Addition as a language, "50+32=82", as in the GPT-3 paper (Brown et al. 2020) and minGPT's play_math.

The numbers are written as they are, without zeros before them, and <|endoftext|> ends the result. Only the result
counts as a target: the numbers before it are random.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from picogpt import gpt2
from picogpt.arrays import Array, Params
from picogpt.encoder import END_OF_TEXT, Encoder
from picogpt.errors import UserError
from picogpt.training.data import IGNORED, Examples

CHARACTERS = "+0123456789="
BATCH = 1024  # sums that are computed at a time


def encoder() -> Encoder:
    """Each character and <|endoftext|> as one token.

    >>> encoder().encode("50+32=")
    [6, 1, 0, 4, 3, 11]
    """
    return Encoder({token: i for i, token in enumerate([*CHARACTERS, END_OF_TEXT])}, [])


def split(n_digits: int, held_out: float, seed: int) -> tuple[Array, Array]:  # -> [n, 2], [n, 2]
    """All pairs of numbers with up to n_digits digits, to train on and held out. a, b is where b, a is.

    >>> train, held_out = split(1, 0.1, seed=0)
    >>> len(train), len(held_out), held_out[:4].tolist()
    (89, 11, [[1, 1], [1, 2], [1, 9], [2, 1]])

    Raises UserError if one of them would be empty.
    """
    a, b = np.triu_indices(10**n_digits)
    if not 0 < held_out < 1 or not 0 < (n_out := round(len(a) * held_out)) < len(a):
        raise UserError(f"held_out must lie between 0 and 1, found {held_out}: try 0.1")
    is_out = np.zeros(len(a), bool)
    is_out[np.random.default_rng(seed).permutation(len(a))[:n_out]] = True
    return both_orders(a[~is_out], b[~is_out]), both_orders(a[is_out], b[is_out])


def both_orders(a: Array, b: Array) -> Array:  # [n], [n] -> [n, 2]
    return np.unique(np.concatenate([np.stack([a, b], 1), np.stack([b, a], 1)]), axis=0)


def text_of(a: int, b: int, reverse: bool = False) -> str:
    """A sum. With reverse, the digits of the result come in the order in which they are computed.

    >>> text_of(50, 42), text_of(50, 42, reverse=True)
    ('50+42=92', '50+42=29')
    """
    result = str(a + b)
    return f"{a}+{b}={result[::-1] if reverse else result}"


def examples(pairs: Array, n_digits: int, reverse: bool = False) -> Examples:  # [n, 2]
    """The sums of pairs as inputs and targets of the same length.

    >>> data = examples(np.array([[5, 4]]), n_digits=1)
    >>> data.inputs, data.targets
    (array([[ 6,  0,  5, 11, 10, 12]]), array([[-1, -1, -1, 10, 12, -1]]))
    """
    ids, end = {c: i for i, c in enumerate(CHARACTERS)}, len(CHARACTERS)
    length = len(text_of(10**n_digits - 1, 10**n_digits - 1))
    texts = [text_of(a, b, reverse) for a, b in pairs.tolist()]
    rows = np.array([[ids[c] for c in text] + [end] * (length + 1 - len(text)) for text in texts])
    counts = np.array([text.index("=") for text in texts])[:, None], np.array([len(text) for text in texts])[:, None]
    at = np.arange(length)
    return Examples(rows[:, :-1], np.where((at >= counts[0]) & (at < counts[1]), rows[:, 1:], IGNORED))


def right(data: Examples, params: Params, n_head: int) -> Array:  # -> [n_rows]
    """Whether the likeliest tokens are those of the whole result, for each sum.

    If they are, greedy generation from the numbers gives the result: each token follows from right ones.
    """
    borders = [*range(0, len(data.inputs), BATCH), len(data.inputs)]
    parts = [slice(start, stop) for start, stop in pairwise(borders)]
    found = np.concatenate([gpt2.gpt2(data.inputs[part], **params, n_head=n_head).argmax(-1) for part in parts])
    is_right: Array = (found == data.targets) | (data.targets == IGNORED)
    return np.asarray(is_right.all(axis=1))
