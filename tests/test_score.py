"""Log-probabilities of tokens: against the plain model in float64, against transformers, and in windows and batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import picogpt
from picogpt import reference
from picogpt.errors import UserError
from picogpt.insight import score
from picogpt.insight.score import Piece
from picogpt.model import Model
from picogpt.weights import store
from tests.helpers import SHAKESPEARE, TINY, random_model

N_CTX = TINY["n_ctx"]


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


@pytest.fixture(scope="module")
def tiny():
    return random_model()


@pytest.fixture(scope="module")
def text():
    return np.random.default_rng(0).integers(0, TINY["n_vocab"], 150)


def plain_scores(model, ids):  # [n_seq] -> [n_seq - 1]
    """All logits at once, by reference.py, and all in float64."""
    at = reference.gpt2(np.asarray(ids[:-1]), **model.params, n_head=model.hparams["n_head"]).astype(np.float64)
    at -= np.log(np.exp(at).sum(axis=-1, keepdims=True))
    return at[np.arange(len(ids) - 1), ids[1:]]


def all_scores(model, ids, **how):
    return score.log_probabilities(ids, model.params, model.hparams["n_head"], **how)


# one text


def test_each_token_but_the_first_has_its_log_probability(model):
    ids = model.encode("ROMEO:\nBut soft, what light through yonder window breaks?")
    found = model.score(ids)
    assert found.shape == (len(ids) - 1,) and found.dtype == np.float64
    np.testing.assert_allclose(found, plain_scores(model, ids), atol=1e-5)
    assert np.array_equal(found, model.score(model.decode(ids)))


def test_the_probabilities_of_all_next_tokens_are_1_together(model):
    ids = model.encode("ROMEO:")
    nexts = [Piece([*ids, last], 1) for last in range(1024)]
    scored = score.score_pieces(nexts, model.params, model.hparams["n_head"], batch_size=256)
    assert sum(math.exp(scores.log_probabilities[0]) for _, scores in scored) == pytest.approx(1, abs=1e-6)


def test_a_text_without_a_second_token_has_no_log_probabilities(model):
    for text in ("", "R", [], [5]):
        found = model.score(text)
        assert found.shape == (0,) and found.dtype == np.float64


@pytest.mark.parametrize(("text", "found"), [([1024, 1], "found 1024"), ([0.5], "list of token ids"), (5, "found 5")])
def test_what_is_no_text_is_refused(model, text, found):
    with pytest.raises(UserError, match=found):
        model.score(text)


@pytest.mark.parametrize("stride", [0, -1, 256, 0.5, "1"])
def test_a_stride_that_would_leave_out_tokens_is_refused(model, stride):
    with pytest.raises(UserError, match="stride must be a whole number from 1 to 255, found"):
        model.score("ROMEO:", stride)


def test_damaged_weights_are_an_error(tiny, text):
    ln_f = tiny.params["ln_f"] | {"b": np.full(TINY["n_embd"], np.nan, np.float32)}
    with pytest.raises(UserError, match="not finite"):
        Model(tiny.encoder, TINY, tiny.params | {"ln_f": ln_f}).score(text)


def test_large_logits_do_not_overflow():
    at = np.float32([[1e30, 0, -1e30], [90, 89, -1e4]])
    found, is_likeliest = score.log_softmax_at(at.copy(), np.array([0, 1]))
    np.testing.assert_allclose(found, [0, -1 - math.log1p(math.exp(-1))], rtol=1e-6)
    assert is_likeliest.tolist() == [True, False]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_log_softmax_is_that_of_float64(seed):
    rng = np.random.default_rng(seed)
    at, ids = np.float32(rng.standard_normal((3, 5000)) * rng.uniform(0.1, 30)), rng.integers(0, 5000, 3)
    exact = at.astype(np.float64)
    exact -= exact.max(axis=-1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=-1, keepdims=True))
    found, is_likeliest = score.log_softmax_at(at.copy(), ids)
    np.testing.assert_allclose(found, exact[np.arange(3), ids], atol=1e-7, rtol=1e-9)
    assert is_likeliest.tolist() == (at.argmax(axis=-1) == ids).tolist()


# windows


@given(st.integers(0, 60), st.integers(1, 20), st.data())
def test_windows_score_each_token_once_except_for_the_first_of_a_window_without_overlap(n_ids, n_ctx, data):
    stride = data.draw(st.integers(1, n_ctx))
    found = list(score.windows(n_ids, n_ctx, stride))
    scored = [i for window in found for i in range(window.first_new, window.end)]
    starts = {0} if stride < n_ctx else set(range(0, n_ids, n_ctx))
    assert scored == [i for i in range(n_ids) if i not in starts]
    for window in found:
        assert window.start < window.first_new < window.end <= window.start + n_ctx
        assert window.start == 0 or window.first_new - window.start >= min(n_ctx - stride, 1)
        assert window.start % stride == 0


@pytest.mark.parametrize("stride", [1, 7, 16, 31, 32])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_long_text_is_scored_in_windows(tiny, text, stride, batch_size):
    expected = np.concatenate(
        [plain_scores(tiny, text[w.start : w.end])[w.first_new - w.end :] for w in score.windows(150, N_CTX, stride)]
    )
    found = all_scores(tiny, text, stride=stride, batch_size=batch_size)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_default_is_windows_that_overlap_by_half(tiny, text):
    assert np.array_equal(tiny.score(text), all_scores(tiny, text, stride=16))
    assert len(tiny.score(text)) == 149


# many texts in batches


@given(st.lists(st.tuples(st.integers(2, N_CTX + 1), st.integers(1, N_CTX)), max_size=12), st.integers(1, 5))
@settings(max_examples=25)
def test_pieces_in_a_batch_are_scored_as_each_alone(tiny, text, sizes, batch_size):
    pieces = [Piece(text[i : i + n].tolist(), min(n_new, n - 1)) for i, (n, n_new) in enumerate(sizes)]
    found = dict(score.score_pieces(pieces, tiny.params, TINY["n_head"], batch_size))
    assert len(found) == len(pieces)
    for number, piece in enumerate(pieces):
        at = tiny.logits(piece.ids[:-1])[-piece.n_new :]
        np.testing.assert_allclose(
            found[number].log_probabilities, plain_scores(tiny, piece.ids)[-piece.n_new :], atol=1e-5
        )
        assert found[number].is_likeliest.tolist() == (at.argmax(axis=-1) == piece.ids[-piece.n_new :]).tolist()


def test_the_logits_of_a_long_text_are_never_all_in_memory(tiny, text, monkeypatch):
    sizes = []
    real = score.logits
    monkeypatch.setattr(score, "logits", lambda x, wte: sizes.append(len(x)) or real(x, wte))
    monkeypatch.setattr(score, "ROWS", 8)
    expected = plain_scores(tiny, text[:N_CTX])
    np.testing.assert_allclose(all_scores(tiny, text[:N_CTX]), expected, atol=1e-5)
    assert sizes == [8, 8, 8, 7]


def test_only_the_positions_that_are_scored_go_through_the_end_of_the_model(tiny, text, monkeypatch):
    wanted = []
    real = score.hidden_states
    monkeypatch.setattr(score, "hidden_states", lambda *a, **kw: wanted.append(kw["n_last"]) or real(*a, **kw))
    list(score.score_pieces([Piece(text[:20], 3), Piece(text[:18], 3)], tiny.params, TINY["n_head"]))
    assert wanted == [5]


def test_choices_of_one_token_share_a_row(tiny, text, monkeypatch):
    shapes = []
    real = score.hidden_states
    monkeypatch.setattr(score, "hidden_states", lambda x, **kw: shapes.append(x.shape) or real(x, **kw))
    pieces = [Piece([*text[:9], last], n_new) for last, n_new in ((5, 1), (7, 1), (9, 4))] + [Piece(text[:8], 2)]
    found = dict(score.score_pieces(pieces, tiny.params, TINY["n_head"]))
    assert shapes == [(2, 9)]
    for number, (ids, n_new) in enumerate(pieces):
        np.testing.assert_allclose(found[number].log_probabilities, plain_scores(tiny, ids)[-n_new:], atol=1e-5)


# against transformers


@pytest.fixture(scope="module", params=["shakespeare", "tiny"])
def both(request, model, tiny):
    torch = pytest.importorskip("torch", reason="torch is not installed: transformers runs on it")
    pytest.importorskip("transformers", reason="transformers is not installed: it is the oracle")
    from parity.pytorch import transformers_model

    torch.set_num_threads(1)
    if request.param == "tiny":
        return tiny, transformers_model(TINY, store.random_tensors(TINY, seed=3, std=0.2))
    return model, transformers_model(model.hparams, store.open_tensors(SHAKESPEARE, model.hparams).items())


@pytest.mark.parametrize("overlap", [0, 0.5, 0.9])
def test_windows_and_losses_are_those_of_the_perplexity_guide_of_transformers(both, overlap):
    import torch

    ours, theirs = both
    n_ctx = ours.hparams["n_ctx"]
    stride = round(n_ctx * (1 - overlap))
    ids = np.random.default_rng(1).integers(0, 1024, round(2.7 * n_ctx))
    if n_ctx == 256:
        ids = np.array(ours.encode("First Citizen:\nBefore we proceed any further, hear me speak.\n" * 30))[: len(ids)]

    losses, counts, seen = [], [], 0  # as in https://huggingface.co/docs/transformers/perplexity
    for begin in range(0, len(ids), stride):
        end = min(begin + n_ctx, len(ids))
        inputs = torch.tensor(ids[None, begin:end])
        labels = inputs.clone()
        labels[:, : seen - begin if begin else 0] = -100  # seen before
        with torch.no_grad():
            losses.append(theirs(inputs, labels=labels).loss.item())
        counts.append(int((labels[:, 1:] != -100).sum()))
        seen = end
        if end == len(ids):
            break

    found = all_scores(ours, ids, stride=stride)
    cuts = list(score.windows(len(ids), n_ctx, stride))
    assert [w.end - w.first_new for w in cuts] == counts
    per_window = np.split(-found, np.cumsum(counts)[:-1])
    np.testing.assert_allclose([window.mean() for window in per_window], losses, rtol=2e-5)
    assert -found.mean() == pytest.approx(np.average(losses, weights=counts), rel=1e-5)


def test_log_probabilities_are_those_of_transformers(both):
    import torch

    ours, theirs = both
    ids = np.array(ours.encode("MENENIUS:\nWhat work's, my countrymen, in hand? where go you"))
    with torch.no_grad():
        at = torch.log_softmax(theirs(torch.tensor(ids[None])).logits[0].double(), dim=-1).numpy()
    np.testing.assert_allclose(ours.score(ids), at[np.arange(len(ids) - 1), ids[1:]], atol=2e-5)
