"""One new token takes a way of its own through the model. test_reference.py compares it in many shapes."""

import inspect

import numpy as np
import pytest

from picogpt import gpt2, one_token, reference
from picogpt.errors import UserError
from picogpt.training.parameters import flat
from picogpt.weights import store
from tests.helpers import TINY

N_HEAD = TINY["n_head"]
IDS = np.random.default_rng(0).integers(0, TINY["n_vocab"], TINY["n_ctx"])
# activations so small that layer norm's epsilon counts, and normal ones
PARAMS = {std: store.nested(dict(store.random_tensors(TINY, seed=0, std=std))) for std in (0.02, 0.5)}


def error(params):
    """The largest difference from the plain model in float64, beside the largest logit."""
    cache = gpt2.new_cache(params, N_HEAD, len(IDS))
    ours = np.concatenate([gpt2.next_logits(IDS[i : i + 1], params, N_HEAD, cache) for i in range(len(IDS))])
    exact = store.nested({name: tensor.astype(np.float64) for name, tensor in flat(params)})
    plain = reference.gpt2(IDS, **exact, n_head=N_HEAD)
    return np.abs(ours - plain).max() / np.abs(plain).max()


@pytest.mark.parametrize("std", PARAMS)
def test_only_rounding_differs(std):
    assert error(PARAMS[std]) < 1e-5


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("gelu", "t *= 0.044715", "t *= 0.045"),
        ("OneToken", "1e-5", "1e-6"),
        ("OneToken", "math.sqrt(q.shape[-1])", "(1.001 * math.sqrt(q.shape[-1]))"),
        ("gelu", "np.multiply(t, 0.5, ", "np.multiply(t, 0.501, "),
    ],
)
def test_a_broken_constant_is_noticed(name, right, wrong, monkeypatch):
    source, changed = inspect.getsource(getattr(gpt2, name)), {**vars(gpt2), **vars(one_token)}
    assert source.count(right) == 1
    exec(source.replace(right, wrong), changed)
    monkeypatch.setattr(gpt2, name, changed[name])
    assert max(map(error, PARAMS.values())) > 1e-5


def test_large_scores_do_not_overflow():
    large = {name: 30 * t if name.endswith("c_attn/w") else t for name, t in flat(PARAMS[0.5])}
    assert error(store.nested(large)) < 1e-2


def test_no_more_tokens_than_there_is_room_for():
    params, ids = PARAMS[0.02], IDS[:1]
    short = gpt2.new_cache(params, N_HEAD, 1)
    gpt2.next_logits(ids, params, N_HEAD, short)
    with pytest.raises(UserError, match="the cache was made for 1 positions, found 2"):
        gpt2.next_logits(ids, params, N_HEAD, short)
    long = gpt2.new_cache(params, N_HEAD, TINY["n_ctx"] + 1)
    gpt2.next_logits(IDS, params, N_HEAD, long)
    with pytest.raises(UserError, match="the model sees 32 positions, found 33"):
        gpt2.next_logits(ids, params, N_HEAD, long)


def test_a_cache_may_be_used_with_other_weights():
    cache = gpt2.new_cache(PARAMS[0.5], N_HEAD, 3)
    for params in (*PARAMS.values(), PARAMS[0.02]):
        cache.truncate(0)
        at = gpt2.next_logits(IDS[:1], params, N_HEAD, cache)
        np.testing.assert_allclose(at, gpt2.gpt2(IDS[:1], **params, n_head=N_HEAD), rtol=1e-4, atol=1e-5)


def test_logits_are_not_written_over_by_the_next_token():
    params = PARAMS[0.5]
    cache = gpt2.new_cache(params, N_HEAD, 2)
    first = gpt2.next_logits(IDS[:1], params, N_HEAD, cache)
    copy = first.copy()
    gpt2.next_logits(IDS[1:2], params, N_HEAD, cache)
    np.testing.assert_array_equal(first, copy)


def test_weights_of_another_type_take_the_common_way():
    params = store.nested({name: tensor.astype(np.float64) for name, tensor in flat(PARAMS[0.5])})
    cache = gpt2.new_cache(params, N_HEAD, 2)
    at = gpt2.next_logits(IDS[:1], params, N_HEAD, cache)
    assert cache.for_one_token(params) is None
    assert at.dtype == np.float64
