"""GPT-2 in NumPy: the model, its cache of keys and values, and generation, top to bottom.

The functions are those of the tutorial "GPT in 60 Lines of NumPy"; their keyword names are the keys of the nested
dict of weights, so `**params` and `**block` give each function its own. Formulas follow OpenAI's model.py. The same
model without a cache and without optimizations is on one page in reference.py: read that first.

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
    n_seq     positions in this call
    n_k       positions that these may look at: themselves, and those in the cache
    n_wanted  positions whose output is wanted: all of n_seq, or the last few
    ...       any batch axes, or none

Weights and activations are float32. A Python float keeps an array float32; a NumPy float64 scalar would not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from picogpt.arrays import Array, ArrayLike, Params
from picogpt.choosing import Chooser
from picogpt.cores import share
from picogpt.errors import UserError
from picogpt.matmul import FEW_ROWS, matmul
from picogpt.one_token import OneToken
from picogpt.sampling import GREEDY, Sampling

Watch: TypeAlias = Callable[[int, int, Array], bool]  # (row or number of a text, new id, its logits) -> whether to end

# block sizes that keep intermediate results in the processor's cache; skip them at the first reading
QUERY_BLOCK = 96  # queries whose scores are computed at a time
FEW_QUERIES = 8  # the same if there are few queries, so that BLAS uses its small kernels: see matmul.py
GELU_BLOCK = 32  # rows
PREFILL_CHUNK = 1024  # tokens of a prompt that go through the model at a time


def gelu(x: Array, out: Array | None = None) -> Array:  # [...] -> [...]
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): Hendrycks and Gimpel 2016, in its tanh form.

    The result is written to `out` if given.

    >>> gelu(np.array([[1, 2], [-2, 0.5]])).round(5)
    array([[ 0.84119,  1.9546 ],
           [-0.0454 ,  0.34571]])
    """
    x = floats(x)
    t = np.multiply(x, x, out=np.empty_like(x))  # in place from here on: one new array instead of eight
    t *= 0.044715
    t += 1
    t *= x
    t *= math.sqrt(2 / math.pi)
    np.tanh(t, out=t)
    t += 1
    t *= x
    return np.multiply(t, 0.5, out=t if out is None else out)


def softmax(x: Array, out: Array | None = None) -> Array:  # [..., n] -> [..., n]
    """exp(x) / sum(exp(x)) over the last axis: probabilities, written to `out` if given.

    >>> softmax(np.array([[2, 100], [-5, 0]])).round(4)
    array([[0.    , 1.    ],
           [0.0067, 0.9933]])
    """
    x = floats(x)
    out = np.empty_like(x) if out is None else out
    np.subtract(x, x.max(axis=-1, keepdims=True), out=out)  # the largest is e^0, so nothing overflows
    np.exp(out, out=out)
    out /= total(out)
    return out


def floats(x: ArrayLike) -> Array:  # [...] -> [...]
    """Convert integers to float64; x of a float type is returned as it is."""
    x = np.asarray(x)
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def total(x: Array) -> Array:  # [..., n] -> [..., 1]
    if x.ndim == 0:  # a single number
        return x
    sums: Array = np.einsum("...i->...", x)  # x.sum(axis=-1), but three times as fast
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
    y = matmul(x, w)
    y += b
    return y


def ffn(x: Array, c_fc: Params, c_proj: Params) -> Array:  # [..., n_seq, n_embd] -> [..., n_seq, n_embd]
    a = linear(x, **c_fc)  # [..., n_seq, n_embd] -> [..., n_seq, 4*n_embd]
    rows = a.reshape(-1, a.shape[-1])  # a view of a, changed in place
    for start in range(0, len(rows), GELU_BLOCK):
        block = rows[start : start + GELU_BLOCK]
        gelu(block, out=block)
    return linear(a, **c_proj)  # [..., n_seq, 4*n_embd] -> [..., n_seq, n_embd]


