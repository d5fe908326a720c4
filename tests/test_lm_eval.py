"""A model in EleutherAI's harness: what it answers, and the same figures as the harness's own `hf` on the same weights.

The harness is asked where it is installed; its interface is small, so that most tests run without it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import picogpt
from picogpt.errors import UserError
from picogpt.insight import harness
from picogpt.insight.harness import Generation, HarnessModel
from tests.helpers import ENVIRONMENT, ROOT, SHAKESPEARE

INSTALL = "lm_eval is not installed: pip install lm_eval[hf]"


class Hook:
    """The harness's cache of answers."""

    def __init__(self):
        self.kept = []

    def add_partial(self, kind, request, answer):
        self.kept.append((kind, tuple(request), answer))


@pytest.fixture(scope="module")
def shared():
    return HarnessModel(str(SHAKESPEARE), batch_size=3)


@pytest.fixture
def lm(shared):
    shared.cache_hook = Hook()
    return shared


def asked(*arguments):
    return [SimpleNamespace(args=each) for each in arguments]


# log-likelihoods


def test_loglikelihoods_of_continuations(lm):
    model = lm.model
    texts = [("Good morrow, my", " lord"), ("ROMEO:", model.generate("ROMEO:", 5)), ("To be, or not to", " potato")]
    requests = [(pair, model.encode(pair[0]), model.encode(pair[1])) for pair in texts]
    found = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    for ((context, continuation), before, after), (log_probability, is_greedy) in zip(requests, found, strict=True):
        assert log_probability == pytest.approx(model.score(before + after)[-len(after) :].sum(), abs=1e-4)
        assert is_greedy == (model.generate(context, len(after)) == continuation)
    assert [is_greedy for _, is_greedy in found] == [True, True, False]
    assert sorted(lm.cache_hook.kept) == sorted(("loglikelihood", *both) for both in zip(texts, found, strict=True))


def test_a_context_that_is_too_long_loses_its_beginning(lm):
    ids = lm.model.encode("so " * 700)[:400]
    [(found, _)] = lm._loglikelihood_tokens([(None, ids, [305, 12])], disable_tqdm=True)
    [(_, expected)] = lm.score([harness.Piece([*ids, 305, 12][-257:], 2)])
    assert found == pytest.approx(expected.log_probabilities.sum(), abs=1e-4) and lm.cache_hook.kept == []


@pytest.mark.parametrize("n", [0, 257])
def test_a_continuation_that_does_not_fit_is_refused(lm, n):
    with pytest.raises(UserError, match=f"expected a continuation of 1 to 256 tokens, found {n}"):
        lm._loglikelihood_tokens([(None, [305], [12] * n)], disable_tqdm=True)


@given(st.integers(0, 40), st.integers(1, 12))
def test_windows_of_a_text_score_each_token_once_with_as_much_context_as_there_is_room_for(n, max_length):
    lm = SimpleNamespace(eot_token_id=-1, max_length=max_length)
    pieces = list(HarnessModel.rolling(lm, list(range(n))))
    assert [token for ids, n_new in pieces for token in ids[-n_new:]] == list(range(n))
    for number, (ids, n_new) in enumerate(pieces):
        assert ids == [-1, *range(n)][ids[0] + 1 :][: len(ids)] and n_new < len(ids)
        assert len(ids) == max_length + 1 or number == 0


@given(st.integers(0, 40), st.integers(1, 12))
@settings(max_examples=50)
def test_windows_are_those_of_the_harness(n, max_length):
    utils = pytest.importorskip("lm_eval.utils", reason=INSTALL)
    theirs = utils.get_rolling_token_windows(list(range(n)), -1, max_length, context_len=1)
    expected = [(context + new, len(new)) for context, new in map(utils.make_disjoint_window, theirs)]
    ours = HarnessModel.rolling(SimpleNamespace(eot_token_id=-1, max_length=max_length), list(range(n)))
    assert list(ours) == expected


def test_loglikelihoods_of_texts(lm):
    texts = ["Good morrow, my lord", "", "First Citizen:\nSpeak, speak.\n" * 30]
    found = lm.loglikelihood_rolling(asked(*((text,) for text in texts)), disable_tqdm=True)
    ids = lm.model.encode(texts[0])
    assert found[0] == pytest.approx(lm.model.score([0, *ids]).sum(), abs=1e-4)
    assert found[1] == 0
    ids = lm.model.encode(texts[2])
    rest = len(ids) - 256
    pieces = [harness.Piece([0, *ids[:256]], 256), harness.Piece(ids[-257:], rest)]
    expected = sum(scores.log_probabilities.sum() for _, scores in lm.score(pieces))
    assert 0 < rest < 256 and found[2] == pytest.approx(expected, abs=1e-3)
    assert [request for _, request, _ in lm.cache_hook.kept] == [(text,) for text in texts]


