"""`x @ w` as fast as NumPy can do it for any number of rows: one, a few, many.

One row is a matrix times a vector, which takes as long as reading w from memory. Many rows are a large product, at
which BLAS is best. In between, for a handful of rows (samples of one prompt, guessed tokens to verify), the large
product's preparations cost two to three times as much as reading w. There, BLAS has kernels without preparations
that it takes for small products only; so w is cut into pieces small enough for them, and since they use one core,
each core gets its share of the pieces.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from picogpt import Array

FEW_ROWS = range(2, 33)
PIECE = 1 << 18  # multiplications in a small product: OpenBLAS shares out larger ones among its own threads
SMALL_MATRIX = 1 << 19  # elements: below, handing work to another thread takes longer than the work


def matmul(x: Array, w: Array) -> Array:  # [n_rows, n_in], [n_in, n_out] -> [n_rows, n_out]
    if len(x) not in FEW_ROWS or w.size < SMALL_MATRIX or not w.flags.f_contiguous:
        return x @ w
    n_rows, n_in = x.shape
    n_out = w.shape[1]
    out = np.empty((n_rows, n_out), x.dtype)
    width = max(PIECE // (n_rows * n_in), 8)  # columns of w in a piece
    share = -(-n_out // (n_cores() * width)) * width  # columns of w for a core
    shares = [slice(start, min(start + share, n_out)) for start in range(0, n_out, share)]
    others = [workers().submit(_in_pieces, x, w[:, cut], width, out[:, cut]) for cut in shares[1:]]
    _in_pieces(x, w[:, shares[0]], width, out[:, shares[0]])
    for other in others:
        other.result()
    return out


def _in_pieces(x: Array, w: Array, width: int, out: Array) -> None:
    """Put x @ w into out, width columns at a time: one batched product, so that Python is asked once."""
    n_whole = w.shape[1] // width * width
    pieces = w[:, :n_whole].reshape(len(w), -1, width).swapaxes(0, 1)  # [n_pieces, n_in, width]
    np.matmul(x, pieces, out=out[:, :n_whole].reshape(len(x), -1, width).swapaxes(0, 1))
    if n_whole < w.shape[1]:
        np.matmul(x, w[:, n_whole:], out=out[:, n_whole:])


@cache
def n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def workers() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(max(n_cores() - 1, 1), thread_name_prefix="matmul")
