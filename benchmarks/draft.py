"""The speed-up by a draft model: python -m benchmarks.draft [MODEL_SIZE] [DRAFT_SIZE]

Makes a model of 1558M's shape (6.2 GB) and one of 124M's in .bench/ with random weights. Measures the time of a step of
the large one, and of a round: a few steps of the small one and a pass of the large one over the guesses. Random models
do not agree with each other, so the acceptance rate cannot be measured; the speed-up is printed for several rates.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.measure import in_turns, machine, make_model, spread
from picogpt import gpt2
from picogpt.decoding.lookahead import DraftModel
from picogpt.weights import openai, store

if TYPE_CHECKING:
    from picogpt.arrays import Params

N_PAST = 100
GUESSES = (1, 2, 4, 8)
HELD = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)


def one_pass(params: Params, n_head: int, n_rows: int) -> Callable[[], None]:
    """A pass over n_rows positions after N_PAST others, with the logits of all of them."""
    cache = gpt2.new_cache(params, n_head, N_PAST + n_rows)
    cache.advance(N_PAST)
    ids = np.arange(n_rows)

    def run() -> None:
        cache.truncate(N_PAST)
        gpt2.next_logits(ids, params, n_head, cache, n_last=n_rows)

    return run


def tokens_for(n_guesses: int, held: float) -> float:
    """Expected tokens of a pass, its own token included, if each guess is right with probability `held`."""
    return sum(held**i for i in range(n_guesses + 1))


def a_round(draft: DraftModel, verify: Callable[[], None], n_guesses: int) -> Callable[[], float]:
    """Seconds of a round that follows another round."""

    def run() -> float:
        draft.n_guesses = n_guesses
        for _ in range(2):
            start = time.perf_counter()
            draft.guess(n_guesses)
            verify()
        return time.perf_counter() - start

    return run


def main(model_size: str = "1558M", draft_size: str = "124M") -> None:
    (params, n_head), (draft_params, draft_n_head) = map(open_model, (model_size, draft_size))
    draft = DraftModel(list(range(N_PAST)), draft_params, draft_n_head, N_PAST + max(GUESSES))
    contestants: dict[str, Callable[[], float | None]] = {f"a step of {model_size}": one_pass(params, n_head, 1)}
    for n in GUESSES:
        contestants[f"{n} of {draft_size}, verified"] = a_round(draft, one_pass(params, n_head, n + 1), n)
    seconds = in_turns(contestants, 5)
    print(machine())
    for name, times in seconds.items():
        print(f"{name}: {spread([1000 * t for t in times])} ms")
    step, *rounds = (float(np.median(times)) for times in seconds.values())
    print("\n| guesses | " + " | ".join(f"{held:.0%} hold" for held in HELD) + " |")
    print("|---" * (len(HELD) + 1) + "|")
    for n, cost in zip(GUESSES, rounds, strict=True):
        print(f"| {n} | " + " | ".join(f"{tokens_for(n, held) * step / cost:.2f}" for held in HELD) + " |")


def open_model(size: str) -> tuple[Params, int]:
    hparams = openai.HPARAMS[size]
    return store.open_params(make_model(size), hparams), hparams["n_head"]


if __name__ == "__main__":
    main(*sys.argv[1:])
