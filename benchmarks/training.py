"""Training compared with PyTorch, from the same first weights, on the same batches: `make bench-train`.

Each trainer runs in a separate process (trainers.py) on the cores that it is given, and they take turns, A B C A B C
...: only ratios within one run count. Its losses must be ours, or its time does not count. Trainers that are not
installed are left out and named. WITH_NANOGPT=a clone of nanoGPT uses that model instead of one written like it. Writes
docs/training-speed.json and prints a Markdown table for each size. Arguments are names of sizes, by default all; the
file keeps what it has of the others.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from datetime import date
from tempfile import TemporaryFile
from typing import Any

from benchmarks.measure import ROOT, machine, spread
from benchmarks.peers import versions
from benchmarks.trainers import TRAINERS

CLONE = os.environ.get("WITH_NANOGPT", "")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}

SMALL = {"n_layer": 6, "n_head": 6, "n_embd": 192, "n_vocab": 1024, "n_ctx": 256, "n_seq": 256, "batch_size": 16}
LARGE = {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_vocab": 50257, "n_ctx": 1024}
FOUR = tuple(TRAINERS)[:4]  # all of the large model may not fit into memory
# the shape, the trainers, the rounds, and the steps of a trainer in each of them
SIZES: dict[str, tuple[dict[str, int], tuple[str, ...], int, int]] = {
    "small": (SMALL, tuple(TRAINERS), 9, 4),
    "124M-256": (LARGE | {"n_seq": 256, "batch_size": 4}, FOUR, 3, 1),
    "124M-1024": (LARGE | {"n_seq": 1024, "batch_size": 1}, FOUR, 3, 1),
}

Result = dict[str, Any]


class Worker:
    """A trainer in a process that answers over pipes."""

    def __init__(self, name: str, shape: dict[str, int], n_cores: int):
        self.name, self.errors = name, TemporaryFile("w+")  # noqa: SIM115, and a pipe could become full
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.trainers", name, json.dumps(shape), str(n_cores), CLONE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=ROOT, env=ENVIRONMENT,
        )  # fmt: skip
        self.works = self.answer() == "ready"

    def answer(self) -> Any:
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def ask(self, steps: int) -> Any:
        self.process.stdin.write(json.dumps({"steps": steps}) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self) -> str:
        """Why it ended, if it has ended by itself."""
        self.process.communicate()
        self.errors.seek(0)
        return (self.errors.read().strip().splitlines() or ["no reason given"])[-1]


def agree(ours: list[float], theirs: list[float]) -> bool:
    """Whether losses are the same, but for rounding and for nanoGPT's other formula of GELU."""
    return all(abs(a - b) <= 2e-3 * a for a, b in zip(ours, theirs, strict=True))


def measure(shape: dict[str, int], names: Iterable[str], n_cores: int, rounds: int, steps: int) -> dict[str, Result]:
    """Tokens per second of each trainer in each round, and its peak memory."""
    results: dict[str, Result] = {}
    taking_part: list[Worker] = []
    ours: list[float] = []
    for name in names:
        worker = Worker(name, shape, n_cores)
        first = worker.ask(2) if worker.works else None  # compiles, and does not count
        if first is None:
            print(f"left out: {name}: {worker.end()}", file=sys.stderr)
            continue
        ours = ours or first["losses"]
        same = agree(ours, first["losses"])
        said = f"losses {', '.join(f'{loss:.4f}' for loss in first['losses'])}"
        print(f"{name}: {said}{'' if same else ': left out, they are not ours'}", file=sys.stderr)
        if same:
            taking_part.append(worker)
        else:
            worker.end()
    n_tokens = shape["batch_size"] * shape["n_seq"]
    for _ in range(rounds):
        for worker in taking_part:
            answer = worker.ask(steps)
            result = results.setdefault(worker.name, {"tokens_per_second": []})
            result["tokens_per_second"].append(n_tokens * steps / sum(answer["seconds"]))
            result["peak_memory"] = answer["peak_memory"]
    for worker in taking_part:
        worker.end()
    return results


def table(results: dict[str, Result]) -> str:
    ours = statistics.median(results["picogpt"]["tokens_per_second"])
    lines = ["| trainer | tokens/s | ours is | peak memory, MB |", "|---|---|---|---|"]
    for name, result in results.items():
        rates = result["tokens_per_second"]
        ratio = f"{ours / statistics.median(rates):.2f} times as fast" if name != "picogpt" else ""
        lines.append(f"| {name} | {spread(rates)} | {ratio} | {result['peak_memory'] / 1e6:.0f} |")
    return "\n".join(lines)


def main(*names: str) -> None:
    model = "its own model.py" if CLONE else "a model like its own, in benchmarks/trainers.py"
    where = {"machine": machine(), "peers": versions(), "nanoGPT": model, "date": date.today().isoformat()}
    print(f"{'; '.join(f'{name}: {value}' for name, value in where.items())}\nmedians (quartiles)\n")
    path = ROOT / "docs" / "training-speed.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in names or SIZES:
        shape, trainers, rounds, steps = SIZES[name]
        report[name] = {**where, **shape, "rounds": rounds, "steps": steps, "cores": {}}
        for n_cores in sorted({1, CORES}, reverse=True):
            results = measure(shape, trainers, n_cores, rounds, steps)
            report[name]["cores"][str(n_cores)] = results
            print(f"{name}, {n_cores} {'core' if n_cores == 1 else 'cores'}\n\n{table(results)}\n", flush=True)
        path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
