"""The plain model gives the same numbers on every array library, and as the fast model, function by function.

`reference` computes in float64 here, so that a difference is the fast function's: it gets float32, in shapes that
hypothesis picks, and may be off by rounding alone.
"""

import ast
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from picogpt import gpt2, reference
from picogpt.gpt2 import GELU_BLOCK, QUERY_BLOCK, KVCache
from picogpt.matmul import FEW_ROWS, matmul
from picogpt.one_token import OneToken
from picogpt.weights import store
from tests.fuzz import TIMES

N_HEAD, N_EMBD, N_VOCAB = 3, 24, 50

batches = st.lists(st.integers(1, 3), max_size=2).map(tuple)
seeds = st.integers(0, 2**32 - 1)
widths = st.integers(1, 40)
lengths = st.one_of(
    st.integers(1, 12),
    st.sampled_from(
        [FEW_ROWS[-1], FEW_ROWS[-1] + 1, GELU_BLOCK + 1, QUERY_BLOCK, QUERY_BLOCK + 1, 2 * QUERY_BLOCK + 5]
    ),
)
quick = settings(max_examples=40 * TIMES)


def arrays(seed, *shapes, scale=1.0):
    """An array of float32 for each of the shapes."""
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape) * scale, np.float32) for shape in shapes]


def params_of(n_layer=2, n_ctx=16, seed=0):
    hparams = {"n_vocab": N_VOCAB, "n_ctx": n_ctx, "n_embd": N_EMBD, "n_head": N_HEAD, "n_layer": n_layer}
    hparams["own_head"] = seed % 2 == 1
    return store.nested(dict(store.random_tensors(hparams, seed, std=0.3)))


def each(function, tree):
    """The same tree, with function(array) for each array."""
    if isinstance(tree, dict):
        return {name: each(function, branch) for name, branch in tree.items()}
    if isinstance(tree, list):
        return [each(function, branch) for branch in tree]
    return function(tree)


def exact(tree):
    return each(lambda array: np.asarray(array, np.float64), tree)


def assert_twins(fast, plain, dtype=np.float32):
    """Of one shape, and equal within 1e-4 of the largest: float32 after a few hundred additions in another order."""
    plain = np.asarray(plain)
    assert (fast.dtype, fast.shape) == (dtype, plain.shape)
    np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-4 * np.abs(plain).max(initial=1e-30))


def causal(n_q, n_k):
    """The causal mask of queries at the last n_q of n_k positions."""
    return np.where(np.arange(n_k) > np.arange(n_q)[:, None] + n_k - n_q, -1e10, 0.0)


# function by function


@quick
@given(batches, widths, seeds, st.sampled_from([1e-3, 1, 1e3]))
def test_gelu_softmax_and_layer_norm(batch, n, seed, scale):
    x, g, b = arrays(seed, (*batch, n), n, n)
    x *= np.float32(scale)
    assert_twins(gpt2.gelu(x), reference.gelu(exact(x)))
    assert_twins(gpt2.softmax(x), reference.softmax(exact(x)))
    if n > 1:  # a row of one number has a variance of 0, so only rounding would be compared
        assert_twins(gpt2.layer_norm(x, g, b), reference.layer_norm(*exact([x, g, b])))


def test_layer_norm_of_equal_numbers():
    x, g, b = arrays(0, (3, 1), 1, 1)
    for layer_norm in (gpt2.layer_norm, reference.layer_norm):
        np.testing.assert_allclose(layer_norm(x, g, b), np.broadcast_to(b, x.shape))
        assert np.isfinite(layer_norm(np.full((2, 5), 7.0, np.float32), 2.0, 3.0)).all()


def test_softmax_into_an_array():
    (x,) = arrays(0, (3, 5))
    expected = gpt2.softmax(x)
    for out in (np.empty_like(x), x):
        assert gpt2.softmax(x, out=out) is out
        np.testing.assert_array_equal(out, expected)


