"""The loss of GPT-2 and its gradient: the layers of layers.py, forward and then backward in reverse order.

`params` is the tree of weights that inference uses. Gradients are a tree of the same form. If the head is wte, wte gets
gradients from both ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from picogpt.arrays import Array, ArrayLike, Params
from picogpt.gpt2 import head_of
from picogpt.training.layers import (
    Saved,
    attention_backward,
    attention_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    dropout_backward,
    dropout_forward,
    embedding_backward,
    embedding_forward,
    gelu_backward,
    gelu_forward,
    layer_norm_backward,
    layer_norm_forward,
    linear_backward,
    linear_forward,
)
from picogpt.training.parameters import flat


def loss_and_grads(
    params: Params, inputs: ArrayLike, targets: ArrayLike, n_head: int, dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[float, Params]:  # [..., n_seq], [..., n_seq]  # fmt: skip
    """The mean cross-entropy in nats, and its gradient with respect to every parameter: a tree like params.

    targets are the ids that follow each position of inputs; those below 0 do not count. With rng, activations are
    dropped at the rate `dropout`. Weights may be float64, as for comparison with finite differences.

    >>> from picogpt import load
    >>> model = load("shakespeare")
    >>> ids = model.encode("To be, or not to be, that is the question")
    >>> loss, grads = loss_and_grads(model.params, ids[:-1], ids[1:], model.hparams["n_head"])
    >>> loss < 6, grads["wte"].shape
    (True, (1024, 192))
    """
    grads, targets = zeros_like(params), np.asarray(targets)
    found = add_grads(grads, params, np.asarray(inputs), targets, n_head, dropout, rng)
    n = max(int((targets >= 0).sum()), 1)
    for _, grad in flat(grads):
        grad /= n
    return float(found.sum(dtype=np.float64)) / n, grads


def zeros_like(params: Any) -> Any:
    """A tree of zeros of the same form."""
    if isinstance(params, dict):
        return {name: zeros_like(value) for name, value in params.items()}
    if isinstance(params, list):
        return [zeros_like(value) for value in params]
    return np.zeros_like(params)


def losses(params: Params, inputs: Array, targets: Array, n_head: int) -> Array:
    # [..., n_seq], [..., n_seq] -> [..., n_seq]
    """The cross-entropy at each position; 0 where the target is below 0."""
    x = embedding_forward(inputs, params["wte"], params["wpe"])
    for block in params["blocks"]:
        x, _ = block_forward(x, **block, n_head=n_head)
    x, _ = layer_norm_forward(x, **params["ln_f"])
    return cross_entropy_forward(x, targets, head_of(params))


def add_grads(
    grads: Params, params: Params, inputs: Array, targets: Array, n_head: int, dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Array:  # [..., n_seq], [..., n_seq] -> [..., n_seq]  # fmt: skip
    """Add the gradient of the sum of losses to grads. Returns the loss at each position."""
    x = embedding_forward(inputs, params["wte"], params["wpe"])
    x, dropped = dropout_forward(x, dropout, rng)
    saved = []
    for block in params["blocks"]:
        x, s = block_forward(x, **block, n_head=n_head, dropout=dropout, rng=rng)
        saved.append(s)
    x, normed = layer_norm_forward(x, **params["ln_f"])
    losses, dx = cross_entropy_backward(x, targets, head_of(params), head_of(grads))
    dx = layer_norm_backward(dx, normed, params["ln_f"]["g"], grads["ln_f"])
    for block, grad in zip(reversed(params["blocks"]), reversed(grads["blocks"]), strict=True):
        dx = block_backward(dx, saved.pop(), **block, grads=grad)
    dx = dropout_backward(dx, dropped)
    embedding_backward(dx, inputs, grads)
    return losses


def block_forward(
    x: Array, mlp: Params, attn: Params, ln_1: Params, ln_2: Params, n_head: int, dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[Array, Saved]:  # [..., n_seq, n_embd] -> [..., n_seq, n_embd]  # fmt: skip
    a, norm_1 = layer_norm_forward(x, **ln_1)
    qkv = linear_forward(a, **attn["c_attn"])
    z, attended = attention_forward(qkv, n_head, dropout, rng)
    y, dropped_1 = dropout_forward(linear_forward(z, **attn["c_proj"]), dropout, rng)
    y += x
    m, norm_2 = layer_norm_forward(y, **ln_2)
    h, activated = gelu_forward(linear_forward(m, **mlp["c_fc"]))
    out, dropped_2 = dropout_forward(linear_forward(h, **mlp["c_proj"]), dropout, rng)
    out += y
    return out, (a, norm_1, attended, z, dropped_1, m, norm_2, h, activated, dropped_2)


def block_backward(
    dy: Array, saved: Saved, mlp: Params, attn: Params, ln_1: Params, ln_2: Params, grads: Params
) -> Array:  # [..., n_seq, n_embd] -> [..., n_seq, n_embd]
    a, norm_1, attended, z, dropped_1, m, norm_2, h, activated, dropped_2 = saved
    dh = linear_backward(dropout_backward(dy, dropped_2), h, mlp["c_proj"]["w"], grads["mlp"]["c_proj"])
    dm = linear_backward(gelu_backward(dh, activated), m, mlp["c_fc"]["w"], grads["mlp"]["c_fc"])
    dy = dy + layer_norm_backward(dm, norm_2, ln_2["g"], grads["ln_2"])
    dz = linear_backward(dropout_backward(dy, dropped_1), z, attn["c_proj"]["w"], grads["attn"]["c_proj"])
    da = linear_backward(attention_backward(dz, attended), a, attn["c_attn"]["w"], grads["attn"]["c_attn"])
    dy += layer_norm_backward(da, norm_1, ln_1["g"], grads["ln_1"])
    return dy
