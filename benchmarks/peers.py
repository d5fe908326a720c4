"""picogpt compared with other engines, all with the same random weights of 124M's shape: `make bench-peers`.

Each engine runs in a separate process (engine.py), and they take turns, A B C A B C ...: only ratios within one run
count. An engine's greedy tokens must be ours, or its time does not count. Engines that are not installed are left out
and named. Writes docs/performance.json and docs/performance.png, and prints a Markdown table.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine import ENGINES
from benchmarks.measure import ROOT, looping_prompt, machine, make_model, spread

ROUNDS = 7
PAUSE = 0.5  # seconds before a turn: the threads of the engine before, which wait in a loop for more work, rest by then
WORK_DIR = ROOT / ".bench" / "peers"
QUANTIZED = ("CTranslate2 int8", "llama.cpp f16", "llama.cpp q8_0")  # other weights, so other tokens after a while
SLOW = ("picoGPT",)  # computes the whole sequence for every token, so it is asked for fewer tokens, fewer times
LIMIT = "reading the weights"  # not an engine: about the shortest possible time for a token
N_SLOW, SLOW_ROUNDS = 8, 3
WORDS = "Alan Turing theorized that computers would one day become"
N_WHOLE = 40
PACKAGES = ("torch", "transformers", "ctranslate2", "llama_cpp_python")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}


class Worker:
    """An engine in a process that answers over pipes."""

    def __init__(self, name: str, model_dir: Path):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / "engine.py"), name, str(model_dir), str(WORK_DIR)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )  # fmt: skip
        self.works = self.answer() == "ready"

    def answer(self) -> Any:
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def why_not(self) -> str:
        return (self.process.stderr.read().strip().splitlines() or ["no reason given"])[-1]

    def ask(self, prompt: list[int], n: int) -> dict[str, Any]:
        return self.request(prompt=prompt, n=n)

    def request(self, **what: Any) -> dict[str, Any]:
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def prompts() -> dict[str, tuple[list[int], int]]:
    """A prompt and a number of tokens for each column of the table."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 50256, 900).tolist()
    return {
        "decode": (ids[:32], 33),
        "decode at 900": (ids, 17),
        "prefill": (ids[:512], 1),
        "looping text": (looping_prompt(), 201),
    }


def rate(task: str, answer: dict[str, Any], prompt: list[int]) -> float:
    """Tokens per second: of the prompt, or of the tokens after the first one."""
    if task == "prefill":
        return len(prompt) / answer["first"]
    return (len(answer["tokens"]) - 1) / (answer["total"] - answer["first"])


def agreement(ours: list[int], theirs: list[int]) -> int:
    """How many tokens are the same before the first that differs."""
    return next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(theirs))


def measure(workers: list[Worker]) -> dict[str, dict[str, list[float]]]:
    rates: dict[str, dict[str, list[float]]] = {worker.name: {} for worker in workers}
    for task, (prompt, n) in prompts().items():
        plain = workers[0].ask(prompt, n)["tokens"]
        taking_part = []
        for worker in workers:
            slow = worker.name in SLOW
            if (slow or worker.name == LIMIT) and task != "decode":
                continue
            if worker.name == LIMIT:
                taking_part.append(worker)
                continue
            n_compared = N_SLOW if slow else n
            same = agreement(plain, worker.ask(prompt, n_compared)["tokens"])
            print(f"{task}: {worker.name}: {same} of {n_compared} tokens are ours", file=sys.stderr)
            if same < n_compared and worker.name not in QUANTIZED:
                continue
            if slow:
                rates[worker.name][task] = [N_SLOW / worker.ask(prompt, N_SLOW)["total"] for _ in range(SLOW_ROUNDS)]
            else:
                taking_part.append(worker)
        for _ in range(ROUNDS):
            for worker in taking_part:
                time.sleep(PAUSE)
                rates[worker.name].setdefault(task, []).append(rate(task, worker.ask(prompt, n), prompt))
    return rates


