"""What changes and drops logits, compared with transformers' LogitsProcessors on random logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from picogpt import filters, penalties
from picogpt.choosing import Chooser
from picogpt.errors import UserError
from picogpt.sampling import Sampling

torch = pytest.importorskip("torch", reason="the tests ask PyTorch and transformers")
theirs = pytest.importorskip("transformers", reason="the tests ask transformers")

N_VOCAB = 30
rows = hnp.arrays(np.float32, N_VOCAB, elements=st.floats(-20, 20, width=16), unique=True)
texts = st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=40) | st.lists(
    st.integers(0, 2), min_size=1, max_size=40
)
penalty = st.floats(0.25, 4)
open_interval = st.floats(0.01, 0.99)


def asked(processor, ids, logits):
    """What transformers makes of the logits of one text."""
    return processor(torch.tensor([ids]), torch.tensor(logits[None].copy()))[0].numpy()


def same(ours, others):
    assert np.array_equal(np.isfinite(ours), np.isfinite(others))
    assert np.allclose(ours, others, rtol=1e-6)


@given(rows, texts, penalty)
def test_repetition_penalty(logits, ids, penalty):
    same(
        penalties.penalize_repetition(logits, ids, penalty),
        asked(theirs.RepetitionPenaltyLogitsProcessor(float(penalty)), ids, logits),
    )


@given(rows, texts, st.integers(1, 5))
def test_no_repeat_ngram_size(logits, ids, n):
    same(
        penalties.ban_repeated_ngrams(logits, ids, n),
        asked(theirs.NoRepeatNGramLogitsProcessor(n), ids, logits),
    )


@given(rows, texts, st.dictionaries(st.integers(0, N_VOCAB - 1), st.floats(-5, 5, width=16), min_size=1))
def test_logit_bias(logits, ids, bias):
    processor = theirs.SequenceBiasLogitsProcessor([[[token_id], float(b)] for token_id, b in bias.items()])
    same(penalties.add_bias(logits, bias.items()), asked(processor, ids, logits))


@given(rows, texts, st.sets(st.integers(0, N_VOCAB - 1), min_size=1, max_size=29))
def test_banned(logits, ids, banned):
    processor = theirs.NoBadWordsLogitsProcessor([[token_id] for token_id in banned])
    same(penalties.ban(logits, list(banned)), asked(processor, ids, logits))


def near(x, border):
    return np.abs(x - border).min() < 1e-5


@given(rows, st.floats(0, 1))
def test_min_p(logits, p):
    probabilities = np.exp(logits - logits.max())
    if not near(probabilities, p):
        same(filters.min_p_logits(logits, p), asked(theirs.MinPLogitsWarper(p), [0], logits))


@given(rows, open_interval)
def test_typical_p(logits, p):
    x = logits.astype(np.float64)
    log_p = x - x.max() - np.log(np.exp(x - x.max()).sum())
    distance = np.abs(-log_p + np.sum(np.exp(log_p) * log_p))
    order = np.argsort(distance)
    if not near(np.cumsum(np.exp(log_p[order])), p) and np.diff(distance[order]).min() > 1e-5:
        same(filters.typical_p_logits(logits, p), asked(theirs.TypicalLogitsWarper(p), [0], logits))


@given(rows, st.integers(1, 40))
def test_top_k(logits, k):
    same(filters.top_k_logits(logits, k), asked(theirs.TopKLogitsWarper(k), [0], logits))


@given(rows, open_interval)
def test_top_p_drops_the_token_that_crosses_p_and_transformers_keeps_it(logits, p):
    x = np.exp(logits.astype(np.float64) - logits.max())
    if not near(np.cumsum(np.sort(x / x.sum())[::-1]), p):
        ours = filters.top_p_logits(logits, p)
        others = asked(theirs.TopPLogitsWarper(p), [0], logits)
        missing = np.isfinite(others) & ~np.isfinite(ours)
        assert np.isfinite(others[np.isfinite(ours)]).all()
        assert missing.sum() == (np.isfinite(others).sum() > 1)


SETTINGS = {
    "temperature": 0.7, "top_k": 20, "min_p": 0.02, "typical_p": 0.9, "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
}  # fmt: skip


def left(sampling, logits, ids):
    """What may be drawn, by the noise that favours each token in turn."""
    found = set()
    for token_id in range(N_VOCAB):
        chooser = Chooser(sampling, ids)
        noise = np.zeros(N_VOCAB, np.float32)
        noise[token_id] = 1e4
        found.add(chooser.best(logits, noise)[0])
    return found


def test_all_together_in_the_order_of_transformers():
    bias, banned = {3: 4.0, 5: -4.0}, [7, 8]
    config = theirs.GenerationConfig(
        do_sample=True, **SETTINGS, bad_words_ids=[[i] for i in banned],
        sequence_bias=[[[i], b] for i, b in bias.items()], eos_token_id=None,
    )  # fmt: skip
    config._eos_token_tensor = None
    model = theirs.GPT2LMHeadModel(
        theirs.GPT2Config(n_layer=1, n_head=1, n_embd=2, vocab_size=N_VOCAB, bos_token_id=0, eos_token_id=0)
    )
    rng = np.random.default_rng(0)
    for _ in range(40):
        logits = rng.normal(0, 3, N_VOCAB).astype(np.float32)
        ids = rng.integers(0, 12, 20).tolist()
        processors = model._get_logits_processor(config, input_ids_seq_length=len(ids))
        expected = asked(processors, ids, logits)
        ours = Sampling(**SETTINGS, logit_bias=bias, banned=banned)
        assert left(ours, logits, ids) == {*np.flatnonzero(np.isfinite(expected)).tolist()}


def test_the_logits_are_left_as_they_were():
    logits = np.arange(N_VOCAB, dtype=np.float32)
    before = logits.copy()
    how = Sampling(
        1.0, 5, 0.9, 1, 0.1, 0.9, 1.5, 2, {1: 2.0}, (3,), lambda ids, x: np.minimum(x, 5, out=x)
    )  # fmt: skip
    Chooser(how, [1, 2, 1], how.rngs(1)[0]).next(logits)
    assert np.array_equal(logits, before)


# functions


def test_a_function_sees_the_ids_and_the_logits_after_the_penalties():
    seen = []

    def processor(ids, logits):
        seen.append((list(ids), logits.copy()))
        ids.append(0)  # its own list
        logits[:] = 0  # its own array
        logits[4] = 1
        return logits

    logits = np.arange(6, dtype=np.float32)
    chooser = Chooser(Sampling(processor=processor, banned=[5]), [1, 2])
    assert (chooser.next(logits), chooser.next(logits), chooser.ids) == (4, 4, [1, 2, 4, 4])
    assert [ids for ids, _ in seen] == [[1, 2], [1, 2, 4]]
    assert seen[0][1].tolist() == [0, 1, 2, 3, 4, -np.inf]


@pytest.mark.parametrize(
    "wrong", [None, 3, np.zeros(5), np.zeros((1, 6)), "x", np.full(6, np.nan), ["a"] * 6, np.zeros(6, bool)]
)
def test_a_function_must_return_logits(wrong):
    with pytest.raises(UserError, match="processor: expected it to return 6 logits, found"):
        Chooser(Sampling(processor=lambda ids, logits: wrong), [1]).next(np.zeros(6, np.float32))


@pytest.mark.parametrize("right", [np.arange(6), np.arange(6.0), [0, 1, 2, 3, 4, 5]])
def test_a_function_may_return_numbers_of_any_type(right):
    assert Chooser(Sampling(processor=lambda ids, logits: right), [1]).next(np.zeros(6, np.float32)) == 5


# settings


@pytest.mark.parametrize(
    "how",
    [
        {"banned": range(6)},
        {"no_repeat_ngram_size": 1},
        {"processor": lambda ids, logits: logits - np.inf},
        {"banned": [0, 1, 2], "no_repeat_ngram_size": 1, "temperature": 1.0, "seed": 1},
    ],
)
def test_settings_that_leave_no_token_are_refused(how):
    how = how | {"banned": [*how.get("banned", ())]}
    sampling = Sampling(**how)
    with pytest.raises(UserError, match="no token is left to choose"):
        Chooser(sampling, [*range(6)], (sampling.rngs(1) or [None])[0]).next(np.arange(6, dtype=np.float32))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"min_p": -0.1}, "min_p must lie between 0"),
        ({"min_p": float("nan")}, "min_p must lie between 0"),
        ({"typical_p": 0}, "typical_p must be above 0"),
        ({"typical_p": 1.1}, "typical_p must be above 0"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
        ({"repetition_penalty": "1"}, "repetition_penalty must be above 0"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be a whole number"),
        ({"no_repeat_ngram_size": 1.5}, "no_repeat_ngram_size must be a whole number"),
        ({"logit_bias": 3}, "logit_bias must be ids with numbers, as {11: -5.0}, found 3"),
        ({"logit_bias": {"a": 3}}, "logit_bias must be ids with numbers"),
        ({"logit_bias": {-1: 3}}, "logit_bias must be ids with numbers"),
        ({"logit_bias": {1: float("inf")}}, "logit_bias must be ids with numbers"),
        ({"logit_bias": [1, 2]}, "logit_bias must be ids with numbers"),
        ({"banned": 3}, r"banned must be a list of token ids, as \[11, 13\], found 3"),
        ({"banned": "ab"}, "banned must be a list of token ids"),
        ({"banned": [-1]}, "banned must be a list of token ids"),
        ({"banned": [0.5]}, "banned must be a list of token ids"),
        ({"processor": 3}, "processor must be a function of"),
    ],
)
def test_a_setting_out_of_range_is_refused(how, message):
    with pytest.raises(UserError, match=message):
        Sampling(**how)


def test_settings_are_normal_forms():
    assert Sampling(logit_bias={3: 1, 1: 2.5}) == Sampling(logit_bias=[(1, 2.5), (3, 1.0)])
    assert Sampling(banned=[3, 1, 3]) == Sampling(banned=(1, 3))
    assert Sampling(min_p=0.1).temperature == Sampling(typical_p=0.9).temperature == 1
    assert Sampling(repetition_penalty=1.2, no_repeat_ngram_size=3, banned=[1]).greedy