@quick
@given(batches, st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=9), st.sampled_from([np.float64, np.float32]))
def test_softmax_and_gelu_of_any_numbers(batch, numbers, dtype):
    x = np.broadcast_to(np.array(numbers, dtype), (*batch, len(numbers)))
    assert_twins(gpt2.gelu(x), reference.gelu(exact(x)), dtype)
    assert_twins(gpt2.softmax(x), reference.softmax(exact(x)), dtype)
    np.testing.assert_allclose(gpt2.softmax(x).sum(-1), 1, rtol=1e-5)


@quick
@given(st.data(), st.sampled_from(["i1", "u1", "i2", "u2", "i4", "i8", "?"]))
def test_softmax_and_gelu_of_integers(data, dtype):
    """Even where differences and powers of the integers do not fit into their type."""
    low, high = (0, 1) if dtype == "?" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    numbers = data.draw(st.lists(st.integers(max(low, -(10**9)), min(high, 10**9)), min_size=1, max_size=5))
    x = np.array([numbers], dtype)
    for function in ("gelu", "softmax"):
        truth = getattr(reference, function)(exact(x))
        for module in (gpt2, reference):
            result = getattr(module, function)(x)
            assert result.dtype.kind == "f"
            np.testing.assert_allclose(result, truth, rtol=1e-5, atol=1e-7)


@quick
@given(batches, lengths, widths, widths, seeds)
@example((), 8, 700, 900, 0)  # enough to be computed in several pieces
def test_linear_and_matmul(batch, n_rows, n_in, n_out, seed):
    x, w, b = arrays(seed, (*batch, n_rows, n_in), (n_in, n_out), n_out)
    for order in "CF":
        w = w.copy(order)
        assert_twins(gpt2.linear(x, w, b), reference.linear(*exact([x, w, b])))
        assert_twins(gpt2.linear(x[..., 0, :], w, b), reference.linear(*exact([x[..., 0, :], w, b])))
        assert_twins(matmul(x, w), exact(x) @ exact(w))
    assert_twins(gpt2.logits(x, w.T), exact(x) @ exact(w))


@quick
@given(batches, lengths, widths, seeds)
def test_ffn(batch, n_seq, n_embd, seed):
    x, *weights = arrays(seed, (*batch, n_seq, n_embd), (n_embd, 4 * n_embd), 4 * n_embd, (4 * n_embd, n_embd), n_embd)
    c_fc, c_proj = dict(zip("wb", weights[:2], strict=True)), dict(zip("wb", weights[2:], strict=True))
    assert_twins(gpt2.ffn(x, c_fc, c_proj), reference.ffn(exact(x), exact(c_fc), exact(c_proj)))


def queries_keys_and_values(seed, batch, n_q, n_k, d_head):
    return arrays(seed, (*batch, n_q, d_head), (*batch, n_k, d_head), (*batch, n_k, d_head), scale=2.0)


@quick
@given(st.data(), batches, lengths, st.integers(1, 40), st.integers(1, 24), seeds)
def test_attention_with_any_mask_that_broadcasts(data, batch, n_q, n_k, d_head, seed):
    """A column, a row, a single number, one mask for each batch axis, or none."""
    q, k, v = queries_keys_and_values(seed, batch, n_q, n_k, d_head)
    shape = (*batch, n_q, n_k)
    narrowed = [data.draw(st.sampled_from([1, n])) for n in shape]
    mask_shape = tuple(narrowed[data.draw(st.integers(0, len(shape))) :])
    (mask,) = arrays(seed, mask_shape, scale=5.0)
    for given_mask in (mask, mask[()], mask.tolist() if mask.ndim == 0 else mask):
        assert_twins(gpt2.attention(q, k, v, given_mask), reference.attention(*exact([q, k, v, mask])))
    assert_twins(gpt2.attention(q, k, v), reference.attention(*exact([q, k, v])))
    assert_twins(gpt2.attention(q, k, v, mask=None), reference.attention(*exact([q, k, v]), mask=0))


@quick
@given(batches, lengths, st.integers(0, 40), st.integers(1, 24), seeds)
def test_causal_attention(batch, n_q, n_past, d_head, seed):
    n_k = n_past + n_q
    q, k, v = queries_keys_and_values(seed, batch, n_q, n_k, d_head)
    assert_twins(gpt2.causal_attention(q, k, v), reference.attention(*exact([q, k, v]), mask=causal(n_q, n_k)))
    np.testing.assert_array_equal(gpt2.causal_mask(n_q), causal(n_q, n_q).astype(np.float32))


