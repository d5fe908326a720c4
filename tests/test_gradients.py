"""Each layer computes what reference.py does, and its gradient is that of small steps, of PyTorch and of JAX.

Steps are taken in float64, along every number of small arrays. Sizes of blocks are made small, so that there is more
than one of each kind.
"""

import numpy as np
import pytest

from picogpt import reference
from picogpt.training import layers, model
from picogpt.training.model import loss_and_grads
from picogpt.training.parameters import flat
from picogpt.weights.shapes import nested, random_tensors

TINY = {"n_vocab": 13, "n_ctx": 11, "n_embd": 12, "n_head": 3, "n_layer": 2}
N_HEAD = TINY["n_head"]
STEP = 1e-5
BATCHES = [(), (2,), (2, 3)]

rows = pytest.mark.parametrize("batch", BATCHES, ids=["one row", "a batch", "two axes"])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(layers, "ELEMENTS", 7)
    monkeypatch.setattr(layers, "QUERIES", 4)
    monkeypatch.setattr(layers, "COLUMNS", 5)
    monkeypatch.setattr(layers, "row_blocks", lambda n, _: (slice(i, min(i + 3, n)) for i in range(0, n, 3)))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def small_steps(function, x, dy):
    """The derivative of the sum of dy * function(), which reads x, with respect to each number of x."""
    derivative = np.empty_like(x)
    for at in np.ndindex(*x.shape):
        before = x[at]
        x[at] = before + STEP
        above = function()
        x[at] = before - STEP
        derivative[at] = (dy * (above - function())).sum() / (2 * STEP)
        x[at] = before
    return derivative


def assert_derivatives(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7 * max(np.abs(expected).max(), 1e-3))


def begun(rng, **arrays):
    """Gradients that are not 0 before a backward function adds to them, twice: to change, and to compare with."""
    grads = {name: rng.standard_normal(array.shape) for name, array in arrays.items()}
    return grads, {name: grad.copy() for name, grad in grads.items()}


# layer by layer


@rows
def test_linear(batch, rng):
    x, w, b = rng.standard_normal((*batch, 4, 3)), rng.standard_normal((3, 5)), rng.standard_normal(5)
    y = layers.linear_forward(x.copy(), w, b)
    np.testing.assert_allclose(y, reference.linear(x, w, b))
    dy, (grads, before) = rng.standard_normal(y.shape), begun(rng, w=w, b=b)
    dx = layers.linear_backward(dy.copy(), x, w, grads)
    for found, array in ((dx, x), (grads["w"] - before["w"], w), (grads["b"] - before["b"], b)):
        assert_derivatives(found, small_steps(lambda: layers.linear_forward(x.copy(), w, b), array, dy))


@rows
@pytest.mark.parametrize("scale", [1, 1e-3], ids=["wide", "as small as the root of eps"])
def test_layer_norm(batch, scale, rng):
    x = 0.5 + scale * rng.standard_normal((*batch, 3, 5))
    g, b = rng.standard_normal((2, 5))
    y, saved = layers.layer_norm_forward(x.copy(), g, b)
    np.testing.assert_allclose(y, reference.layer_norm(x, g, b))
    dy, (grads, before) = rng.standard_normal(y.shape), begun(rng, g=g, b=b)
    dx = layers.layer_norm_backward(dy.copy(), saved, g, grads)
    for found, array in ((dx, x), (grads["g"] - before["g"], g), (grads["b"] - before["b"], b)):
        step = small_steps(lambda: scale * layers.layer_norm_forward(x / scale, g, b, 1e-5 / scale**2)[0], array, dy)
        assert_derivatives(found, step / scale)


@rows
def test_gelu(batch, rng):
    x = 2 * rng.standard_normal((*batch, 3, 5))
    y, saved = layers.gelu_forward(x.copy())
    np.testing.assert_allclose(y, reference.gelu(x), rtol=1e-7, atol=1e-12)
    dy = rng.standard_normal(y.shape)
    dx = layers.gelu_backward(dy.copy(), saved)
    assert_derivatives(dx, small_steps(lambda: reference.gelu(x), x, dy))


