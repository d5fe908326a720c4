"""`import picogpt`, `picogpt.load`, and what a model does for its user in Python."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from concurrent.futures import Future

import numpy as np
import pytest

import picogpt
from picogpt import gpt2
from picogpt.decoding.beam import Hypothesis
from picogpt.decoding.completion import Completion, CompletionStream
from picogpt.insight.trace import Trace
from picogpt.model import Model, open_model
from picogpt.weights import store
from tests.helpers import ROOT, SHAKESPEARE, TINY, make_model

MODULES = [
    module.name for module in pkgutil.walk_packages(picogpt.__path__, "picogpt.") if "__main__" not in module.name
]


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


def ids_of(model, prompt, n, **how):
    ids = model.encode(prompt)
    settings = {"sampling": picogpt.Sampling(**how), "stop_id": model.encoder.end_of_text}
    return list(gpt2.generate(ids, model.params, model.hparams["n_head"], n, **settings))


DRAWN = {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "seed": 1}


@pytest.mark.parametrize("how", [{}, DRAWN], ids=["greedy", "drawn"])
def test_text_is_what_the_model_generates(model, how):
    text = model.decode(ids_of(model, "ROMEO:", 30, **how))
    assert model.generate("ROMEO:", 30, **how) == text
    assert model.generate("ROMEO:", 30, lookahead=False, **how) == text
    assert model.generate(model.encode("ROMEO:"), n_tokens_to_generate=30, draft=model, **how) == text
    pieces = list(model.stream("ROMEO:", 30, **how))
    assert len(pieces) > 10 and "".join(pieces) == text
    assert list(model.generate_ids("ROMEO:", 30, **how)) == ids_of(model, "ROMEO:", 30, **how)


def test_40_tokens_are_generated_unless_another_number_is_asked_for(model):
    assert len(list(model.generate_ids("ROMEO:"))) == 40


def test_a_piece_comes_before_the_next_token_is_computed(model, monkeypatch):
    passes = []
    real = gpt2.hidden_states
    monkeypatch.setattr(gpt2, "hidden_states", lambda x, **kw: passes.append(1) or real(x, **kw))
    pieces = model.stream("ROMEO:", 20)
    assert passes == []
    next(pieces)
    assert len(passes) == 1


def test_samples_are_the_rows_of_one_batch(model):
    texts = model.samples("ROMEO:", 3, 20, **DRAWN)
    assert len(set(texts)) == 3
    assert texts[0] == model.generate("ROMEO:", 20, **DRAWN)


@pytest.mark.parametrize("how", [{}, DRAWN], ids=["greedy", "drawn"])
def test_many_prompts_are_continued_as_each_alone(model, how):
    prompts = ["ROMEO:", "", "To be, or not to be: that is the", model.encode("JULIET:\nO")]
    texts = model.generate_many(prompts, 20, batch_size=2, **how)
    assert list(texts) == [model.generate(prompt, 20, **how) for prompt in prompts]


def test_logits_are_those_of_the_model(model):
    ids = model.encode("ROMEO: But soft")
    logits = model.logits(ids)
    assert logits.shape == (len(ids), 1024) and logits.dtype == np.float32
    assert np.array_equal(logits, gpt2.gpt2(ids, **model.params, n_head=6))


def test_a_model_has_the_tutorials_encoder_hparams_and_params(model):
    assert model.decode(model.encode("Ä b\n")) == "Ä b\n"
    assert model.encode("ROMEO:") == model.encoder.encode("ROMEO:")
    assert set(model.params) == {"wte", "wpe", "blocks", "ln_f"}
    assert model.hparams == {"n_vocab": 1024, "n_ctx": 256, "n_embd": 192, "n_head": 6, "n_layer": 6}
    assert repr(model) == "<picogpt.Model: 6 layers, 6 heads, width 192, 256 positions, 1024 tokens>"


def ends(model: Model) -> Model:
    """A model that ends every text at once: the end-of-text token's logit is the largest everywhere."""
    end, n_embd = model.encoder.end_of_text, model.hparams["n_embd"]
    wte = np.zeros((model.hparams["n_vocab"], n_embd), np.float32)
    wte[end, 0] = 1
    shift = np.eye(1, n_embd, dtype=np.float32)[0]
    ln_f = {"g": np.zeros(n_embd, np.float32), "b": shift}
    return Model(model.encoder, model.hparams, model.params | {"wte": wte, "ln_f": ln_f})


