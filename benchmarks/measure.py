"""Shared by the benchmarks: the model of 124M's shape, turns, medians, and what machine this is."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from picogpt.weights import openai, store
from tests.helpers import vocabulary_dir

ROOT = Path(__file__).resolve().parent.parent


def make_model(model_size: str = "124M") -> Path:
    """The directory of a converted model of OpenAI's shape with random weights and OpenAI's vocabulary, made once."""
    model_dir = ROOT / ".bench" / "models" / model_size
    if not (model_dir / store.PARAMS_DIR / store.DATA).exists():
        print(f"making a random model of {model_size}'s shape in {model_dir.relative_to(ROOT)}", file=sys.stderr)
        model_dir.mkdir(parents=True, exist_ok=True)
        for name in openai.TOKENIZER:
            shutil.copy(vocabulary_dir() / name, model_dir)
        (model_dir / "hparams.json").write_text(json.dumps(openai.HPARAMS[model_size]))
        store.save_params(store.random_tensors(openai.HPARAMS[model_size], seed=0), model_dir)
    return model_dir


def looping_prompt() -> list[int]:
    """A prompt after which the random model of 124M's shape repeats itself, as greedy text does."""
    return np.random.default_rng(0).integers(0, openai.HPARAMS["124M"]["n_vocab"], 16).tolist() * 6


def in_turns(contestants: dict[str, Callable[[], float | None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, A B C A B C ..., after one round that does not count.

    A contestant may return its own seconds (to leave its preparation out); else the call is timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(rounds + 1):
        for name, contestant in contestants.items():
            start = time.perf_counter()
            own = contestant()
            elapsed = time.perf_counter() - start if own is None else own
            if round_number:
                seconds[name].append(elapsed)
    return seconds


def in_rows(contestants: dict[str, Callable[[], float | None]], times: int) -> dict[str, list[float]]:
    """Seconds of each contestant, A A A ... B B B ..., so that no other one has just used memory and cores."""
    return {name: in_turns({name: contestant}, times)[name] for name, contestant in contestants.items()}


def reading(arrays: Iterable[np.ndarray]) -> Callable[[], float]:
    """Seconds in which all cores together read these arrays once, one number after another.

    A thread for each core computes np.dot of its share of every array with itself, with BLAS on one thread.
    """
    from threadpoolctl import ThreadpoolController

    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flat = [array.ravel(order="K") for array in arrays]
    shares = [[array[i * len(array) // n : (i + 1) * len(array) // n] for array in flat] for i in range(n)]
    controller, pool = ThreadpoolController(), ThreadPoolExecutor(n)

    def read(share: list[np.ndarray]) -> None:
        for array in share:
            np.dot(array, array)

    def run() -> float:
        with controller.limit(limits=1, user_api="blas"):
            start = time.perf_counter()
            list(pool.map(read, shares))
            return time.perf_counter() - start

    return run


def spread(values: list[float]) -> str:
    """Median and, in brackets, the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    return f"{middle:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"


def machine() -> str:
    """One line about the processor, the versions and the BLAS that NumPy found."""
    pinned = [
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith(("OPENBLAS_", "OMP_", "MKL_")) and name != "OPENBLAS_THREAD_TIMEOUT"  # picogpt sets it
    ]
    line = (
        f"{_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, NumPy {np.__version__}, {_blas()}"
    )
    return line + (f"; PINNED by {', '.join(pinned)}" if pinned else "")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(": ")[1] for line in names if line.startswith("model name")), platform.processor())


def _blas() -> str:
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    blas = next(info for info in threadpool_info() if info["user_api"] == "blas")
    return f"{blas['internal_api']} {blas['version']} ({blas.get('architecture')}, {blas['num_threads']} threads)"
