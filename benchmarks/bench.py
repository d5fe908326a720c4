"""How fast picogpt is, compared with the limits of the machine: `make bench`.

A model of 124M's shape with random weights. The limit for a token is the time to read all weights from memory, and for
a prompt the time of the bare matrix products. picogpt and these take turns, because the speed of a shared machine
changes from minute to minute: only ratios within one run count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measure import in_rows, in_turns, looping_prompt, machine, make_model, reading, spread
from picogpt import gpt2
from picogpt.decoding import lookahead
from picogpt.matmul import matmul
from picogpt.sampling import GREEDY, Sampling
from picogpt.weights import openai, store

if TYPE_CHECKING:
    from picogpt.arrays import Array, Params

ROUNDS = 9
HPARAMS = openai.HPARAMS["124M"]
N_HEAD = HPARAMS["n_head"]
STEPS = 16  # tokens timed at a time when decoding


def matrices(params: Params) -> Iterator[Array]:
    """Every matrix that a hidden state is multiplied by, except the head."""
    for block in params["blocks"]:
        for part, name in (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj")):
            yield block[part][name]["w"]


def bare_products(params: Params, n_rows: int, n_logits: int) -> Callable[[], None]:
    """One `x @ w` for each matrix with n_rows rows, and the head with n_logits."""
    weights = list(matrices(params))
    x = {n_in: np.ones((n_rows, n_in), np.float32) for n_in in {w.shape[0] for w in weights}}
    head = params["wte"].T

    def run() -> None:
        for w in weights:
            x[w.shape[0]] @ w
        x[head.shape[0]][:n_logits] @ head

    return run


def bare_attention(n: int) -> Callable[[], None]:
    """The products of causal attention at n positions, in every layer: 128 queries at a time, keys up to them."""
    d_head = HPARAMS["n_embd"] // N_HEAD
    q, k, v = np.ones((3, N_HEAD, n, d_head), np.float32)

    def run() -> None:
        for _ in range(HPARAMS["n_layer"]):
            for end in range(128, n + 128, 128):
                q[:, end - 128 : end] @ k[:, :end].swapaxes(-1, -2) @ v[:, :end]

    return run


def both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        first()
        second()

    return run


def random_ids(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, HPARAMS["n_vocab"], shape)


def decode(params: Params, n_prompt: int, nsamples: int | None = None) -> Callable[[], float]:
    """Seconds per step of generation after a prompt that is already in the cache."""

    def run() -> float:
        ids = gpt2.generate(random_ids(n_prompt).tolist(), params, N_HEAD, STEPS + 1, nsamples=nsamples)
        next(ids)
        return seconds_each(ids)

    return run


def prefill(params: Params, n_prompt: int) -> Callable[[], None]:
    """A prompt in `generate`, which allocates a new cache each time."""

    def run() -> None:
        next(gpt2.generate(random_ids(n_prompt).tolist(), params, N_HEAD, 1))

    return run


def one_pass(params: Params, n_prompt: int, n_last: int | None) -> Callable[[], None]:
    """The same in one piece and a cache used before. With n_last None, all positions go through the last block."""
    kv_cache = gpt2.new_cache(params, N_HEAD, n_prompt)
    ids = random_ids(n_prompt)

    def run() -> None:
        kv_cache.truncate(0)
        x = gpt2.hidden_states(ids, **params, n_head=N_HEAD, kv_cache=kv_cache, n_last=n_last)
        gpt2.logits(x[-1:], params["wte"])

    return run


def text(
    generate: Callable[..., Iterator[int]], prompt: list[int], params: Params, sampling: Sampling
) -> Callable[[], float]:
    """Seconds per token, for 200 tokens after the first."""

    def run() -> float:
        ids = generate(prompt, params, N_HEAD, 201, sampling=sampling)
        next(ids)
        return seconds_each(ids)

    return run


def seconds_each(ids: Iterator[Any]) -> float:
    start = time.perf_counter()
    n = len(list(ids))
    return (time.perf_counter() - start) / n


def repeated(function: Callable[[], object], times: int) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        for _ in range(times):
            function()
        return (time.perf_counter() - start) / times

    return run


def report(title: str, seconds: dict[str, list[float]], tokens: dict[str, int]) -> None:
    """Print tokens per second, and the ratio to the first contestant in each round."""
    print(f"\n{title}")
    base = next(iter(seconds))
    for name, times in seconds.items():
        ratios = [own / other for own, other in zip(seconds[base], times, strict=True)]
        rate = spread([tokens[name] / t for t in times])
        print(f"  {name:32} {rate:>26} tokens/s   {spread(ratios):>20} of the first")


def few_rows(params: Params) -> None:
    """Print the time for all matrices with a few rows, by plain products and by ours, each nine times in a row."""
    weights = [*matrices(params), params["wte"].T]

    def all_of(product: Callable[[Array, Array], Array], n_rows: int) -> Callable[[], None]:
        x = {n_in: np.ones((n_rows, n_in), np.float32) for n_in in {w.shape[0] for w in weights}}

        def run() -> None:
            for w in weights:
                product(x[w.shape[0]], w)

        return run

    print("\nall matrices with a few rows, ms\n  rows    x @ w   matmul.py")
    for n_rows in (1, 2, 4, 6, 8, 12, 16, 32):
        seconds = in_rows({"x @ w": all_of(np.matmul, n_rows), "matmul.py": all_of(matmul, n_rows)}, ROUNDS)
        plain, ours = (1000 * statistics.median(times) for times in seconds.values())
        print(f"  {n_rows:4} {plain:8.0f} {ours:8.0f}")


def main() -> None:
    print(machine())
    print(f"medians (quartiles) of {ROUNDS} rounds in turns")
    params = store.open_params(make_model("124M"), HPARAMS)

    contestants: dict[str, Callable[[], float | None]] = {
        "reading all weights": repeated(reading([*matrices(params), params["wte"]]), STEPS),
        "bare products, one row": repeated(bare_products(params, 1, 1), STEPS),
        "decode after 32 tokens": decode(params, 32),
        "decode after 900 tokens": decode(params, 900),
        "decode 8 samples": decode(params, 32, nsamples=8),
        "decode 16 samples": decode(params, 32, nsamples=16),
        "decode 32 samples": decode(params, 32, nsamples=32),
    }
    tokens = dict(zip(contestants, (1, 1, 1, 1, 8, 16, 32), strict=True))
    report("decode: one step", in_turns(contestants, ROUNDS), tokens)

    few_rows(params)

    for n_prompt in (512, 1000):
        contestants = {
            "bare products": both(bare_products(params, n_prompt, 1), bare_attention(n_prompt)),
            "bare products, weights alone": bare_products(params, n_prompt, 1),
            "prefill": prefill(params, n_prompt),
            "in memory used before": one_pass(params, n_prompt, n_last=1),
            "and of every position": one_pass(params, n_prompt, n_last=None),
        }
        report(f"prefill: {n_prompt} tokens", in_turns(contestants, ROUNDS), dict.fromkeys(contestants, n_prompt))

    for title, sampling in (("that repeats itself", GREEDY), ("that does not", Sampling(temperature=1.0, seed=0))):
        contestants = {
            "plain": text(gpt2.generate, looping_prompt(), params, sampling),
            "look-ahead": text(lookahead.generate, looping_prompt(), params, sampling),
        }
        report(f"text {title}: 200 tokens", in_turns(contestants, 5), dict.fromkeys(contestants, 1))


if __name__ == "__main__":
    main()