# blocks, of which only the last positions may be wanted, with and without a past in the cache


wanted = st.one_of(st.none(), st.integers(1, 12))


@quick
@given(batches, lengths, wanted, seeds)
def test_mha_and_transformer_block(batch, n_seq, n_last, seed):
    (x,) = arrays(seed, (*batch, n_seq, N_EMBD))
    block = params_of(n_layer=1, seed=seed)["blocks"][0]
    part = slice(None) if n_last is None else slice(-n_last, None)
    plain = reference.mha(exact(x), **exact(block["attn"]), n_head=N_HEAD)
    assert_twins(gpt2.mha(x, **block["attn"], n_head=N_HEAD, wanted=part), plain[..., part, :])
    plain = reference.transformer_block(exact(x), **exact(block), n_head=N_HEAD)
    assert_twins(gpt2.transformer_block(x, **block, n_head=N_HEAD, wanted=part), plain[..., part, :])


@quick
@given(st.one_of(st.none(), st.integers(1, 3)), lengths, st.integers(1, 40), wanted, seeds)
def test_mha_and_transformer_block_with_a_past(n_rows, n_past, n_seq, n_last, seed):
    batch = () if n_rows is None else (n_rows,)
    (x,) = arrays(seed, (*batch, n_past + n_seq, N_EMBD))
    block = params_of(n_layer=1, seed=seed)["blocks"][0]
    part = slice(None) if n_last is None else slice(-n_last, None)
    for function, weights in (("mha", block["attn"]), ("transformer_block", block)):
        fast, plain = getattr(gpt2, function), getattr(reference, function)
        cache = KVCache(1, N_HEAD, N_EMBD // N_HEAD, n_past + n_seq + 3, n_rows)
        fast(x[..., :n_past, :], **weights, n_head=N_HEAD, kv_cache=cache)
        cache.advance(n_past)
        after = fast(x[..., n_past:, :], **weights, n_head=N_HEAD, kv_cache=cache, wanted=part)
        assert_twins(after, plain(exact(x), **exact(weights), n_head=N_HEAD)[..., n_past:, :][..., part, :])


# the whole model


@quick
@given(batches, lengths, wanted, st.integers(0, 3), seeds)
def test_gpt2(batch, n_seq, n_last, n_layer, seed):
    params = params_of(n_layer, n_ctx=n_seq + seed % 3, seed=seed)
    ids = np.random.default_rng(seed).integers(0, N_VOCAB, (*batch, n_seq))
    plain = reference.gpt2(ids.tolist(), **exact(params), n_head=N_HEAD)
    assert plain.shape == (*batch, n_seq, N_VOCAB)
    assert_twins(gpt2.gpt2(ids, **params, n_head=N_HEAD), plain)
    assert_twins(reference.gpt2(ids, **params, n_head=N_HEAD), plain)
    if n_layer and n_last:
        x = gpt2.hidden_states(ids, **params, n_head=N_HEAD, n_last=n_last)
        assert_twins(gpt2.logits(x, gpt2.head_of(params)), plain[..., -n_last:, :])


@quick
@given(st.data(), st.one_of(st.none(), st.integers(1, 3)), seeds)
def test_gpt2_with_a_cache_and_the_text_split_anywhere(data, n_rows, seed):
    n_seq = data.draw(lengths)
    cuts = sorted({0, n_seq, *data.draw(st.lists(st.integers(0, n_seq), max_size=4))})
    params = params_of(n_ctx=n_seq, seed=seed)
    ids = np.random.default_rng(seed).integers(0, N_VOCAB, (n_rows, n_seq) if n_rows else n_seq)
    cache = gpt2.new_cache(params, N_HEAD, n_seq, n_rows)
    parts = [ids[..., start:end] for start, end in pairwise(cuts)]
    fast = [gpt2.gpt2(part, **params, n_head=N_HEAD, kv_cache=cache) for part in parts]
    assert_twins(np.concatenate(fast, axis=-2), reference.gpt2(ids, **exact(params), n_head=N_HEAD))


@quick
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from("CF"), seeds)
def test_one_token_after_another(n_prompt, n_more, order, seed):
    """Each is computed in one_token.py, with matrices in any order."""
    n_seq = n_prompt + n_more
    params = each(lambda array: np.asarray(array, order=order), params_of(n_ctx=n_seq, seed=seed))
    ids = np.random.default_rng(seed).integers(0, N_VOCAB, n_seq)
    cache, plain_cache = (gpt2.new_cache(params, N_HEAD, n_seq) for _ in range(2))
    fast = [gpt2.next_logits(ids[:n_prompt], params, N_HEAD, cache)]
    assert isinstance(cache.for_one_token(params), OneToken)
    for i in range(n_prompt, n_seq):
        fast.append(gpt2.next_logits(ids[i : i + 1], params, N_HEAD, cache))
    assert cache.for_one_token(params) is None, "the cache is full"
    assert_twins(np.concatenate(fast), reference.gpt2(ids, **exact(params), n_head=N_HEAD)[n_prompt - 1 :])
    gpt2.gpt2(ids, **params, n_head=N_HEAD, kv_cache=plain_cache)
    assert cache.length == plain_cache.length
    assert_twins(cache.array, plain_cache.array)