# texts


def test_texts_end_before_a_stop_sequence(lm):
    how = {"until": ["\n\n", "lord"], "max_gen_toks": 30}
    contexts = ["ROMEO:", "Good morrow, my", "To be, or not to be, that is the question:\n", "JULIET:"]
    found = lm.generate_until(asked(*((context, how) for context in contexts)), disable_tqdm=True)
    whole = [lm.model.generate(context, 30) for context in contexts]
    assert found == [re.split("\n\n|lord", text)[0] for text in whole]
    assert found[1] == " " and found != whole
    kept = {request[0]: text for _, request, text in lm.cache_hook.kept}
    assert kept == dict(zip(contexts, found, strict=True))


def test_requests_with_other_settings_are_other_batches(lm):
    stop = lm.model.generate("ROMEO:", 6)[3:6]
    found = lm.generate_until(
        asked(("ROMEO:", {"max_gen_toks": 3}), ("ROMEO:", {"max_tokens": 6, "until": stop}), ("", {"max_gen_toks": 2})),
        disable_tqdm=True,
    )
    expected = [lm.model.generate("ROMEO:", 3), lm.model.generate("ROMEO:", 6, stop=stop), lm.model.generate("", 2)]
    assert found == expected and len(found[1]) == 3


def test_drawn_texts_have_the_settings_asked_for(lm):
    how = {"do_sample": True, "temperature": 0.7, "top_k": 40, "seed": 1, "max_gen_toks": 12}
    [found] = lm.generate_until(asked(("ROMEO:", how)), disable_tqdm=True)
    assert found == lm.model.generate("ROMEO:", 12, temperature=0.7, top_k=40, seed=1)


def test_a_context_keeps_its_end_if_there_is_no_room_for_all(lm):
    ids = lm.model.encode("so " * 300)
    [found] = lm.generate_until(asked(("so " * 300, {"max_gen_toks": 5})), disable_tqdm=True)
    assert len(ids) > 251 and found == lm.model.generate(ids[-251:], 5)
    with pytest.raises(UserError, match="sees 256 tokens, found 256 to generate: use --gen_kwargs max_gen_toks=128"):
        lm.generate_until(asked(("ROMEO:", {})), disable_tqdm=True)


@pytest.mark.parametrize(
    ("asked", "settings"),
    [
        ({}, {}),
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.9}, {}),
        ({"temperature": 0.7}, {"temperature": 0.7}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"top_k": 5, "repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"do_sample": True, "temperature": 0.0, "top_p": 0.9, "num_beams": 1}, {"temperature": 1.0, "top_p": 0.9}),
    ],
)
def test_settings_of_a_task(asked, settings):
    assert Generation(asked).settings == settings


def test_settings_that_are_not_known_are_refused():
    for asked in ({"num_beams": 4}, {"penalty": 1}):
        with pytest.raises(UserError, match="expected generation_kwargs that picogpt knows, found"):
            Generation(asked)


# mistakes, and the way in


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pretrained": "gpt2"}, "expected model, models_dir or max_length in --model_args, found pretrained"),
        ({"batch_size": 0}, "batch_size must be a whole number, 1 or more, found 0"),
        ({"batch_size": "many"}, "found 'many'"),
        ({"max_length": 257}, "max_length must be at most 256, which the model sees, found 257"),
        ({"max_length": 0}, "max_length must be a whole number, 1 or more"),
    ],
)
def test_a_mistake_in_the_arguments_is_named(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        HarnessModel(str(SHAKESPEARE), **arguments)


def test_arguments_of_the_harness(lm):
    ours = HarnessModel(str(SHAKESPEARE), batch_size="auto:4", max_length="100", max_batch_size=None, device="cpu")
    assert (ours.batch_size, ours.max_length, ours.eot_token_id) == (8, 100, 0)
    assert ours.tok_encode("a<|endoftext|>b") == [*lm.model.encode("a"), 0, *lm.model.encode("b")]
    assert ours.get_model_info()["n_ctx"] == 256 and ours.tokenizer_name == lm.tokenizer_name


def test_without_the_harness_a_line_says_how_to_install_it(tmp_path):
    code = "import sys; sys.modules['lm_eval'] = None; from picogpt.lm_eval import main; main()"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT)
    assert process.returncode == 2 and process.stdout == ""
    assert 'install it with pip install "picogpt-numpy[lm_eval]"' in process.stderr and process.stderr.count("\n") == 1


