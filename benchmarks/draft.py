"""Does a draft model pay? python -m benchmarks.draft [MODEL_SIZE] [DRAFT_SIZE]

Makes a model of 1558M's shape (6.2 GB) and one of 124M's in .bench/ with random weights, and measures what a step of
each takes and what a pass over several guessed positions takes. Random models do not agree with one another, so how
often guesses hold cannot be measured here; printed is the speed-up for several shares of guesses that hold.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.measure import in_turns, machine, make_model, spread
from picogpt import checkpoint, gpt2, openai
from picogpt.gpt2 import KVCache

if TYPE_CHECKING:
    from picogpt import Params

N_PAST = 100
GUESSES = (1, 2, 4, 8)
HELD = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)


def one_pass(params: Params, n_head: int, n_rows: int) -> Callable[[], None]:
    """A pass over n_rows positions behind a past of N_PAST, with the logits of all of them."""
    wte = params["wte"]
    cache = KVCache(len(params["blocks"]), n_head, wte.shape[1] // n_head, N_PAST + n_rows)
    ids = np.arange(n_rows)

    def run() -> None:
        cache.length = N_PAST
        gpt2.gpt2(ids, **params, n_head=n_head, kv_cache=cache)

    return run


def tokens_for(n_guesses: int, held: float) -> float:
    """Tokens that a pass gives where each guess holds with this probability, its own one included."""
    return sum(held**i for i in range(n_guesses + 1))


def main(model_size: str = "1558M", draft_size: str = "124M") -> None:
    contestants: dict[str, Callable[[], float | None]] = {}
    for size in (model_size, draft_size):
        hparams = openai.HPARAMS[size]
        params = checkpoint.open_params(make_model(size), hparams)
        for n_rows in (1, *(n + 1 for n in GUESSES)) if size == model_size else (1,):
            contestants[f"{size}, {n_rows}"] = one_pass(params, hparams["n_head"], n_rows)
    seconds = in_turns(contestants, 5)
    print(machine())
    for name, times in seconds.items():
        print(f"{name} rows: {spread([1000 * t for t in times])} ms")
    middle = {name: float(np.median(times)) for name, times in seconds.items()}
    step, draft = middle[f"{model_size}, 1"], middle[f"{draft_size}, 1"]
    print("\n| guesses | " + " | ".join(f"{held:.0%} hold" for held in HELD) + " |")
    print("|---" * (len(HELD) + 1) + "|")
    for n in GUESSES:
        cost = middle[f"{model_size}, {n + 1}"] + n * draft
        print(f"| {n} | " + " | ".join(f"{tokens_for(n, held) * step / cost:.2f}" for held in HELD) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