@quick
@given(st.data(), seeds)
def test_texts_of_any_lengths_in_one_pass(data, seed):
    """Each text brings its own number of new tokens, at its own position. Some texts are then truncated."""
    rng = np.random.default_rng(seed)
    params = params_of(n_ctx=60, seed=seed)
    texts = [np.empty(0, int) for _ in range(data.draw(st.integers(1, 4)))]
    caches = [gpt2.new_cache(params, N_HEAD, 60) for _ in texts]
    for _ in range(4):
        longest = data.draw(st.sampled_from([1, 15]))
        news = [rng.integers(0, N_VOCAB, data.draw(st.integers(1, longest))) for _ in texts]
        together = gpt2.KVCaches(caches, list(map(len, news)))
        if data.draw(st.booleans()):  # the last position of each
            x = gpt2.hidden_states(np.concatenate(news), **params, n_head=N_HEAD, kv_cache=together, n_last=1)
            fast, ends = gpt2.logits(x, gpt2.head_of(params)), range(1, len(texts))
        else:
            fast, ends = gpt2.gpt2(np.concatenate(news), **params, n_head=N_HEAD, kv_cache=together), together.ends[:-1]
        texts = [np.append(text, new) for text, new in zip(texts, news, strict=True)]
        for rows, text in zip(np.split(fast, ends), texts, strict=True):
            assert_twins(rows, reference.gpt2(text, **exact(params), n_head=N_HEAD)[-len(rows) :])
        assert len(fast) in (len(texts), sum(map(len, news)))
        for i, cache in enumerate(caches):
            cache.truncate(data.draw(st.integers(0, 60)))
            texts[i] = texts[i][: cache.length]


@quick
@given(st.integers(1, 8), st.integers(1, 3), seeds)
def test_a_repeated_cache(n_seq, n_rows, seed):
    rng = np.random.default_rng(seed)
    params = params_of(seed=seed)
    text, new = rng.integers(0, N_VOCAB, n_seq), rng.integers(0, N_VOCAB, (n_rows, 2))
    cache = gpt2.new_cache(params, N_HEAD, n_seq + 2)
    gpt2.gpt2(text, **params, n_head=N_HEAD, kv_cache=cache)
    fast = gpt2.gpt2(new, **params, n_head=N_HEAD, kv_cache=cache.repeat(n_rows))
    texts = np.concatenate([np.tile(text, (n_rows, 1)), new], axis=1)
    assert_twins(fast, reference.gpt2(texts, **exact(params), n_head=N_HEAD)[:, -2:])


