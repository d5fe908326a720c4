"""The cache of keys and values: after any operations on it, the logits are those of a model without a cache."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picogpt import gpt2
from picogpt.errors import UserError
from picogpt.gpt2 import KVCache, KVCaches, new_cache, next_logits
from picogpt.weights import store
from tests.fuzz import TIMES
from tests.helpers import TINY

HPARAMS = TINY | {"n_vocab": 40, "n_ctx": 64}
N_HEAD = HPARAMS["n_head"]
PARAMS = store.nested(dict(store.random_tensors(HPARAMS, seed=0, std=0.2)))

ids = st.integers(0, 39)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 3)),
        st.tuples(st.just("truncate"), st.integers(0, 20)),
        st.tuples(st.just("reorder"), st.lists(st.integers(0, 2), min_size=3, max_size=3)),
    ),
    max_size=8,
)


def check(logits, rows, n_last=1):
    for at, row in zip(logits, rows, strict=True):
        np.testing.assert_allclose(at, gpt2.gpt2(row, **PARAMS, n_head=N_HEAD)[-n_last:], atol=2e-4)


@settings(max_examples=60 * TIMES)
@given(st.lists(ids, min_size=1, max_size=6), operations, st.randoms(use_true_random=False))
def test_each_row_continues_from_its_own_tokens(prompt, operations, random):
    cache = new_cache(PARAMS, N_HEAD, 60)
    next_logits(prompt, PARAMS, N_HEAD, cache)
    cache = cache.repeat(3)
    rows = [list(prompt) for _ in range(3)]

    def step(n):
        new = [[random.randrange(40) for _ in range(n)] for _ in rows]
        for row, more in zip(rows, new, strict=True):
            row += more
        check(next_logits(new, PARAMS, N_HEAD, cache, n_last=n), rows, n)

    for name, value in operations:
        if name == "pass":
            step(value)
        elif name == "truncate":
            cache.truncate(value)
            rows = [row[:value] for row in rows]
        else:
            cache.reorder(value)
            rows = [list(rows[i]) for i in value]
        assert cache.length == len(rows[0])
    step(2)


def test_a_single_sequence_can_be_truncated():
    cache = new_cache(PARAMS, N_HEAD, 10)
    next_logits([1, 2, 3, 4], PARAMS, N_HEAD, cache)
    cache.truncate(2)
    cache.truncate(5)  # there are no more to forget
    assert cache.length == 2
    check(next_logits([5], PARAMS, N_HEAD, cache)[None], [[1, 2, 5]])


def test_copies_do_not_share_memory():
    cache = new_cache(PARAMS, N_HEAD, 10)
    next_logits([1, 2], PARAMS, N_HEAD, cache)
    copies = cache.repeat(2)
    assert not np.shares_memory(copies.array, cache.array)
    copies.advance(3)
    assert (copies.length, cache.length) == (5, 2)


def test_fewer_rows_than_there_are_can_be_reordered():
    cache = KVCache(n_layer=1, n_head=1, d_head=1, max_length=1, n_rows=3)
    cache.restore(np.float32([5, 6, 7]).reshape(3, 1, 1, 1))
    cache.reorder([2])
    assert cache.array[0, 1].ravel().tolist() == [7, 6, 7]


def test_texts_in_one_pass_fill_their_own_caches():
    caches = [new_cache(PARAMS, N_HEAD, n) for n in (3, 5)]
    together = KVCaches(caches, [2, 4])
    assert together.positions(6).tolist() == [0, 1, 0, 1, 2, 3]
    gpt2.hidden_states([1, 2, 3, 4, 5, 6], **PARAMS, n_head=N_HEAD, kv_cache=together)
    assert [cache.length for cache in caches] == [2, 4]
    for ids, cache in zip(([1, 2], [3, 4, 5, 6]), caches, strict=True):
        alone = new_cache(PARAMS, N_HEAD, len(ids))
        next_logits(ids, PARAMS, N_HEAD, alone)
        np.testing.assert_allclose(cache.seen, alone.array, atol=2e-4)


def test_a_pass_that_fails_leaves_the_cache_as_it_was():
    cache = new_cache(PARAMS, N_HEAD, 5, n_rows=2)
    next_logits([[1], [2]], PARAMS, N_HEAD, cache)
    with pytest.raises(UserError, match="the cache was made for 5 positions, found 6: make a longer one"):
        next_logits([[1] * 5] * 2, PARAMS, N_HEAD, cache)
    assert cache.length == 1


def test_positions_beyond_n_ctx_are_refused():
    cache = new_cache(PARAMS, N_HEAD, 100)
    next_logits([1] * 64, PARAMS, N_HEAD, cache)
    with pytest.raises(UserError, match="the model sees 64 positions, found 65"):
        next_logits([1], PARAMS, N_HEAD, cache)
    with pytest.raises(UserError, match="expected one token or more, found none"):
        next_logits([], PARAMS, N_HEAD, cache)


@pytest.mark.parametrize("n", [5, 7, 8, 9, 16, 17, 40])
@pytest.mark.parametrize("n_last", [1, 3])
def test_a_long_prompt_in_chunks_gives_the_same_logits(monkeypatch, n, n_last):
    monkeypatch.setattr(gpt2, "PREFILL_CHUNK", 8)
    sizes = []
    real = gpt2.hidden_states
    monkeypatch.setattr(gpt2, "hidden_states", lambda x, *a, **kw: sizes.append(np.size(x)) or real(x, *a, **kw))
    prompt = np.random.default_rng(n).integers(0, 40, n)
    cache = new_cache(PARAMS, N_HEAD, n)
    found = next_logits(prompt, PARAMS, N_HEAD, cache, n_last)
    assert sum(sizes) == n and all(size == 8 for size in sizes[:-1]) and n_last <= sizes[-1] < 8 + n_last
    check(found[None], [prompt], n_last)
