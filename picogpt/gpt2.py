"""GPT-2 in NumPy, from token ids to text: the model, its cache, generation and the command line, top to bottom.

The functions are those of the tutorial "GPT in 60 Lines of NumPy"; their keyword names are the keys of the nested
dict of weights, so `**params` and `**block` hand each function its own. Formulas follow OpenAI's model.py.

References:
- Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2)
- https://github.com/openai/gpt-2/blob/master/src/model.py and sample.py
- https://jaykmody.com/blog/gpt-from-scratch

The letters of the shapes:

    n_vocab   tokens in the vocabulary               124M: 50257
    n_ctx     positions the model can see                   1024
    n_embd    width of a hidden state                        768
    n_head    attention heads                                 12
    d_head    n_embd / n_head, width of one head              64
    n_layer   transformer blocks                              12
    n_seq     positions in this call; n_past before them are in the cache; n_k = n_past + n_seq
    n_wanted  of these, the last ones whose output is wanted: all, unless nothing reads the others
    ...       any batch axes, or none

Everything is float32: a Python float keeps an array float32, a NumPy float64 scalar would make it float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from picogpt import sampling, utils
from picogpt.errors import UserError
from picogpt.commands import cli
from picogpt.matmul import FEW_ROWS, matmul
from picogpt.arrays import Array, Params
from picogpt.encoder import Encoder

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# so that what lies between two products stays in the processor's cache
QUERY_BLOCK = 96  # queries whose scores are computed at a time
FEW_QUERIES = 8  # the same where these are few, so that BLAS takes its small kernels: see matmul.py
GELU_BLOCK = 32  # rows
PREFILL_CHUNK = 1024  # tokens of a prompt that go through the model at a time


def gelu(x: Array) -> Array:  # [...] -> [...]
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): Hendrycks and Gimpel 2016, in its tanh form."""
    t = x * x  # in place from here on: one new array instead of eight
    t *= 0.044715
    t += 1
    t *= x
    t *= math.sqrt(2 / math.pi)
    np.tanh(t, out=t)
    t += 1
    t *= x
    t *= 0.5
    return t


def softmax(x: Array, out: Array | None = None) -> Array:  # [..., n] -> [..., n]
    x = np.subtract(x, x.max(axis=-1, keepdims=True), out=out)  # the largest is e^0, so nothing overflows
    np.exp(x, out=x)
    x /= total(x)
    return x


def total(x: Array) -> Array:  # [..., n] -> [..., 1]
    sums: Array = np.einsum("...i->...", x)  # x.sum(axis=-1), three times as fast
    return sums[..., None]


def layer_norm(x: Array, g: Array, b: Array, eps: float = 1e-5) -> Array:  # [..., n_embd] -> [..., n_embd]
    """Mean 0 and variance 1 over the last axis, then scaled by g and shifted by b (Ba et al. 2016)."""
    n_embd = x.shape[-1]
    x = x - total(x) / n_embd
    variance = np.einsum("...i,...i->...", x, x)[..., None] / n_embd  # without an array of squares
    x /= np.sqrt(variance + eps)
    x *= g
    x += b
    return x


def linear(x: Array, w: Array, b: Array) -> Array:  # [..., n_in], [n_in, n_out], [n_out] -> [..., n_out]
    y = matmul(x.reshape(-1, x.shape[-1]), w)  # all batch axes in one product: w is read once
    y += b
    return y.reshape(*x.shape[:-1], -1)


def ffn(x: Array, c_fc: Params, c_proj: Params) -> Array:  # [..., n_seq, n_embd] -> [..., n_seq, n_embd]
    a = linear(x, **c_fc)  # [..., n_seq, n_embd] -> [..., n_seq, 4*n_embd]
    rows = a.reshape(-1, a.shape[-1])  # the same memory: changed in place
    for start in range(0, len(rows), GELU_BLOCK):
        block = rows[start : start + GELU_BLOCK]
        block[:] = gelu(block)
    return linear(a, **c_proj)  # [..., n_seq, 4*n_embd] -> [..., n_seq, n_embd]