def test_a_text_ends_before_the_end_of_text_token(model):
    ending = ends(model)
    assert ending.generate("ROMEO:", 5) == ending.generate("ROMEO:", 5, lookahead=False) == ""
    assert ending.samples("ROMEO:", 2, 5) == ["", ""]
    assert list(ending.generate_many(["ROMEO:", "JULIET:"], 5)) == ["", ""]


CALLS = [
    lambda model, prompt, n, **how: model.generate(prompt, n, **how),
    lambda model, prompt, n, **how: model.stream(prompt, n, **how),
    lambda model, prompt, n, **how: model.generate_ids(prompt, n, lookahead=False, **how),
    lambda model, prompt, n, **how: model.samples(prompt, 2, n, **how),
    lambda model, prompt, n, **how: model.sample_ids(prompt, 2, n, **how),
    lambda model, prompt, n, **how: model.generate_many([prompt], n, **how),
    lambda model, prompt, n, **how: model.batch_ids([prompt], n, **how),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("prompt", "n", "how", "message"),
    [
        ("ROMEO:", -1, {}, "0 or more, found -1"),
        ("ROMEO:", 300, {}, "sees 256 tokens, found 2 in the prompt [+] 300 to generate"),
        ("ROMEO:", 3, {"temperature": -1}, "temperature must be 0"),
        ("ROMEO:", 3, {"top_p": 2}, "top_p must lie between"),
        ("ROMEO:", 3, {"seed": -1}, "seed must be a whole number"),
        ([1024], 3, {}, "ids from 0 to 1023, found 1024"),
    ],
)
def test_a_mistake_is_reported_when_the_function_is_called(model, call, prompt, n, how, message):
    with pytest.raises(picogpt.UserError, match=message):
        call(model, prompt, n, **how)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("prompt", [5, None, b"ROMEO:", bytearray(b"x")])
def test_a_prompt_of_another_type_is_named(model, call, prompt):
    with pytest.raises(picogpt.UserError, match="prompt: expected a text or a list of token ids, found "):
        call(model, prompt, 3)


def test_other_mistakes_of_type_are_named(model):
    with pytest.raises(picogpt.UserError, match="prompts: expected a list of prompts, found the text 'ROMEO:'"):
        model.generate_many("ROMEO:")
    with pytest.raises(picogpt.UserError, match="draft: expected a Model, found '124M'"):
        model.stream("ROMEO:", draft="124M")
    with pytest.raises(picogpt.UserError, match="expected a text to encode, found 5"):
        model.encode(5)
    with pytest.raises(picogpt.UserError, match="nsamples must be a whole number, 1 or more, found '2'"):
        model.samples("ROMEO:", "2")
    with pytest.raises(picogpt.UserError, match=r"temperature must be 0 .greedy. or more, found '0.7'"):
        model.generate("ROMEO:", temperature="0.7")


@pytest.mark.parametrize("call", CALLS)
def test_an_unknown_setting_is_named_with_the_nearest(model, call):
    with pytest.raises(picogpt.UserError, match=r"^unknown setting temprature: did you mean temperature\?$") as caught:
        call(model, "ROMEO:", 3, temprature=1)
    assert isinstance(caught.value, TypeError)
    with pytest.raises(picogpt.UserError, match=r"^unknown setting xyz: the settings are temperature, top_k, top_p, "):
        call(model, "ROMEO:", 3, xyz=1)


