"""One new token of one text, as fast as NumPy can take it through the model. Skip this file at the first reading.

The result is that of the functions in gpt2.py, up to rounding. A token costs one reading of the weights from memory.
Between the products with weights are small NumPy calls, a few microseconds each, in which the memory rests. gpt2.py,
whose functions take any number of texts and tokens, has about ninety of them in each layer. Here are half as many, for
this case alone, and their arrays are made once and then written in place. A token takes a tenth less time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from picogpt.arrays import Array, Params


class OneToken:
    """A model, a cache's keys and values, and the arrays in which a token is computed.

    array  [n_layer, 2, n_head, max_length, d_head]
    gelu   that of gpt2.py, which cannot be imported here
    """

    def __init__(self, params: Params, head: Array, array: Array, gelu: Callable[..., Array]):
        _, _, n_head, _, d_head = array.shape
        n_embd = n_head * d_head
        self.params, self.head, self.array, self.gelu = params, head, array, gelu
        self.average = np.full(n_embd, 1 / n_embd, np.float32)  # x @ average is the mean of x
        self.normed, self.merged, self.added = np.empty((3, n_embd), np.float32)
        self.qkv = np.empty((3, n_head, d_head), np.float32)
        self.inner = np.empty(4 * n_embd, np.float32)

    def logits(self, token: int, position: int) -> Array:  # -> [n_vocab]
        """Take a token through the model at a position that follows those in the cache, and write it to the cache."""
        x = self.params["wte"][token] + self.params["wpe"][position]  # [n_embd]
        for block, (keys, values) in zip(self.params["blocks"], self.array, strict=True):
            self.attention(self.layer_norm(x, **block["ln_1"]), **block["attn"], keys=keys, values=values, n=position)
            x += self.added
            self.ffn(self.layer_norm(x, **block["ln_2"]), **block["mlp"])
            x += self.added
        logits: Array = np.dot(self.layer_norm(x, **self.params["ln_f"]), self.head.T)
        return logits

    def layer_norm(self, x: Array, g: Array, b: Array, eps: float = 1e-5) -> Array:  # [n_embd] -> [n_embd]
        y: Array = np.subtract(x, np.dot(x, self.average), out=self.normed)
        y *= 1 / math.sqrt(np.dot(y, y) / len(y) + eps)
        y *= g
        y += b
        return y

    def attention(self, x: Array, c_attn: Params, c_proj: Params, keys: Array, values: Array, n: int) -> None:
        q, k, v = self.qkv
        linear(x, **c_attn, out=self.qkv.reshape(-1))
        keys[:, n] = k
        values[:, n] = v
        q *= 1 / math.sqrt(q.shape[-1])
        p = np.matmul(q[:, None], keys[:, : n + 1].swapaxes(-1, -2))  # [n_head, 1, n + 1]
        p -= np.maximum.reduce(p, axis=-1, keepdims=True)
        np.exp(p, out=p)
        z = np.matmul(p, values[:, : n + 1], out=self.merged.reshape(len(q), 1, -1))  # [n_head, 1, d_head]
        z /= np.add.reduce(p, axis=-1, keepdims=True)  # softmax's division, here of fewer numbers
        linear(self.merged, **c_proj, out=self.added)

    def ffn(self, x: Array, c_fc: Params, c_proj: Params) -> None:
        linear(x, **c_fc, out=self.inner)
        linear(self.gelu(self.inner, out=self.inner), **c_proj, out=self.added)


def linear(x: Array, w: Array, b: Array, out: Array) -> None:  # [n_in], [n_in, n_out], [n_out], [n_out]
    np.dot(x, w, out=out)
    out += b
