"""What converting the largest checkpoint costs: python -m benchmarks.conversion [MODEL_SIZE]

Makes a TensorFlow checkpoint of 1558M's shape (or another's) with random numbers in .bench/, converts it as the first
run of a model does, and prints the time and the peak of resident memory. It takes 13 GB of disk for 1558M, which are
freed at the end. Each step is a process, so that each has its own peak.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from picogpt import utils
from picogpt.weights import openai, store
from tests.helpers import vocabulary_dir, write_checkpoint

ROOT = Path(__file__).resolve().parent.parent
MODELS_DIR = ROOT / ".bench" / "conversion"
NAME = "random"


def make_checkpoint(model_size: str) -> None:
    """One tensor in memory at a time."""
    model_dir = MODELS_DIR / NAME
    model_dir.mkdir(parents=True)
    for name in openai.TOKENIZER:
        shutil.copy(vocabulary_dir() / name, model_dir)
    (model_dir / "hparams.json").write_text(json.dumps(openai.HPARAMS[model_size]))
    write_checkpoint(model_dir, hparams=openai.HPARAMS[model_size])


def convert() -> None:
    utils.load_encoder_hparams_and_params(NAME, MODELS_DIR)


def measured(*arguments: str) -> tuple[float, float]:
    """Seconds and peak of resident memory, in MB, of a Python process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(arguments)} failed")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def main(model_size: str = "1558M") -> None:
    shutil.rmtree(MODELS_DIR, ignore_errors=True)
    try:
        measured("-m", "benchmarks.conversion", "make", model_size)
        _, alone = measured("-c", "import picogpt.weights.convert, tqdm")
        seconds, peak = measured("-m", "benchmarks.conversion", "convert")
        opening, opened = measured("-m", "benchmarks.conversion", "convert")
    finally:
        shutil.rmtree(MODELS_DIR, ignore_errors=True)
    shapes = store.param_shapes(openai.HPARAMS[model_size])
    largest = max(4 * math.prod(shape) for shape in shapes.values()) / 1e6
    print(f"{model_size}: {store.n_bytes(openai.HPARAMS[model_size]) / 1e9:.2f} GB in {len(shapes)} tensors")
    print(f"converted in {seconds:.0f} s with a peak of {peak:.0f} MB resident")
    print(f"Python and NumPy alone take {alone:.0f} MB, the largest tensor {largest:.0f} MB")
    print(f"above that: {(peak - alone) / largest:.2f} times the largest tensor (goal: at most 2)")
    print(f"opened in {opening:.2f} s, Python's start included, with {opened:.0f} MB resident")


if __name__ == "__main__":
    command, *rest = sys.argv[1:] or ["1558M"]
    {"make": make_checkpoint, "convert": convert}.get(command, lambda *_: main(command))(*rest)
