"""Both of our models give the answers of PyTorch and transformers that are frozen in tests/golden/pytorch.json.

test_model.py compares the same functions with the PyTorch that is installed, if there is one. See docs/parity.md.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from parity import pytorch
from picogpt import gpt2, reference
from picogpt.weights import store

FROZEN = json.loads(pytorch.GOLDEN_PATH.read_text(encoding="utf-8"))
# as fractions of the largest number: how far a different order of float32 sums may move one. Seen: 3e-7 and 4e-6
LAYER_TOLERANCE, MODEL_TOLERANCE = 1e-6, 2e-5

both = pytest.mark.parametrize("model", [reference, gpt2], ids=["reference", "gpt2"])


def difference(ours, case, rows=slice(None)):
    """The largest difference between our numbers and the frozen ones, as a fraction of the largest of those."""
    frozen = np.array(FROZEN["answers"][case])[rows]
    ours = ours if ours.size == frozen.size else pytorch.random_sums(ours)
    assert ours.shape == frozen.shape
    return np.abs(ours - frozen).max() / np.abs(frozen).max()


@pytest.fixture(params=pytorch.MODELS)
def case(request):
    return request.param


@pytest.fixture
def hparams(case):
    return pytorch.MODELS[case]


@pytest.fixture
def ids(hparams):
    return pytorch.random_ids(hparams, hparams["n_ctx"])


@pytest.fixture(scope="module")
def all_params():
    return {name: store.nested(dict(pytorch.random_tensors(sizes))) for name, sizes in pytorch.MODELS.items()}


@pytest.fixture
def params(all_params, case):
    return all_params[case]


def test_every_case_is_frozen():
    assert list(FROZEN["answers"]) == [*pytorch.layers(), *pytorch.MODELS]


def causal_attention(q, k, v):
    """By the reference, which takes a mask."""
    n_q, n_k = q.shape[-2], k.shape[-2]
    return reference.attention(q, k, v, np.triu(np.full((n_q, n_k), -1e10, np.float32), n_k - n_q + 1))


@both
@pytest.mark.parametrize("case", pytorch.layers())
def test_every_layer(model, case):
    name, inputs = pytorch.layers()[case]
    function = getattr(model, name, causal_attention)
    assert difference(function(*inputs), case) < LAYER_TOLERANCE


@both
def test_logits_of_all_positions(model, case, hparams, params, ids):
    assert difference(model.gpt2(ids, **params, n_head=hparams["n_head"]), case) < MODEL_TOLERANCE


@pytest.mark.parametrize("n_seq", [1, 2, 7])
def test_logits_of_a_beginning(case, hparams, params, ids, n_seq):
    logits = gpt2.gpt2(ids[:n_seq], **params, n_head=hparams["n_head"])
    assert difference(logits, case, slice(n_seq)) < MODEL_TOLERANCE


@pytest.mark.parametrize("n_first", [None, 6])
def test_logits_with_a_cache_split_anywhere(case, hparams, params, ids, n_first):
    n_head, n_seq = hparams["n_head"], len(ids)
    splits = [0, n_first, n_first + 1, n_seq // 2, n_seq - 1, n_seq] if n_first else [0, n_seq]
    kv_cache = gpt2.new_cache(params, n_head, n_seq)
    parts = [gpt2.gpt2(ids[i:j], **params, n_head=n_head, kv_cache=kv_cache) for i, j in itertools.pairwise(splits)]
    assert kv_cache.length == n_seq
    assert difference(np.concatenate(parts), case) < MODEL_TOLERANCE


def test_the_pytorch_that_is_installed_answers_the_same():
    for name in ("torch", "transformers"):
        pytest.importorskip(name, reason=f"{name} is not installed: our answers are compared with its frozen ones")
    assert all(difference(pytorch.answer(case), case) < LAYER_TOLERANCE for case in pytorch.layers())
    assert all(difference(pytorch.answer(case), case) < MODEL_TOLERANCE for case in pytorch.MODELS)


# what the random sums see


def test_a_random_sum_notices_a_change_of_any_number_of_its_row():
    x = np.zeros((3, 50257), np.float32)
    for column in (0, 1, 777, 50256):
        x[1, column] = 1
        sums = pytorch.random_sums(x)
        assert sums[[0, 2]].tolist() == [0, 0]
        assert abs(sums[1]) == pytest.approx(50257**-0.5)
        x[1, column] = 0


def test_a_broken_constant_is_noticed(all_params, monkeypatch):
    case = "24x2x3"
    layer_norm = gpt2.layer_norm
    monkeypatch.setattr(gpt2, "layer_norm", lambda x, g, b: layer_norm(x, g, b, eps=1e-6))
    hparams = pytorch.MODELS[case]
    ids = pytorch.random_ids(hparams, hparams["n_ctx"])
    assert difference(gpt2.gpt2(ids, **all_params[case], n_head=3), case) > MODEL_TOLERANCE
