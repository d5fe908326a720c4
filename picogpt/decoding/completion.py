"""A text with all that is known of it: its tokens, their probabilities, why it ended, its seed, how long it took."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from picogpt.arrays import Array
from picogpt.decoding.stopping import Stopper, stop_bytes
from picogpt.encoder import Encoder
from picogpt.errors import UserError
from picogpt.sampling import Sampling

NAMES = {field.name for field in fields(Sampling)}
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

    def as_json(self) -> str:
        """The fields as one line of ASCII."""
        import json

        return json.dumps(self.as_dict())


class Writer:
    """Collects one text as it is generated."""

    def __init__(self, encoder: Encoder, stops: Sequence[bytes], n_top: int | None, begun: float):
        self.encoder = encoder
        self.stopper = Stopper(stops)
        self.n_top = n_top
        self.text = b""
        self.ids: list[int] = []
        self.starts: list[int] = []  # the byte at which each token begins
        self.n_bytes = 0
        self.logprobs: list[float] = []
        self.top: list[list[Alternative]] = []
        self.begun = self.first = self.last = begun

    def add(self, token_id: int, logits: Array) -> bool:  # [n_vocab]
        """Add a token. Whether the text ends with it, because a stop string is complete."""
        self.last = time.perf_counter()
        self.first = self.first if self.ids else self.last
        data = self.encoder.decode_bytes([token_id])
        self.ids.append(token_id)
        self.starts.append(self.n_bytes)
        self.n_bytes += len(data)
        self.text += self.stopper.feed(data)
        if self.n_top is not None:
            at = log_softmax(logits)
            self.logprobs.append(rounded(at[token_id]))
            self.top.append([self.alternative(i, at) for i in likeliest(at, self.n_top)])
        return self.stopper.found

    def alternative(self, token_id: int, at: Array) -> Alternative:  # [n_vocab]
        return Alternative(token_id, self.encoder.decode([token_id]), rounded(at[token_id]))

    def completion(self, n_tokens: int, seed: int | None) -> Completion:
        """The text, which is complete: a stop string or the model has ended it, or it has n_tokens."""
        text = self.text + self.stopper.rest()
        n_ids = sum(start < len(text) for start in self.starts) if self.stopper.found else len(self.ids)
        ended = "length" if len(self.ids) == n_tokens else "end_of_text"
        return Completion(
            text=text.decode("utf-8", errors=self.encoder.errors),
            ids=self.ids[:n_ids],
            logprobs=self.logprobs[:n_ids],
            top_logprobs=self.top[:n_ids] if self.n_top else None,
            finish_reason="stop" if self.stopper.found else ended,
            seed=seed,
            timings=self.timings(),
        )

    def timings(self) -> Timings:
        n_steps, seconds = len(self.ids) - 1, self.last - self.first
        speed = round(n_steps / seconds, 2) if n_steps > 0 and seconds > 0 else None
        return Timings(round(self.first - self.begun, 6), round(self.last - self.begun, 6), speed)


class Writers:
    """Collects texts by their numbers as they are generated: `add` is what gpt2.generate calls `watch`.

    n_top     how many alternatives are named at each token; None leaves out the log-probabilities too
    settings  those given, with a seed if one is needed, or with a seed for each of n_prompts

    Raises UserError for a number of alternatives or for stop strings that are none.
    """

    def __init__(
        self, encoder: Encoder, n_tokens: int, stop: str | Sequence[str], n_top: int | None, settings: dict[str, Any],
        n_prompts: int | None = None,
    ):  # fmt: skip
        check_logprobs(n_top)
        stops, begun = stop_bytes(stop), time.perf_counter()
        self.settings = with_seed(settings, n_prompts)
        self.n_tokens = n_tokens
        self.texts: defaultdict[int, Writer] = defaultdict(lambda: Writer(encoder, stops, n_top, begun))

    def add(self, number: int, token_id: int, logits: Array) -> bool:  # [n_vocab]
        """Add a token to a text. Whether the text ends with it."""
        return self.texts[number].add(token_id, logits)

    def completion(self, number: int) -> Completion:
        """A text that is complete. It is forgotten."""
        text = self.texts[number]
        del self.texts[number]
        seeds = self.settings.get("seeds")
        return text.completion(self.n_tokens, seeds[number] if seeds else self.settings.get("seed"))


class CompletionStream:
    """The pieces of a text, each as soon as it is known. After the last one, `completion` is the whole."""

    def __init__(self, ids: Iterable[int], writers: Writers):
        self.writers = writers
        self._pieces = writers.texts[0].encoder.decode_chunks(self._chunks(ids))
        self._completion: Completion | None = None

    def __iter__(self) -> CompletionStream:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def completion(self) -> Completion:
        """The whole text. Raises UserError before it is complete."""
        if self._completion is None:
            raise UserError("completion: expected a text that is complete, found one that goes on: take all pieces")
        return self._completion

    def _chunks(self, ids: Iterable[int]) -> Iterator[bytes]:
        text, sent = self.writers.texts[0], 0
        for _ in ids:
            yield text.text[sent:]
            sent = len(text.text)
        yield text.stopper.held
        self._completion = self.writers.completion(0)


def check_logprobs(n: int | None) -> None:
    """Raise UserError if n is not a number of alternatives."""
    if n is not None and not (isinstance(n, (int, np.integer)) and 0 <= n <= MOST_ALTERNATIVES):
        raise UserError(f"logprobs must be a whole number from 0 to {MOST_ALTERNATIVES}, found {n!r}: try 5")


def with_seed(settings: dict[str, Any], n_prompts: int | None) -> dict[str, Any]:
    """Settings with a seed, or one for each prompt, if something is drawn, so that the text can be had again."""
    how = Sampling(**{name: settings[name] for name in NAMES & settings.keys()})
    if how.greedy or how.seed is not None:
        return settings
    seeds = np.random.SeedSequence().generate_state(n_prompts or 1).tolist()
    return settings | ({"seed": seeds[0]} if n_prompts is None else {"seeds": seeds})


def likeliest(at: Array, n: int) -> list[int]:  # [n_vocab]
    """The ids of the n largest numbers, the largest first.

    >>> likeliest(np.array([0.1, 0.7, 0.2]), 2)
    [1, 2]
    """
    if n == 0:
        return []
    ids = np.flatnonzero(at >= np.partition(at, -n)[-n]) if n < len(at) else np.arange(len(at))
    return [int(token_id) for token_id in ids[np.argsort(-at[ids], kind="stable")][:n]]


def rounded(logprob: Any) -> float:
    return round(float(logprob), 6)


def log_softmax(logits: Array) -> Array:  # [..., n_vocab] -> [..., n_vocab]
    """Logits as log-probabilities.

    >>> log_softmax(np.log(np.array([1, 3]))).round(4)
    array([-1.3863, -0.2877])
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