def test_newer_versions_of_the_harness_find_the_class_by_an_entry_point():
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    assert '[project.entry-points."lm_eval.models"]\npicogpt = "picogpt.insight.harness:PicoGPT"\n' in pyproject
    with pytest.raises(AttributeError, match="has no attribute 'Other'"):
        harness.Other  # noqa: B018
    pytest.importorskip("lm_eval", reason=INSTALL)
    from lm_eval.api.model import LM

    assert issubclass(harness.PicoGPT, LM) and harness.PicoGPT is harness.PicoGPT
    assert not harness.PicoGPT.__abstractmethods__


# against the harness's own backend

LINES = ["We are accounted poor citizens, the patricians good.", "To be, or not to be, that is the question",
         "Good morrow, my lord", "O Romeo, Romeo! wherefore art thou Romeo?"]  # fmt: skip


def task(path, records, **settings):
    path.write_text("\n".join(map(json.dumps, records)))
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path)}}, "test_split": "test"}
    return {"task": path.stem, **data, **settings}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    here = tmp_path_factory.mktemp("tasks")
    words = [line.rpartition(" ") for line in LINES]
    questions = [
        {"text": before, "choices": [other, word, "the"], "answer": 1}
        for (before, _, word), (_, _, other) in zip(words, words[1:] + words[:1], strict=True)
    ]
    until = ["b", "\n\n"]
    answer = picogpt.load(SHAKESPEARE).generate("ROMEO:", 20, stop=until)
    return [
        task(
            here / "choices.jsonl", questions, output_type="multiple_choice", doc_to_text="{{text}}",
            doc_to_choice="{{choices}}", doc_to_target="{{answer}}",
            metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}],
        ),
        task(
            here / "words.jsonl", [{"text": before, "word": word} for before, _, word in words],
            output_type="loglikelihood", doc_to_text="{{text}}", doc_to_target="{{word}}",
            metric_list=[{"metric": "perplexity"}, {"metric": "acc"}],
        ),
        task(
            here / "rolling.jsonl", [{"text": "\n".join(LINES) * n} for n in (1, 9)],
            output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
            metric_list=[{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
        ),
        task(
            here / "texts.jsonl", [{"text": text, "answer": answer} for text in ("ROMEO:", *LINES)],
            output_type="generate_until", doc_to_text="{{text}}", doc_to_target="{{answer}}",
            generation_kwargs={"until": until, "max_gen_toks": 20}, metric_list=[{"metric": "exact_match"}],
        ),
    ]  # fmt: skip


def evaluated(backend, tasks, **model_args):
    import lm_eval
    import lm_eval.models  # registers `hf`
    from lm_eval.tasks import TaskManager

    return lm_eval.simple_evaluate(
        model=backend, model_args=model_args, tasks=tasks, batch_size=3, device="cpu", bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )  # fmt: skip


def test_the_figures_are_those_of_the_harness_on_transformers(tasks, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name in ("lm_eval", "torch", "transformers"):
        pytest.importorskip(name, reason=INSTALL)
    export = [sys.executable, "-m", "picogpt.export", str(SHAKESPEARE), str(tmp_path / "hf")]
    subprocess.run(export, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    harness.register()
    harness.register()  # a second time does no harm
    ours = evaluated("picogpt", tasks, model=str(SHAKESPEARE))
    theirs = evaluated("hf", tasks, pretrained=str(tmp_path / "hf"), dtype="float32")
    for name, expected in theirs["results"].items():
        for measure, value in expected.items():
            if isinstance(value, (int, float)):
                assert ours["results"][name][measure] == pytest.approx(value, rel=1e-5), (name, measure)
        for mine, their in zip(ours["samples"][name], theirs["samples"][name], strict=True):
            assert flat(mine["resps"])[1] == flat(their["resps"])[1]
            np.testing.assert_allclose(flat(mine["resps"])[0], flat(their["resps"])[0], atol=1e-3)
    assert ours["results"]["texts"]["exact_match,none"] > 0
    assert ours["results"]["choices"]["acc,none"] > 0


def flat(answers):
    """All log-probabilities, and all else."""
    if not isinstance(answers, (list, tuple)):
        return ([answers], []) if isinstance(answers, float) else ([], [answers])
    parts = [flat(answer) for answer in answers]
    return [x for numbers, _ in parts for x in numbers], [x for _, others in parts for x in others]