def attention(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    # [..., n_q, d_head], [..., n_k, d_head], [..., n_k, d_head], [..., n_q, n_k] -> [..., n_q, d_head]
    scores = attention_scores(q, k)
    if mask is not None:
        scores += mask
    return softmax(scores, out=scores) @ v


def attention_scores(q: Array, k: Array) -> Array:  # [..., n_q, d_head], [..., n_k, d_head] -> [..., n_q, n_k]
    return matmul(q / math.sqrt(q.shape[-1]), k.swapaxes(-1, -2))


def causal_attention(q: Array, k: Array, v: Array) -> Array:
    # [..., n_q, d_head], [..., n_k, d_head], [..., n_k, d_head] -> [..., n_q, d_head]
    """Attention in which the queries are those of the last n_q positions, and each sees only keys up to its own.

    A block of queries uses only the keys up to its last query, so most of the upper triangle is not computed.
    """
    n_q, n_past = q.shape[-2], k.shape[-2] - q.shape[-2]
    if n_q == 1:  # it may look everywhere
        return attention(q, k, v)
    size = FEW_QUERIES if n_q in FEW_ROWS else QUERY_BLOCK
    out = np.empty_like(q)
    for start in range(0, n_q, size):
        end = min(start + size, n_q)
        scores = attention_scores(q[..., start:end, :], k[..., : n_past + end, :])  # [..., end - start, n_past + end]
        scores[..., n_past + start :] += causal_mask(end - start)  # all earlier keys are in the past
        out[..., start:end, :] = softmax(scores, out=scores) @ v[..., : n_past + end, :]
    return out


@cache
def causal_mask(n: int) -> Array:  # -> [n, n]
    """0 where a query may look, at itself and earlier positions, and -1e10 at later ones. Shared, so read-only."""
    mask = np.triu(np.full((n, n), -1e10, np.float32), k=1)
    mask.flags.writeable = False
    return mask


def mha(
    x: Array, c_attn: Params, c_proj: Params, n_head: int,
    kv_cache: KVCache | KVCaches | None = None, layer: int = 0, wanted: slice | Array = slice(None),
) -> Array:  # [..., n_seq, n_embd] -> [..., n_wanted, n_embd]  # fmt: skip
    *batch, n_seq, n_embd = x.shape

    # project to queries, keys and values, and split each into heads
    qkv = linear(x, **c_attn).reshape(*batch, n_seq, 3, n_head, n_embd // n_head)
    q, k, v = (qkv[..., i, :, :].swapaxes(-2, -3) for i in range(3))  # 3 x [..., n_head, n_seq, d_head]
    q = q[..., wanted, :]  # [..., n_head, n_wanted, d_head]

    # attention in each head, also to the positions before, as one batched product
    if kv_cache is None:
        x = causal_attention(q, k, v)
    elif isinstance(kv_cache, KVCaches):
        x = kv_cache.attention(layer, q, k, v)  # each text for itself
    else:
        x = causal_attention(q, *kv_cache.extend(layer, k, v))

    # merge the heads, [..., n_head, n_wanted, d_head], and mix them
    x = x.swapaxes(-2, -3).reshape(*batch, -1, n_embd)
    return linear(x, **c_proj)


def transformer_block(
    x: Array, mlp: Params, attn: Params, ln_1: Params, ln_2: Params, n_head: int,
    kv_cache: KVCache | KVCaches | None = None, layer: int = 0, wanted: slice | Array = slice(None),
) -> Array:  # [..., n_seq, n_embd] -> [..., n_wanted, n_embd]  # fmt: skip
    y = mha(layer_norm(x, **ln_1), **attn, n_head=n_head, kv_cache=kv_cache, layer=layer, wanted=wanted)
    y += x[..., wanted, :]  # in place: new memory would take longer than the additions
    y += ffn(layer_norm(y, **ln_2), **mlp)
    return y


def hidden_states(
    inputs: ArrayLike, wte: Array, wpe: Array, blocks: list[Params], ln_f: Params, n_head: int,
    kv_cache: KVCache | KVCaches | None = None, n_last: int | None = None, lm_head: Array | None = None,
) -> Array:  # [..., n_seq] -> [..., n_seq, n_embd], or [..., n_last, n_embd]  # fmt: skip
    """The model without its head, lm_head or wte. The new positions follow those in the cache and are added to it.

    With n_last, only the last n_last positions are wanted, and the last block skips work that only the others need. Of
    several texts in KVCaches, the last position of each is wanted, whatever n_last is.

    Raises UserError if there are no tokens, or more positions than the model sees.
    """
    inputs = np.asarray(inputs)
    n_seq = inputs.shape[-1]
    positions = np.arange(n_seq) if kv_cache is None else kv_cache.positions(n_seq)
    if positions.size == 0:
        raise UserError("expected one token or more, found none")
    if positions.max() >= len(wpe):
        raise UserError(f"the model sees {len(wpe)} positions, found {positions.max() + 1}: give it fewer tokens")
    x = wte[inputs] + wpe[positions]
    last = kv_cache.ends - 1 if isinstance(kv_cache, KVCaches) else slice(-(n_last or 0), None)
    for layer, block in enumerate(blocks):
        wanted = last if n_last and layer == len(blocks) - 1 else slice(None)
        x = transformer_block(x, **block, n_head=n_head, kv_cache=kv_cache, layer=layer, wanted=wanted)
    if kv_cache is not None:
        kv_cache.advance(n_seq)
    return layer_norm(x, **ln_f)


def gpt2(
    inputs: ArrayLike, wte: Array, wpe: Array, blocks: list[Params], ln_f: Params, n_head: int,
    kv_cache: KVCache | KVCaches | None = None, lm_head: Array | None = None,
) -> Array:  # [..., n_seq] -> [..., n_seq, n_vocab]  # fmt: skip
    """The logits of the token after each position in `inputs`.

    With a cache, `inputs` are only the new tokens; earlier ones are not computed again.
    """
    x = hidden_states(inputs, wte, wpe, blocks, ln_f, n_head, kv_cache)
    return logits(x, wte if lm_head is None else lm_head)


def logits(x: Array, head: Array) -> Array:  # [..., n_embd], [n_vocab, n_embd] -> [..., n_vocab]
    return matmul(x, head.T)


def head_of(params: Params) -> Array:  # -> [n_vocab, n_embd]
    """What hidden states are multiplied by: wte, as in GPT-2, unless a model has a head of its own, lm_head."""
    head: Array = params["lm_head" if "lm_head" in params else "wte"]
    return head


class KVCache:
    """The keys and values of every layer at the positions seen so far, of one sequence or of rows of equal lengths.

    array   [n_layer, 2, ..., n_head, max_length, d_head], allocated once; ... is nothing, or n_rows
    length  the number of positions seen

    A pass through the model calls `extend` once in each layer, then `advance`.
    """

    def __init__(self, n_layer: int, n_head: int, d_head: int, max_length: int, n_rows: int | None = None):
        batch = () if n_rows is None else (n_rows,)
        try:
            self.array = np.zeros((n_layer, 2, *batch, n_head, max_length, d_head), np.float32)
        except (MemoryError, ValueError):  # ValueError: more bytes than an address can count
            raise UserError(
                f"expected memory for the keys and values of {n_rows or 1} texts of {max_length} tokens, found too "
                "little: ask for fewer texts at a time"
            ) from None
        self.length = 0
        self._one_token: OneToken | None = None

    def positions(self, n_seq: int) -> Array:  # -> [n_seq]
        """The positions of n_seq new tokens."""
        return np.arange(self.length, self.length + n_seq)

    @property
    def seen(self) -> Array:  # -> [n_layer, 2, ..., n_head, length, d_head]
        """The part of the array that is filled."""
        return self.array[..., : self.length, :]

    def restore(self, seen: Array) -> None:
        """Put back what `seen` was, or its first positions."""
        self.length = seen.shape[-2]
        self.seen[...] = seen

    def extend(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Append k and v, [..., n_head, n_seq, d_head].

        Returns all keys and all values so far, 2 x [..., n_head, n_k, d_head].
        """
        keys, values = self.array[layer]
        end, max_length = self.length + k.shape[-2], keys.shape[-2]
        if end > max_length:
            raise UserError(f"the cache was made for {max_length} positions, found {end}: make a longer one")
        keys[..., self.length : end, :] = k
        values[..., self.length : end, :] = v
        return keys[..., :end, :], values[..., :end, :]

    def for_one_token(self, params: Params) -> OneToken | None:
        """What takes one token through a model on a shorter way, if there is room for it; see one_token.py."""
        max_length = min(self.array.shape[-2], len(params["wpe"]))
        if self.length >= max_length or params["wte"].dtype != np.float32:
            return None
        if self._one_token is None or self._one_token.params is not params:
            self._one_token = OneToken(params, head_of(params), self.array, gelu)
        return self._one_token

    def advance(self, n_seq: int) -> None:
        """Count n_seq new positions, after every layer has been extended by them."""
        self.length += n_seq

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        self.length = min(self.length, length)

    def repeat(self, n_rows: int) -> KVCache:
        """A new cache with n_rows copies of the one sequence in this one."""
        n_layer, _, n_head, max_length, d_head = self.array.shape
        copies = KVCache(n_layer, n_head, d_head, max_length, n_rows)
        copies.advance(self.length)
        copies.seen[...] = self.seen[:, :, None]
        return copies

    def reorder(self, rows: ArrayLike) -> None:
        """Replace every row i by row rows[i]. Only rows that change are copied.

        >>> cache = KVCache(n_layer=1, n_head=1, d_head=1, max_length=1, n_rows=3)
        >>> cache.restore(np.float32([5, 6, 7]).reshape(3, 1, 1, 1))
        >>> cache.reorder([2, 1, 2])
        >>> cache.array[0, 0].ravel().tolist()
        [7.0, 6.0, 7.0]
        """
        rows = np.asarray(rows)
        changed = np.flatnonzero(rows != np.arange(len(rows)))
        self.seen[:, :, changed] = self.seen[:, :, rows[changed]]


class KVCaches:
    """The caches of several texts of any lengths, whose new tokens lie one after another in a single pass.

    caches  the cache of each text, a single sequence
    sizes   the number of its new tokens, 1 or more

    All tokens share the products with the weights. In attention each text is alone, so nothing is padded.
    """

    def __init__(self, caches: Sequence[KVCache], sizes: Sequence[int]):
        self.caches, self.sizes = caches, sizes
        self.ends = np.cumsum(sizes)  # the new tokens of a text end where those of the next one begin

    def positions(self, n_seq: int) -> Array:  # -> [n_seq]
        return np.concatenate([kv_cache.positions(n) for kv_cache, n in zip(self.caches, self.sizes, strict=True)])

    def attention(self, layer: int, q: Array, k: Array, v: Array) -> Array:
        # [n_head, n_wanted, d_head], 2 x [n_head, n_seq, d_head] -> [n_head, n_wanted, d_head]
        """Append k and v to the cache of each text, and let each query look at its own text.

        The queries are those of all new positions, or of the last one of each text.
        """
        if len(self.caches) == q.shape[-2]:
            return self.attention_of_the_last(layer, q, k, v)
        outs = []
        for kv_cache, n, end in zip(self.caches, self.sizes, self.ends, strict=True):
            new = slice(end - n, end)
            outs.append(causal_attention(q[:, new], *kv_cache.extend(layer, k[:, new], v[:, new])))
        return np.concatenate(outs, axis=-2)

    def attention_of_the_last(self, layer: int, q: Array, k: Array, v: Array) -> Array:
        """The same with one query for each text. One softmax for all of them takes fewer calls."""
        n_head, n_texts, d_head = q.shape
        q = q / math.sqrt(d_head)
        n_k = max(kv_cache.length + n for kv_cache, n in zip(self.caches, self.sizes, strict=True))
        scores = np.full((n_texts, n_head, 1, n_k), -1e10, np.float32)  # padded: softmax gives 0 there
        outs = []
        for i, (kv_cache, n, end) in enumerate(zip(self.caches, self.sizes, self.ends, strict=True)):
            keys, values = kv_cache.extend(layer, k[:, end - n : end], v[:, end - n : end])
            np.matmul(q[:, i : i + 1], keys.swapaxes(-1, -2), out=scores[i, :, :, : keys.shape[-2]])
            outs.append(values)
        softmax(scores, out=scores)
        for i, values in enumerate(outs):
            outs[i] = scores[i, :, :, : values.shape[-2]] @ values  # [n_head, 1, d_head]
        return np.concatenate(outs, axis=-2)

    def advance(self, n_seq: int) -> None:
        """Count the new positions of each text."""
        for kv_cache, n in zip(self.caches, self.sizes, strict=True):
            kv_cache.advance(n)


def new_cache(params: Params, n_head: int, max_length: int, n_rows: int | None = None) -> KVCache:
    """An empty cache of a model, for one sequence or for n_rows of them."""
    return KVCache(len(params["blocks"]), n_head, params["wte"].shape[1] // n_head, max_length, n_rows)


def next_logits(
    new: ArrayLike, params: Params, n_head: int, kv_cache: KVCache, n_last: int = 1
) -> Array:  # [..., n_seq] -> [..., n_last, n_vocab]
    """Run new tokens, a prompt or one for each row, through the model and return the logits after the last n_last."""

    def run(new: Array, kv_cache: KVCache) -> Array:
        with np.errstate(all="ignore"):  # Chooser.next finds numbers that are not finite
            return hidden_states(new, **params, n_head=n_head, kv_cache=kv_cache, n_last=n_last)[..., -n_last:, :]

    new = np.asarray(new)
    if new.shape == (1,) and (one_token := kv_cache.for_one_token(params)):
        with np.errstate(all="ignore"):
            at = one_token.logits(new[0], kv_cache.length)
        kv_cache.advance(1)
        return at[None]
    while new.shape[-1] >= PREFILL_CHUNK + n_last:
        share(run, new[..., :PREFILL_CHUNK], kv_cache)
        new = new[..., PREFILL_CHUNK:]
    x = share(run, new, kv_cache)
    with np.errstate(all="ignore"):
        return logits(x, head_of(params))


def start(
    inputs: ArrayLike, params: Params, n_head: int, max_length: int
) -> tuple[KVCache, Array]:  # [n_seq] -> cache, [n_vocab]
    """A cache with room for max_length positions that has seen a prompt, and the logits after the prompt.

    A function of this type that knows a part of the prompt already can take its place: see decoding/prompt_file.py.
    """
    kv_cache = new_cache(params, n_head, max_length)
    return kv_cache, next_logits(inputs, params, n_head, kv_cache)[-1]


Start = Callable[[ArrayLike, Params, int, int], tuple[KVCache, Array]]


def generate(
    inputs: ArrayLike, params: Params, n_head: int, n_tokens_to_generate: int, *,
    sampling: Sampling = GREEDY, nsamples: int | None = None, stop_id: int | None = None, watch: Watch | None = None,
    start: Start = start,
) -> Iterator[Any]:  # fmt: skip
    """Continue the token ids `inputs`, [n_seq], yielding each new id as soon as it is known.

    With nsamples, that many continuations are generated as one batch, and the prompt is computed once. Each step yields
    a list of nsamples ids. The ids end before stop_id; in a batch, a row that has ended repeats its last id until all
    have. `start` runs the prompt through the model.

    watch(row, id, logits) is called with each new token of a row, 0 if there is one, and the logits that it was chosen
    from. If it returns True, the row ends with that token.

    Raises UserError if the prompt and the new tokens do not fit into n_ctx, and for ids outside the vocabulary.

    >>> import picogpt
    >>> model = picogpt.load("shakespeare")
    >>> ids = model.encode("JULIET:")
    >>> list(generate(ids, model.params, model.hparams["n_head"], 4))
    [199, 41, 458, 732]
    """
    check_request(inputs, params, n_tokens_to_generate, sampling)
    if nsamples is not None and not (isinstance(nsamples, (int, np.integer)) and nsamples >= 1):
        raise UserError(f"nsamples must be a whole number, 1 or more, found {nsamples!r}")
    ids = np.asarray(inputs).tolist()
    steps = _generate(ids, params, n_head, n_tokens_to_generate, sampling, nsamples, stop_id, watch, start)
    return steps if nsamples is not None else (row[0] for row in steps)


def _generate(
    inputs: list[int], params: Params, n_head: int, n_tokens_to_generate: int, sampling: Sampling,
    nsamples: int | None, stop_id: int | None, watch: Watch | None, start: Start,
) -> Iterator[list[int]]:  # fmt: skip
    if n_tokens_to_generate == 0:
        return
    kv_cache, at = start(inputs, params, n_head, len(inputs) + n_tokens_to_generate)
    at = at[None]  # [1, n_vocab]
    if nsamples is not None:  # they share the prompt
        kv_cache = kv_cache.repeat(nsamples)
        at = np.repeat(at, nsamples, axis=0)  # [nsamples, n_vocab]
    texts = choosers(inputs, params, n_head, sampling, nsamples or 1)
    ended = [False] * len(texts)
    for n_left in reversed(range(n_tokens_to_generate)):
        for row, text in enumerate(texts):
            ended[row] = ended[row] or text.next(at[row]) == stop_id
        if all(ended):
            return
        for row, text in enumerate(texts):
            ended[row] = ended[row] or (watch is not None and watch(row, text.ids[-1], text.logits))
        ids = [text.ids[-1] for text in texts]
        yield ids
        if all(ended):
            return
        if n_left:
            new = np.array(ids)[:, None] if nsamples is not None else ids  # [nsamples, 1], or [1]
            at = next_logits(new, params, n_head, kv_cache)[..., -1, :].reshape(len(texts), -1)


def choosers(inputs: Sequence[int], params: Params, n_head: int, sampling: Sampling, n_texts: int = 1) -> list[Chooser]:
    """What chooses the tokens of n_texts continuations of one prompt, which differ if they are drawn."""

    def again(ids: list[int]) -> Array:  # [n_seq] -> [n_vocab]
        with np.errstate(all="ignore"):
            x = hidden_states(ids, **params, n_head=n_head, n_last=1)
            last: Array = logits(x, head_of(params))[-1]
        return last

    rngs = sampling.rngs(n_texts)
    return [Chooser(sampling, inputs, rngs[i] if rngs else None, again) for i in range(n_texts)]


def check_request(inputs: ArrayLike, params: Params, n_tokens_to_generate: int, sampling: Sampling = GREEDY) -> None:
    """Raise UserError if `inputs` is not a prompt that can be continued by this many tokens."""
    ids = check_ids(inputs, len(params["wte"]))
    check_length(ids.size, n_tokens_to_generate, len(params["wpe"]))
    sampling.check_ids(len(params["wte"]))


def check_ids(inputs: ArrayLike, n_vocab: int) -> Array:  # [n_seq] -> [n_seq]
    """Token ids as an array. Raises UserError if they are not whole numbers below n_vocab."""
    try:
        ids = np.asarray(inputs)
    except ValueError:
        ids = np.array([None])  # such as lists of unequal lengths
    if ids.size == 0:
        return np.empty(0, int)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise UserError(f"expected a list of token ids, found {inputs!r:.60}: encode text first")
    if ((ids < 0) | (ids >= n_vocab)).any():
        raise UserError(f"expected ids from 0 to {n_vocab - 1}, found {ids[(ids < 0) | (ids >= n_vocab)][0]}")
    return ids


def check_length(n_prompt: int, n_tokens_to_generate: int, n_ctx: int) -> None:
    """Raise UserError if a prompt and the new tokens do not fit into the model's n_ctx positions."""
    if n_prompt == 0:
        raise UserError("generation starts from one token or more, found none: give it a prompt")
    if not isinstance(n_tokens_to_generate, (int, np.integer)) or n_tokens_to_generate < 0:
        raise UserError(f"n_tokens_to_generate must be a whole number, 0 or more, found {n_tokens_to_generate}")
    if n_prompt + n_tokens_to_generate > n_ctx:
        fewer = f", use --n_tokens_to_generate {n_ctx - n_prompt} or less," if n_prompt < n_ctx else ""
        raise UserError(
            f"the model sees {n_ctx} tokens, found {n_prompt} in the prompt + {n_tokens_to_generate} to generate: "
            f"shorten the prompt{fewer} or go on past them with --sliding_window half"
        )


if __name__ == "__main__":  # python -m picogpt.gpt2 "prompt" runs the command line
    import runpy

    runpy.run_module("picogpt", run_name="__main__", alter_sys=True)
