"""Text past n_ctx: what cropping the context gives, and what dropping the older half gives, without a cache."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import picogpt
from picogpt import gpt2
from picogpt.decoding import window
from picogpt.decoding.window import first_seen
from picogpt.errors import UserError
from picogpt.sampling import Sampling
from picogpt.weights import store
from tests.fuzz import TIMES
from tests.helpers import SHAKESPEARE, passes_counted

SMALL = {"n_vocab": 40, "n_ctx": 12, "n_embd": 24, "n_head": 3, "n_layer": 2}
PARAMS = store.nested(dict(store.random_tensors(SMALL, seed=0, std=0.2)))
WINDOWS = ["crop", "half"]


def after(ids):
    """The likeliest token after ids, computed without a cache."""
    return int(np.argmax(gpt2.gpt2(ids, **PARAMS, n_head=3)[-1]))


def cropped(ids, n):
    """The tutorials' loop."""
    ids = list(ids)
    for _ in range(n):
        ids.append(after(ids[-SMALL["n_ctx"] :]))
    return ids[len(ids) - n :]


def halved(ids, n):
    """A text of which the older half is dropped whenever there are more than n_ctx tokens."""
    ids, new = list(ids), []
    for _ in range(n):
        if len(ids) > SMALL["n_ctx"]:
            ids = ids[-SMALL["n_ctx"] // 2 :]
        new.append(after(ids))
        ids.append(new[-1])
    return new


def generate(ids, n, how, **settings):
    return list(window.generate(ids, PARAMS, 3, n, window=how, **settings))


@given(ids=st.lists(st.integers(0, 39), min_size=1, max_size=12), n=st.integers(0, 50))
@settings(max_examples=12 * TIMES)
def test_each_way_is_what_it_says(ids, n):
    assert generate(ids, n, "crop") == cropped(ids, n)
    assert generate(ids, n, "half") == halved(ids, n)


@given(ids=st.lists(st.integers(0, 39), min_size=13, max_size=60), n=st.integers(0, 30))
@settings(max_examples=12 * TIMES)
def test_a_prompt_may_be_longer_than_the_context(ids, n):
    assert generate(ids, n, "crop") == cropped(ids, n)
    shown = list(ids)
    for _ in range(n):
        shown.append(after(shown[first_seen(len(shown), SMALL["n_ctx"], "half") :]))
    assert generate(ids, n, "half") == shown[len(ids) :]


@pytest.mark.parametrize("n_ctx", [1, 2, 3, 8, 1024])
def test_a_window_shows_at_least_half_and_at_most_all(n_ctx):
    for n in range(1, 5 * n_ctx + 2):
        assert n - first_seen(n, n_ctx, "crop") == min(n, n_ctx)
        shown = n - first_seen(n, n_ctx, "half")
        assert shown == n if n <= n_ctx else max(n_ctx // 2, 1) <= shown <= n_ctx
        assert first_seen(n + 1, n_ctx, "half") - first_seen(n, n_ctx, "half") in (0, n_ctx + 1 - max(n_ctx // 2, 1))


@pytest.mark.parametrize("how", WINDOWS)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.9, top_k=5, seed=2)], ids=["greedy", "drawn"])
def test_up_to_n_ctx_it_is_the_plain_text_and_guesses_change_nothing(how, sampling):
    plain = list(gpt2.generate([1, 2, 3], PARAMS, 3, 9, sampling=sampling))
    text = generate([1, 2, 3], 60, how, sampling=sampling)
    assert text[:9] == plain and len(text) == 60
    assert generate([1, 2, 3], 60, how, sampling=sampling, lookahead=False) == text


@pytest.mark.parametrize("how", WINDOWS)
def test_samples_are_rows_with_random_numbers_of_their_own(how):
    sampling = Sampling(temperature=1, seed=4)
    seen: list[list[int]] = [[], [], []]
    steps = window.samples(
        [1, 2, 3], PARAMS, 3, 30, nsamples=3, window=how, sampling=sampling,
        watch=lambda row, token_id, _: seen[row].append(token_id),
    )  # fmt: skip
    rows = [list(row) for row in zip(*steps, strict=True)]
    assert rows == seen and rows[0] == generate([1, 2, 3], 30, how, sampling=sampling)
    plain = list(zip(*gpt2.generate([1, 2, 3], PARAMS, 3, 9, sampling=sampling, nsamples=3), strict=True))
    assert [row[:9] for row in rows] == list(map(list, plain)) and rows[0] != rows[1]


@pytest.mark.parametrize(("how", "expected"), [("crop", [12] * 5), ("half", [6, 1, 1, 1, 1])])
def test_what_a_token_costs(monkeypatch, how, expected):
    counted = passes_counted(monkeypatch)
    generate([1] * 12, 15, how, lookahead=False)
    assert counted[0] == 12 and counted[1:6] == expected
    assert sum(counted) == (12 * 15 if how == "crop" else 12 + 14 + 2 * 5)  # 6 positions twice, but for the newest


@pytest.mark.parametrize("how", WINDOWS)
def test_a_text_ends_where_the_model_or_a_watcher_ends_it(how):
    text = generate([1, 2, 3], 40, how)
    for at in range(40):
        if text[at] not in text[:at]:
            assert generate([1, 2, 3], 40, how, stop_id=text[at]) == text[:at]
        counted = []
        watch = lambda _, token_id, __, counted=counted, at=at: counted.append(token_id) or len(counted) > at  # noqa: E731
        assert generate([1, 2, 3], 40, how, watch=watch) == text[: at + 1] == counted


def test_mistakes_are_refused():
    with pytest.raises(UserError, match="sliding_window must be crop or half, found 'full'"):
        generate([1], 3, "full")
    with pytest.raises(UserError, match="n_tokens_to_generate must be a whole number, 0 or more, found -1"):
        generate([1], -1, "crop")
    with pytest.raises(UserError, match="ids from 0 to 39, found 40"):
        generate([40], 3, "crop")


# the bundled model


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


def test_a_thousand_tokens_of_a_model_with_256_positions(model):
    done = model.complete("LEONTES:", 1000, sliding_window="half")
    assert len(done.ids) == 1000 and done.finish_reason == "length" and done.text.count("\n") > 20
    text = model.generate("LEONTES:", 300, sliding_window="half")
    assert done.text.startswith(text) and text == model.generate(
        "LEONTES:", 300, sliding_window="half", lookahead=False
    )


def test_cropping_begins_as_the_plain_text_does(model):
    done = model.complete("LEONTES:", 265, sliding_window="crop")
    assert len(done.ids) == 265
    assert done.ids[:250] == list(model.generate_ids("LEONTES:", 250))
    ids = model.encode("LEONTES:") + done.ids
    for n in (262, 266):
        assert ids[n] == model.logits(ids[n - 256 : n])[-1].argmax()


def test_samples_of_the_bundled_model(model):
    how = {"temperature": 0.8, "seed": 1, "sliding_window": "half"}
    texts = model.samples("LEONTES:", 2, 260, **how)
    assert texts[0] == model.generate("LEONTES:", 260, **how) != texts[1]


def test_a_prompt_file_saves_the_first_pass(model, tmp_path):
    how = {"sliding_window": "half", "cache_prompt": tmp_path / "prompt"}
    text = model.generate("LEONTES:", 300, **how)
    written = (tmp_path / "prompt").read_bytes()
    assert model.generate("LEONTES:", 300, **how) == text and (tmp_path / "prompt").read_bytes() == written


def test_what_does_not_go_together_is_refused(model):
    with pytest.raises(UserError, match="sliding_window: expected no draft, found one"):
        model.generate("LEONTES:", 300, sliding_window="half", draft=model)
    with pytest.raises(UserError, match="or go on past them with --sliding_window half"):
        model.generate("LEONTES:", 300)
