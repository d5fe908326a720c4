"""`x @ w` as fast as NumPy can do it for any number of rows: one, a few, many.

One row is a matrix times a vector, which takes as long as reading w from memory. Many rows are a large product, at
which BLAS is best. In between, for a handful of rows (samples of one prompt, guessed tokens to verify), the large
product's preparations cost two to three times as much as reading w. There, BLAS has kernels without preparations
that it takes for small products only; so w is cut into pieces small enough for them, and since they use one core,
each core gets its share of the pieces. The products of attention with a few queries are cut for the same reason.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from picogpt.arrays import Array

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

FEW_ROWS = range(2, 33)
SMALL_MATRIX = 1 << 19  # elements: below, handing work to another thread takes longer than the work

# Of a piece, at most. OpenBLAS does a product of up to 2^18 multiplications on one core; a larger one may wake its own
# threads, which then wait for more for a tenth of a second, on a core that is ours. Its small kernels take up to 10^6
# multiplications and, where columns are read, 1200 outputs (sgemm_small_kernel_permit_skylakex.c).
MULTIPLICATIONS = 1 << 18
OUTPUTS = 1200


def matmul(x: Array, w: Array) -> Array:  # [..., n_rows, n_in], [..., n_in, n_out] -> [..., n_rows, n_out]
    """`x @ w`, of one dtype. x has all of w's batch axes; w may have none."""
    n_rows, n_in = x.shape[-2:]
    if n_rows not in FEW_ROWS or w.strides[-2] != w.itemsize:
        return x @ w
    n_out = w.shape[-1]
    width = max(min(MULTIPLICATIONS // (n_rows * n_in), OUTPUTS // n_rows) // 4 * 4, 4)  # columns of w in a piece
    out = np.empty((*x.shape[:-1], n_out), x.dtype)
    share = -(-n_out // (n_cores() * width)) * width if w.size >= SMALL_MATRIX else n_out  # columns of w for a core
    shares = [(..., slice(start, start + share)) for start in range(0, n_out, share)]
    others = [workers().submit(_in_pieces, x, w[cut], width, out[cut]) for cut in shares[1:]]
    _in_pieces(x, w[shares[0]], width, out[shares[0]])
    for other in others:
        other.result()
    return out


def _in_pieces(x: Array, w: Array, width: int, out: Array) -> None:
    """Put x @ w into out, width columns at a time: one batched product, so that Python is asked once."""
    n_pieces, n_left = divmod(w.shape[-1], width)
    pieces = w[..., : n_pieces * width].reshape(*w.shape[:-1], n_pieces, width)  # [..., n_in, n_pieces, width]
    outs = out[..., : n_pieces * width].reshape(*out.shape[:-1], n_pieces, width)  # [..., n_rows, n_pieces, width]
    np.matmul(x[..., None, :, :], pieces.swapaxes(-2, -3), out=outs.swapaxes(-2, -3))
    if n_left:
        np.matmul(x, w[..., -n_left:], out=out[..., -n_left:])


@cache
def n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def workers() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(max(n_cores() - 1, 1), thread_name_prefix="matmul")