def test_gelu_of_extreme_numbers_is_finite():
    x = np.float32([-1e10, -1e4, -50, -10, 0, 10, 50, 1e4, 1e10])
    y, saved = layers.gelu_forward(x.copy())
    np.testing.assert_allclose(y, np.where(x > 0, x, 0), atol=1e-6)
    np.testing.assert_allclose(layers.gelu_backward(np.ones_like(x), saved), (x > 0) + 0.5 * (x == 0), atol=1e-6)


@rows
def test_dropout(batch, rng):
    x = rng.standard_normal((*batch, 3, 5))
    y, saved = layers.dropout_forward(x.copy(), 0.4, np.random.default_rng(1))
    assert 0 < (y == 0).sum() < y.size
    np.testing.assert_allclose(y, np.where(y == 0, 0, x / 0.6))
    dy = rng.standard_normal(y.shape)
    dx = layers.dropout_backward(dy.copy(), saved)
    np.testing.assert_allclose(dx, np.where(y == 0, 0, dy / 0.6))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_sets_numbers_to_0_at_its_rate_and_keeps_the_mean(rate):
    x = np.ones((300, 333), np.float32)
    y, _ = layers.dropout_forward(x.copy(), rate, np.random.default_rng(0))
    assert abs((y == 0).mean() - rate) < 0.005 and abs(y.mean() - 1) < 0.02
    for axis in (0, 1):  # no row and no column is special, and neighbours are independent
        assert abs((y == 0).mean(axis=axis) - rate).max() < 0.15
        both = (np.diff(y == 0, axis=axis)).mean()
        assert abs(both - 2 * rate * (1 - rate)) < 0.01
    other, _ = layers.dropout_forward(x.copy(), rate, np.random.default_rng(1))
    assert (other != y).any()


@pytest.mark.parametrize(("rate", "rng"), [(0.5, None), (0.0, np.random.default_rng(0))], ids=["no rng", "rate 0"])
def test_nothing_is_dropped(rate, rng):
    x = np.arange(12.0).reshape(3, 4)
    y, saved = layers.dropout_forward(x.copy(), rate, rng)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(layers.dropout_backward(x.copy(), saved), x)
    qkv = np.random.default_rng(0).standard_normal((5, 18))
    np.testing.assert_array_equal(
        layers.attention_forward(qkv.copy(), 2, rate, rng)[0], layers.attention_forward(qkv.copy(), 2)[0]
    )


def plain_attention(qkv, n_head):
    """Attention by reference.py: of each head with itself, side by side."""
    n_seq, n_embd = qkv.shape[-2], qkv.shape[-1] // 3
    d_head = n_embd // n_head
    mask = np.where(np.tri(n_seq), 0, -1e10)
    q, k, v = np.split(qkv, 3, axis=-1)
    cuts = [(..., slice(start, start + d_head)) for start in range(0, n_embd, d_head)]
    return np.concatenate([reference.attention(q[cut], k[cut], v[cut], mask) for cut in cuts], axis=-1)


@rows
@pytest.mark.parametrize("n_seq", [1, 4, 6])
@pytest.mark.parametrize("safe", [60.0, 0.0], ids=["no shift", "shift"])
def test_attention(batch, n_seq, safe, rng, monkeypatch):
    monkeypatch.setattr(layers, "SAFE", safe)
    qkv = rng.standard_normal((*batch, n_seq, 3 * 4))
    y, saved = layers.attention_forward(qkv.copy(), 2)
    np.testing.assert_allclose(y, plain_attention(qkv, 2))
    dy = rng.standard_normal(y.shape)
    dqkv = layers.attention_backward(dy.copy(), saved)
    assert_derivatives(dqkv, small_steps(lambda: layers.attention_forward(qkv.copy(), 2)[0], qkv, dy))


