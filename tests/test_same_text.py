"""Exactly the same text whichever way it is computed, on weights whose logits are so close that rounding decides."""

from __future__ import annotations

import numpy as np
import pytest

from picogpt import choosing, gpt2
from picogpt.decoding import batch, lookahead
from picogpt.sampling import GREEDY, Sampling
from picogpt.weights import store
from tests.fuzz import TIMES
from tests.helpers import TINY

HPARAMS = TINY | {"n_ctx": 64, "n_vocab": 128}
N_HEAD = HPARAMS["n_head"]
N_TOKENS = 6
SETTINGS = [
    GREEDY,
    Sampling(1.0, seed=1),
    Sampling(0.3, top_k=5, seed=2),
    Sampling(2.0, top_p=0.5, seed=3),
    Sampling(2.0, top_k=40, top_p=0.9, min_p=0.2, typical_p=0.9, seed=4),
    Sampling(repetition_penalty=1.5, no_repeat_ngram_size=2, banned=[3], logit_bias={5: 0.5}),
]
NAMES = [repr(how) for how in SETTINGS]
PROMPTS = [
    np.random.default_rng(n).integers(0, 128, 1 + n % 20).tolist() + [7, 8, 9] * (n % 3) for n in range(100 * TIMES)
]


def near_ties(noise, seed=0, n_layer=2, n_alike=4):
    """Weights of which four tokens each have the same embedding but for noise."""
    hparams = HPARAMS | {"n_layer": n_layer}
    params = store.nested(dict(store.random_tensors(hparams, seed, std=0.2)))
    wte = np.repeat(params["wte"][::n_alike], n_alike, axis=0)
    wte += np.float32(noise) * np.random.default_rng(seed).standard_normal(wte.shape, np.float32)
    return params | {"wte": wte}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Draws of which rounding decides as many as of greedy choices."""
    real = choosing.gumbel
    monkeypatch.setattr(choosing, "gumbel", lambda n, rng: np.float32(1e-5) * real(n, rng))


@pytest.fixture(scope="module")
def params():
    return near_ties(3e-7)


@pytest.fixture(scope="module")
def draft():
    return near_ties(1e-6, n_layer=1)


def alone(params, prompts, how):
    return [list(gpt2.generate(prompt, params, N_HEAD, N_TOKENS, sampling=how)) for prompt in prompts]


def together(params, prompts, how, batch_size):
    events = batch.generate(prompts, params, N_HEAD, N_TOKENS, batch_size=batch_size, sampling=how)
    return list(batch.in_order(events))


class Oracle:
    """Guesses that are right, but for some."""

    def __init__(self, text):
        self.text = list(text)
        self.n = 0

    def append(self, token_id):
        self.n += 1

    def guess(self, limit):
        guesses = self.text[self.n : self.n + min(limit, 5)]
        return [*guesses[:3], *((i + 1) % 128 for i in guesses[3:])]


@pytest.mark.parametrize("how", SETTINGS, ids=NAMES)
def test_the_text_is_the_same_alone_beside_others_and_with_guesses(params, draft, how):
    expected = alone(params, PROMPTS, how)
    assert together(params, PROMPTS, how, batch_size=7) == expected
    backwards = [*range(len(PROMPTS))][::-1]
    found = together(params, [PROMPTS[n] for n in backwards], how, batch_size=16)
    assert [found[n] for n in backwards] == expected
    for prompt, text in list(zip(PROMPTS, expected, strict=True))[::5]:
        samples = list(gpt2.generate(prompt, params, N_HEAD, N_TOKENS, sampling=how, nsamples=3))
        assert [ids[0] for ids in samples] == text
        request = prompt, params, N_HEAD, N_TOKENS
        for guesser in None, Oracle(text), lookahead.DraftModel(prompt, draft, N_HEAD, 64):
            assert list(lookahead.generate(*request, sampling=how, guesser=guesser)) == text


@pytest.mark.parametrize("how", SETTINGS, ids=NAMES)
def test_these_weights_need_it(params, how, monkeypatch):
    """Without a second look at what is close, some texts do differ."""
    monkeypatch.setattr(choosing, "TOO_CLOSE", 0)
    expected = alone(params, PROMPTS, how)
    assert any(together(params, PROMPTS, how, batch_size) != expected for batch_size in (7, 16))
