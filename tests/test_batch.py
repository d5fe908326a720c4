"""Prompts of different lengths in one batch: each is continued as if it were alone."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picogpt import choosing, gpt2
from picogpt.decoding import batch
from picogpt.errors import UserError
from picogpt.one_token import OneToken
from picogpt.sampling import GREEDY, Sampling
from picogpt.weights import store
from tests.fuzz import TIMES
from tests.helpers import TINY

HPARAMS = TINY | {"n_ctx": 120}
N_HEAD = HPARAMS["n_head"]
PROMPTS = [np.random.default_rng(n).integers(0, 1024, n).tolist() for n in (3, 1, 40, 7, 7, 2, 100, 5, 1)]
DRAWN = Sampling(1.0, top_k=50, seed=4)
BATCH_SIZES = [1, 2, 4, 16]


def random_params(hparams):
    return store.nested(dict(store.random_tensors(hparams, seed=0, std=0.2)))


@pytest.fixture(scope="module")
def params():
    return random_params(HPARAMS)


@pytest.fixture
def passes(monkeypatch):
    """How many ids and how many texts there are in each pass through the model; 0 texts if it has no cache."""
    seen = []
    real = gpt2.hidden_states

    def hidden_states(ids, kv_cache=None, **keywords):
        n_texts = len(kv_cache.caches) if isinstance(kv_cache, gpt2.KVCaches) else int(kv_cache is not None)
        seen.append((np.size(ids), n_texts))
        return real(ids, kv_cache=kv_cache, **keywords)

    for room in (gpt2, batch):
        monkeypatch.setattr(room, "hidden_states", hidden_states)
    one = OneToken.logits
    monkeypatch.setattr(OneToken, "logits", lambda self, *token: seen.append((1, 1)) or one(self, *token))
    return seen


def alone(params, n, prompts=PROMPTS, **how):
    return [list(gpt2.generate(prompt, params, N_HEAD, n, **how)) for prompt in prompts]


def together(params, n, prompts=PROMPTS, **how):
    return list(batch.in_order(batch.generate(prompts, params, N_HEAD, n, **how)))


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("how", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_each_prompt_is_continued_as_if_it_were_alone(params, batch_size, how):
    assert together(params, 20, batch_size=batch_size, sampling=how) == alone(params, 20, sampling=how)


def test_a_model_with_a_head_of_its_own(params):
    own = {**params, "lm_head": params["wte"][::-1].copy()}
    assert together(own, 20) == alone(own, 20) != alone(params, 20)


SMALL = random_params(TINY | {"n_vocab": 60, "n_ctx": 60})
ids = st.integers(0, 59)


@settings(max_examples=60 * TIMES)
@given(
    prompts=st.lists(st.lists(ids, min_size=1, max_size=30), max_size=8),
    n=st.integers(0, 30),
    batch_size=st.sampled_from(BATCH_SIZES),
    how=st.sampled_from([GREEDY, Sampling(top_p=0.9, seed=1), Sampling(5.0, seed=2)]),
    stop_id=st.none() | ids,
)
def test_any_prompts_are_continued_as_if_alone(prompts, n, batch_size, how, stop_id):
    found = together(SMALL, n, prompts, batch_size=batch_size, sampling=how, stop_id=stop_id)
    assert found == alone(SMALL, n, prompts, sampling=how, stop_id=stop_id)


def test_zero_tokens_give_empty_texts(params):
    assert list(batch.generate(PROMPTS[:2], params, N_HEAD, 0)) == [(0, None), (1, None)]


def test_no_prompts_give_no_texts(params):
    assert list(batch.generate([], params, N_HEAD, 5)) == []


def test_texts_end_at_the_stop_token_and_make_room(params, passes):
    free = alone(params, 20, sampling=DRAWN)
    for stop_id in (free[0][0], free[2][5], free[6][19]):
        expected = alone(params, 20, sampling=DRAWN, stop_id=stop_id)
        assert sum(map(len, expected)) < 9 * 20
        passes.clear()
        assert together(params, 20, batch_size=3, sampling=DRAWN, stop_id=stop_id) == expected
        n_texts = [n for _, n in passes if n]
        assert n_texts[0] == 3
        assert all(now >= after for now, after in pairwise(n_texts)), "a place was empty for a while"


def test_the_end_of_a_text_is_reported_with_its_last_token(params):
    for n_tokens in (1, 4):
        events = list(batch.generate(PROMPTS, params, N_HEAD, n_tokens, batch_size=2))
        ends = [at for at, (_, token_id) in enumerate(events) if token_id is None]
        assert [events[at - 1][0] for at in ends] == [events[at][0] for at in ends]
        assert sorted(number for number, token_id in events if token_id is None) == list(range(len(PROMPTS)))


def test_a_short_text_is_complete_before_a_longer_one_that_began_earlier(params):
    free = alone(params, 20)
    stop_id = next(i for i in free[1] if i not in free[0])
    events = list(batch.generate(PROMPTS[:2], params, N_HEAD, 20, stop_id=stop_id))
    assert events.index((1, None)) < events.index((0, None))


def test_no_position_is_computed_for_padding(params, passes):
    together(params, 20, batch_size=4)
    assert sum(n_ids for n_ids, _ in passes) == sum(map(len, PROMPTS)) + len(PROMPTS) * 19
    assert max(n_texts for _, n_texts in passes) == 4


@pytest.mark.parametrize("n_cores", [1, 2, 3])
def test_texts_are_shared_out_among_cores(params, passes, monkeypatch, n_cores):
    monkeypatch.setattr(batch, "n_cores", lambda: n_cores)
    monkeypatch.setattr(batch, "LONG", 60)
    monkeypatch.setattr(batch, "MANY", 30)
    monkeypatch.setattr(batch, "SHORTEST", 10)
    expected = alone(params, 20)
    passes.clear()
    assert together(params, 20) == expected
    first = passes[: 1 + {1: 3, 2: 4, 3: 3}[n_cores]]
    assert (100, 1) in first, "a long prompt was not alone"
    assert sum(n_ids for n_ids, _ in first) == sum(map(len, PROMPTS))
    assert all(n_ids < 30 or n_texts == 1 for n_ids, n_texts in first)
    assert all(n_texts == len(PROMPTS) for _, n_texts in passes[len(first) :])


sizes = st.lists(st.one_of(st.just(1), st.integers(1, 300)), max_size=40)


@given(sizes, st.sampled_from([1, 2, 7]))
def test_every_text_is_in_one_group(sizes, n_cores):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "n_cores", lambda: n_cores)
        groups = batch.in_groups(sizes)
    assert sorted(i for group in groups for i in group) == list(range(len(sizes)))
    loads = [sum(sizes[i] for i in group) for group in groups]
    long = [group for group in groups if max(sizes[i] for i in group) >= 256]
    assert all(len(group) == 1 for group in long)
    short = loads[len(long) :]
    assert len(short) < 2 or (max(short) - min(short) < 256 and max(short) < 1024 + 256)


# near ties


def with_twins(params, factor):
    """Every token has a twin whose logit is `factor` times its own."""
    half = params["wte"][: HPARAMS["n_vocab"] // 2]
    return {**params, "wte": np.concatenate([half, half * np.float32(factor)])}


@pytest.mark.parametrize(
    ("factor", "how", "n_again"),
    [(1, GREEDY, 20 * len(PROMPTS)), (1 - 1e-6, GREEDY, 20 * len(PROMPTS)), (0.9, GREEDY, 0), (1, DRAWN, None)],
)
def test_a_near_tie_is_computed_again_from_the_ids_alone(params, passes, factor, how, n_again):
    twins = with_twins(params, factor)
    found = together(twins, 20, batch_size=4, sampling=how)
    n_alone = sum(n_texts == 0 for _, n_texts in passes)
    assert n_alone == n_again if n_again is not None else n_alone < 20 * len(PROMPTS) / 20
    assert found == alone(twins, 20, sampling=how)


def test_a_position_that_is_not_sure_takes_the_logits_computed_again(params, monkeypatch):
    monkeypatch.setattr(choosing, "TOO_CLOSE", 1e9)
    assert together(params, 20, batch_size=4) == alone(params, 20)
    real = gpt2.choosers
    again = np.eye(1, HPARAMS["n_vocab"], 7)[0]

    def choosers(*arguments):
        texts = real(*arguments)
        for text in texts:
            text.again = lambda ids: again
        return texts

    monkeypatch.setattr(batch, "choosers", choosers)
    assert together(params, 20) == [[7] * 20] * len(PROMPTS)


# requests


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, found 0"),
        ({"prompts": [[1], [2] * 101]}, "prompt 1: the model sees 120 tokens, found 101 in the prompt \\+ 20"),
        ({"prompts": [[1], []]}, "prompt 1: generation starts from one token or more"),
        ({"prompts": [[1024]]}, "prompt 0: expected ids from 0 to 1023, found 1024"),
        ({"n_tokens_to_generate": -1}, "prompt 0: n_tokens_to_generate must be a whole number, 0 or more, found -1"),
    ],
)
def test_a_request_is_refused_when_it_is_made(params, change, message):
    request = {"prompts": PROMPTS, "n_tokens_to_generate": 20} | change
    with pytest.raises(UserError, match=message):
        batch.generate(params=params, n_head=N_HEAD, **request)


def test_a_batch_is_no_larger_than_its_prompts(params):
    assert together(params, 2, batch_size=10**9) == alone(params, 2)


def test_texts_are_put_in_the_order_of_the_prompts():
    events = [(1, 7), (2, None), (0, 5), (1, None), (0, 6), (0, None), (3, 8)]
    assert list(batch.in_order(events)) == [[5, 6], [7], []]