@rows
@pytest.mark.parametrize("safe", [60.0, 0.0], ids=["no shift", "shift"])
def test_attention_with_dropout(batch, safe, rng, monkeypatch):
    monkeypatch.setattr(layers, "SAFE", safe)
    qkv = rng.standard_normal((*batch, 6, 3 * 4))

    def attention():
        return layers.attention_forward(qkv.copy(), 2, 0.4, np.random.default_rng(1))

    y, saved = attention()
    assert np.abs(y - plain_attention(qkv, 2)).max() > 0.1
    dy = rng.standard_normal(y.shape)
    assert_derivatives(layers.attention_backward(dy.copy(), saved), small_steps(lambda: attention()[0], qkv, dy))


def test_dropout_takes_weights_of_attention(rng):
    """With v = 1 the result is the sum of the weights that were kept, over 1 - rate: on average 1."""
    qkv = rng.standard_normal((50, 64, 3 * 4))
    qkv[..., 8:] = 1
    y, _ = layers.attention_forward(qkv, 2, 0.4, rng)
    assert abs(y.mean() - 1) < 0.01 and y.std() > 0.05
    assert abs((y[:, 0] == 0).mean() - 0.4) < 0.1  # the first position has one weight


@pytest.mark.parametrize("n_seq", [3, 9])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scales", [(100, 100), (1, 1e4), (1e4, 1)], ids=str)
def test_attention_to_extreme_scores_is_finite(n_seq, sign, scales, rng):
    """A query whose own scores are all far below those of later positions as well."""
    qkv = rng.standard_normal((n_seq, 12)).astype(np.float32)
    qkv[:, :4] = sign * scales[0] * abs(qkv[:, :4])
    qkv[:, 4:8] *= scales[1] * np.arange(1, n_seq + 1)[:, None]
    y, saved = layers.attention_forward(qkv.copy(), 2)
    np.testing.assert_allclose(y, plain_attention(qkv.astype(np.float64), 2), rtol=1e-3, atol=1e-3)
    assert np.isfinite(layers.attention_backward(np.ones_like(y), saved)).all()


def test_attention_to_scores_just_below_the_shift_is_exact(rng):
    qkv = rng.standard_normal((9, 24)).astype(np.float32)
    q, k = qkv[:, :8], qkv[:, 8:16]
    for half in (slice(0, 4), slice(4, 8)):
        q[:, half] /= np.linalg.norm(q[:, half], axis=1, keepdims=True)
        k[:, half] *= 59 * 2 / np.linalg.norm(k[:, half], axis=1, keepdims=True)
    assert 50 < layers.longest(q[:, :4]) * layers.longest(k[:, :4]) / 2 < layers.SAFE
    y, saved = layers.attention_forward(qkv.copy(), 2)
    np.testing.assert_allclose(y, plain_attention(qkv.astype(np.float64), 2), rtol=1e-4, atol=1e-4)
    assert np.isfinite(layers.attention_backward(np.ones_like(y), saved)).all()


@rows
def test_embedding(batch, rng):
    wte, wpe, inputs = rng.standard_normal((5, 3)), rng.standard_normal((6, 3)), rng.integers(0, 5, (*batch, 4))
    y = layers.embedding_forward(inputs, wte, wpe)
    np.testing.assert_array_equal(y, wte[inputs] + wpe[:4])
    dy, (grads, before) = rng.standard_normal(y.shape), begun(rng, wte=wte, wpe=wpe)
    layers.embedding_backward(dy.copy(), inputs, grads)
    for name, array in (("wte", wte), ("wpe", wpe)):
        expected = small_steps(lambda: layers.embedding_forward(inputs, wte, wpe), array, dy)
        assert_derivatives(grads[name] - before[name], expected)


