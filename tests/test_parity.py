"""Our answers are those of OpenAI's code, frozen in tests/golden (see docs/parity.md), and those of transformers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, SHAKESPEARE, vocabulary_dir

from parity import compare, golden, jobs, ours, pytorch
from picogpt import gpt2, reference, utils
from picogpt.errors import UserError


def read(name):
    return json.loads((golden.GOLDEN_DIR / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model_dirs(tmp_path_factory):
    """By name, the directory of each model that there is evidence about; random ones are made."""
    scratch = tmp_path_factory.mktemp("models")
    return {name: jobs.find_model(name, utils.bundled_models_dir(), scratch) for name in golden.MODELS}


def our_rows(name, model_dir):
    evidence = read(name)
    job = {"task": "continue", "model_dir": str(model_dir), **evidence["job"]}
    return compare.compare(evidence["official"], ours.report(job))


@pytest.mark.parametrize("name", golden.MODELS)
def test_the_evidence_is_about_these_weights(name, model_dirs):
    assert jobs.weights_sha256(model_dirs[name]) == read(name)["weights_sha256"], "other weights: run make golden"


@pytest.mark.parametrize("name", golden.MODELS)
def test_tokens_and_logits_are_those_of_the_official_code(name, model_dirs):
    rows = our_rows(name, model_dirs[name])
    assert [row.n_equal for row in rows] == [jobs.N_TOKENS] * len(jobs.PROMPTS)
    assert [row.problems for row in rows] == [[]] * len(rows)


@pytest.fixture(params=golden.MODELS)
def evidence(request, model_dirs):
    """What the official code said of a model, and the model: hparams and params."""
    _, hparams, params = utils.load_encoder_hparams_and_params(request.param, model_dirs[request.param].parent)
    return read(request.param)["official"]["prompts"], hparams["n_head"], params


def assert_official(logits, prompt, first=0):
    """Logits, [n_tokens, n_vocab], of new tokens from the first on: the official tokens, and the same best logits."""
    assert logits.argmax(axis=-1).tolist() == prompt["new_ids"][first:]
    best = np.array(prompt["top"])[first:]  # [n_tokens, N_TOP, 2], where 2 are id and logit
    found = np.take_along_axis(logits, best[..., 0].astype(int), axis=-1)
    assert np.abs(found - best[..., 1]).max() <= compare.TOLERANCE * np.abs(prompt["logits"]).max()


def test_the_plain_model_gives_the_official_tokens_and_logits(evidence):
    prompts, n_head, params = evidence
    for prompt in prompts:
        ids = prompt["prompt_ids"] + prompt["new_ids"][:-1]
        logits = reference.gpt2(ids, **params, n_head=n_head)
        assert_official(logits[len(prompt["prompt_ids"]) - 1 :], prompt)


def test_texts_of_different_lengths_in_one_pass_give_the_official_tokens_and_logits(evidence):
    prompts, n_head, params = evidence
    n_new = jobs.N_TOKENS - 1
    caches = [gpt2.new_cache(params, n_head, len(prompt["prompt_ids"]) + n_new) for prompt in prompts]
    assert len({cache.array.shape for cache in caches}) > 1
    for kv_cache, prompt in zip(caches, prompts, strict=True):
        gpt2.next_logits(prompt["prompt_ids"], params, n_head, kv_cache)
    new_ids = np.concatenate([prompt["new_ids"][:-1] for prompt in prompts])
    together = gpt2.KVCaches(caches, [n_new] * len(prompts))
    rows = gpt2.gpt2(new_ids, **params, n_head=n_head, kv_cache=together)
    for logits, prompt in zip(np.split(rows, len(prompts)), prompts, strict=True):
        assert_official(logits, prompt, first=1)


def test_the_evidence_came_from_the_pinned_code():
    names = {path.stem for path in golden.GOLDEN_DIR.iterdir()}
    assert names == {*golden.MODELS, *golden.TASKS, "pytorch", "beams"}
    for world in (read(name)["official"]["world"] for name in names - {"pytorch", "beams"}):
        assert world["sha256"] == jobs.OFFICIAL_SHA256
        assert world["tensorflow"] == "1.15.5"


@pytest.mark.parametrize(("name", "directory"), [("shakespeare", SHAKESPEARE), ("openai", vocabulary_dir())])
def test_token_ids_are_those_of_the_official_encoder(name, directory):
    evidence = read(f"encode-{name}")
    report = ours.report({"task": "encode", "model_dir": str(directory), **evidence["job"]})
    assert report["ids"] == evidence["official"]["ids"]
    assert report["texts"] == evidence["official"]["texts"] == evidence["job"]["texts"]


def test_filters_keep_the_sets_of_the_official_sampler():
    evidence = read("filters")
    report = ours.report({"task": "filter", **evidence["job"]})
    verdicts = compare.compare_kept(evidence["job"], evidence["official"]["kept"], report["kept"])
    assert verdicts["differs"] == []
    assert len(verdicts["rounding"]) <= 0.05 * len(verdicts["same"])


def test_a_token_whose_sum_of_probabilities_is_exactly_top_p_stays():
    """Here rounding excuses nothing: the sums are 1/4, 1/2, 3/4 and 1 in float32."""
    evidence = read("filters")
    row, settings = golden.filter_rows()[-1], evidence["job"]["settings"]
    assert evidence["job"]["rows"][-1] == pytest.approx(row)
    kept = evidence["official"]["kept"][-1]
    assert {len(ids) for ids in kept} == {1, 2, 3, 64}
    assert [np.flatnonzero(np.isfinite(ours.filtered(np.float32(row), **s))).tolist() for s in settings] == kept


def broken(constant):
    """A function of gpt2.py, by name, with one constant changed as little as somebody might do by mistake."""
    layer_norm, causal_mask, attention = gpt2.layer_norm, gpt2.causal_mask, gpt2.attention

    def gelu(x, out):
        out[:] = x * (0.5 + 0.5 * np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.045) * x**3)))
        return out

    return {
        "the GELU factor": ("gelu", gelu),
        "the epsilon": ("layer_norm", lambda x, g, b: layer_norm(x, g, b, eps=1e-6)),
        "the mask": ("causal_mask", lambda n: causal_mask(n) * np.float32(1e-9)),  # -10
        "a mask of -1e4": ("causal_mask", lambda n: causal_mask(n) * np.float32(1e-6)),
        "the scale": ("attention", lambda q, *rest: attention(q * np.float32(1.01), *rest)),
    }[constant]


@pytest.mark.parametrize("name", ["shakespeare", "random-tiny", "random-odd"])
@pytest.mark.parametrize("constant", ["the GELU factor", "the epsilon", "the mask", "the scale"])
def test_a_broken_constant_is_noticed(name, constant, model_dirs, monkeypatch):
    monkeypatch.setattr(gpt2, *broken(constant))
    assert any(row.problems for row in our_rows(name, model_dirs[name]))


def test_a_mask_that_is_too_small_for_large_scores_is_noticed(model_dirs, monkeypatch):
    monkeypatch.setattr(gpt2, *broken("a mask of -1e4"))
    assert any(row.problems for row in our_rows("random-sharp", model_dirs["random-sharp"]))


@pytest.mark.parametrize("name", golden.MODELS)
def test_transformers_gives_the_same_tokens_and_logits(name, model_dirs):
    for library in ("torch", "transformers"):
        pytest.importorskip(library, reason=f"{library} is not installed; what the official code said is compared")
    job = {"task": "continue", "model_dir": str(model_dirs[name]), **read(name)["job"]}
    report = ours.report(job)
    rows = compare.compare(pytorch.continuations(job, report), report)
    assert [row.problems for row in rows] == [[]] * len(rows)


# the comparison itself


def prompt_report(new_ids, logits=(1.0, 9.0, 8.0), top=None, **changes):
    top = top or [[[token_id, 9.0], [2, 8.0]] for token_id in new_ids]
    entry = {"prompt": "x", "prompt_ids": [0], "new_ids": new_ids, "text": "", "logits": list(logits), "top": top}
    return {"prompts": [entry | changes]}


def problems(official, ours):
    return compare.compare(official, ours)[0].problems


def test_equal_reports_have_no_problems():
    assert problems(prompt_report([1, 1]), prompt_report([1, 1])) == []


def test_logits_may_differ_by_float_error_only():
    close, far = 9.0 + 8e-5, 9.0 + 4e-4
    assert problems(prompt_report([1]), prompt_report([1], logits=(1.0, close, 8.0))) == []
    problem = problems(prompt_report([1]), prompt_report([1], logits=(1.0, far, 8.0)))[0]
    assert problem == "logits: 4.0e-04 apart, float error explains up to 1.8e-04"
    assert problems(prompt_report([1]), prompt_report([1], logits=(math.nan, 9.0, 8.0)))
    assert problems(prompt_report([1]), prompt_report([1], top=[[[1, far], [2, 8.0]]]))


def test_other_prompt_ids_and_other_text_are_problems():
    assert "prompt ids" in problems(prompt_report([1]), prompt_report([1], prompt_ids=[5]))[0]
    assert "text" in problems(prompt_report([1]), prompt_report([1], text="?"))[0]


@pytest.mark.parametrize(
    ("gap", "verdict"), [(1e-5, "float error explains it"), (1.0, "float error does not explain it")]
)
def test_a_token_that_differs_is_reported_with_the_gap_between_its_candidates(gap, verdict):
    official = prompt_report([1, 1], top=[[[1, 9.0], [2, 8.0]], [[1, 9.0], [2, 9.0 - gap]]])
    mine = prompt_report([1, 2], top=[[[1, 9.0], [2, 8.0]], [[2, 9.0], [1, 9.0 - gap]]])
    row = compare.compare(official, mine)[0]
    assert (row.n_equal, row.n_tokens) == (1, 2)
    assert row.problems[0].startswith("token 2: official 1, ours 2: the two logits are")
    assert row.problems[0].endswith(verdict)
    assert any("DIFFERS" in line for line in compare.table("model", [row]))


def test_a_token_that_is_no_candidate_of_the_other_side_is_no_near_tie():
    problem = problems(prompt_report([1]), prompt_report([7]))[0]
    assert problem.endswith("not a near tie, 7 is not among the best 2 of official")


def test_kept_sets_may_differ_only_where_rounding_decides():
    logits = np.log(np.array([0.6, 0.3, 0.1], np.float32))
    setting = {"temperature": 1.0, "top_k": 0}
    assert compare.kept_verdict(logits, **setting, top_p=0.9, official=[0], ours=[0, 1]) == "rounding"
    assert compare.kept_verdict(logits, **setting, top_p=0.8, official=[0], ours=[0, 1]) == "differs"
    assert compare.kept_verdict(logits, **setting, top_p=0.9, official=[0, 1], ours=[0, 2]) == "differs"
    assert compare.kept_verdict(logits, **setting, top_p=0.8, official=[0], ours=[0]) == "same"


def test_a_clone_that_was_changed_is_refused(tmp_path):
    (tmp_path / "src").mkdir()
    job = {"gpt2_repo": str(tmp_path)}
    with pytest.raises(UserError, match=r"expected .*encoder\.py, found nothing: clone https"):
        jobs.run_official(Path("python3.7"), job, tmp_path)
    (tmp_path / "src" / "encoder.py").write_text("changed")
    with pytest.raises(UserError, match="expected that of commit 9b63575"):
        jobs.run_official(Path("python3.7"), job, tmp_path)


def test_a_side_that_cannot_run_or_fails_is_reported_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"official side: cannot run .*nowhere: No such file"):
        jobs.run_side([tmp_path / "nowhere"], {"task": "filter"}, tmp_path, "official")
    with pytest.raises(UserError, match=r"our side: .* failed with status 3"):
        jobs.run_side([sys.executable, "-c", "raise SystemExit(3)"], {"task": "filter"}, tmp_path, "our")


def test_the_command_line_refuses_a_model_that_is_unknown(tmp_path):
    arguments = ["nosuch", "--official_python", "python3.7", "--gpt2_repo", tmp_path, "--work_dir", tmp_path]
    process = subprocess.run([sys.executable, "-m", "parity", *arguments], capture_output=True, cwd=ROOT)
    assert (process.returncode, process.stdout) == (2, b"")
    assert process.stderr.startswith(b"python -m parity: error: unknown model 'nosuch'")
    assert process.stderr.count(b"\n") == 1
