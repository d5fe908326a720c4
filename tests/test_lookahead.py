"""Look-ahead gives exactly the tokens of plain generation, in fewer passes if the text repeats itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picogpt import choosing, gpt2, utils
from picogpt.decoding import lookahead
from picogpt.decoding.lookahead import DraftModel, PromptLookup
from picogpt.sampling import GREEDY, Sampling
from picogpt.weights import store
from tests.fuzz import TIMES
from tests.helpers import SHAKESPEARE, TINY, passes_counted

HPARAMS = TINY | {"n_ctx": 200, "n_vocab": 60}
N_HEAD = HPARAMS["n_head"]
LOOP = [7, 8, 9, 10] * 6
DRAWN = Sampling(temperature=0.7, top_k=5, top_p=0.9, seed=3)


@pytest.fixture(scope="module")
def params():
    return store.nested(dict(store.random_tensors(HPARAMS, seed=0, std=0.2)))


@pytest.fixture(scope="module")
def shakespeare():
    return utils.load_encoder_hparams_and_params("shakespeare", SHAKESPEARE.parent)


@pytest.fixture
def passes(monkeypatch):
    """The number of positions in each pass through the model."""
    return passes_counted(monkeypatch)


def both(params, n_head, inputs, n, **how):
    plain = list(gpt2.generate(inputs, params, n_head, n, **how))
    return plain, list(lookahead.generate(inputs, params, n_head, n, **how))


@settings(max_examples=40 * TIMES)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=40), st.integers(0, 150), st.sampled_from([GREEDY, DRAWN]))
def test_any_prompt_is_continued_as_without_look_ahead(params, inputs, n, how):
    plain, ahead = both(params, N_HEAD, inputs, n, sampling=how)
    assert ahead == plain


@pytest.mark.parametrize("how", [GREEDY, Sampling(0.5, seed=1), Sampling(1.0, top_k=40, seed=2)])
@pytest.mark.parametrize("prompt", ["ROMEO:", "the the the the the the", "To be, or not to be: that is the question"])
def test_shakespeare_is_continued_as_without_look_ahead(shakespeare, prompt, how):
    encoder, hparams, params = shakespeare
    plain, ahead = both(params, hparams["n_head"], encoder.encode(prompt), 200, sampling=how)
    assert ahead == plain


def test_text_that_repeats_itself_takes_fewer_passes(params, passes):
    ids = list(lookahead.generate(LOOP, params, N_HEAD, 150))
    assert len(set(ids[-60:])) < 20, "this random model should fall into a loop"
    assert len(passes) < 150 / 4
    assert max(passes[1:]) == lookahead.MAX_GUESSES + 1


def test_text_that_does_not_repeat_itself_is_never_guessed(params, passes):
    list(lookahead.generate(LOOP, params, N_HEAD, 100, sampling=Sampling(50.0, seed=0)))
    assert passes == [len(LOOP)] + [1] * 99


def test_guesses_grow_while_they_are_right_and_end_when_one_is_wrong():
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3])
    assert lookup.guess(9) == []  # once is not enough
    lookup.append(4)
    lookup.append(5)
    assert lookup.guess(9) == [6, 7]
    lookup.append(6)
    assert lookup.guess(9) == [7, 8, 1]
    assert lookup.guess(1) == [7]
    lookup.append(0)
    assert lookup.guess(9) == []


def test_a_loop_repeats_its_own_guesses():
    lookup = PromptLookup([5, 6] * 40)
    assert lookup.guess(7) == [5, 6, 5, 6, 5, 6, 5]
    assert len(lookup.guess(100)) == lookahead.MAX_GUESSES


@pytest.mark.parametrize("how", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("seed", [0, 1], ids=["the same model", "another"])
def test_a_draft_model_changes_nothing(params, seed, how):
    draft = store.nested(dict(store.random_tensors(HPARAMS | {"n_layer": 1 + (seed == 0)}, seed, std=0.2)))
    for prompt in ([3], LOOP, list(range(60))):
        guesser = DraftModel(prompt, draft, N_HEAD, 200)
        ahead = list(lookahead.generate(prompt, params, N_HEAD, 60, guesser=guesser, sampling=how))
        assert ahead == list(gpt2.generate(prompt, params, N_HEAD, 60, sampling=how))


def test_a_draft_model_that_is_always_right_saves_passes(params, monkeypatch):
    draft = dict(params)
    seen = []  # the numbers of new tokens, and in which model
    real = lookahead.next_logits
    monkeypatch.setattr(
        lookahead,
        "next_logits",
        lambda new, of, *rest, **how: seen.append((len(new), of)) or real(new, of, *rest, **how),
    )
    list(lookahead.generate(LOOP, params, N_HEAD, 60, guesser=DraftModel(LOOP, draft, N_HEAD, 200)))
    passes, drafted = ([n for n, of in seen if of is model] for model in (params, draft))
    assert drafted[0] == len(LOOP) + 1 and set(drafted[1:]) == {1, 2}  # two after guesses that were all right
    assert max(passes) == lookahead.MAX_DRAFTED + 1
    assert len(passes) < 60 / 5


def test_a_draft_model_that_is_always_wrong_is_asked_for_one_token(params):
    guesser = DraftModel(LOOP, params, N_HEAD, 200)
    for _ in range(10):
        wrong = (guesser.guess(8)[0] + 1) % HPARAMS["n_vocab"]
        guesser.append(wrong)
    assert len(guesser.guess(8)) == 1


def test_a_position_that_is_not_sure_is_computed_again_from_the_ids_alone(params, passes, monkeypatch):
    monkeypatch.setattr(choosing, "TOO_CLOSE", 1e9)
    ids = list(lookahead.generate(LOOP, params, N_HEAD, 50))
    again = [n for n in passes if n >= len(LOOP)][1:]
    assert again == [len(LOOP) + i for i in range(50)]
    assert ids == list(gpt2.generate(LOOP, params, N_HEAD, 50))
    assert len(passes) > 100 + 50 and max(n for n in passes if n < len(LOOP)) > 1, "it still guesses"


def test_without_a_tie_no_position_is_computed_twice(params, passes, monkeypatch):
    monkeypatch.setattr(choosing, "TOO_CLOSE", 0)
    list(lookahead.generate(LOOP, params, N_HEAD, 150))
    assert len(passes) < 150 / 4


def test_the_stop_token_ends_it_at_the_same_place(params):
    plain = list(gpt2.generate(LOOP, params, N_HEAD, 100))
    for stop_id in set(plain):
        plain, ahead = both(params, N_HEAD, LOOP, 100, stop_id=stop_id)
        assert ahead == plain