@pytest.mark.parametrize("ids", [[], [1024], [-1], [0.5], [0] * 257])
def test_impossible_ids_are_refused(model, ids):
    with pytest.raises(picogpt.UserError):
        model.logits(ids)


def test_a_draft_must_have_the_same_vocabulary_and_see_as_far(model, tmp_path):
    draft = open_model(make_model(tmp_path, hparams=TINY))
    with pytest.raises(picogpt.UserError, match="sees 32 tokens"):
        model.generate("ROMEO:", 40, draft=draft)
    draft.encoder.encoder = {"a": 0}
    with pytest.raises(picogpt.UserError, match="expected a model with the same vocabulary"):
        model.generate("ROMEO:", 5, draft=draft)


def test_weights_are_opened_by_load_or_at_first_use(tmp_path, monkeypatch):
    opened = []
    real = store.open_params
    monkeypatch.setattr(store, "open_params", lambda *arguments: opened.append(1) or real(*arguments))
    path = make_model(tmp_path)
    model = open_model(path)
    assert model.prompt_ids("ROMEO:", 5) and opened == []
    assert model.params is model.params and len(opened) == 1
    picogpt.load(path)
    assert len(opened) == 2


def test_a_model_of_ones_own_params(model):
    own = Model(model.encoder, model.hparams, model.params)
    assert own.generate("ROMEO:", 5) == model.generate("ROMEO:", 5)


# the package


def test_blas_threads_soon_give_their_cores_back_unless_the_user_says_otherwise(monkeypatch):
    code = "import os, picogpt; print(os.environ['OPENBLAS_THREAD_TIMEOUT'])"
    for given, expected in ((None, "21"), ("26", "26")):
        monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
        if given:
            monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", given)
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        assert process.stdout.split() == [expected]


def test_import_picogpt_imports_next_to_nothing():
    code = "import sys, numpy; before = set(sys.modules); import picogpt; print(*set(sys.modules) - before)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert set(process.stdout.split()) - {"__future__"} == {"picogpt"}, process.stderr


def test_public_names():
    assert set(picogpt.__all__) == {"Array", "Completion", "Model", "Params", "Sampling", "UserError", "load"}
    assert all(hasattr(picogpt, name) for name in picogpt.__all__)
    assert set(picogpt.__all__) <= set(dir(picogpt))
    assert picogpt.Params == dict[str, typing.Any] and typing.get_origin(picogpt.Array) is np.ndarray
    with pytest.raises(AttributeError, match="module 'picogpt' has no attribute 'lode'"):
        picogpt.lode  # noqa: B018
    assert (ROOT / "picogpt" / "py.typed").exists()


LATER = {  # what modules import later
    "Trace": Trace, "Completion": Completion, "CompletionStream": CompletionStream, "Hypothesis": Hypothesis,
    "Future": Future, "KVCache": gpt2.KVCache,
}  # fmt: skip


def public_functions():
    for name in MODULES:
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            if not key.startswith("_") and getattr(value, "__module__", None) == name:
                if inspect.isfunction(value):
                    yield pytest.param(value, id=f"{name}.{key}")
                elif inspect.isclass(value):
                    yield pytest.param(value, id=f"{name}.{key}")
                    for method in vars(value).values():
                        if inspect.isfunction(method):
                            yield pytest.param(method, id=f"{name}.{method.__qualname__}")


@pytest.mark.parametrize("function", list(public_functions()))
def test_type_hints_hold_at_run_time(function):
    if inspect.isclass(function):
        inspect.get_annotations(function, eval_str=True)  # its own, and not those of a library's class above it
    else:
        typing.get_type_hints(function, localns=LATER)


@pytest.mark.parametrize("name", ["picogpt", *MODULES])
def test_examples_of_docstrings_are_what_is_printed(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(importlib.import_module(name)).failed == 0