@quick
@given(st.integers(1, 8), st.integers(0, 8), seeds)
def test_greedy_generation(n_seq, n_new, seed):
    params = params_of(seed=seed)
    ids = np.random.default_rng(seed).integers(0, N_VOCAB, n_seq).tolist()
    before = list(ids)
    plain = reference.generate(ids, exact(params), N_HEAD, n_new)
    assert ids == before
    assert (len(plain), {type(token) for token in plain}) == (n_new, {int} if n_new else set())
    assert list(gpt2.generate(ids, params, N_HEAD, n_new)) == plain


# on every array library


class NumPy:
    array = staticmethod(np.asarray)
    compiled = staticmethod(lambda function, **_: function)


class Jax(NumPy):
    def __init__(self, monkeypatch):
        self.array = pytest.importorskip("jax", reason="pip install jax").numpy.asarray


class JitJax(Jax):
    def __init__(self, monkeypatch):
        super().__init__(monkeypatch)
        import jax

        self.compiled = jax.jit


class Strict(NumPy):
    """The array API's own library, which does nothing that the standard does not ask for."""

    def __init__(self, monkeypatch):
        self.array = pytest.importorskip("array_api_strict", reason="pip install array-api-strict").asarray


class Torch(NumPy):
    def __init__(self, monkeypatch):
        torch = pytest.importorskip("torch", reason="pip install torch")
        compat = pytest.importorskip("array_api_compat", reason="pip install array-api-compat")
        monkeypatch.setattr(reference, "array_namespace", compat.array_namespace)
        self.array = torch.asarray


class OldNumPy(NumPy):
    """NumPy before 2.0, whose arrays do not tell their library."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(reference, "hasattr", lambda x, name: False, raising=False)


@pytest.fixture(params=[OldNumPy, Jax, JitJax, Strict, Torch], ids=lambda library: library.__name__)
def library(request, monkeypatch):
    return request.param(monkeypatch)


def assert_same(theirs, ours):
    assert str(theirs.dtype).endswith("float32")
    np.testing.assert_allclose(np.asarray(theirs), ours, rtol=1e-4, atol=1e-4 * np.abs(ours).max())


def calls():
    """Name, arrays and keyword arguments of one call of each function of the reference."""
    x, g, b, w, q, k, v = arrays(0, (2, 5, 24), 24, 24, (24, 7), (2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8))
    block = params_of(1)["blocks"][0]
    mask = causal(5, 6).astype(np.float32)
    yield "gelu", [x], {}
    yield "softmax", [x * 30], {}
    yield "layer_norm", [x, g, b], {}
    yield "linear", [x, w, b[:7]], {}
    yield "ffn", [x, *block["mlp"].values()], {}
    yield "attention", [q, k, v], {}
    yield "attention", [q, k, v, mask], {}
    yield "mha", [x, block["attn"]["c_attn"], block["attn"]["c_proj"]], {"n_head": 3}
    yield "transformer_block", [x, *(block[name] for name in ("mlp", "attn", "ln_1", "ln_2"))], {"n_head": 3}
    yield "embed", [np.array([[0, 3, 3], [49, 1, 2]]), params_of()["wte"]], {}
    ids = np.arange(24).reshape(2, 3, 4)
    yield "gpt2", [ids, *(params_of(1)[name] for name in ("wte", "wpe", "blocks", "ln_f"))], {"n_head": 3}


def test_every_function_on_every_library(library, monkeypatch):
    for name, inputs, options in calls():
        with monkeypatch.context() as plain:
            plain.setattr(reference, "array_namespace", lambda x: np)
            ours = getattr(reference, name)(*inputs, **options)
        function = library.compiled(getattr(reference, name), static_argnames=tuple(options))
        theirs = function(*each(library.array, inputs), **options)
        assert type(theirs) is type(library.array(np.zeros(1, np.float32))), name
        assert_same(theirs, ours)


def test_generation_on_every_library(library, monkeypatch):
    params = params_of(1)
    expected = list(gpt2.generate([1, 2, 3], params, 3, 2))
    monkeypatch.setattr(reference, "gpt2", library.compiled(reference.gpt2, static_argnames="n_head"))
    theirs = reference.generate([1, 2, 3], each(library.array, params), 3, 2)
    assert theirs == expected


def test_no_function_changes_its_arguments():
    """Read-only arrays are enough, so nothing is computed in place."""

    def lock(array):
        array.flags.writeable = False
        return array

    for name, inputs, options in calls():
        getattr(reference, name)(*each(lock, inputs), **options)


def loss(params, ids):
    """The mean cross entropy of each next token."""
    probabilities = reference.softmax(reference.gpt2(ids[:-1], **params, n_head=N_HEAD))
    xp = reference.array_namespace(probabilities)
    return -sum(xp.log(probabilities[position, token]) for position, token in enumerate(ids[1:])) / (len(ids) - 1)


def leaves(tree):
    """All arrays of a tree, in the order of their names: JAX gives back dicts that are sorted."""
    if isinstance(tree, dict):
        return [leaf for name in sorted(tree) for leaf in leaves(tree[name])]
    if isinstance(tree, list):
        return [leaf for branch in tree for leaf in leaves(branch)]
    return [tree]


def test_gradients_by_jax_are_those_of_small_steps():
    """Training's oracle: along any direction, the loss changes as jax.grad says."""
    jax = pytest.importorskip("jax", reason="pip install jax")
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    params = exact(params_of(n_ctx=8))
    gradient = jax.jit(jax.grad(loss), static_argnums=1)(each(jax.numpy.float32, params), tuple(ids))
    assert all(np.abs(np.asarray(leaf)).max() > 0 for leaf in leaves(gradient))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        direction = {id(leaf): rng.standard_normal(leaf.shape) for leaf in leaves(params)}

        def moved(step, direction=direction):
            return each(lambda array: array + step * direction[id(array)], params)

        slope = (loss(moved(1e-6), ids) - loss(moved(-1e-6), ids)) / 2e-6
        pairs = zip(direction.values(), leaves(gradient), strict=True)
        along = sum(np.sum(step * np.asarray(change)) for step, change in pairs)
        assert along == pytest.approx(slope, rel=1e-3)


