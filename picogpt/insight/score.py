"""How likely a model finds a text: the log-probability of each token, given those before it.

A model sees n_ctx positions. A longer text goes through it in windows, which `windows` lists: `log_probabilities` does
this. `score_pieces` scores many short texts. Both take several at a time as one batch.

>>> import picogpt
>>> model = picogpt.load("shakespeare")
>>> ids = model.encode("To be, or not to be")
>>> log_probabilities(ids, model.params, model.hparams["n_head"]).round(2)
array([-3.41, -4.17, -4.46, -4.57, -3.25, -2.5 ])

The logits, float32, are turned into log-probabilities in float64, a few positions at a time: those of all positions of
a long text and a large vocabulary would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from picogpt.arrays import Array, ArrayLike, Params
from picogpt.choosing import check_finite
from picogpt.errors import UserError
from picogpt.gpt2 import check_ids, head_of, hidden_states, logits

ROWS = 128  # positions whose logits are computed at a time
BATCH_SIZE = 8


class Window(NamedTuple):
    """The tokens from start to end go through the model; those from first_new on are scored."""

    start: int
    first_new: int
    end: int


class Piece(NamedTuple):
    """Token ids of which the last n_new are scored. What comes before them is their context, one token or more."""

    ids: Sequence[int] | Array
    n_new: int


class Scores(NamedTuple):
    """What a model thinks of the new tokens of a piece."""

    log_probabilities: Array  # [n_new], float64
    is_likeliest: Array  # [n_new], whether greedy decoding would have taken the token


def windows(n_ids: int, n_ctx: int, stride: int) -> Iterator[Window]:
    """The windows of n_ctx tokens in which a text is scored. Each begins `stride` tokens after the one before.

    Every window scores the tokens that the windows before it have not seen. The first token of a window has nothing
    before it and is never scored. So a stride of n_ctx leaves out one token of each window, and a smaller one only the
    first token of the text. A smaller stride also gives every token more context, at least n_ctx - stride tokens, and
    takes longer. These are the windows of https://huggingface.co/docs/transformers/perplexity.

    Raises UserError if the stride is not from 1 to n_ctx.

    >>> list(windows(10, n_ctx=4, stride=3))
    [Window(start=0, first_new=1, end=4), Window(start=3, first_new=4, end=7), Window(start=6, first_new=7, end=10)]
    """
    check_stride(stride, n_ctx)
    return _windows(n_ids, n_ctx, stride)


def check_stride(stride: int | None, largest: int) -> None:
    """Raise UserError if a stride is not None, nor a whole number from 1 to `largest`."""
    if stride is not None and not (isinstance(stride, (int, np.integer)) and 1 <= stride <= largest):
        raise UserError(f"stride must be a whole number from 1 to {largest}, found {stride!r}")


def _windows(n_ids: int, n_ctx: int, stride: int) -> Iterator[Window]:
    seen = 0
    for start in range(0, n_ids, stride):
        end = min(start + n_ctx, n_ids)
        if (first_new := max(seen, start + 1)) < end:
            yield Window(start, first_new, end)
        if end == n_ids:
            return
        seen = end


def log_probabilities(
    ids: ArrayLike, params: Params, n_head: int, stride: int | None = None, batch_size: int = BATCH_SIZE
) -> Array:  # [n_seq] -> [n_scored]
    """The log-probability of each token of a text of any length, in float64, but for tokens that `windows` leaves out.

    stride: as for `windows`, by default half of n_ctx, which leaves out the first token only

    Raises UserError for ids outside the vocabulary.
    """
    ids, n_ctx = check_ids(ids, len(params["wte"])), len(params["wpe"])
    cuts = list(windows(len(ids), n_ctx, default_stride(n_ctx) if stride is None else stride))
    return np.concatenate([np.empty(0), *score_windows(ids, cuts, params, n_head, batch_size)])


def default_stride(n_ctx: int) -> int:
    """Half a window: each token but the first ones has at least the other half as context."""
    return max(n_ctx // 2, 1)


def score_windows(
    ids: Array, cuts: Iterable[Window], params: Params, n_head: int, batch_size: int = BATCH_SIZE
) -> Iterator[Array]:  # [n_seq] -> [n_new] for each window
    """The log-probabilities of the new tokens of each window, in the order of the windows, as soon as they are known.

    The order holds because only the last of `windows` is shorter than the others.
    """
    pieces = [Piece(ids[start:end], end - first_new) for start, first_new, end in cuts]
    for _, scores in score_pieces(pieces, params, n_head, batch_size):
        yield scores.log_probabilities


def score_pieces(
    pieces: Sequence[Piece], params: Params, n_head: int, batch_size: int = BATCH_SIZE
) -> Iterator[tuple[int, Scores]]:
    """(number of the piece, its scores), the longest pieces first, batch_size of them at a time.

    Pieces of similar lengths share a batch, so that little of it is padding.
    """
    numbers = sorted(range(len(pieces)), key=lambda number: -len(pieces[number].ids))  # stable
    for start in range(0, len(numbers), batch_size):
        batch = numbers[start : start + batch_size]
        yield from zip(batch, score_batch([pieces[number] for number in batch], params, n_head), strict=True)


def score_batch(batch: Sequence[Piece], params: Params, n_head: int) -> Iterator[Scores]:
    """The scores of pieces that go through the model as one batch.

    A piece's last token is only predicted, so it is no input. Pieces that differ in nothing else, such as choices of
    one token, share a row. Shorter rows end with padding. A token looks only back, so this changes nothing for the
    tokens before.
    """
    rows: dict[tuple[int, ...], int] = {}
    at = [rows.setdefault(tuple(ids[:-1]), len(rows)) for ids, _ in batch]
    inputs = np.zeros((len(rows), max(map(len, rows))), int)
    for row, ids in zip(inputs, rows, strict=True):
        row[: len(ids)] = ids
    ends = [len(ids) - 1 for ids, _ in batch]
    first = min(end - n_new for end, (_, n_new) in zip(ends, batch, strict=True))
    with np.errstate(all="ignore"):  # scores_at finds numbers that are not finite
        x = hidden_states(inputs, **params, n_head=n_head, n_last=inputs.shape[1] - first)
    wanted = (slice(end - n_new - first, end - first) for end, (_, n_new) in zip(ends, batch, strict=True))
    x = np.concatenate([x[row, cut] for row, cut in zip(at, wanted, strict=True)])
    scores = scores_at(x, np.concatenate([ids[-n_new:] for ids, n_new in batch]), head_of(params))
    cuts = np.cumsum([n_new for _, n_new in batch])[:-1]
    return map(Scores, *(np.split(array, cuts) for array in scores))


def scores_at(x: Array, ids: Array, head: Array) -> Scores:  # [n, n_embd], [n], [n_vocab, n_embd] -> 2 x [n]
    """The scores of the tokens `ids` that follow the hidden states x. Only ROWS x n_vocab logits exist at a time."""
    starts = range(0, len(ids), ROWS)
    with np.errstate(all="ignore"):
        parts = [log_softmax_at(logits(x[s : s + ROWS], head), ids[s : s + ROWS]) for s in starts]
    return Scores(*map(np.concatenate, zip(*parts, strict=True)))


def log_softmax_at(at: Array, ids: Array) -> tuple[Array, Array]:  # [n, n_vocab], [n] -> 2 x [n]
    """log(softmax) of the logits `at` at one id in each row, and whether that id is the likeliest. `at` is overwritten.

    The exponentials are float32, which is three times as fast, their sums float64. This differs from float64 alone by
    less than 1e-7, and the logits themselves, being float32, are less exact than that.

    Raises UserError if the logits are not finite.

    >>> found, is_likeliest = log_softmax_at(np.log(np.float32([[1, 3], [2, 2]])), np.array([0, 1]))
    >>> np.exp(found).round(4), is_likeliest
    (array([0.25, 0.5 ]), array([False, False]))
    """
    row, likeliest = np.arange(len(ids)), at.argmax(axis=-1)
    largest, wanted = at[row, likeliest], at[row, ids].astype(np.float64)
    check_finite(largest)
    at -= largest[:, None]
    sums = np.einsum("ij->i", np.exp(at, out=at), dtype=np.float64)
    return wanted - largest - np.log(sums), likeliest == ids
