"""Every layer, and the model as a whole, against PyTorch and Hugging Face's GPT2LMHeadModel on random weights.

Both of ours, the plain one and the fast one. test_reference.py compares these two with one another.
"""

import itertools
import re

import numpy as np
import pytest

from picogpt import gpt2, reference
from picogpt.errors import UserError
from picogpt.gpt2 import KVCache
from picogpt.weights import store

SHAPES = [
    {"n_vocab": 97, "n_ctx": 32, "n_embd": 24, "n_head": 3, "n_layer": 2},
    {"n_vocab": 50, "n_ctx": 80, "n_embd": 64, "n_head": 1, "n_layer": 1},
    {"n_vocab": 300, "n_ctx": 100, "n_embd": 160, "n_head": 5, "n_layer": 4},
    {"n_vocab": 10007, "n_ctx": 1024, "n_embd": 64, "n_head": 4, "n_layer": 2},
    {"n_vocab": 97, "n_ctx": 32, "n_embd": 24, "n_head": 2, "n_layer": 1, "own_head": True},
]


def random_params(hparams, seed=0):
    return store.nested(dict(store.random_tensors(hparams, seed, std=0.2)))


def random_ids(hparams, *shape, seed=1):
    return np.random.default_rng(seed).integers(0, hparams["n_vocab"], shape)


