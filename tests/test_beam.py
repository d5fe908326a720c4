"""Beam search: the sequences and scores of transformers, live on random weights, and frozen for the bundled model."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import picogpt
from parity import beams, pytorch
from picogpt import gpt2
from picogpt.decoding import beam
from picogpt.errors import UserError
from picogpt.sampling import Sampling
from picogpt.weights import store
from tests.fuzz import TIMES
from tests.helpers import SHAKESPEARE

SMALL = {"n_vocab": 24, "n_ctx": 24, "n_embd": 24, "n_head": 3, "n_layer": 2}  # so few tokens that texts often end
TENSORS = list(store.random_tensors(SMALL, seed=0, std=0.2))
PARAMS = store.nested(dict(TENSORS))
FROZEN = json.loads(beams.GOLDEN_PATH.read_text(encoding="utf-8"))["answers"]


def search(ids, n, **settings):
    return beam.generate(ids, PARAMS, SMALL["n_head"], n, **settings)


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


@pytest.fixture(scope="module")
def theirs():
    """GPT2LMHeadModel, with the same weights."""
    pytest.importorskip("torch", reason="torch is not installed: frozen answers are compared")
    pytest.importorskip("transformers", reason="transformers is not installed: frozen answers are compared")
    return pytorch.transformers_model(SMALL, TENSORS)


def with_end(text, stop_id, length):
    """The ids of a hypothesis as transformers returns them: with the token that ends it, padded by it."""
    return text.ids + [stop_id] * (length - len(text.ids)) if text.ended else text.ids


@given(
    ids=st.lists(st.integers(0, 23), min_size=1, max_size=6), n=st.integers(1, 18), width=st.integers(2, 6),
    nsamples=st.integers(1, 6), length_penalty=st.sampled_from([1.0, 0.0, 0.6, 2.0, -1.0]), stop_id=st.integers(0, 23),
)  # fmt: skip
@settings(max_examples=12 * TIMES)
@example([1, 2, 3], 18, 6, 6, 1.0, 5)
def test_sequences_and_scores_are_those_of_transformers(theirs, ids, n, width, nsamples, length_penalty, stop_id):
    nsamples = min(nsamples, width)
    sequences, scores = beams.search(theirs, ids, n, width, nsamples, length_penalty, stop_id)
    ours = search(ids, n, num_beams=width, nsamples=nsamples, length_penalty=length_penalty, stop_id=stop_id)
    np.testing.assert_allclose([text.score for text in ours], scores, rtol=1e-4, atol=1e-5)
    if all(a - b > 1e-4 * max(abs(a), 1) for a, b in pairwise(scores)):  # else rounding may exchange two
        assert [with_end(text, stop_id, len(sequences[0])) for text in ours] == sequences


@given(
    ids=st.lists(st.integers(0, 23), min_size=1, max_size=6), penalty=st.sampled_from([1.0, 1.3, 0.8]),
    ngram=st.integers(0, 3), banned=st.sets(st.integers(0, 23), max_size=4),
)  # fmt: skip
@settings(max_examples=8 * TIMES)
def test_settings_that_look_at_the_tokens_so_far_are_those_of_transformers(theirs, ids, penalty, ngram, banned):
    how = {"repetition_penalty": penalty, "no_repeat_ngram_size": ngram}
    found = search(ids, 10, num_beams=4, nsamples=4, stop_id=5, sampling=Sampling(banned=tuple(banned - {5}), **how))
    more = how | ({"bad_words_ids": [[token_id] for token_id in banned - {5}]} if banned - {5} else {})
    sequences, scores = beams.search(theirs, ids, 10, 4, 4, 1.0, 5, **more)
    np.testing.assert_allclose([text.score for text in found], scores, rtol=1e-4, atol=1e-5)
    if all(a - b > 1e-4 * max(abs(a), 1) for a, b in pairwise(scores)):
        assert [with_end(text, 5, len(sequences[0])) for text in found] == sequences


@pytest.mark.parametrize("case", FROZEN, ids=lambda case: case["prompt"][:7])
def test_frozen_answers_of_transformers(model, case):
    how = {name: case[name] for name in ("num_beams", "nsamples", "length_penalty", "stop_id")}
    ours = beam.generate(model.encode(case["prompt"]), model.params, 6, case["n"], **how)
    longest = len(case["sequences"][0])
    assert [with_end(text, case["stop_id"], longest) for text in ours] == case["sequences"]
    np.testing.assert_allclose([text.score for text in ours], case["scores"], rtol=1e-5)


def log_probability(ids, new):
    """The sum of the log-probabilities of new tokens, by the model without a cache."""
    at = gpt2.gpt2([*ids, *new], **PARAMS, n_head=SMALL["n_head"])[len(ids) - 1 : -1]
    return float(np.sum(np.log(gpt2.softmax(at))[range(len(new)), new]))


@pytest.mark.parametrize("length_penalty", [0, 1, -2])
def test_a_score_is_the_log_probability_of_the_text(length_penalty):
    [text] = search([1, 2], 7, num_beams=3, length_penalty=length_penalty)
    assert text.score == pytest.approx(log_probability([1, 2], text.ids) / 7**length_penalty, rel=1e-5)


def test_with_beams_enough_the_likeliest_text_of_all_is_found():
    [text] = search([3, 1], 2, num_beams=SMALL["n_vocab"] // 2)
    every = {(a, b): log_probability([3, 1], [a, b]) for a in range(24) for b in range(24)}
    assert tuple(text.ids) == max(every, key=every.get)


def test_one_beam_is_greedy():
    [text] = search([1, 2, 3], 15, num_beams=1)
    assert text.ids == list(gpt2.generate([1, 2, 3], PARAMS, SMALL["n_head"], 15))


def test_each_step_is_one_pass_of_all_beams(monkeypatch):
    counted = []
    real = gpt2.hidden_states
    monkeypatch.setattr(gpt2, "hidden_states", lambda x, **kw: counted.append(np.shape(x)) or real(x, **kw))
    search([1, 2, 3], 4, num_beams=5)
    assert counted == [(3,), (5, 1), (5, 1), (5, 1)]


def test_a_prompt_file_gives_the_same_texts(model, tmp_path):
    how = {"num_beams": 3, "nsamples": 2}
    plain = model.beam_search("ROMEO:", 8, **how)
    for _ in range(2):
        assert model.beam_search("ROMEO:", 8, cache_prompt=tmp_path / "prompt", **how) == plain
    assert [model.decode(found.ids) for found in plain] == [found.text for found in plain]


def test_damaged_weights_are_told():
    wte = np.full_like(PARAMS["wte"], np.nan)
    with pytest.raises(UserError, match="not finite numbers: its weights are damaged"):
        beam.generate([1], PARAMS | {"wte": wte}, SMALL["n_head"], 3, num_beams=2)


def test_no_tokens_are_the_empty_text():
    assert search([1], 0, num_beams=3, nsamples=2) == [beam.Hypothesis([], 0.0, False)] * 2


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"num_beams": 0}, "num_beams must be a whole number, 1 or more, found 0: try 4"),
        ({"num_beams": 2.5}, "num_beams must be a whole number, 1 or more, found 2.5"),
        ({"num_beams": 13}, "num_beams: expected at most half the vocabulary, 12, found 13"),
        ({"num_beams": 3, "nsamples": 4}, "nsamples must be a whole number from 1 to num_beams, 3, found 4"),
        ({"num_beams": 3, "length_penalty": float("nan")}, "length_penalty must lie between -10 and 10, found nan"),
        ({"num_beams": 3, "sampling": Sampling(top_k=3)}, "num_beams: expected greedy text, found settings for a draw"),
        ({"num_beams": 3, "length_penalty": 11}, "length_penalty must lie between -10 and 10, found 11: try 1"),
    ],
)
def test_settings_out_of_range_are_refused(how, message):
    with pytest.raises(UserError, match=f"^{message}"):
        search([1], 3, **how)
    with pytest.raises(UserError, match="the model sees 24 tokens"):
        search([1], 24, num_beams=3)