def attention(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    # [..., n_q, d_head], [..., n_k, d_head], [..., n_k, d_head] -> [..., n_q, d_head]
    scores = matmul(q / math.sqrt(q.shape[-1]), k.swapaxes(-1, -2))  # [..., n_q, n_k]
    if mask is not None:
        scores[..., -mask.shape[-1] :] += mask  # of the last keys
    return softmax(scores, out=scores) @ v


def causal_attention(q: Array, k: Array, v: Array) -> Array:
    """Each position looks at itself and back. Blocks of queries look only at the keys up to their last one."""
    n_seq, n_past = q.shape[-2], k.shape[-2] - q.shape[-2]
    size = FEW_QUERIES if n_seq in FEW_ROWS else QUERY_BLOCK
    out = np.empty_like(q)
    for start in range(0, n_seq, size):
        end = min(start + size, n_seq)
        block, past = (..., slice(start, end), slice(None)), (..., slice(n_past + end), slice(None))
        out[block] = attention(q[block], k[past], v[past], causal_mask(end - start))
    return out


@cache
def causal_mask(n: int) -> Array:  # -> [n, n]
    """0 where a position may look, at itself and back, -1e10 where not: the future."""
    return np.triu(np.full((n, n), -1e10, np.float32), k=1)


def mha(
    x: Array, c_attn: Params, c_proj: Params, n_head: int,
    kv_cache: KVCache | None = None, layer: int = 0, wanted: slice = slice(None),
) -> Array:  # [..., n_seq, n_embd] -> [..., n_wanted, n_embd]  # fmt: skip
    *batch, n_seq, n_embd = x.shape

    # project to queries, keys and values, and split each into heads
    qkv = linear(x, **c_attn).reshape(*batch, n_seq, 3, n_head, n_embd // n_head)
    q, k, v = np.moveaxis(qkv, (-3, -2), (0, -3))  # 3 x [..., n_head, n_seq, d_head]
    q = q[..., wanted, :]  # [..., n_head, n_wanted, d_head]

    # look also at the positions before
    if kv_cache is not None:
        k, v = kv_cache.extend(layer, k, v)  # 2 x [..., n_head, n_k, d_head]

    # each head attends on its own, all of them in one batched product; a single new position may look everywhere
    n_wanted = q.shape[-2]
    x = causal_attention(q, k, v) if n_wanted > 1 else attention(q, k, v, kv_cache.padding if kv_cache else None)

    # merge the heads, [..., n_head, n_wanted, d_head], and mix them
    x = x.swapaxes(-2, -3).reshape(*batch, n_wanted, n_embd)
    return linear(x, **c_proj)


def transformer_block(
    x: Array, mlp: Params, attn: Params, ln_1: Params, ln_2: Params, n_head: int,
    kv_cache: KVCache | None = None, layer: int = 0, wanted: slice = slice(None),
) -> Array:  # [..., n_seq, n_embd] -> [..., n_wanted, n_embd]  # fmt: skip
    y = mha(layer_norm(x, **ln_1), **attn, n_head=n_head, kv_cache=kv_cache, layer=layer, wanted=wanted)
    y += x[..., wanted, :]  # in place: a page of new memory costs more than the sums that go into it
    y += ffn(layer_norm(y, **ln_2), **mlp)
    return y


def hidden_states(
    inputs: ArrayLike, wte: Array, wpe: Array, blocks: list[Params], ln_f: Params, n_head: int,
    kv_cache: KVCache | None = None, n_last: int | None = None,
) -> Array:  # [..., n_seq] -> [..., n_seq, n_embd], or [..., n_last, n_embd]  # fmt: skip
    """The model without its head. New positions follow those in the cache, which then holds these too.

    With n_last, only so many positions at the end are wanted: the last block leaves out what only others would need.
    """
    inputs = np.asarray(inputs)
    n_past = 0 if kv_cache is None else kv_cache.length
    positions = n_past + np.arange(inputs.shape[-1])
    if positions.size == 0:
        raise UserError("expected one token or more, found none")
    if positions.max() >= len(wpe):
        raise UserError(f"the model sees {len(wpe)} positions, found {positions.max() + 1}: give it fewer tokens")
    x = wte[inputs] + wpe[positions]
    for layer, block in enumerate(blocks):
        wanted = slice(-n_last, None) if n_last and layer == len(blocks) - 1 else slice(None)
        x = transformer_block(x, **block, n_head=n_head, kv_cache=kv_cache, layer=layer, wanted=wanted)
    if kv_cache is not None:
        kv_cache.length += inputs.shape[-1]
    return layer_norm(x, **ln_f)


def gpt2(
    inputs: ArrayLike, wte: Array, wpe: Array, blocks: list[Params], ln_f: Params, n_head: int,
    kv_cache: KVCache | None = None,
) -> Array:  # [..., n_seq] -> [..., n_seq, n_vocab]  # fmt: skip
    """The logits of the token that comes after each of the positions in `inputs`.

    With a cache, `inputs` are only the new tokens: those before them are not computed again.
    """
    x = hidden_states(inputs, wte, wpe, blocks, ln_f, n_head, kv_cache)
    return logits(x, wte)


def logits(x: Array, wte: Array) -> Array:  # [..., n_embd] -> [..., n_vocab]
    return matmul(x.reshape(-1, x.shape[-1]), wte.T).reshape(*x.shape[:-1], -1)


class KVCache:
    """The keys and values of every layer at the positions seen so far: `length` of at most `max_length`.

    They lie in one array [n_layer, 2, ..., n_head, max_length, d_head], allocated once, filled by `extend`.
    """

    padding: Array | None = None  # a mask for a single new position; batch.py has rows of unequal lengths

    def __init__(self, n_layer: int, n_head: int, d_head: int, max_length: int, batch: tuple[int, ...] = ()):
        self.array = np.zeros((n_layer, 2, *batch, n_head, max_length, d_head), np.float32)
        self.length = 0

    def extend(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Put k and v, [..., n_head, n_seq, d_head], behind the past; returns all of both, [..., n_head, n_k, d_head].

        `length` stays until every layer has been extended: then the caller adds n_seq to it.
        """
        end = self.length + k.shape[-2]
        keys, values = self.array[layer]
        if end > keys.shape[-2]:
            raise UserError(f"the cache was made for {keys.shape[-2]} positions, found {end}: make a longer one")
        keys[..., self.length : end, :] = k
        values[..., self.length : end, :] = v
        return keys[..., :end, :], values[..., :end, :]

    def repeat(self, n: int) -> KVCache:
        """A cache for n continuations of the one sequence in this one."""
        n_layer, _, n_head, max_length, d_head = self.array.shape
        copies = KVCache(n_layer, n_head, d_head, max_length, (n,))
        copies.array[..., : self.length, :] = self.array[:, :, None, :, : self.length]
        copies.length = self.length
        return copies


def generate(
    inputs: list[int], params: Params, n_head: int, n_tokens_to_generate: int, *,
    temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int | None = None,
    nsamples: int | None = None, stop_id: int | None = None,
) -> Iterator[Any]:  # fmt: skip
    """Continue the token ids `inputs`, yielding each new id as soon as it is known.

    temperature 0 is greedy; above, ids are drawn (see sampling.py), the same ones for the same seed.
    With nsamples, that many continuations are made as one batch whose prompt is run once: each step yields a list of
    nsamples ids. The ids end before stop_id; in a batch, a row that has met stop_id yields stop_id until all have.

    Raises UserError when a setting is out of range or prompt and new tokens are more than n_ctx.
    """
    check_request(inputs, params, n_tokens_to_generate, temperature, top_k, top_p)
    kv_cache = new_cache(params, n_head, len(inputs) + n_tokens_to_generate)
    rngs = sampling.new_rngs(seed, nsamples or 1, temperature)
    new = prefill(inputs, params, n_head, kv_cache)  # [n_seq], then [1] or [nsamples, 1]
    stopped = np.zeros(nsamples or (), bool)
    for step in range(n_tokens_to_generate):
        x = hidden_states(new, **params, n_head=n_head, kv_cache=kv_cache, n_last=1)[..., -1, :]
        if nsamples and step == 0:
            x = np.repeat(x[None], nsamples, axis=0)  # [n_embd] -> [nsamples, n_embd]
            kv_cache = kv_cache.repeat(nsamples)
        ids = sampling.next_ids(logits(x, params["wte"]), rngs, temperature, top_k, top_p)
        if stop_id is not None:
            ids = np.where(stopped, stop_id, ids)
            stopped = ids == stop_id
            if stopped.all():
                return
        yield ids.tolist()
        new = ids[..., None]


def new_cache(params: Params, n_head: int, max_length: int) -> KVCache:
    """An empty cache for one sequence of a model."""
    return KVCache(len(params["blocks"]), n_head, params["wte"].shape[1] // n_head, max_length)


def prefill(inputs: list[int], params: Params, n_head: int, kv_cache: KVCache) -> Array:
    """Put a prompt into the cache, a chunk at a time, but for the last chunk, which is returned."""
    *chunks, last = np.split(np.array(inputs), range(PREFILL_CHUNK, len(inputs), PREFILL_CHUNK))
    for chunk in chunks:
        hidden_states(chunk, **params, n_head=n_head, kv_cache=kv_cache, n_last=1)
    return last


def check_request(
    inputs: list[int], params: Params, n_tokens_to_generate: int, temperature: float, top_k: int, top_p: float
) -> None:
    """Raises UserError where generate cannot do what it is asked for."""
    sampling.check_sampling(temperature, top_k, top_p)
    check_length(len(inputs), n_tokens_to_generate, len(params["wpe"]))
    n_vocab = len(params["wte"])
    if unknown := [token_id for token_id in inputs if not 0 <= token_id < n_vocab]:
        raise UserError(f"expected ids from 0 to {n_vocab - 1}, found {unknown[0]}")


def check_length(n_prompt: int, n_tokens_to_generate: int, n_ctx: int) -> None:
    if n_prompt == 0:
        raise UserError("generation starts from one token or more, found none: give it a prompt")
    if n_tokens_to_generate < 0:
        raise UserError(f"n_tokens_to_generate must be 0 or more, found {n_tokens_to_generate}")
    if n_prompt + n_tokens_to_generate > n_ctx:
        raise UserError(
            f"the model sees {n_ctx} tokens, found {n_prompt} in the prompt + {n_tokens_to_generate} to generate: "
            f"shorten the prompt or use --n_tokens_to_generate {max(n_ctx - n_prompt, 0)} or less"
        )
