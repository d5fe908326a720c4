"""Generation: the ids that the model without a cache would give, streamed, stopped, batched and drawn by seed."""

from itertools import islice

import numpy as np
import pytest

from picogpt import gpt2
from picogpt.choosing import draw, gumbel
from picogpt.decoding import lookahead
from picogpt.errors import UserError
from picogpt.sampling import Sampling
from picogpt.weights import store
from tests.helpers import SHAKESPEARE, TINY

N_HEAD = TINY["n_head"]
PROMPT = [5, 17, 900, 3]


@pytest.fixture(scope="module")
def params():
    return store.nested(dict(store.random_tensors(TINY, seed=0, std=0.2)))


def naive_greedy(params, ids, n):
    """The tutorial's loop: the whole sequence again for every token."""
    ids = list(ids)
    for _ in range(n):
        ids.append(int(np.argmax(gpt2.gpt2(ids, **params, n_head=N_HEAD)[-1])))
    return ids[-n:]


def test_greedy_is_what_the_model_without_a_cache_says(params):
    assert list(gpt2.generate(PROMPT, params, N_HEAD, 20)) == naive_greedy(params, PROMPT, 20)


def test_greedy_up_to_the_last_position(params):
    n = TINY["n_ctx"] - len(PROMPT)
    assert list(gpt2.generate(PROMPT, params, N_HEAD, n)) == naive_greedy(params, PROMPT, n)


def test_ids_come_one_by_one_and_the_prompt_is_left_alone(params):
    prompt = list(PROMPT)
    ids = gpt2.generate(prompt, params, N_HEAD, 20)
    first = list(islice(ids, 3))
    assert all(type(token_id) is int for token_id in first)
    assert first + list(ids) == naive_greedy(params, PROMPT, 20)
    assert prompt == PROMPT


def test_each_position_is_computed_once(params, monkeypatch):
    counted = []
    real = gpt2.hidden_states
    monkeypatch.setattr(gpt2, "hidden_states", lambda x, **kw: counted.append(np.shape(x)) or real(x, **kw))
    list(gpt2.generate(PROMPT, params, N_HEAD, 4, nsamples=3))
    assert counted == [(4,), (3, 1), (3, 1), (3, 1)]


def test_samples_share_the_prompt_and_then_differ(params):
    steps = list(gpt2.generate(PROMPT, params, N_HEAD, 12, sampling=Sampling(1.0, seed=1), nsamples=5))
    rows = list(zip(*steps, strict=True))
    assert len(set(rows)) == 5
    for row, ids in enumerate(rows):
        # teacher-forced: each drawn id is the one that the same draw takes from logits computed without a cache
        rng = np.random.default_rng(np.random.SeedSequence(1).spawn(5)[row])
        logits = gpt2.gpt2([*PROMPT, *ids], **params, n_head=N_HEAD)[len(PROMPT) - 1 : -1]
        assert [int(draw(at, gumbel(len(at), rng))) for at in logits] == list(ids)


def test_greedy_samples_are_all_the_same(params):
    steps = list(gpt2.generate(PROMPT, params, N_HEAD, 8, nsamples=3))
    assert steps == [[token_id] * 3 for token_id in naive_greedy(params, PROMPT, 8)]


@pytest.mark.parametrize(
    "settings", [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 40}, {"temperature": 2, "top_p": 0.5}]
)
def test_the_same_seed_gives_the_same_ids(params, settings):
    once, again, other = (
        list(gpt2.generate(PROMPT, params, N_HEAD, 20, sampling=Sampling(seed=seed, **settings))) for seed in (7, 7, 8)
    )
    assert once == again != other


def test_numpys_global_random_state_is_neither_used_nor_changed(params):
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    list(gpt2.generate(PROMPT, params, N_HEAD, 5, sampling=Sampling(1.0)))
    assert np.random.get_state()[1].tolist() == before


def test_one_sample_is_the_first_of_many(params):
    alone = list(gpt2.generate(PROMPT, params, N_HEAD, 10, sampling=Sampling(1.0, seed=3)))
    first = [ids[0] for ids in gpt2.generate(PROMPT, params, N_HEAD, 10, sampling=Sampling(1.0, seed=3), nsamples=4)]
    assert alone == first


def test_ids_end_before_the_stop_token(params):
    ids = naive_greedy(params, PROMPT, 20)
    stop = next(token_id for i, token_id in enumerate(ids) if i > 3 and token_id not in ids[:i])
    assert list(gpt2.generate(PROMPT, params, N_HEAD, 20, stop_id=stop)) == ids[: ids.index(stop)]


