"""Batches of prompts of unequal lengths, compared with other engines: python -m benchmarks.batches

Prompts of 5 to 60 random tokens, 24 tokens each, greedy, all in: from the call to the last token. The engines are
separate processes and take turns, as in peers.py. Tokens of an engine that are not ours are counted and named. Samples
of one prompt, which is computed once, show what the prompts cost.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np

from benchmarks.engine import TOGETHER
from benchmarks.measure import machine, make_model, spread
from benchmarks.peers import PAUSE, Worker, started, versions

ROUNDS = 5
ROWS = (8, 16, 32, 64)
N_TOKENS = 24


def prompts(n_rows: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 50256, n).tolist() for n in rng.integers(5, 61, n_rows)]


def rates(workers: list[Worker], n_rows: int) -> dict[str, list[float]]:
    """Tokens per second of each engine in each round, after one that does not count."""
    found: dict[str, list[float]] = {worker.name: [] for worker in workers}
    tokens = {}
    for round_number in range(ROUNDS + 1):
        for worker in workers:
            time.sleep(PAUSE)
            answer = worker.request(prompts=prompts(n_rows), n=N_TOKENS)
            tokens[worker.name] = answer["tokens"]
            if round_number:
                found[worker.name].append(n_rows * N_TOKENS / answer["total"])
    ours = tokens["picogpt.batch"]
    for name, theirs in tokens.items():
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        if same < n_rows and "samples" not in name:
            print(f"{n_rows} rows: {name}: {same} texts are ours", file=sys.stderr)
    return found


def main() -> None:
    workers = started(TOGETHER, make_model("124M"))
    results = {n_rows: rates(workers, n_rows) for n_rows in ROWS}
    for worker in workers:
        worker.end()
    print(f"{machine()}; {versions()}\nmedians (quartiles) of {ROUNDS} rounds, tokens/s; of picogpt.batch: ratio\n")
    print("| engine | " + " | ".join(f"{n_rows} rows" for n_rows in ROWS) + " |\n" + "|---" * (len(ROWS) + 1) + "|")
    for worker in workers:
        cells = []
        for n_rows in ROWS:
            own = results[n_rows][worker.name]
            ratios = [ours / other for ours, other in zip(results[n_rows]["picogpt.batch"], own, strict=True)]
            cells.append(f"{spread(own)}: {statistics.median(ratios):.2f}")
        print(f"| {worker.name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