@rows
@pytest.mark.parametrize("n_vocab", [4, 12], ids=["one block of columns", "three"])
def test_cross_entropy(batch, n_vocab, rng):
    x, wte = rng.standard_normal((*batch, 4, 3)), rng.standard_normal((n_vocab, 3))
    targets = rng.integers(0, n_vocab, (*batch, 4))
    targets[..., 2] = -1
    losses = layers.cross_entropy_forward(x, targets, wte)
    p = reference.softmax(x @ wte.T)
    expected = -np.log(np.take_along_axis(p, np.maximum(targets, 0)[..., None], -1))[..., 0]
    np.testing.assert_allclose(losses, np.where(targets < 0, 0, expected))
    begin = rng.standard_normal(wte.shape)
    dwte = begin.copy()
    found, dx = layers.cross_entropy_backward(x.copy(), targets, wte, dwte)
    np.testing.assert_allclose(found, losses)
    for derivative, array in ((dx, x), (dwte - begin, wte)):
        expected = small_steps(lambda: layers.cross_entropy_forward(x, targets, wte), array, np.ones_like(losses))
        assert_derivatives(derivative, expected)
    assert not dx[..., 2, :].any()


def test_cross_entropy_of_extreme_logits_is_finite():
    x, wte = np.float32([[1e4], [-1e4], [1e4]]), np.float32([[1], [-1], [0.5]])
    losses, dx = layers.cross_entropy_backward(x, np.array([0, 0, 2]), wte, np.zeros_like(wte))
    np.testing.assert_allclose(losses, [0, 2e4, 5e3])
    np.testing.assert_allclose(layers.cross_entropy_forward(x, np.array([0, 0, 2]), wte), losses)
    np.testing.assert_allclose(dx, [[0], [-2], [0.5]])


@pytest.mark.parametrize("n_vocab", [1, 1024, 50257])
@pytest.mark.parametrize("n_rows", [1, 64, 1000])
def test_blocks_of_rows_are_all_rows_and_hold_few_logits(n_rows, n_vocab, monkeypatch):
    monkeypatch.undo()
    blocks = list(layers.row_blocks(n_rows, n_vocab))
    assert np.concatenate([np.arange(n_rows)[block] for block in blocks]).tolist() == list(range(n_rows))
    assert all((block.stop - block.start) * n_vocab <= 1 << 24 for block in blocks)


# the model


def tiny_params(dtype=np.float64, hparams=TINY, std=0.3):
    return nested({name: tensor.astype(dtype) for name, tensor in random_tensors(hparams, seed=0, std=std)})


def tiny_batch(batch=(3,), hparams=TINY, n_seq=9):
    ids = np.random.default_rng(1).integers(0, hparams["n_vocab"], (*batch, n_seq + 1))
    inputs, targets = ids[..., :-1], ids[..., 1:].copy()
    targets[..., 4] = -1
    return inputs, targets


def plain_loss(params, inputs, targets, n_head=N_HEAD):
    """The mean loss by reference.py; the library is that of the weights."""
    logits = reference.gpt2(inputs, **params, n_head=n_head)
    xp = reference.array_namespace(logits)
    largest = xp.max(logits, axis=-1, keepdims=True)
    log_p = logits - largest - xp.log(xp.sum(xp.exp(logits - largest), axis=-1, keepdims=True))
    chosen = np.arange(logits.shape[-1]) == targets[..., None]  # no row where the target is below 0
    return -xp.sum(xp.where(xp.asarray(chosen), log_p, 0.0)) / (targets >= 0).sum()


def along(params, name, direction, function):
    """How fast a function of the weights changes along a direction of one tensor."""
    tensor = dict(flat(params))[name]
    tensor += STEP * direction
    above = function()
    tensor -= 2 * STEP * direction
    below = function()
    tensor += STEP * direction
    return (above - below) / (2 * STEP)


