"""A text with all that is known of it: its tokens, their probabilities, why it ended, its seed, how long it took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from picogpt.arrays import Array
from picogpt.decoding.stopping import Stopper
from picogpt.encoder import Encoder
from picogpt.errors import UserError

MOST_ALTERNATIVES = 1000


class Alternative(NamedTuple):
    """A token that might have come, and its log-probability."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class Timings:
    """Seconds from the call to the first token and to the last one, and the tokens per second between them."""

    first_token: float
    total: float
    tokens_per_second: float | None  # None if there are fewer than two tokens


@dataclass(frozen=True)
class Completion:
    """What follows a prompt.

    text: without the stop string that ended it
    ids: the tokens; of the last one, a part may belong to the stop string
    logprobs: the log-probability of each token, as the model gives it, before temperature and other settings
    top_logprobs: at each token the likeliest ones, the likeliest first, if asked for; else None
    finish_reason: "stop" (a stop string), "end_of_text" (the token <|endoftext|>), or "length" (all tokens asked for)
    seed: the same seed and settings give the same text; None for greedy text
    timings: how long it took
    """

    text: str
    ids: list[int]
    logprobs: list[float]
    top_logprobs: list[list[Alternative]] | None
    finish_reason: str
    seed: int | None
    timings: Timings

    def as_dict(self) -> dict[str, Any]:
        """All fields that are known, as JSON has them.

        >>> import picogpt
        >>> sorted(picogpt.load("shakespeare").complete("ROMEO:", 2).as_dict())
        ['finish_reason', 'ids', 'logprobs', 'seed', 'text', 'timings']
        """
        values = asdict(self)
        if self.top_logprobs is None:
            del values["top_logprobs"]
        else:
            values["top_logprobs"] = [[found._asdict() for found in at] for at in self.top_logprobs]
        return values


class Writer:
    """Collects a text as it is generated: `add` takes each token, with the logits that it was chosen from."""

    def __init__(self, encoder: Encoder, stops: Sequence[bytes], n_top: int | None, seed: int | None):
        self.encoder = encoder
        self.stopper = Stopper(stops)
        self.n_top = n_top
        self.seed = seed
        self.text = b""
        self.ids: list[int] = []
        self.starts: list[int] = []  # the byte at which each token begins
        self.n_bytes = 0
        self.logprobs: list[float] = []
        self.top: list[list[Alternative]] = []
        self.begun = self.first = self.last = time.perf_counter()

    def add(self, token_id: int, logits: Array) -> bool:  # [n_vocab]
        """Whether the text ends with this token, because a stop string is complete."""
        self.last = time.perf_counter()
        self.first = self.first if self.ids else self.last
        data = self.encoder.decode_bytes([token_id])
        self.ids.append(token_id)
        self.starts.append(self.n_bytes)
        self.n_bytes += len(data)
        self.text += self.stopper.feed(data)
        at = log_softmax(logits)
        self.logprobs.append(float(at[token_id]))
        if self.n_top is not None:
            self.top.append(self.likeliest(at, self.n_top))
        return self.stopper.found

    def likeliest(self, at: Array, n: int) -> list[Alternative]:  # [n_vocab]
        """The n likeliest tokens."""
        ids = np.argsort(-at, kind="stable")[:n].tolist()
        return [Alternative(i, self.encoder.decode([i]), float(at[i])) for i in ids]

    def completion(self, n_tokens_to_generate: int) -> Completion:
        """The text so far, which is complete: it has a stop string, or all tokens, or the model has ended it."""
        text = self.text + self.stopper.rest()
        n_ids = sum(start < len(text) for start in self.starts) if self.stopper.found else len(self.ids)
        n_steps, seconds = len(self.ids) - 1, self.last - self.first
        ended = "length" if len(self.ids) == n_tokens_to_generate else "end_of_text"
        return Completion(
            text=text.decode("utf-8", errors=self.encoder.errors),
            ids=self.ids[:n_ids],
            logprobs=self.logprobs[:n_ids],
            top_logprobs=None if self.n_top is None else self.top[:n_ids],
            finish_reason="stop" if self.stopper.found else ended,
            seed=self.seed,
            timings=Timings(
                round(self.first - self.begun, 6), round(self.last - self.begun, 6),
                round(n_steps / seconds, 3) if n_steps > 0 and seconds > 0 else None,
            ),
        )  # fmt: skip


def log_softmax(logits: Array) -> Array:  # [..., n_vocab] -> [..., n_vocab]
    """Logits as log-probabilities.

    >>> log_softmax(np.log(np.array([1, 3]))).round(4)
    array([-1.3863, -0.2877])
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def check_logprobs(n: int | None) -> None:
    """Raise UserError if n is not a number of alternatives."""
    if n is not None and not (isinstance(n, (int, np.integer)) and 0 <= n <= MOST_ALTERNATIVES):
        raise UserError(f"logprobs must be a whole number from 0 to {MOST_ALTERNATIVES}, found {n!r}: try 5")
