"""How the next token is chosen from the logits: all settings in one object. The choice itself is in choosing.py.

They apply in this order, each if it is set:

1. to the logits, given the tokens so far, the prompt's included: logit_bias, repetition_penalty, no_repeat_ngram_size,
   banned, processor
2. temperature: 0 takes the token with the largest logit, and ends here
3. which tokens may be drawn: top_k, top_p, min_p, typical_p; each sees what the ones before have kept
4. a draw

It is OpenAI's order (sample.py: temperature, top-k, top-p), and the rest is where transformers has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TypeAlias, TypeGuard

import numpy as np

from picogpt import filters, penalties
from picogpt.arrays import Array
from picogpt.errors import UserError
from picogpt.filters import top_k_logits, top_p_logits
from picogpt.penalties import DROPPED

__all__ = ["DROPPED", "GREEDY", "Processor", "Sampling", "top_k_logits", "top_p_logits"]

Processor: TypeAlias = Callable[[list[int], Array], Array]
Bias: TypeAlias = tuple[tuple[int, float], ...]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, (int, np.integer)) and bool(value >= 0)


@dataclass(frozen=True, repr=False)
class Sampling:
    """How tokens are chosen: one object for all settings, checked when it is made.

    temperature: 0 takes the likeliest token each time (greedy), 1 draws from the model's own distribution, values
        between favour the likeliest tokens; by default 1 if top_k, top_p, min_p or typical_p is given, else 0
    top_k: draw only from the k likeliest tokens; 0 from all
    top_p: draw only from the likeliest tokens that together have probability p; 1 from all
    seed: the same seed gives the same text; by default each run draws another text. Greedy text needs no seed
    min_p: draw only tokens with at least p times the probability of the likeliest; 0 draws from all
    typical_p: draw only from the tokens closest to the average surprise that together have probability p; 1 from all
    repetition_penalty: divide the logits of tokens that have occurred by this, or multiply them if negative; 1 does not
    no_repeat_ngram_size: never repeat a sequence of this many tokens; 0 allows all
    logit_bias: a number to add to the logit of a token, given by its id; may be given several times
    banned: the id of a token that is never chosen; may be given several times
    processor: from Python, any function of (ids so far, logits) that returns logits

    Raises UserError for a setting that is out of range.

    >>> Sampling(top_k=40)
    Sampling(temperature=1.0, top_k=40)
    >>> Sampling().greedy
    True
    >>> Sampling(temperature=0.7, top_p=3)
    Traceback (most recent call last):
    picogpt.errors.UserError: top_p must lie between 0 and 1 (all tokens), found 3: try 0.9
    """

    temperature: float | None = None
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] | Bias = ()
    banned: tuple[int, ...] = ()
    processor: Processor | None = None

    def __post_init__(self) -> None:
        if self.temperature is None:
            all_tokens = self.top_k == 0 and self.top_p == 1 and self.min_p == 0 and self.typical_p == 1
            object.__setattr__(self, "temperature", 0.0 if all_tokens else 1.0)
        if not (_is_number(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature must be 0 (greedy) or more, found {self.temperature!r}: try 0.7")
        if not _is_whole(self.top_k):
            raise UserError(f"top_k must be a whole number, 0 (all tokens) or more, found {self.top_k!r}: try 40")
        if not (_is_number(self.top_p) and 0 <= self.top_p <= 1):
            raise UserError(f"top_p must lie between 0 and 1 (all tokens), found {self.top_p!r}: try 0.9")
        if self.seed is not None and not _is_whole(self.seed):
            raise UserError(f"seed must be a whole number, 0 or more, found {self.seed!r}: try 1")
        if not (_is_number(self.min_p) and 0 <= self.min_p <= 1):
            raise UserError(f"min_p must lie between 0 (all tokens) and 1, found {self.min_p!r}: try 0.05")
        if not (_is_number(self.typical_p) and 0 < self.typical_p <= 1):
            raise UserError(f"typical_p must be above 0 and at most 1 (all tokens), found {self.typical_p!r}: try 0.9")
        if not (_is_number(self.repetition_penalty) and self.repetition_penalty > 0):
            raise UserError(f"repetition_penalty must be above 0, found {self.repetition_penalty!r}: try 1.2")
        if not _is_whole(self.no_repeat_ngram_size):
            found = repr(self.no_repeat_ngram_size)
            raise UserError(f"no_repeat_ngram_size must be a whole number, 0 (none) or more, found {found}: try 3")
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))
        object.__setattr__(self, "banned", _token_ids("banned", self.banned))
        if self.processor is not None and not callable(self.processor):
            raise UserError(f"processor must be a function of (ids, logits), found {self.processor!r:.60}")

    def __repr__(self) -> str:
        known = ((field.name, field.default, getattr(self, field.name)) for field in fields(self))
        return f"Sampling({', '.join(f'{name}={value!r}' for name, default, value in known if value != default)})"

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def check_ids(self, n_vocab: int) -> None:
        """Raise UserError if a setting names a token that a vocabulary of this size does not have."""
        for name, ids in ("logit_bias", [token_id for token_id, _ in self._bias]), ("banned", self.banned):
            if any(token_id >= n_vocab for token_id in ids):
                raise UserError(f"{name}: expected ids from 0 to {n_vocab - 1}, found {max(ids)}")

    def rngs(self, n_rows: int) -> list[np.random.Generator]:
        """A random number generator for each row. The numbers of a row do not depend on how many rows there are.

        The list is empty if nothing is drawn, which saves the import of np.random.
        """
        if self.greedy:
            return []
        return [np.random.default_rng(child) for child in np.random.SeedSequence(self.seed).spawn(n_rows)]

    def processed(self, logits: Array, ids: list[int]) -> Array:  # [n_vocab], [n_seq] -> [n_vocab]
        """The logits after the settings that look at the tokens so far. Raises UserError if no token is left."""
        x = logits
        if self.logit_bias:
            x = penalties.add_bias(x, self._bias)
        if self.repetition_penalty != 1:
            x = penalties.penalize_repetition(x, ids, self.repetition_penalty)
        if self.no_repeat_ngram_size:
            x = penalties.ban_repeated_ngrams(x, ids, self.no_repeat_ngram_size)
        if self.banned:
            x = penalties.ban(x, self.banned)
        if self.processor is not None:
            x = _checked(self.processor(list(ids), x.copy()), len(logits))
        if x is not logits and not x.max() > DROPPED:
            raise UserError("no token is left to choose: the settings drop all; ban fewer tokens or shorter sequences")
        return x

    def filters(self) -> Iterator[tuple[Callable[..., filters.Border], float]]:
        """The filters that drop tokens, in their order, with their settings."""
        if self.top_k:
            yield filters.top_k, self.top_k
        if self.top_p < 1:
            yield filters.top_p, self.top_p
        if self.min_p:
            yield filters.min_p, self.min_p
        if self.typical_p < 1:
            yield filters.typical_p, self.typical_p

    @property
    def _bias(self) -> Bias:
        assert isinstance(self.logit_bias, tuple)
        return self.logit_bias


def _bias(bias: object) -> Bias:
    """Pairs (id, number) in the order of the ids. Raises UserError."""
    try:
        pairs = dict(bias)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        pairs = {None: bias}
    for token_id, number in pairs.items():
        if not (_is_whole(token_id) and _is_number(number)):
            raise UserError(f"logit_bias must be ids with numbers, as {{11: -5.0}}, found {bias!r:.60}")
    return tuple(sorted((int(token_id), float(number)) for token_id, number in pairs.items()))


def _token_ids(name: str, ids: object) -> tuple[int, ...]:
    """Token ids as a tuple. Raises UserError."""
    found = tuple(ids) if isinstance(ids, (list, tuple, set, frozenset, np.ndarray)) else (None,)
    if not all(map(_is_whole, found)):
        raise UserError(f"{name} must be a list of token ids, as [11, 13], found {ids!r:.60}")
    return tuple(sorted({int(token_id) for token_id in found}))


def _checked(found: object, n_vocab: int) -> Array:
    """What a processor has returned. Raises UserError if it is not logits."""
    logits = np.asarray(found)
    if logits.shape != (n_vocab,) or logits.dtype.kind not in "fiu" or np.isnan(logits).any():
        raise UserError(f"processor: expected it to return {n_vocab} logits, found {found!r:.60}")
    return logits.astype(np.float32)


GREEDY = Sampling()
