"""Our answers with OpenAI's real weights are those that others have published (published.json).

These tests need the weights in models/124M and models/1558M and skip without them. That the published ids and texts
belong together is tested everywhere.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, vocabulary_dir

from parity import compare, jobs, ours, pytorch
from picogpt import gpt2, utils
from picogpt.encoder import get_encoder

FACTS = json.loads((ROOT / "tests" / "published.json").read_text(encoding="utf-8"))
MODELS_DIR = Path(os.environ.get("PICOGPT_MODELS_DIR") or ROOT / "models")


def facts(kind):
    return [pytest.param(fact, id=f"{fact['model']}-{i}") for i, fact in enumerate(FACTS[kind])]


def real_model(name):
    """Encoder, hparams and params of a model of OpenAI's. Skips the test if the files have not been downloaded."""
    model_dir = MODELS_DIR / name
    if not (model_dir / "hparams.json").exists():
        pytest.skip(f"the weights are not in {model_dir}: python gpt2.py --model_size {name} fetches them")
    return utils.load_encoder_hparams_and_params(name, MODELS_DIR)


@pytest.mark.parametrize("fact", facts("greedy"))
def test_published_ids_and_texts_belong_together(fact):
    encoder = get_encoder(vocabulary_dir().name, vocabulary_dir().parent)
    assert encoder.encode(fact["prompt"]) == fact["prompt_ids"]
    assert encoder.decode(fact["new_ids"]) == fact["continuation"]


@pytest.mark.parametrize("fact", facts("greedy"))
def test_greedy_continuation(fact):
    encoder, hparams, params = real_model(fact["model"])
    new_ids = list(gpt2.generate(encoder.encode(fact["prompt"]), params, hparams["n_head"], fact["n_tokens"]))
    assert new_ids[: len(fact["new_ids"])] == fact["new_ids"]
    assert encoder.decode(new_ids).rstrip() == fact["continuation"].rstrip()


@pytest.mark.parametrize("fact", [fact for fact in facts("greedy") if "percent" in fact.values[0]])
def test_probability_of_each_greedy_token(fact):
    _, hparams, params = real_model(fact["model"])
    ids = fact["prompt_ids"] + fact["new_ids"]
    logits = gpt2.gpt2(ids, **params, n_head=hparams["n_head"])[len(fact["prompt_ids"]) - 1 : -1]
    percent = 100 * gpt2.softmax(logits).max(axis=-1)
    assert percent == pytest.approx(fact["percent"], abs=0.02)


@pytest.mark.parametrize("fact", facts("logits"))
def test_first_logits(fact):
    _, hparams, params = real_model(fact["model"])
    logits = gpt2.gpt2(fact["ids"], **params, n_head=hparams["n_head"])[-1]
    assert logits[: len(fact["first_logits"])] == pytest.approx(fact["first_logits"], abs=5e-4)


@pytest.mark.parametrize("fact", facts("argmaxes"))
def test_best_token_at_each_position(fact):
    _, hparams, params = real_model(fact["model"])
    assert gpt2.gpt2(fact["ids"], **params, n_head=hparams["n_head"]).argmax(axis=-1).tolist() == fact["best"]


@pytest.mark.parametrize("fact", facts("losses"))
def test_mean_cross_entropy(fact):
    _, hparams, params = real_model(fact["model"])
    inputs = np.reshape(fact["ids"][:-1], (4, 64))
    targets = np.reshape(fact["ids"][1:], (4, 64, 1))
    probabilities = gpt2.softmax(gpt2.gpt2(inputs, **params, n_head=hparams["n_head"]))
    loss = -np.log(np.take_along_axis(probabilities, targets, axis=-1)).mean()
    assert loss == pytest.approx(fact["mean_cross_entropy"], abs=5e-5)


def test_transformers_agrees_on_the_real_124m():
    real_model("124M")
    model_dir = str(MODELS_DIR / "124M")
    job = {"task": "continue", "model_dir": model_dir, "prompts": jobs.PROMPTS[:2], "n_tokens": jobs.N_TOKENS}
    report = ours.report(job)
    rows = compare.compare(pytorch.continuations(job, report), report)
    assert [row.problems for row in rows] == [[]] * len(rows)
