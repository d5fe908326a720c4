"""Where the time goes before the first token: python -m benchmarks.startup

A model of 124M's shape with random weights and OpenAI's vocabulary is made in .bench/ once (500 MB). Then, with all
files in the page cache, the time of `python gpt2.py "..." --n_tokens_to_generate 1` is compared with the least that it
needs: importing NumPy, and a pass of the prompt through the model.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, make_model
from picogpt.weights import openai, store

PROMPT = "Alan Turing theorized that computers would one day become"
ROUNDS = 15
# with Python's own cache of compiled modules, which this machine's settings may turn off
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
PROCESS: dict[str, Any] = {"cwd": ROOT, "env": ENVIRONMENT, "check": True}

# the steps of the command, timed from within
STEPS = """
import sys, time
start = time.perf_counter()
def lap(name):
    global start
    now = time.perf_counter()
    print(name, now - start, sep="\\t")
    start = time.perf_counter()
import numpy; lap("import numpy")
from picogpt import gpt2, utils
from picogpt.commands import cli, generate; lap("import picogpt")
cli.imported_fire(); lap("import fire")
encoder, hparams = utils.load_encoder_and_hparams("124M", sys.argv[1]); lap("read the tokenizer")
ids = encoder.encode(sys.argv[2]); lap("encode the prompt")
params = utils.load_params("124M", sys.argv[1], hparams); lap("open the weights")
next(gpt2.generate(ids, params, hparams["n_head"], 1)); lap("first pass, weights not mapped yet")
next(gpt2.generate(ids, params, hparams["n_head"], 1)); lap("second pass")
"""


def seconds(*arguments: str) -> float:
    """The shortest time of a process, because other work of the machine can only add to it."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], **PROCESS, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times)


def steps(models_dir: Path) -> dict[str, float]:
    """The shortest time of each step, over several processes."""
    runs = []
    for _ in range(ROUNDS):
        arguments = [sys.executable, "-c", STEPS, str(models_dir), PROMPT]
        done = subprocess.run(arguments, **PROCESS, capture_output=True, text=True)
        runs.append(dict(line.split("\t") for line in done.stdout.splitlines()))
    return {name: min(float(run[name]) for run in runs) for name in runs[0]}


def peak_memory(*arguments: str) -> int:
    """The peak of a process's resident memory, in bytes, mapped files included."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    usage = os.wait4(process.pid, 0)[2]
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    models_dir = make_model().parent
    command = ("gpt2.py", PROMPT, "--n_tokens_to_generate", "1", "--models_dir", str(models_dir))
    whole = seconds(*command)
    numpy = seconds("-c", "import numpy")
    parts = steps(models_dir)
    least = numpy + parts["second pass"]
    print(f'python gpt2.py "..." --n_tokens_to_generate 1    {1000 * whole:6.0f} ms')
    print(f'python -c "import numpy" + the pass itself       {1000 * least:6.0f} ms')
    print(f"ratio (goal: 1.5 or less)                        {whole / least:6.2f}")
    print("where it goes:")
    for name, value in {"python -c pass": seconds("-c", "pass"), **parts}.items():
        print(f"    {name:45}{1000 * value:6.1f} ms")
    memory = peak_memory(*command) / 1e6
    weights = store.n_bytes(openai.HPARAMS["124M"]) / 1e6
    print(f"resident memory: {memory:.0f} MB, {memory - weights:.0f} MB more than the weights (goal: 150 or less)")


if __name__ == "__main__":
    main()
