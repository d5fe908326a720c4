"""What log-probabilities say of a model: perplexity, bits per byte, and answers that are right.

- A text: the loss of each token, as in Radford et al. 2019 (GPT-2), section 3, and per byte and character, which do not
  depend on the vocabulary.
- LAMBADA (Paperno et al. 2016): the last word of a passage.
- Questions with choices: the answer is the choice that is likeliest after the question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from picogpt.arrays import Array, ArrayLike
from picogpt.encoder import Encoder
from picogpt.errors import UserError
from picogpt.insight.score import Piece, Scores, Window


class Estimate(NamedTuple):
    """A mean and its standard error. Either is None if there are too few numbers, or if it is too large for a float."""

    value: float | None
    stderr: float | None

    def times(self, factor: float) -> Estimate:
        """The same in another unit."""
        return Estimate(*(None if number is None else number * factor for number in self))

    def exp(self) -> Estimate:
        """Its exponential, which is a perplexity if it is a loss. The error is that of a small change."""
        if self.value is None or self.value > 700:
            return Estimate(None, None)
        value = math.exp(self.value)
        return Estimate(value, None if self.stderr is None else value * self.stderr)


def ratio(sums: ArrayLike, counts: ArrayLike) -> Estimate:  # [n], [n] -> a number
    """sum(sums) / sum(counts), as of n groups with a sum and a count each. The groups count as independent.

    The error is that of a ratio estimator: Cochran 1977, Sampling Techniques, section 2.11. If all counts are 1, it is
    that of a mean, std(sums) / sqrt(n).

    >>> ratio([1, 0, 1, 1], [1, 1, 1, 1])
    Estimate(value=0.75, stderr=0.25)
    """
    sums, counts = np.asarray(sums, float), np.asarray(counts, float)
    n, total = len(counts), counts.sum()
    if not total:
        return Estimate(None, None)
    value = sums.sum() / total
    rests = sums - value * counts
    return Estimate(float(value), math.sqrt(n / (n - 1) * (rests @ rests)) / float(total) if n > 1 else None)


# a text


def of_text(
    log_probabilities: Array, cuts: Sequence[Window], ids: Array, encoder: Encoder, n_ctx: int
) -> dict[str, Estimate]:  # [n_scored]
    """The losses of a text, from the log-probabilities that its windows gave.

    Tokens near each other are alike, so that the error is computed from the losses of blocks of n_ctx tokens.
    """
    scored = np.concatenate([np.arange(first_new, end) for _, first_new, end in cuts])
    blocks = scored // n_ctx
    losses = np.bincount(blocks, -log_probabilities)
    n_bytes, n_characters = (np.bincount(blocks, lengths) for lengths in lengths_of(ids[scored], encoder))
    loss = ratio(losses, np.bincount(blocks))
    bits = losses / math.log(2)
    return {
        "loss": loss,
        "perplexity": loss.exp(),
        "loss_per_character": ratio(losses, n_characters),
        "bits_per_character": ratio(bits, n_characters),
        "bits_per_byte": ratio(bits, n_bytes),
    }


def lengths_of(ids: Array, encoder: Encoder) -> Array:  # [n] -> [2, n]
    """The bytes and the characters of each token. A character is counted where its first byte is.

    >>> from picogpt.encoder import get_encoder
    >>> lengths_of(np.array([305, 12]), get_encoder("shakespeare", "models"))
    array([[3, 1],
           [3, 1]])
    """
    known, at = np.unique(ids, return_inverse=True)
    texts = [encoder.decode_bytes([int(token_id)]) for token_id in known]
    n_characters = [sum(byte & 0xC0 != 0x80 for byte in text) for text in texts]
    table = np.array([[len(text) for text in texts], n_characters], int).reshape(2, -1)
    lengths: Array = table[:, at]
    return lengths


# the end of a text


def piece_of(context: str, continuation: str, encoder: Encoder, n_ctx: int) -> Piece:
    """The tokens of a text whose end is to be scored. If it is too long, it loses its beginning.

    White space at the end of the context goes to the continuation, whose first word then keeps the space that it has in
    other texts. Both are encoded as one text, if the continuation keeps a token of its own. Without a context, it
    follows <|endoftext|>.

    Raises UserError if there is nothing to score, or more than fits into n_ctx.

    >>> from picogpt.encoder import get_encoder
    >>> piece_of("To be, or ", "not", get_encoder("shakespeare", "models"), n_ctx=3)
    Piece(ids=[305, 12, 530, 322], n_new=1)
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    before = encoder.encode(kept) or encoder.start_of_text()
    ids = encoder.encode(kept + continuation) if kept else before + encoder.encode(continuation)
    if len(ids) <= len(before):
        ids = before + encoder.encode(continuation)
    n_new = len(ids) - len(before)
    if not before or n_new < 1:
        raise UserError("expected a context and a text to score after it, found nothing in one of them")
    if n_new > n_ctx:
        raise UserError(f"expected at most {n_ctx} tokens to score, which the model can see, found {n_new}")
    return Piece(ids[-n_ctx - 1 :], n_new)


def total(scores: Scores) -> float:
    """The log-probability of all tokens together."""
    return float(scores.log_probabilities.sum())


def split_at_last_word(text: str) -> tuple[str, str]:
    """A passage without its last word, and that word with the space before it. Raises UserError if it has one word.

    >>> split_at_last_word("the rest is silence")
    ('the rest is', ' silence')
    """
    context, space, word = text.rstrip().rpartition(" ")
    if not context.strip():
        raise UserError(f"expected a text of two words or more, found {text!r:.60}")
    return context, space + word


def of_last_words(scores: Sequence[Scores]) -> dict[str, Estimate]:
    """How often greedy decoding gives the last word of a passage, and the perplexity of that word."""
    ones = [1] * len(scores)
    return {
        "accuracy": ratio([bool(score.is_likeliest.all()) for score in scores], ones),
        "perplexity": ratio([-total(score) for score in scores], ones).exp(),
    }


# questions with choices


class Question(NamedTuple):
    """A text, and texts that may follow it. `answer` is the number of the right one."""

    prompt: str
    choices: list[str]
    answer: int


def joined(prompt: str, choice: str) -> str:
    """A choice as it follows a prompt: after a space, unless there is white space already, or no prompt.

    >>> joined("To be, or not to", "be"), joined("To be, or not to ", "be")
    (' be', 'be')
    """
    apart = not prompt or prompt[-1].isspace() or choice[:1].isspace()
    return choice if apart else f" {choice}"


def of_choices(questions: Sequence[Question], scores: Sequence[Sequence[Scores]]) -> dict[str, Estimate]:
    """How often the likeliest choice is the right one.

    accuracy             the likeliest choice is the one with the largest log-probability
    accuracy_normalized  with the largest log-probability per character, so that long choices are not put back
    """
    ones = [1] * len(questions)
    totals = [np.array([total(score) for score in choices]) for choices in scores]
    lengths = [np.array([max(len(choice), 1) for choice in question.choices]) for question in questions]
    rights = [question.answer for question in questions]
    plain = [at.argmax() == right for at, right in zip(totals, rights, strict=True)]
    normalized = [(at / n).argmax() == right for at, n, right in zip(totals, lengths, rights, strict=True)]
    return {"accuracy": ratio(plain, ones), "accuracy_normalized": ratio(normalized, ones)}
