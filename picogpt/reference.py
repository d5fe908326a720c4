"""GPT-2 on one page, from token ids to the tokens that follow: pure functions of arrays. Start reading here.

`gpt2.py` has fast functions of the same names, and the tests compare each with its twin here. Names and arguments are
those of https://jaykmody.com/blog/gpt-from-scratch, formulas those of https://github.com/openai/gpt-2 (src/model.py).
The weights are nested dicts whose keys are the names of arguments, so `**block` gives each function its own.
Comments show the shapes of arrays; "..." stands for any batch axes, or none. In the smallest GPT-2:

    n_seq   tokens in the input                   n_vocab  tokens in the vocabulary: 50257
    n_embd  numbers that describe a token: 768    n_head   attention heads: 12, each d_head = n_embd / n_head wide
"""

import numpy as np


def array_namespace(x):
    """The library of x: NumPy, JAX, CuPy, ... It is NumPy for plain numbers and arrays of NumPy 1, which do not say."""
    return x.__array_namespace__() if hasattr(x, "__array_namespace__") else np


def gelu(x):  # [...] -> [...]
    """Keep large numbers and bring negative ones to about 0, smoothly (Hendrycks and Gimpel 2016, in the tanh form)."""
    xp = array_namespace(x)
    return 0.5 * x * (1 + xp.tanh((2 / xp.pi) ** 0.5 * x * (1 + 0.044715 * x * x)))


def softmax(x):  # [..., n] -> [..., n]
    """Turn scores into probabilities: positive, with a sum of 1. The largest becomes e^0, so nothing overflows."""
    xp = array_namespace(x)
    exp_x = xp.exp(1.0 * x - xp.max(x, axis=-1, keepdims=True))  # 1.0: integers become floats
    return exp_x / xp.sum(exp_x, axis=-1, keepdims=True)


def layer_norm(x, g, b, eps=1e-5):  # [..., n_embd], [n_embd], [n_embd] -> [..., n_embd]
    """Bring each row to mean 0 and variance 1, then scale it by g and shift it by b (Ba et al. 2016)."""
    xp = array_namespace(x)
    mean = xp.mean(x, axis=-1, keepdims=True)  # [..., 1]
    variance = xp.var(x, axis=-1, keepdims=True)  # [..., 1]
    return g * (x - mean) / xp.sqrt(variance + eps) + b


def linear(x, w, b):  # [..., n_in], [n_in, n_out], [n_out] -> [..., n_out]
    return x @ w + b


def ffn(x, c_fc, c_proj):  # [..., n_seq, n_embd] -> [..., n_seq, n_embd]
    """Feed-forward network, on each token alone: a wider hidden layer with GELU."""
    return linear(gelu(linear(x, **c_fc)), **c_proj)  # n_embd -> 4*n_embd -> n_embd


def attention(q, k, v, mask=0):  # [..., n_q, d_head], [..., n_k, d_head], [..., n_k, d_head] -> [..., n_q, d_head]
    """For each query, average the values, weighted by how well their keys match the query (Vaswani et al. 2017)."""
    xp = array_namespace(q)
    scores = q @ xp.moveaxis(k, -1, -2) / q.shape[-1] ** 0.5 + mask  # [..., n_q, n_k]
    return softmax(scores) @ v


def mha(x, c_attn, c_proj, n_head):  # [..., n_seq, n_embd] -> [..., n_seq, n_embd]
    """Multi-head causal self-attention: each token looks at itself and those before it, in n_head ways at once."""
    xp = array_namespace(x)
    *batch, n_seq, n_embd = x.shape
    qkv = linear(x, **c_attn)  # [..., n_seq, 3*n_embd]: the queries of all heads, then the keys, then the values
    qkv = xp.reshape(qkv, (*batch, n_seq, 3 * n_head, n_embd // n_head))  # [..., n_seq, 3*n_head, d_head]
    qkv = xp.moveaxis(qkv, -2, -3)  # [..., 3*n_head, n_seq, d_head]: heads are one more batch axis
    q, k, v = (qkv[..., i * n_head : (i + 1) * n_head, :, :] for i in range(3))  # 3 times [..., n_head, n_seq, d_head]
    mask = xp.triu(xp.full((n_seq, n_seq), -1e10, dtype=qkv.dtype), k=1)  # 0, and in the future -1e10: a weight of 0
    x = attention(q, k, v, mask)  # [..., n_head, n_seq, d_head]
    x = xp.reshape(xp.moveaxis(x, -3, -2), (*batch, n_seq, n_embd))  # the heads side by side: [..., n_seq, n_embd]
    return linear(x, **c_proj)  # [..., n_seq, n_embd]


def transformer_block(x, mlp, attn, ln_1, ln_2, n_head):  # [..., n_seq, n_embd] -> [..., n_seq, n_embd]
    """Attention to the tokens before, then the feed-forward network. Both add their result to x."""
    x = x + mha(layer_norm(x, **ln_1), **attn, n_head=n_head)
    return x + ffn(layer_norm(x, **ln_2), **mlp)


def embed(inputs, wte):  # [..., n_seq], [n_vocab, n_embd] -> [..., n_seq, n_embd]
    """The row of wte for each token: wte[inputs], by functions that every array library has."""
    xp = array_namespace(wte)
    ids = xp.asarray(inputs)
    return xp.reshape(xp.take(wte, xp.reshape(ids, (-1,)), axis=0), (*ids.shape, wte.shape[-1]))


def gpt2(inputs, wte, wpe, blocks, ln_f, n_head, lm_head=None):  # [..., n_seq] -> [..., n_seq, n_vocab]
    """The logits: for each position, a score for every token of the vocabulary as the next one."""
    x = embed(inputs, wte)  # what each token is: [..., n_seq, n_embd]
    x = x + wpe[: x.shape[-2], :]  # and where it stands: [n_seq, n_embd]
    for block in blocks:
        x = transformer_block(x, **block, n_head=n_head)
    return layer_norm(x, **ln_f) @ (wte if lm_head is None else lm_head).T  # [..., n_seq, n_vocab]; GPT-2's head is wte


def generate(inputs, params, n_head, n_tokens_to_generate):  # a list of ids -> the list of ids that follow
    """Append the token with the highest score, again and again: greedy decoding."""
    ids = list(inputs)
    for _ in range(n_tokens_to_generate):
        logits = gpt2(ids, **params, n_head=n_head)  # [n_seq, n_vocab]
        ids = ids + [int(array_namespace(logits).argmax(logits[-1, :]))]
    return ids[len(inputs) :]
