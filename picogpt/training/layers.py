"""Every layer of GPT-2 with its gradient: x_forward computes the layer, x_backward undoes it by the chain rule.

Notation: for an array x on the way to the loss L, dx is the array of derivatives dL/dx, of the same shape as x. Forward
functions return their result and what the gradient needs of the way there. Backward functions take dy, return dx, and
add the gradients of weights to the arrays in `grads`, whose keys are those of the weights.

The formulas of the model are those of picogpt/reference.py. Letters of shapes as in picogpt/gpt2.py:

    ...      any batch axes, or none              n_embd   width of a hidden state
    n_seq    positions of a sequence              n_head   heads, each d_head = n_embd / n_head wide
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from picogpt.arrays import Array, Params
from picogpt.gpt2 import causal_mask

Saved: TypeAlias = Any  # what a backward function needs of its forward function

# sizes of blocks that stay in the processor's cache: numbers of elements, and of queries
ELEMENTS = 1 << 15
QUERIES = 64
COLUMNS = 4096  # tokens whose gradients are computed at a time
SAFE = 60.0  # scores below need no shift: exp(-60), exp(60) and their sums are normal numbers in float32


def linear_forward(x: Array, w: Array, b: Array) -> Array:  # [..., n_in], [n_in, n_out], [n_out] -> [..., n_out]
    y: Array = x @ w
    y += b
    return y


def linear_backward(dy: Array, x: Array, w: Array, grads: Params) -> Array:  # [..., n_out] -> [..., n_in]
    """Y = x w + b gives dx = dy w^T, dw = x^T dy, db = sum of dy over all positions."""
    rows_x, rows_dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    grads["w"] += rows_x.T @ rows_dy
    grads["b"] += sum_of_rows(rows_dy)
    dx: Array = dy @ w.T
    return dx


def sum_of_rows(x: Array) -> Array:  # [n, m] -> [m]
    return np.ones(len(x), x.dtype) @ x  # x.sum(axis=0), by BLAS


def row_sums(x: Array, y: Array) -> Array:  # [..., n], [..., n] -> [..., 1]
    sums: Array = np.einsum("...i,...i->...", x, y)  # without an array of products
    return sums[..., None]


def layer_norm_forward(x: Array, g: Array, b: Array, eps: float = 1e-5) -> tuple[Array, Saved]:
    # [..., n_embd] -> [..., n_embd]
    n_embd = x.shape[-1]
    z = x - np.einsum("...i->...", x)[..., None] / n_embd
    scale = 1 / np.sqrt(row_sums(z, z) / n_embd + eps)  # [..., 1]
    z *= scale
    y = z * g
    y += b
    return y, (z, scale)


def layer_norm_backward(dy: Array, saved: Saved, g: Array, grads: Params) -> Array:  # [..., n_embd] -> [..., n_embd]
    """With z = (x - mean) scale and y = z g + b: dz = dy g and dx = scale (dz - mean(dz) - z mean(z dz)).

    The two means come from the derivatives of x's mean and of its variance.
    """
    z, scale = saved
    n_embd = z.shape[-1]
    rows_dy, rows_z = dy.reshape(-1, n_embd), z.reshape(-1, n_embd)
    grads["g"] += np.einsum("ij,ij->j", rows_dy, rows_z)
    grads["b"] += sum_of_rows(rows_dy)
    dx = dy * g
    mean = np.einsum("...i->...", dx)[..., None] / n_embd
    projection = row_sums(dx, z) / n_embd
    dx -= mean
    dx -= z * projection
    dx *= scale
    return dx


def gelu_forward(x: Array) -> tuple[Array, Saved]:  # [...] -> [...]
    """X s(x) with s(x) = (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)) and u = sqrt(2/pi) (x + 0.044715 x^3).

    x is overwritten with the derivative of the result, s + x s (1 - s) 2 du/dx, which needs the same intermediate
    values.
    """
    y = np.empty_like(x)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    with np.errstate(over="ignore"):  # exp(-2u) = inf gives s = 0, which is right
        for start in range(0, flat_x.size, ELEMENTS):
            _gelu(flat_x[start : start + ELEMENTS], flat_y[start : start + ELEMENTS])
    return y, x


def _gelu(x: Array, y: Array) -> None:  # [n], [n]
    c = 2 * math.sqrt(2 / math.pi)
    square = x * x
    s = square * (-c * 0.044715)
    s -= c
    s *= x  # -2u
    np.exp(s, out=s)
    s += 1
    np.reciprocal(s, out=s)
    np.multiply(x, s, out=y)  # x s
    square *= 3 * c * 0.044715
    square += c  # 2 du/dx
    square *= y
    np.subtract(1, s, out=x)
    x *= square
    x += s


def gelu_backward(dy: Array, saved: Saved) -> Array:  # [...] -> [...]
    """Dx = dy times the derivative. dy is overwritten with it."""
    dy *= saved
    return dy


def keep_mask(shape: tuple[int, ...], rate: float, rng: np.random.Generator) -> Array:  # -> [*shape], of True, False
    """False with probability `rate`, which is rounded to a multiple of 1/65536: two random bytes for each number."""
    size = math.prod(shape)
    words = rng.integers(0, 1 << 64, size=-(-size // 4), dtype=np.uint64)
    keep: Array = words.view(np.uint16)[:size] >= round(rate * 65536)
    return keep.reshape(shape)


def dropout_forward(x: Array, rate: float, rng: np.random.Generator | None) -> tuple[Array, Saved]:  # [...] -> [...]
    """Set each number to 0 with probability `rate` and divide the others by 1 - rate (Srivastava et al. 2014).

    x is overwritten. Without rng nothing is dropped, as at inference.
    """
    if rng is None or rate == 0:
        return x, None
    keep, scale = keep_mask(x.shape, rate, rng), 1 / (1 - rate)
    x *= keep
    x *= scale
    return x, (keep, scale)


def dropout_backward(dy: Array, saved: Saved) -> Array:  # [...] -> [...]
    """Dx = dy / (1 - rate) where x was kept, 0 elsewhere."""
    if saved is None:
        return dy
    keep, scale = saved
    dx: Array = dy * keep
    dx *= scale
    return dx


def attention_forward(
    qkv: Array, n_head: int, rate: float = 0.0, rng: np.random.Generator | None = None
) -> tuple[Array, Saved]:  # [..., n_seq, 3*n_embd] -> [..., n_seq, n_embd]
    """Causal attention of all heads: y = p v with p = softmax(q k^T / sqrt(d_head)), some of p dropped.

    A block of queries looks at the keys up to its last query. The weights are kept as e = exp(scores), without their
    normalization r = 1 / sum(e), which goes to the result: p v = r (e v), and e v is narrower than e.
    """
    q, k, v = split_heads(qkv, n_head)  # 3 x [..., n_head, n_seq, d_head]
    n_seq, d_head = q.shape[-2:]
    q = q / math.sqrt(d_head)
    y = np.empty_like(qkv, shape=(*qkv.shape[:-1], n_head * d_head))
    y_heads = heads(y, n_head)
    shift = longest(q) * longest(k) > SAFE  # no score is larger than this product
    blocks = []
    for start in range(0, n_seq, QUERIES):
        end = min(start + QUERIES, n_seq)
        e = q[..., start:end, :] @ k[..., :end, :].swapaxes(-1, -2)  # [..., n_head, end - start, end]
        if shift:
            e[..., start:] += causal_mask(end - start)  # a later position must not be the largest
            e -= e.max(axis=-1, keepdims=True)
        np.exp(e, out=e)
        e[..., start:] *= lower_triangle(end - start)  # 0 for later positions
        r = 1 / np.einsum("...i->...", e)[..., None]  # [..., n_head, end - start, 1]
        kept, keep = e, None
        if rng is not None and rate > 0:
            keep = keep_mask(e.shape, rate, rng)
            kept = e * keep
            r_kept = r / (1 - rate)
        else:
            r_kept = r
        np.multiply(kept @ v[..., :end, :], r_kept, out=y_heads[..., start:end, :])
        blocks.append((start, end, e, keep, r, r_kept))
    return y, (q, k, v, y, blocks)


def attention_backward(dy: Array, saved: Saved) -> Array:  # [..., n_seq, n_embd] -> [..., n_seq, 3*n_embd]
    """With s = q k^T and p = softmax(s): dv = p^T dy, dp = dy v^T, ds = p (dp - sum(p dp)), dq = ds k, dk = ds^T q.

    The sum of p dp over the keys is the sum of y dy over the width of a head (Dao et al. 2022, appendix B). In p = r e
    the factor r goes to dy, which is narrower. Dropout lies between p and v, so dp gets its zeros and its factor.
    """
    q, k, v, y, blocks = saved
    dqkv: Array = np.empty_like(y, shape=(*y.shape[:-1], 3 * y.shape[-1]))
    dq, *dkv = split_heads(dqkv, q.shape[-3])  # views: sums are made in arrays of their own, which is faster
    dk, dv = np.zeros((2, *q.shape), q.dtype)
    y, dy = heads(y, q.shape[-3]), heads(dy, q.shape[-3])
    for start, end, e, keep, r, r_kept in reversed(blocks):
        y_block, dy_block = y[..., start:end, :], dy[..., start:end, :]
        scaled = dy_block * r_kept
        ds = scaled @ v[..., :end, :].swapaxes(-1, -2)  # [..., n_head, end - start, end]
        if keep is not None:
            ds *= keep
        ds -= row_sums(y_block, dy_block) * r
        ds *= e
        kept = e if keep is None else e * keep
        dq[..., start:end, :] = ds @ k[..., :end, :]
        dk[..., :end, :] += ds.swapaxes(-1, -2) @ q[..., start:end, :]
        dv[..., :end, :] += kept.swapaxes(-1, -2) @ scaled
    dq /= math.sqrt(q.shape[-1])
    dkv[0][...], dkv[1][...] = dk, dv
    return dqkv


def heads(x: Array, n_head: int) -> Array:  # [..., n_seq, n_embd] -> [..., n_head, n_seq, d_head], a view
    return x.reshape(*x.shape[:-1], n_head, -1).swapaxes(-2, -3)


def split_heads(qkv: Array, n_head: int) -> tuple[Array, Array, Array]:
    # [..., n_seq, 3*n_embd] -> 3 x [..., n_head, n_seq, d_head], views
    q, k, v = np.split(heads(qkv, 3 * n_head), 3, axis=-3)
    return q, k, v


def longest(x: Array) -> float:  # [..., d_head] -> the largest norm of a row
    return math.sqrt(np.einsum("...i,...i->...", x, x).max())


@cache
def lower_triangle(n: int) -> Array:  # -> [n, n]
    return np.tri(n, dtype=np.float32)


def embedding_forward(inputs: Array, wte: Array, wpe: Array) -> Array:  # [..., n_seq] -> [..., n_seq, n_embd]
    x: Array = wte[inputs]
    x += wpe[: inputs.shape[-1]]
    return x


def embedding_backward(dy: Array, inputs: Array, grads: Params) -> None:  # [..., n_seq, n_embd]
    """Each row of wte gets the sum of dy over the positions where its token stands, each row of wpe over the batch."""
    n_seq, n_embd = dy.shape[-2:]
    grads["wpe"][:n_seq] += dy.reshape(-1, n_seq, n_embd).sum(axis=0)
    order = np.argsort(inputs, axis=None, kind="stable")
    ids, starts = np.unique(inputs.reshape(-1)[order], return_index=True)
    grads["wte"][ids] += np.add.reduceat(dy.reshape(-1, n_embd)[order], starts)


def cross_entropy_forward(x: Array, targets: Array, head: Array) -> Array:  # [..., n_embd], [...] -> [...]
    """-log softmax(x head^T) at each target, and 0 where the target is below 0."""
    rows, ids = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    losses = np.empty(len(rows), x.dtype)
    for block in row_blocks(len(rows), len(head)):
        losses[block] = softmax_and_losses(rows[block] @ head.T, ids[block])
    return losses.reshape(targets.shape)


def cross_entropy_backward(x: Array, targets: Array, head: Array, dhead: Array) -> tuple[Array, Array]:
    # [..., n_embd], [...] -> [...], [..., n_embd]
    """The losses, and dx of their sum: dlogits = softmax(logits) - one_hot(target), dx = dlogits head.

    The gradient of the head is added to dhead. The logits of a block of rows are computed, used and forgotten.
    """
    rows, ids = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
    losses, dx = np.empty(len(rows), x.dtype), np.empty_like(rows)
    for block in row_blocks(len(rows), len(head)):
        dlogits = rows[block] @ head.T  # [n_rows, n_vocab], still the logits
        losses[block] = softmax_and_losses(dlogits, ids[block])
        dlogits[np.arange(len(dlogits)), ids[block]] -= 1
        dlogits[ids[block] < 0] = 0
        np.matmul(dlogits, head, out=dx[block])
        for start in range(0, len(head), COLUMNS):
            columns = slice(start, start + COLUMNS)
            dhead[columns] += dlogits[:, columns].T @ rows[block]
    return losses.reshape(targets.shape), dx.reshape(x.shape)


def softmax_and_losses(logits: Array, targets: Array) -> Array:  # [n_rows, n_vocab], [n_rows] -> [n_rows]
    """-log softmax(logits) at each target, 0 where it is below 0. logits are overwritten with softmax(logits)."""
    at_target = logits[np.arange(len(logits)), targets]
    largest = logits.max(axis=-1)
    logits -= largest[:, None]
    np.exp(logits, out=logits)
    sums = np.einsum("ij->i", logits)
    logits /= sums[:, None]
    found: Array = np.where(targets < 0, 0, np.log(sums) + largest - at_target)
    return found


def row_blocks(n_rows: int, n_vocab: int) -> Iterator[slice]:
    """Rows whose logits are computed at a time: few for the cache, more if a large head has to be read for each."""
    size = min(max(n_vocab // 64, 64), 256)
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))
