"""From logits to the next id: the edges of each setting, and whether frequencies follow the filtered distribution.

What the filters keep is compared with OpenAI's sample.py in test_parity.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from picogpt import choosing, gpt2, sampling
from picogpt.choosing import Chooser
from picogpt.errors import UserError
from picogpt.sampling import Sampling

PROBABILITIES = np.array([0.30, 0.20, 0.15, 0.10, 0.08, 0.07, 0.04, 0.03, 0.02, 0.01])
LOGITS = np.log(PROBABILITIES).astype(np.float32)
N_DRAWS = 10_000
# 99.9 % of fair samples stay below, by degrees of freedom: any table of the chi-square distribution
CHI_SQUARE = {1: 10.828, 2: 13.816, 3: 16.266, 4: 18.467, 9: 27.877}

rows = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-30, 30, width=32))
tied_rows = hnp.arrays(np.float32, st.integers(1, 40), elements=st.integers(-2, 2).map(float))


def kept(logits):
    return np.flatnonzero(np.isfinite(logits)).tolist()


def frequencies(temperature, top_k=0, top_p=1.0, logits=LOGITS):
    chooser = Chooser(Sampling(temperature, top_k, top_p), [], np.random.default_rng(0))
    return np.bincount([chooser.next(logits) for _ in range(N_DRAWS)], minlength=10)


def filtered_probabilities(temperature, kept_ids):
    """Worked out in float64 from the probabilities themselves, not from logits."""
    powers = np.where(np.isin(np.arange(10), kept_ids), PROBABILITIES ** (1 / temperature), 0.0)
    return powers / powers.sum()


def chi_square(counts, probabilities):
    expected = N_DRAWS * probabilities[probabilities > 0]
    return np.sum((counts[probabilities > 0] - expected) ** 2 / expected)


@pytest.mark.parametrize(
    ("setting", "kept_ids"),
    [
        ({"temperature": 1.0}, range(10)),
        ({"temperature": 0.5}, range(10)),
        ({"temperature": 2.0}, range(10)),
        ({"temperature": 1.0, "top_k": 3}, range(3)),
        ({"temperature": 1.0, "top_p": 0.7}, range(3)),  # 0.30 + 0.20 + 0.15; the fourth would pass 0.7
        ({"temperature": 0.7, "top_k": 5, "top_p": 0.85}, range(3)),
        ({"temperature": 1.5, "top_k": 4}, range(4)),
    ],
)
def test_frequencies_follow_the_filtered_distribution(setting, kept_ids):
    counts = frequencies(**setting)
    probabilities = filtered_probabilities(setting["temperature"], kept_ids)
    assert counts[probabilities == 0].sum() == 0
    assert chi_square(counts, probabilities) < CHI_SQUARE[len(kept_ids) - 1]


@pytest.mark.parametrize("wrong", [0.9, 1.1])
def test_the_chi_square_test_notices_a_temperature_that_is_a_little_wrong(wrong):
    assert chi_square(frequencies(temperature=wrong), filtered_probabilities(1.0, range(10))) > CHI_SQUARE[9]


@given(rows, st.integers(1, 50))
def test_top_k_keeps_what_is_not_below_the_kth_largest(logits, k):
    kth_largest = sorted(logits.tolist(), reverse=True)[min(k, len(logits)) - 1]
    assert kept(sampling.top_k_logits(logits, k)) == [i for i, x in enumerate(logits) if x >= kth_largest]


@given(tied_rows, st.integers(1, 50), st.floats(0, 1))
def test_equal_logits_are_all_kept_or_all_dropped(logits, k, p):
    for filtered in (sampling.top_k_logits(logits, k), sampling.top_p_logits(logits, p)):
        assert set(logits[kept(filtered)]).isdisjoint(set(np.delete(logits, kept(filtered))))


@given(rows, st.floats(0, 1))
def test_top_p_keeps_the_best_and_no_more_than_p_besides(logits, p):
    filtered = sampling.top_p_logits(logits, p)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum()
    assert int(np.argmax(logits)) in kept(filtered)
    above = sum(probabilities[i] for i in kept(filtered) if logits[i] > min(logits[kept(filtered)]))
    assert above <= p + 1e-6  # without the ties of the last one kept


@given(rows, st.integers(0, 50), st.floats(0, 1))
def test_what_is_kept_keeps_its_logit(logits, k, p):
    filtered = sampling.top_p_logits(sampling.top_k_logits(logits, k), p)
    assert np.array_equal(filtered[kept(filtered)], logits[kept(filtered)])


def test_top_k_of_0_and_of_the_whole_vocabulary_and_more_keep_all():
    for k in (0, 10, 11, 50257):
        assert kept(sampling.top_k_logits(LOGITS, k)) == list(range(10))


def test_top_p_of_0_keeps_the_best_token_and_1_keeps_all():
    assert kept(sampling.top_p_logits(LOGITS, 0.0)) == [0]
    assert kept(sampling.top_p_logits(LOGITS, 1.0)) == list(range(10))


def test_top_p_leaves_out_the_token_that_crosses_p():
    powers_of_2 = np.log2(np.array([0.5, 0.25, 0.125, 0.125])) * np.log(2)  # sums that are exact in float32
    logits = powers_of_2.astype(np.float32)
    assert [kept(sampling.top_p_logits(logits, p)) for p in (0.74, 0.76)] == [[0], [0, 1]]


def test_temperature_0_and_a_tiny_one_take_the_likeliest_token():
    logits = np.roll(LOGITS, 4)
    for temperature in (0, 1e-300, 1e-6, 1e-3):
        assert choosing.next_ids(Sampling(temperature), logits, [np.random.default_rng(0)]) == 4


def test_a_tiny_temperature_does_not_overflow():
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        assert frequencies(temperature=1e-300, logits=np.roll(LOGITS, 4) * 100).tolist()[4] == N_DRAWS


def test_rows_are_filtered_and_drawn_independently():
    batch = np.random.default_rng(1).standard_normal((5, 3, 50)).astype(np.float32)
    how = Sampling(0.8, 20, 0.9)
    ids = choosing.next_ids(how, batch, [np.random.default_rng(i) for i in range(15)])
    alone = [choosing.next_ids(how, row, [np.random.default_rng(i)]) for i, row in enumerate(batch.reshape(15, 50))]
    assert ids.ravel().tolist() == alone


def test_the_same_seed_gives_the_same_draws_and_another_seed_others():
    flat = np.zeros((100, 1000), np.float32)

    def draws(seed):
        rng = np.random.default_rng(seed)
        return choosing.next_ids(Sampling(1.0), flat, [rng] * 100).tolist()

    assert draws(1) == draws(1) != draws(2)


def test_draw_never_takes_a_token_without_probability():
    logits = np.array([-np.inf, 0, -np.inf, 0, -np.inf], np.float32)
    noise = choosing.gumbel(5000, np.random.default_rng(0)).reshape(1000, 5)
    assert set(choosing.draw(logits, noise).tolist()) == {1, 3}


def test_drawing_does_not_change_the_logits():
    logits = LOGITS.copy()
    choosing.next_ids(Sampling(0.7, 3, 0.9), logits, [np.random.default_rng(0)])
    assert np.array_equal(logits, LOGITS)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(UserError, match=f"{message} must .*, found .*: try"):
        Sampling(**setting)


@pytest.mark.parametrize(
    ("setting", "temperature"),
    [({}, 0), ({"top_k": 40}, 1), ({"top_p": 0.9}, 1), ({"temperature": 0, "top_k": 40}, 0), ({"seed": 1}, 0)],
)
def test_a_filter_without_a_temperature_implies_a_draw(setting, temperature):
    how = Sampling(**setting)
    assert (how.temperature, how.greedy) == (temperature, temperature == 0)


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(AttributeError):
        Sampling().top_k = 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("how", [Sampling(), Sampling(1.0)])
def test_logits_that_are_not_finite_are_reported(how, bad):
    logits = np.stack([LOGITS, LOGITS])
    logits[1, 3] = bad
    with pytest.raises(UserError, match=r"not finite.*python -m picogpt\.verify"):
        choosing.next_ids(how, logits, [np.random.default_rng(0)] * 2)


def test_a_logit_of_minus_infinity_is_allowed():
    assert choosing.next_ids(Sampling(), np.array([-np.inf, 1.0, 0.0])) == 1


def test_generation_draws_as_sampling_does():
    """One block of zeros and a head that makes the logits LOGITS at every position: frequencies of generate()."""
    n_embd, n_draws = 10, 2000
    zeros = np.zeros((n_embd, n_embd), np.float32)
    params = {
        "wte": np.diag(LOGITS), "wpe": zeros[:4], "blocks": [],
        "ln_f": {"g": np.zeros(n_embd, np.float32), "b": np.ones(n_embd, np.float32)},
    }  # fmt: skip
    (ids,) = gpt2.generate([0], params, 1, 1, sampling=Sampling(top_k=3, seed=0), nsamples=n_draws)
    counts = np.bincount(ids, minlength=10) * (N_DRAWS / n_draws)
    assert chi_square(counts, filtered_probabilities(1.0, range(3))) / (N_DRAWS / n_draws) < CHI_SQUARE[2]


# what another rounding could change


def perturbed_cases(n):
    """Logits, noise and settings such that many tokens nearly tie, and many lie at the border of a filter."""
    rng = np.random.default_rng(0)
    for case in range(n):
        ties = rng.integers(-3, 5, 12) + rng.uniform(-2e-4, 2e-4, 12)
        logits = (rng.normal(0, 2, 12) if case % 2 else ties).astype(np.float32)
        noise = rng.integers(0, (3, 12)[case % 2], 12).astype(np.float32)
        temperature = (0.5, 1.0, 2.0)[case % 3]
        x = logits.astype(np.float64) / temperature
        p = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
        by_probability = np.cumsum(np.sort(p)[::-1])
        by_distance = np.cumsum(p[np.argsort(np.abs(-np.log(p) + np.sum(p * np.log(p))))])
        jitter, place = rng.uniform(-6e-5, 6e-5), rng.integers(0, 11)
        how = [
            {"top_k": int(rng.integers(1, 12))},
            {"top_p": float(np.clip(by_probability[place] + jitter, 0.01, 1))},
            {"min_p": float(np.clip(p[place] / p.max() + jitter, 0.01, 1))},
            {"typical_p": float(np.clip(by_distance[place] + jitter, 0.01, 1))},
            {"top_k": 6, "top_p": 0.9, "typical_p": 0.8},
            {"repetition_penalty": 0.25},
            {},
        ][case % 7]
        yield Chooser(Sampling(temperature, **how), [0, 1, 2, 3, 4, 5]), logits, noise, rng


def test_a_choice_that_is_sure_is_the_same_after_any_rounding():
    n_sure, n_unsure = 0, 0
    for chooser, logits, noise, rng in perturbed_cases(4000):
        token_id, sure = chooser.best(logits, noise)
        n_sure, n_unsure = n_sure + sure, n_unsure + (not sure)
        largest = choosing.TOO_CLOSE / 2 * np.abs(logits).max()
        likely = np.where(logits > rng.choice(logits), 1, -1)
        for signs in (likely, -likely, rng.choice([-1, 1], len(logits)), rng.choice([-1, 1], len(logits)))[: 4 * sure]:
            change = 0.99 * largest * signs
            assert chooser.best(logits + change.astype(np.float32), noise)[0] == token_id, chooser.sampling
    assert n_sure > 1000 and n_unsure > 200


def test_logits_that_are_apart_are_sure():
    """So that plain text is seldom computed again."""
    rng = np.random.default_rng(0)
    how = [Sampling(), Sampling(1.0), Sampling(1.0, 40), Sampling(1.0, 0, 0.9), Sampling(1.0, typical_p=0.9)]
    for settings in how:
        chooser = Chooser(settings, [0])
        unsure = 0
        for _ in range(300):
            noise = None if settings.greedy else choosing.gumbel(1000, rng)
            unsure += not chooser.best(rng.normal(0, 3, 1000).astype(np.float32), noise)[1]
        assert unsure <= 3