def whole_commands(workers: list[Worker], model_dir: Path) -> dict[str, list[float]]:
    """Seconds from the command line to its end: a prompt of ten words and 40 tokens, all files in the page cache."""
    sys.path.insert(0, str(ROOT))
    from picogpt.encoder import get_encoder

    ids = json.dumps(get_encoder(model_dir.name, model_dir.parent).encode(WORDS))
    commands = {
        worker.name: [
            sys.executable,
            "benchmarks/engine.py",
            worker.name,
            str(model_dir),
            str(WORK_DIR),
            ids,
            str(N_WHOLE),
        ]
        for worker in workers
        if worker.name not in ("picogpt, look-ahead", LIMIT)
    }
    commands["picogpt"] = [sys.executable, "gpt2.py", WORDS, "--models_dir", str(model_dir.parent)]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for round_number in range(ROUNDS):
        for name, command in commands.items():
            if name in SLOW and round_number >= SLOW_ROUNDS:
                continue
            start = time.perf_counter()
            subprocess.run(command, check=True, cwd=ROOT, env=ENVIRONMENT, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def table(results: dict[str, dict[str, list[float]]]) -> str:
    columns = ["decode", "decode at 900", "prefill", "looping text", "whole command"]
    units = ["tokens/s", "tokens/s", "tokens/s", "tokens/s", "s"]
    lines = [
        "| engine | " + " | ".join(f"{name}, {unit}" for name, unit in zip(columns, units, strict=True)) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, values in results.items():
        cells = [spread(values[column]) if len(values.get(column, [])) > 1 else "" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versions() -> str:
    """The versions of the packages of the other engines, as far as they are installed."""
    found = {d.name: d.version for d in metadata.distributions() if d.name.replace("-", "_") in PACKAGES}
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()))


def plot(results: dict[str, dict[str, list[float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = {
        "decode": "tokens/s",
        "prefill": "tokens/s",
        "looping text": "tokens/s",
        "whole command": "s, less is better",
    }
    figure, axes = plt.subplots(1, len(columns), figsize=(15, 4), sharey=True)
    names = list(results)
    for axis, (column, unit) in zip(axes, columns.items(), strict=True):
        for y, name in enumerate(names):
            if values := results[name].get(column):
                middle = statistics.median(values)
                spread_of = [[middle - min(values)], [max(values) - middle]]
                color = "tab:orange" if name.startswith("picogpt") else "tab:gray"
                axis.barh(y, middle, xerr=spread_of, color=color, capsize=3)
                axis.text(
                    max(values), y, f"  {middle:.3g}" if middle < 1000 else f"  {middle:.0f}", va="center", fontsize=8
                )
        axis.set_title(f"{column}\n{unit}", fontsize=10)
        axis.margins(x=0.2)
        axis.set_xscale("log" if column == "whole command" else "linear")
        axis.set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def started(names: Iterable[str], model_dir: Path) -> list[Worker]:
    """A worker for each engine that is installed; the others are named."""
    WORK_DIR.mkdir(parents=True, exist_ok=True)
    workers = [Worker(name, model_dir) for name in names]
    for worker in workers:
        if not worker.works:
            print(f"left out: {worker.name}: {worker.why_not()}", file=sys.stderr)
    return [worker for worker in workers if worker.works]


def main() -> None:
    model_dir = make_model("124M")
    workers = started(ENGINES, model_dir)
    results = measure(workers)
    for worker in workers:
        worker.end()
    agreed = [worker for worker in workers if "decode" in results[worker.name]]
    for name, seconds in whole_commands(agreed, model_dir).items():
        results[name]["whole command"] = seconds
    where = {"machine": machine(), "peers": versions(), "date": date.today().isoformat()}
    report = {**where, "rounds": ROUNDS, "results": results}
    (ROOT / "docs" / "performance.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(results, ROOT / "docs" / "performance.png")
    print(f"{'; '.join(where.values())}\nmedians (quartiles) of {ROUNDS} rounds\n\n{table(results)}")


if __name__ == "__main__":
    main()
