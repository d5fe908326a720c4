"""`x @ w` as fast as NumPy can do it for any number of rows: one, a few, many. Skip this file at the first reading.

The result is that of `x @ w`, up to rounding. Only the time differs.

- One row: a matrix times a vector takes as long as reading w from memory, and NumPy does this well.
- Many rows: a large product, which BLAS, the library that NumPy calls, does best.
- A few rows (samples of one prompt, guessed tokens to verify): BLAS first rearranges the matrices as for a large
  product, which takes two to three times as long as reading w. On a processor with AVX-512 it has kernels for small
  products that skip this. So w is cut into pieces that are small enough for these kernels. Each of them runs on one
  core, so the pieces are shared out among threads, one for each core. The scores of a few queries are cut into pieces
  for the same reason.
- A few rows without AVX-512: BLAS is quickest with 8 rows or a multiple of 8 (2 rows took longer than 8), so rows of
  zeros are added. Up to 4 rows are quicker one after another: only the first has to wait for the memory, if some
  columns of w are done before the next, so that they stay in the processor's cache.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np

from picogpt.arrays import Array
from picogpt.cores import n_cores

FEW_ROWS = range(2, 13)
FEW_EIGHTS = range(2, 65)  # where there is no AVX-512: rows that are filled up to a multiple of 8
N_SINGLE = 4  # or multiplied one after another, up to this many
BLOCK = 1 << 20  # elements of w at a time, if its columns are contiguous
BLOCK_BY_ROWS = 1 << 22  # the same if its rows are contiguous, for single rows

SMALL_MATRIX = 1 << 19  # elements of w; below, it takes longer to hand work to another thread than to do it

# The limits of a piece. OpenBLAS computes up to 2^18 multiplications on one core. For more it may wake its own threads,
# which then keep a core busy for a while, waiting for more work. Its small kernels take up to 10^6
# multiplications and, where the columns of w are contiguous, 1200 outputs (sgemm_small_kernel_permit_skylakex.c).
MULTIPLICATIONS = 1 << 18
OUTPUTS = 1200


@cache
def has_avx512() -> bool:
    """Whether NumPy found a processor with AVX-512, for which OpenBLAS has kernels for small products."""
    simd = np.show_config(mode="dicts").get("SIMD Extensions", {})
    return not {"X86_V4", "AVX512_SKX"}.isdisjoint((*simd.get("baseline", ()), *simd.get("found", ())))


def matmul(x: Array, w: Array) -> Array:  # [..., n_rows, n_in], [..., n_in, n_out] -> [..., n_rows, n_out]
    """`x @ w`, faster if x has a few rows and w is in Fortran order, so that its columns are contiguous.

    >>> x, w = np.ones((2, 3), np.float32), np.asfortranarray(np.ones((3, 4), np.float32))
    >>> matmul(x, w)
    array([[3., 3., 3., 3.],
           [3., 3., 3., 3.]], dtype=float32)
    """
    if x.ndim > 2 and w.ndim == 2:  # all batch axes in one product, which reads w once
        return matmul(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[1])
    if x.ndim < 2 or x.shape[-2] == 1:
        return x @ w
    if gains_by_columns(x, w):
        return _by_columns(x, w)
    if not gains_from_pieces(x, w):
        return x @ w
    n_rows, (n_in, n_out) = x.shape[-2], w.shape[-2:]
    width = max(min(MULTIPLICATIONS // (n_rows * n_in), OUTPUTS // n_rows) // 4 * 4, 4)  # columns of w in a piece
    share = -(-n_out // (n_cores() * width)) * width if w.size >= SMALL_MATRIX else n_out  # columns of w for a core
    shares = [(..., slice(start, start + share)) for start in range(0, n_out, share)]
    out = np.empty((*x.shape[:-1], n_out), x.dtype)
    try:
        others = [_threads().submit(_in_thread, np.geterr(), x, w[cut], width, out[cut]) for cut in shares[1:]]
    except RuntimeError:  # no new threads: the system has no more, or the interpreter is shutting down
        return x @ w
    _in_pieces(x, w[shares[0]], width, out[shares[0]])
    for other in others:
        other.result()
    return out


def gains_from_pieces(x: Array, w: Array) -> bool:
    """Whether x has a few rows, w is in Fortran order, both are float32, and nothing but a single w is broadcast.

    Without AVX-512, only small matrices and those of heads gain.
    """
    return (
        x.ndim > 1
        and x.shape[-2] in FEW_ROWS
        and w.ndim > 1
        and w.strides[-2] == w.itemsize
        and w.size > 0
        and x.dtype == w.dtype == np.float32
        and (w.ndim == 2 or w.shape[:-2] == x.shape[:-2])
        and (w.ndim > 2 or w.size < SMALL_MATRIX or has_avx512())
    )


def gains_by_columns(x: Array, w: Array) -> bool:
    """Whether x has a few rows, w is large, both are float32, and there is no AVX-512.

    8 rows or a multiple are left to BLAS, unless the columns of w are contiguous, and there are many.
    """
    return (
        x.ndim == w.ndim == 2
        and len(x) in FEW_EIGHTS
        and (len(x) % 8 > 0 or (w.strides[0] == w.itemsize and w.shape[1] > 4 * len(w)))
        and w.size >= SMALL_MATRIX
        and x.dtype == w.dtype == np.float32
        and x.shape[1] == len(w)
        and not has_avx512()
    )


def _by_columns(x: Array, w: Array) -> Array:
    """Compute x @ w row by row, or with rows of zeros below x; some columns of w at a time, where this is quicker."""
    n_rows, (n_in, n_out) = len(x), w.shape
    single, columns_are_contiguous = n_rows <= N_SINGLE, w.strides[0] == w.itemsize
    groups = x[:, None] if single else _filled_to_eights(x)[None]  # [n_rows, 1, n_in], or [1, n_filled, n_in]
    wide = n_out  # columns of w at a time
    if single or columns_are_contiguous:
        wide = max((BLOCK if columns_are_contiguous else BLOCK_BY_ROWS) // n_in // 64 * 64, 64)
    out = np.empty((*groups.shape[:-1], n_out), x.dtype)
    for start in range(0, n_out, wide):
        np.matmul(groups, w[:, start : start + wide], out=out[..., start : start + wide])
    return out.reshape(-1, n_out)[:n_rows]


def _filled_to_eights(x: Array) -> Array:  # [n_rows, n_in] -> [n_filled, n_in]
    return np.concatenate([x, np.zeros((-len(x) % 8, x.shape[1]), x.dtype)])


def _in_pieces(x: Array, w: Array, width: int, out: Array) -> None:
    """Write x @ w to out, width columns at a time, as one batched product: a single call from Python."""
    n_pieces, n_left = divmod(w.shape[-1], width)
    pieces = w[..., : n_pieces * width].reshape(*w.shape[:-1], n_pieces, width)  # [..., n_in, n_pieces, width]
    outs = out[..., : n_pieces * width].reshape(*out.shape[:-1], n_pieces, width)  # [..., n_rows, n_pieces, width]
    np.matmul(x[..., None, :, :], pieces.swapaxes(-2, -3), out=outs.swapaxes(-2, -3))
    if n_left:
        np.matmul(x, w[..., -n_left:], out=out[..., -n_left:])


def _in_thread(errors: Any, x: Array, w: Array, width: int, out: Array) -> None:
    with np.errstate(**errors):  # np.errstate holds for one thread only
        _in_pieces(x, w, width, out)


@cache
def _threads() -> Any:
    """A ThreadPoolExecutor with a thread for each other core, kept: waking a thread is quicker than starting one."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(max(n_cores() - 1, 1), thread_name_prefix="matmul")


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads and must start its own
    os.register_at_fork(after_in_child=_threads.cache_clear)