def test_gradients_by_jax_are_those_of_pytorch(monkeypatch):
    jax = pytest.importorskip("jax", reason="pip install jax")
    torch = pytest.importorskip("torch", reason="pip install torch")
    compat = pytest.importorskip("array_api_compat", reason="pip install array-api-compat")
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    ours = jax.jit(jax.grad(loss), static_argnums=1)(each(jax.numpy.asarray, params_of()), tuple(ids))
    monkeypatch.setattr(reference, "array_namespace", compat.array_namespace)
    tensors = each(lambda array: torch.tensor(array, requires_grad=True), params_of())
    loss(tensors, ids).backward()
    for gradient, tensor in zip(leaves(ours), leaves(tensors), strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, atol=1e-4 * float(tensor.grad.abs().max()), rtol=1e-3)


def test_rows_of_a_batch_by_vmap():
    jax = pytest.importorskip("jax", reason="pip install jax")
    params = each(jax.numpy.asarray, params_of())
    ids = np.random.default_rng(0).integers(0, N_VOCAB, (4, 6))
    rows = jax.vmap(lambda row: reference.gpt2(row, **params, n_head=N_HEAD))(jax.numpy.asarray(ids))
    assert_same(rows, reference.gpt2(ids, **params_of(), n_head=N_HEAD))


# the page itself


def test_it_is_one_page_of_pure_functions():
    source = Path(reference.__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) < 100
    nodes = list(ast.walk(ast.parse(source)))
    imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(node) for node in imports] == ["import numpy as np"]
    assert not [node for node in nodes if isinstance(node, (ast.AugAssign, ast.Global, ast.Delete, ast.Nonlocal))]
    stores = [node for node in nodes if isinstance(getattr(node, "ctx", None), ast.Store)]
    assert all(isinstance(node, (ast.Name, ast.Tuple, ast.List, ast.Starred)) for node in stores)


def test_plain_numbers_are_numpys():
    assert reference.array_namespace(3) is np
    assert reference.array_namespace(np.ones(2)) is np
    assert reference.gelu(1) == pytest.approx(0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * 1.044715)))
    assert reference.softmax(7) == 1