def test_a_row_that_stopped_stays_stopped_until_all_have(params):
    free = list(
        zip(*gpt2.generate(PROMPT, params, N_HEAD, 20, sampling=Sampling(1.0, seed=0), nsamples=3), strict=True)
    )
    stop = free[1][4]
    stopped = list(
        zip(
            *gpt2.generate(PROMPT, params, N_HEAD, 20, sampling=Sampling(1.0, seed=0), nsamples=3, stop_id=stop),
            strict=True,
        )
    )
    for row, ids in zip(free, stopped, strict=True):
        end = row.index(stop) if stop in row else len(row)
        assert ids[:end] == row[:end]
        assert set(ids[end:]) <= {stop}


def test_a_batch_ends_when_every_row_has(params):
    stop = naive_greedy(params, PROMPT, 1)[0]
    assert list(gpt2.generate(PROMPT, params, N_HEAD, 20, nsamples=2, stop_id=stop)) == []


def test_nothing_to_generate(params):
    assert list(gpt2.generate(PROMPT, params, N_HEAD, 0)) == []


@pytest.mark.parametrize("generate", [gpt2.generate, lookahead.generate])
@pytest.mark.parametrize(
    ("inputs", "n", "message"),
    [
        ([], 5, "one token or more, found none"),
        (PROMPT, -1, "0 or more, found -1"),
        (PROMPT, 2.5, "a whole number, 0 or more, found 2.5"),
        (PROMPT, 29, "sees 32 tokens, found 4 in the prompt [+] 29 to generate.*--n_tokens_to_generate 28"),
        ([1] * 40, 1, "found 40 in the prompt"),
        ([1024], 5, "ids from 0 to 1023, found 1024"),
        ([-1], 5, "ids from 0 to 1023, found -1"),
        ([3, True, None], 5, "expected a list of token ids"),
        ([[1, 2], [3]], 5, "expected a list of token ids"),
        ([[1, 2]], 5, "expected a list of token ids"),
        ([0.5], 5, "expected a list of token ids"),
        ("ROMEO:", 5, "expected a list of token ids, found 'ROMEO:': encode text first"),
    ],
)
def test_impossible_requests_are_refused_at_the_call(params, generate, inputs, n, message):
    with pytest.raises(UserError, match=message):
        generate(inputs, params, N_HEAD, n)


@pytest.mark.parametrize("nsamples", [0, -1, 1.5])
def test_a_number_of_samples_below_1_is_refused_at_the_call(params, nsamples):
    with pytest.raises(UserError, match=f"nsamples must be a whole number, 1 or more, found {nsamples}"):
        gpt2.generate(PROMPT, params, N_HEAD, 5, nsamples=nsamples)


def test_more_samples_than_there_is_memory_for_are_refused(params):
    with pytest.raises(UserError, match="memory for the keys and values of 10000000000000 texts of 9 tokens"):
        next(gpt2.generate(PROMPT, params, N_HEAD, 5, nsamples=10**13))


@pytest.mark.parametrize("generate", [gpt2.generate, lookahead.generate])
@pytest.mark.filterwarnings("error")
def test_damaged_weights_are_reported_before_any_token(params, generate):
    for bad in (np.nan, np.inf, 1e38):
        wpe = np.full_like(params["wpe"], bad)
        with pytest.raises(UserError, match="not finite"):
            next(generate(PROMPT, params | {"wpe": wpe}, N_HEAD, 5))


def test_the_bundled_model_has_learnt_shakespeare():
    """Loss on a line of the play below 4 nats per token (a uniform guess would be 6.9), and names in capitals."""
    from picogpt.utils import load_encoder_hparams_and_params

    encoder, hparams, params = load_encoder_hparams_and_params("shakespeare", SHAKESPEARE.parent)
    ids = encoder.encode("ROMEO:\nBut, soft! what light through yonder window breaks?\n")
    logits = gpt2.gpt2(ids, **params, n_head=hparams["n_head"])
    losses = [-np.log(gpt2.softmax(at)[target]) for at, target in zip(logits, ids[1:], strict=False)]
    assert np.mean(losses) < 4
    assert encoder.decode(gpt2.generate(encoder.encode("JULIET:"), params, hparams["n_head"], 1)) == "\n"
