"""Beam search: the likeliest texts as a whole, not the likeliest token each time.

The `num_beams` likeliest unfinished texts are continued side by side, each in a row of a batch. Of all their
continuations by one token, the best `num_beams` go on, and those that end are kept with their scores. The texts and
scores are those of transformers' generate(num_beams=..., do_sample=False), whose rules these are (up to rounding).

Idea: Graves 2012, "Sequence Transduction with Recurrent Neural Networks"; length penalty: Wu et al. 2016, "Google's
Neural Machine Translation System".
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from picogpt.arrays import Array, ArrayLike, Params
from picogpt.choosing import check_finite
from picogpt.decoding.completion import log_softmax
from picogpt.errors import UserError
from picogpt.gpt2 import KVCache, Start, check_request, next_logits, start
from picogpt.sampling import GREEDY, Sampling

STEEPEST = 10  # length penalties up to this, of either sign, keep scores within float32


class Hypothesis(NamedTuple):
    """A text that beam search has found.

    ids    new token ids; they end before the token that ends a text
    score  the sum of the log-probabilities of all new tokens, that one included, divided by n ** length_penalty
    ended  whether the model has ended the text; else it has the length asked for
    text   what the ids mean, from Model.beam_search
    """

    ids: list[int]
    score: float
    ended: bool
    text: str = ""

    def as_dict(self) -> dict[str, Any]:
        """All fields, as JSON has them."""
        reason = "end_of_text" if self.ended else "length"
        return {"text": self.text, "ids": self.ids, "score": self.score, "finish_reason": reason}


class Candidate(NamedTuple):
    """Beam number `row` continued by a token. The score is the sum of the log-probabilities of all its tokens."""

    score: float
    row: int
    token_id: int


def generate(
    inputs: ArrayLike, params: Params, n_head: int, n_tokens_to_generate: int, *,
    num_beams: int, nsamples: int = 1, length_penalty: float = 1.0, sampling: Sampling = GREEDY,
    stop_id: int | None = None, start: Start = start,
) -> list[Hypothesis]:  # fmt: skip
    """The nsamples best continuations of the token ids `inputs`, [n_seq], that num_beams beams find, the best first.

    length_penalty: above 0 the score favours long texts, below 0 short ones; 0 compares plain sums
    sampling: what looks at the tokens so far, such as repetition_penalty, changes the log-probabilities

    Raises UserError if the prompt and the new tokens do not fit into n_ctx, and for settings out of range.

    >>> import picogpt
    >>> model = picogpt.load("shakespeare")
    >>> ids = model.encode("JULIET:")
    >>> for best in generate(ids, model.params, model.hparams["n_head"], 8, num_beams=4, nsamples=2):
    ...     print(f"{model.decode(best.ids)!r} {best.score:.4f}")
    "\\nI'll tell thee.\\n\\n" -1.3057
    "\\nI'll tell thee, I'll" -1.4911
    """
    check_request(inputs, params, n_tokens_to_generate, sampling)
    check(num_beams, nsamples, length_penalty, sampling)
    if 2 * num_beams > len(params["wte"]):
        raise UserError(
            f"num_beams: expected at most half the vocabulary, {len(params['wte']) // 2}, found {num_beams}"
        )
    if n_tokens_to_generate == 0:
        return [Hypothesis([], 0.0, False)] * nsamples
    kv_cache, at = start(inputs, params, n_head, np.size(inputs) + n_tokens_to_generate)
    kv_cache = kv_cache.repeat(num_beams)
    prompt = np.asarray(inputs).tolist()
    how = num_beams, n_tokens_to_generate, length_penalty, sampling, stop_id
    return _search(prompt, kv_cache, at[None], params, n_head, *how)[:nsamples]


def _search(
    prompt: list[int], kv_cache: KVCache, at: Array, params: Params, n_head: int, num_beams: int, n_tokens: int,
    length_penalty: float, sampling: Sampling, stop_id: int | None,
) -> list[Hypothesis]:  # fmt: skip
    """Continue the rows of a cache, which are all the same, from the logits `at`, [1, n_vocab]."""
    beams: list[list[int]] = [[]]  # beams[i] is in row i of the cache
    scores = np.zeros(1, np.float32)
    finished: list[Hypothesis] = []
    for length in range(1, n_tokens + 1):
        check_finite(float(at.max(axis=-1).sum()))
        at = np.stack([sampling.processed(row, prompt + ids) for row, ids in zip(log_softmax(at), beams, strict=True)])
        candidates = best(scores[:, None] + at, 2 * num_beams)  # half of them, at most, end their text
        for score, row, token_id in candidates[:num_beams]:
            if token_id == stop_id or length == n_tokens:
                ids = beams[row] + [token_id] * (token_id != stop_id)
                finished.append(Hypothesis(ids, score / length**length_penalty, token_id == stop_id))
        finished = sorted(finished, key=lambda text: -text.score)[:num_beams]
        running = [candidate for candidate in candidates if candidate.token_id != stop_id][:num_beams]
        if length == n_tokens or settled(finished, running[0].score / length**length_penalty, num_beams):
            break
        beams = [beams[row] + [token_id] for _, row, token_id in running]
        scores = np.array([score for score, _, _ in running], np.float32)
        kv_cache.reorder([row for _, row, _ in running])
        at = next_logits([[token_id] for *_, token_id in running], params, n_head, kv_cache)[:, -1]
    return finished


def settled(finished: list[Hypothesis], best_running: float, num_beams: int) -> bool:
    """Whether there are enough finished texts, and none of them is worse than the best unfinished one is now.

    That one could still become better if length_penalty is above 0; transformers stops all the same.
    """
    return len(finished) == num_beams and best_running <= finished[-1].score


def best(scores: Array, n: int) -> list[Candidate]:  # [n_rows, n_vocab]
    """The n largest scores, the largest first; of equal ones that of the first row and the smallest id.

    >>> best(np.float32([[-1, -3, -5], [-4, -2, -1]]), 3)
    [Candidate(score=-1.0, row=0, token_id=0), Candidate(score=-1.0, row=1, token_id=2), Candidate(score=-2.0, row=1, \
token_id=1)]
    """
    flat = scores.ravel()
    top = np.argpartition(flat, -n)[-n:]
    top = top[np.lexsort((top, -flat[top]))]
    rows, ids = np.divmod(top, scores.shape[-1])
    return list(map(Candidate, flat[top].tolist(), rows.tolist(), ids.tolist()))


def check(num_beams: Any, nsamples: Any, length_penalty: Any, sampling: Sampling, n_vocab: int | None = None) -> None:
    """Raise UserError for settings of beam search that are out of range."""
    if not (isinstance(num_beams, (int, np.integer)) and num_beams >= 1):
        raise UserError(f"num_beams must be a whole number, 1 or more, found {num_beams!r}: try 4")
    if not (isinstance(nsamples, (int, np.integer)) and 1 <= nsamples <= num_beams):
        raise UserError(f"nsamples must be a whole number from 1 to num_beams, {num_beams}, found {nsamples!r}")
    number = isinstance(length_penalty, (int, float, np.integer, np.floating)) and math.isfinite(length_penalty)
    if not (number and abs(length_penalty) <= STEEPEST):
        raise UserError(f"length_penalty must lie between -{STEEPEST} and {STEEPEST}, found {length_penalty!r}: try 1")
    if not sampling.greedy:
        raise UserError("num_beams: expected greedy text, found settings for a draw, which beam search has none of")
    if n_vocab is not None and 2 * num_beams > n_vocab:
        raise UserError(f"num_beams: expected at most half the vocabulary, {n_vocab // 2}, found {num_beams}")