@rows
def test_loss_is_that_of_the_plain_model(batch):
    params, (inputs, targets) = tiny_params(), tiny_batch(batch)
    loss, _ = loss_and_grads(params, inputs, targets, N_HEAD)
    np.testing.assert_allclose(loss, plain_loss(params, inputs, targets), rtol=1e-12)
    losses = model.losses(params, inputs, targets, N_HEAD)
    assert losses.shape == targets.shape and not losses[targets < 0].any()
    np.testing.assert_allclose(losses.sum() / (targets >= 0).sum(), loss, rtol=1e-12)


def test_loss_of_a_single_target_is_not_divided():
    params, inputs, targets = tiny_params(), np.array([3, 7]), np.array([-1, 5])
    loss, grads = loss_and_grads(params, inputs, targets, N_HEAD)
    np.testing.assert_allclose(loss, plain_loss(params, inputs, targets), rtol=1e-12)
    direction = np.ones((12,))
    expected = along(params, "ln_f/b", direction, lambda: plain_loss(params, inputs, targets))
    np.testing.assert_allclose(grads["ln_f"]["b"].sum(), expected, rtol=1e-5)


@pytest.mark.parametrize("own_head", [False, True], ids=["wte as head", "own head"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_of_every_tensor_is_that_of_small_steps(dropout, own_head, rng):
    params, (inputs, targets) = tiny_params(hparams=TINY | {"own_head": own_head}), tiny_batch()
    assert ("lm_head" in params) == own_head

    def found():
        return loss_and_grads(params, inputs, targets, N_HEAD, dropout, np.random.default_rng(2) if dropout else None)

    loss, grads = found()
    plain = plain_loss(params, inputs, targets)
    assert abs(loss - plain) < 1e-12 if dropout == 0 else abs(loss - plain) > 1e-3
    assert [name for name, _ in flat(grads)] == [name for name, _ in flat(params)]
    for name, grad in flat(grads):
        for direction in rng.standard_normal((2, *grad.shape)):
            expected = along(params, name, direction, lambda: found()[0])
            np.testing.assert_allclose((grad * direction).sum(), expected, rtol=1e-4, atol=1e-7, err_msg=name)


def test_no_dropout_without_a_generator():
    params, (inputs, targets) = tiny_params(), tiny_batch()
    assert loss_and_grads(params, inputs, targets, N_HEAD, 0.5)[0] == loss_and_grads(params, inputs, targets, N_HEAD)[0]


def test_dropout_is_at_the_embedding_the_weights_of_attention_and_both_ends_of_a_block(monkeypatch):
    """As in OpenAI's paper and in transformers: resid_pdrop, embd_pdrop and attn_pdrop."""
    masks = []
    real = layers.keep_mask
    monkeypatch.setattr(layers, "keep_mask", lambda shape, *a: masks.append(shape) or real(shape, *a))
    inputs, targets = tiny_batch()
    loss_and_grads(tiny_params(), inputs, targets, N_HEAD, 0.1, np.random.default_rng(0))
    hidden = (3, 9, 12)
    assert [shape for shape in masks if len(shape) == 3] == [hidden] * (1 + 2 * TINY["n_layer"])
    assert [shape[:2] for shape in masks if len(shape) == 4] == [(3, 3)] * (3 * TINY["n_layer"])  # 3 blocks of queries


def test_targets_that_do_not_count_change_nothing():
    params, (inputs, targets) = tiny_params(), tiny_batch()
    part, _ = loss_and_grads(params, inputs[:2], targets[:2], N_HEAD)
    targets[2] = -1
    loss, grads = loss_and_grads(params, inputs, targets, N_HEAD)
    np.testing.assert_allclose(loss, part)
    assert not grads["wpe"][9:].any()
    loss, grads = loss_and_grads(params, inputs, np.full_like(targets, -1), N_HEAD)
    assert loss == 0 and not any(grad.any() for _, grad in flat(grads))


def test_params_and_batch_stay_as_they_are():
    params, (inputs, targets) = tiny_params(), tiny_batch()
    before = [tensor.copy() for _, tensor in flat(params)]
    ids = inputs.copy(), targets.copy()
    loss_and_grads(params, inputs, targets, N_HEAD, 0.2, np.random.default_rng(0))
    assert all((old == new).all() for old, (_, new) in zip(before, flat(params), strict=True))
    assert (ids[0] == inputs).all() and (ids[1] == targets).all()


# against PyTorch and JAX, in float32 and with the true sizes of blocks

REAL = {"n_vocab": 5000, "n_ctx": 160, "n_embd": 48, "n_head": 3, "n_layer": 2}


def assert_close(ours, theirs):
    """Each gradient is off by 1e-4 of its own length at most."""
    assert ours.keys() == theirs.keys()
    for name, grad in ours.items():
        assert grad.dtype == np.float32 and grad.shape == theirs[name].shape
        assert np.linalg.norm(grad - theirs[name]) <= 1e-4 * np.linalg.norm(theirs[name]), name


@pytest.mark.parametrize("own_head", [False, True], ids=["wte as head", "own head"])
def test_gradient_is_that_of_transformers(own_head, monkeypatch):
    monkeypatch.undo()
    torch = pytest.importorskip("torch", reason="torch is not installed: transformers runs on it")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: it is the oracle")
    assert REAL["n_vocab"] > layers.COLUMNS and REAL["n_ctx"] > 2 * layers.QUERIES
    params = tiny_params(np.float32, REAL | {"own_head": own_head}, std=0.1)
    inputs, targets = tiny_batch((2,), REAL, 150)
    sizes = {"vocab_size": REAL["n_vocab"], "n_positions": REAL["n_ctx"], "tie_word_embeddings": not own_head}
    config = transformers.GPT2Config(**sizes, **{name: REAL[name] for name in ("n_embd", "n_head", "n_layer")})
    theirs = transformers.GPT2LMHeadModel(config).eval()
    leaves = {"g": "weight", "w": "weight", "b": "bias", "wte": "wte.weight", "wpe": "wpe.weight", "lm_head": "lm_head"}
    parameters = {**dict(theirs.transformer.named_parameters()), "lm_head": theirs.lm_head.weight}
    keys = {}
    for name, tensor in flat(params):
        *path, leaf = name.replace("h", "h.", 1).split("/") if name[0] == "h" else name.split("/")
        keys[name] = ".".join([*path, leaves[leaf]])
        parameters[keys[name]].data = torch.tensor(tensor)
    theirs.tie_weights()
    logits = theirs(torch.tensor(inputs)).logits
    cross_entropy = torch.nn.functional.cross_entropy
    loss = cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten(), ignore_index=-1)
    loss.backward()
    found, grads = loss_and_grads(params, inputs, targets, REAL["n_head"])
    np.testing.assert_allclose(found, loss.item(), rtol=1e-5)
    assert_close(dict(flat(grads)), {name: parameters[key].grad.numpy() for name, key in keys.items()})


def test_gradient_is_that_of_jax_and_the_plain_model(monkeypatch):
    monkeypatch.undo()
    jax = pytest.importorskip("jax", reason="jax is not installed: it takes the gradient of reference.py")
    hparams = TINY | {"n_layer": 1}  # a block takes a second to compile
    params, (inputs, targets) = tiny_params(np.float32, hparams), tiny_batch()
    gradient = jax.jit(jax.value_and_grad(plain_loss))
    loss, theirs = gradient(jax.tree.map(jax.numpy.asarray, params), inputs, targets)
    found, grads = loss_and_grads(params, inputs, targets, N_HEAD)
    np.testing.assert_allclose(found, float(loss), rtol=1e-5)
    assert_close(dict(flat(grads)), {name: np.asarray(grad) for name, grad in flat(theirs)})