def random_array(*shape, seed=2):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def new_cache(hparams, max_length, n_rows=None):
    return KVCache(hparams["n_layer"], hparams["n_head"], hparams["n_embd"] // hparams["n_head"], max_length, n_rows)


def assert_close(ours, theirs):
    """Within 1e-4 of the largest, which is what float32 allows after a few thousand additions in another order."""
    assert ours.dtype == np.float32
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


both = pytest.mark.parametrize("model", [reference, gpt2], ids=["reference", "gpt2"])


@pytest.fixture(params=SHAPES, ids=lambda h: f"{h['n_embd']}x{h['n_layer']}x{h['n_head']}")
def hparams(request):
    return request.param


@pytest.fixture
def params(hparams):
    return random_params(hparams)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: see test_frozen.py")


@pytest.fixture
def their_gpt2(torch, hparams):
    """Logits from ids, by transformers' GPT2LMHeadModel with the same weights."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: see test_frozen.py")
    config = transformers.GPT2Config(
        vocab_size=hparams["n_vocab"], n_positions=hparams["n_ctx"], n_embd=hparams["n_embd"],
        n_head=hparams["n_head"], n_layer=hparams["n_layer"], bos_token_id=0, eos_token_id=0,
        tie_word_embeddings="own_head" not in hparams,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    tensors = store.random_tensors(hparams, seed=0, std=0.2)
    state = {name_in_transformers(name): torch.from_numpy(tensor) for name, tensor in tensors}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == ([] if "own_head" in hparams else ["lm_head.weight"], [])

    def logits(ids):
        with torch.no_grad():
            return model(torch.from_numpy(ids)[None]).logits[0].numpy()

    return logits


def name_in_transformers(name):
    if name == "lm_head":
        return "lm_head.weight"
    name = re.sub(r"^h(\d+)/", r"h/\1/", name).replace("/", ".")
    name = re.sub(r"\.b$", ".bias", name)
    return "transformer." + re.sub(r"(\.[gw]|(?<=wte)|(?<=wpe))$", ".weight", name)


# layer by layer


@both
def test_gelu(model, torch):
    x = np.linspace(-12, 12, 1001, dtype=np.float32)
    theirs = torch.nn.functional.gelu(torch.from_numpy(x), approximate="tanh")
    np.testing.assert_allclose(model.gelu(x), theirs, rtol=1e-6, atol=1e-6)  # 0.0447 for 0.044715 is off by 1e-5


@both
def test_softmax(model, torch):
    x = random_array(3, 4, 50) * 30
    assert_close(model.softmax(x), torch.softmax(torch.from_numpy(x), -1))


@both
def test_softmax_of_large_numbers_does_not_overflow(model):
    assert model.softmax(np.float32([1e4, 1e4, -1e10])).tolist() == [0.5, 0.5, 0]


@both
@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_layer_norm(model, torch, scale):
    x, g, b = random_array(5, 64) * np.float32(scale) + 3, random_array(64, seed=3), random_array(64, seed=4)
    tx, tg, tb = map(torch.from_numpy, (x, g, b))
    theirs = torch.nn.functional.layer_norm(tx, (64,), tg, tb, eps=1e-5)
    assert_close(model.layer_norm(x, g, b), theirs)


@both
def test_linear(model, torch):
    x, w, b = random_array(2, 7, 24), random_array(24, 5), random_array(5)
    theirs = torch.nn.functional.linear(torch.from_numpy(x), torch.from_numpy(w.T.copy()), torch.from_numpy(b))
    assert_close(model.linear(x, w, b), theirs)


@pytest.mark.parametrize("n_seq", [1, 2, gpt2.QUERY_BLOCK, gpt2.QUERY_BLOCK + 1, 3 * gpt2.QUERY_BLOCK - 1])
def test_causal_attention(torch, n_seq):
    q, k, v = (random_array(2, 3, n_seq, 16, seed=seed) for seed in range(3))
    theirs = torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)), is_causal=True)
    assert_close(gpt2.causal_attention(q, k, v), theirs)


@both
def test_attention(model, torch):
    q, k, v, mask = (
        random_array(3, 2, 16),
        random_array(3, 9, 16, seed=3),
        random_array(3, 9, 16, seed=4),
        random_array(2, 9),
    )
    theirs = torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v, mask)))
    assert_close(model.attention(q, k, v, mask), theirs)


def test_attention_with_a_past(torch):
    q, k, v = random_array(3, 2, 16), random_array(3, 9, 16, seed=3), random_array(3, 9, 16, seed=4)
    may_look = torch.ones(2, 9, dtype=torch.bool).tril(diagonal=7)
    theirs = torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)), attn_mask=may_look)
    assert_close(gpt2.causal_attention(q, k, v), theirs)


def test_every_layer_stays_float32():
    x = random_array(4, 8)
    mask = gpt2.causal_mask(4)
    layers = [
        gpt2.gelu(x), gpt2.softmax(x), gpt2.layer_norm(x, x[0], x[1]), gpt2.linear(x, x.T, x[:, 0]), mask,
        gpt2.attention(x, x, x, mask), gpt2.causal_attention(x, x, x), gpt2.logits(x, x),
    ]  # fmt: skip
    assert {layer.dtype for layer in layers} == {np.dtype(np.float32)}


def test_arguments_are_not_changed():
    """A mapped file of weights cannot be written to, and neither can these."""
    x, row = random_array(4, 24), random_array(24, seed=3)
    params = random_params(SHAPES[0])
    block = params["blocks"][0]
    arrays = [x, row, params["wte"], params["wpe"], *params["ln_f"].values()]
    arrays += [array for layer in (block["ln_1"], block["ln_2"]) for array in layer.values()]
    arrays += [array for part in (block["attn"], block["mlp"]) for layer in part.values() for array in layer.values()]
    for array in arrays:
        array.flags.writeable = False
    gpt2.gelu(x), gpt2.softmax(x), gpt2.layer_norm(x, row, row), gpt2.linear(x, x.T, x[:, 0])
    gpt2.attention(x, x, x), gpt2.attention(x, x, x, x[:, :1]), gpt2.causal_attention(x, x, x)
    gpt2.ffn(x, **block["mlp"]), gpt2.transformer_block(x, **block, n_head=3)
    gpt2.gpt2([1, 2, 3], **params | {"blocks": [block]}, n_head=3)


def test_the_shared_mask_cannot_be_changed():
    """Once, causal_mask(4)[:] = 0 let every later text look into its future."""
    with pytest.raises(ValueError, match="read-only"):
        gpt2.causal_mask(4)[:] = 0
    assert gpt2.causal_mask(4)[0, 1] == np.float32(-1e10)


# the whole model


def lengths(hparams):
    return [1, 2, 7, hparams["n_ctx"] // 2, hparams["n_ctx"]]


@both
def test_logits_of_all_positions(model, hparams, params, their_gpt2):
    for n_seq in lengths(hparams):
        ids = random_ids(hparams, n_seq)
        assert_close(model.gpt2(ids.tolist(), **params, n_head=hparams["n_head"]), their_gpt2(ids))


def test_logits_with_a_cache_in_one_step(hparams, params, their_gpt2):
    for n_seq in lengths(hparams):
        ids = random_ids(hparams, n_seq)
        cache = new_cache(hparams, n_seq)
        assert_close(gpt2.gpt2(ids, **params, n_head=hparams["n_head"], kv_cache=cache), their_gpt2(ids))
        assert cache.length == n_seq


@pytest.mark.parametrize("n_first", [1, 2, 6])
def test_logits_with_a_cache_split_anywhere(hparams, params, their_gpt2, n_first):
    n_seq = hparams["n_ctx"]
    ids = random_ids(hparams, n_seq)
    cache = new_cache(hparams, n_seq)
    splits = [0, n_first, n_first + 1, n_seq // 2, n_seq - 1, n_seq]
    ours = [
        gpt2.gpt2(ids[start:end], **params, n_head=hparams["n_head"], kv_cache=cache)
        for start, end in itertools.pairwise(splits)
    ]
    assert_close(np.concatenate(ours), their_gpt2(ids))


def test_later_tokens_do_not_change_earlier_logits(hparams, params):
    ids = random_ids(hparams, hparams["n_ctx"])
    changed = ids.copy()
    changed[20:] = (changed[20:] + 1) % hparams["n_vocab"]
    n_head = hparams["n_head"]
    before, after = (gpt2.gpt2(x, **params, n_head=n_head)[:20] for x in (ids, changed))
    assert_close(before, after)


def test_more_positions_than_the_model_sees_are_refused():
    hparams = SHAPES[0]
    with pytest.raises(UserError, match="sees 32 positions, found 33"):
        gpt2.gpt2(random_ids(hparams, 33), **random_params(hparams), n_head=3)


def test_more_positions_than_the_cache_holds_are_refused():
    hparams = SHAPES[0]
    with pytest.raises(UserError, match="made for 4 positions, found 5"):
        gpt2.gpt2(random_ids(hparams, 5), **random_params(hparams), n_head=3, kv_cache=new_cache(hparams, 4))


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_no_tokens_at_all_are_refused(shape):
    with pytest.raises(UserError, match="expected one token or more, found none"):
        gpt2.gpt2(np.zeros(shape, int), **random_params(SHAPES[0]), n_head=3)
