"""What a reader of "GPT in 60 Lines of NumPy" types, step by step, into the plain model and into the fast one.

The expected numbers are worked out here, by hand or in plain Python.
"""

import doctest
import importlib.util
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from picogpt import gpt2 as fast
from picogpt import reference as plain
from picogpt.encoder import get_encoder
from picogpt.utils import load_encoder_hparams_and_params
from tests.helpers import ENVIRONMENT, ROOT, SHAKESPEARE, vocabulary_dir

both = pytest.mark.parametrize("model", [plain, fast], ids=["reference", "gpt2"])
library_types = (int, float, np.float32, np.int64, np.uint8)


@pytest.fixture(scope="module")
def shakespeare():
    return load_encoder_hparams_and_params("shakespeare", SHAKESPEARE.parent)


@pytest.fixture(scope="module")
def encoder():
    return get_encoder(vocabulary_dir().name, vocabulary_dir().parent)


def test_the_names_can_be_imported_in_a_clone():
    names = "gelu, softmax, layer_norm, linear, ffn, attention, mha, transformer_block, gpt2, generate, main"
    program = f"""
from gpt2 import {names}
import gpt2 as module, picogpt.gpt2
assert gpt2 is picogpt.gpt2.gpt2 and generate is picogpt.gpt2.generate and callable(main)
assert all(function.__name__ == name for function, name in zip(({names}), {names!r}.split(", ")))
try:
    module.no_such_name
except AttributeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert "no_such_name" in done.stdout


# the small functions


def gelu_of(x):
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@both
def test_gelu(model):
    x = np.array([[1, 2], [-2, 0.5]])
    np.testing.assert_allclose(model.gelu(x), [[0.84119, 1.9546], [-0.0454, 0.34571]], atol=1e-5)
    np.testing.assert_allclose(model.gelu(np.array([1, 2, -2])), [0.84119, 1.9546, -0.0454], atol=1e-5)


@both
@pytest.mark.parametrize("number", [library(2) for library in library_types], ids=lambda number: type(number).__name__)
def test_gelu_and_softmax_of_a_number(model, number):
    assert model.gelu(number) == pytest.approx(gelu_of(2), rel=1e-6)
    assert np.shape(model.gelu(number)) == ()
    assert model.softmax(number) == 1


@both
def test_softmax(model):
    probabilities = model.softmax(np.array([[2, 100], [-5, 0]]))
    np.testing.assert_allclose(probabilities, [[math.exp(-98), 1], [0.00669285, 0.99330715]], rtol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=-1), [1, 1])
    np.testing.assert_allclose(model.softmax(np.array([[2.0, 10], [-1, 0]]))[1], [0.26894, 0.73106], atol=1e-5)
    np.testing.assert_allclose(model.softmax(np.uint8([0, 255])), [math.exp(-255), 1])  # 0 - 255 is 1 in their type
    rows = np.array([[1000.0, 1000.0], [-1000.0, -1000.0]])  # e^1000 is too large, and e^-1000 is 0
    np.testing.assert_array_equal(model.softmax(rows), [[0.5, 0.5], [0.5, 0.5]])


@both
@pytest.mark.parametrize("dtype", [int, float, np.float32])
def test_layer_norm(model, dtype):
    x = np.array([[2, 2, 3], [-5, 0, 1]], dtype)
    y = model.layer_norm(x, g=np.ones(x.shape[-1]), b=np.zeros(x.shape[-1]))
    np.testing.assert_allclose(y, [[-0.70709, -0.70709, 1.41418], [-1.397, 0.508, 0.889]], atol=1e-5)
    np.testing.assert_allclose(y.mean(axis=-1), [0, 0], atol=1e-6)
    np.testing.assert_allclose(y.var(axis=-1), [0.99996, 1.0], atol=1e-5)  # not 1: eps is in the root

    scaled = model.layer_norm(x, g=np.array([1, 2, 3]), b=np.array([0, 10, 20]))
    np.testing.assert_allclose(scaled, np.asarray(y) * [1, 2, 3] + [0, 10, 20], rtol=1e-6)
    rough = model.layer_norm(x, 1, 0, eps=1.0)
    np.testing.assert_allclose(rough[0], np.array([-1, -1, 2]) / 3 / math.sqrt(2 / 9 + 1), rtol=1e-6)


@both
def test_linear(model):
    x, w, b = np.random.normal(size=(64, 784)), np.random.normal(size=(784, 10)), np.random.normal(size=10)
    assert model.linear(x, w, b).shape == (64, 10)
    np.testing.assert_allclose(model.linear(x, w, b)[3, 7], sum(x[3] * w[:, 7]) + b[7])


@both
def test_ffn(model):
    """One number in, four in the middle, one out."""
    c_fc = {"w": np.array([[1.0, -1, 2, 0]]), "b": np.array([0.0, 0, 0, 3])}
    c_proj = {"w": np.array([[1.0], [10], [100], [1000]]), "b": np.array([0.5])}
    expected = gelu_of(2) + 10 * gelu_of(-2) + 100 * gelu_of(4) + 1000 * gelu_of(3) + 0.5
    np.testing.assert_allclose(model.ffn(np.array([[2.0]]), c_fc, c_proj), [[expected]])


# attention


Q, K, V = (np.array(x, float) for x in ([[1, 0], [0, 2], [1, 1]], [[1, 0], [0, 1], [1, 1]], [[1, 2], [3, 4], [5, 6]]))


def attention_by_hand(mask):
    """One query at a time, one key at a time."""
    rows = []
    for q, row in zip(Q, mask, strict=True):
        weights = [math.exp(sum(q * k) / math.sqrt(2) + m) for k, m in zip(K, row, strict=True)]
        rows.append(sum(weight * v for weight, v in zip(weights, V, strict=True)) / sum(weights))
    return rows


@both
def test_attention_without_a_mask(model):
    np.testing.assert_allclose(model.attention(Q, K, V), attention_by_hand(np.zeros((3, 3))))


CAUSAL = np.array([[0, -1e10, -1e10], [0, 0, -1e10], [0, 0, 0]])
MASKS = {
    "causal": CAUSAL,
    "the tutorial's": (1 - np.tri(3)) * -1e10,
    "integers": np.array([[0, -5, -5], [0, 0, -5], [0, 0, 0]]),
    "row": np.array([0, -1e10, 1]),
    "row of one axis more": np.array([[0, -1e10, 1]]),
    "column": np.array([[0.0], [-3], [3]]),
    "number": -7.5,
    "NumPy's number": np.float64(3),
    "array of no axes": np.array(3),
    "array of one number": np.array([[3.0]]),
}


@both
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attention_with_any_mask_that_broadcasts(model, mask):
    """A column was added to the last key only; a number raised AttributeError."""
    expected = attention_by_hand(np.broadcast_to(mask, (3, 3)))
    np.testing.assert_allclose(model.attention(Q, K, V, mask), expected)
    np.testing.assert_allclose(model.attention(Q, K, V, mask=mask), expected)
    heads = model.attention(np.stack([Q, Q]), np.stack([K, K]), np.stack([V, V]), mask)
    np.testing.assert_allclose(heads, [expected, expected])


@both
def test_the_mask_of_each_head_is_its_own(model):
    heads = [np.stack([x, x]) for x in (Q, K, V)]
    both_masks = model.attention(*heads, np.stack([CAUSAL, np.zeros((3, 3))]))
    np.testing.assert_allclose(both_masks, [attention_by_hand(CAUSAL), attention_by_hand(np.zeros((3, 3)))])


# blocks and the model, in the tutorial's order of arguments


def layer(n_in, n_out, seed):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(n_in, n_out)), "b": rng.normal(size=n_out)}


def norm(n, seed):
    rng = np.random.default_rng(seed)
    return {"g": rng.normal(size=n), "b": rng.normal(size=n)}


ATTN = {"c_attn": layer(6, 18, 1), "c_proj": layer(6, 6, 2)}
MLP = {"c_fc": layer(6, 24, 3), "c_proj": layer(24, 6, 4)}
BLOCK = {"mlp": MLP, "attn": ATTN, "ln_1": norm(6, 5), "ln_2": norm(6, 6)}
X = np.random.default_rng(7).normal(size=(4, 6))
PARAMS = {
    "wte": np.random.default_rng(8).normal(size=(9, 6)),
    "wpe": np.random.default_rng(9).normal(size=(5, 6)),
    "blocks": [BLOCK, {**BLOCK, "ln_1": norm(6, 10)}],
    "ln_f": norm(6, 11),
}


def mha_head_by_head(x, n_head):
    """As in the tutorial: project, split, attend in each head, merge, project."""
    q, k, v = np.split(plain.linear(x, **ATTN["c_attn"]), 3, axis=-1)
    mask = (1 - np.tri(len(x))) * -1e10
    split = [np.split(part, n_head, axis=-1) for part in (q, k, v)]
    heads = [plain.softmax(q @ k.T / np.sqrt(q.shape[-1]) + mask) @ v for q, k, v in zip(*split, strict=True)]
    return plain.linear(np.hstack(heads), **ATTN["c_proj"])


@both
@pytest.mark.parametrize("n_head", [1, 2, 3, 6])
def test_mha(model, n_head):
    expected = mha_head_by_head(X, n_head)
    np.testing.assert_allclose(model.mha(X, ATTN["c_attn"], ATTN["c_proj"], n_head), expected)
    np.testing.assert_allclose(model.mha(X, **ATTN, n_head=n_head), expected)


@both
def test_transformer_block(model):
    x = X + mha_head_by_head(plain.layer_norm(X, **BLOCK["ln_1"]), 2)
    expected = x + plain.ffn(plain.layer_norm(x, **BLOCK["ln_2"]), **MLP)
    np.testing.assert_allclose(model.transformer_block(X, MLP, ATTN, BLOCK["ln_1"], BLOCK["ln_2"], 2), expected)
    np.testing.assert_allclose(model.transformer_block(X, **BLOCK, n_head=2), expected)


@both
def test_gpt2(model):
    inputs = [3, 1, 4, 1]
    x = PARAMS["wte"][inputs] + PARAMS["wpe"][range(4)]
    for block in PARAMS["blocks"]:
        x = plain.transformer_block(x, **block, n_head=2)
    expected = plain.layer_norm(x, **PARAMS["ln_f"]) @ PARAMS["wte"].T
    wte, wpe, blocks, ln_f = (PARAMS[name] for name in ("wte", "wpe", "blocks", "ln_f"))
    logits = model.gpt2(inputs, wte, wpe, blocks, ln_f, 2)
    assert logits.shape == (4, 9)
    np.testing.assert_allclose(logits, expected)
    np.testing.assert_allclose(model.gpt2(np.array([inputs, inputs]), **PARAMS, n_head=2), [expected, expected])


@both
def test_greedy_generation_takes_the_last_argmax_each_time(model):
    ids = [3, 1]
    for _ in range(3):
        ids.append(int(np.argmax(plain.gpt2(ids, **PARAMS, n_head=2)[-1])))
    assert list(model.generate([3, 1], PARAMS, 2, 3)) == ids[2:]


# the real thing: a tokenizer, weights and text


def shape_tree(tree):
    if isinstance(tree, np.ndarray):
        return list(tree.shape)
    if isinstance(tree, list):
        return [shape_tree(branch) for branch in tree]
    return {name: shape_tree(branch) for name, branch in tree.items()}


def test_printing_the_tree_of_shapes(shakespeare):
    _, hparams, params = shakespeare
    n_embd = hparams["n_embd"]
    norm = {"g": [n_embd], "b": [n_embd]}
    attn = {"c_attn": {"w": [n_embd, 3 * n_embd], "b": [3 * n_embd]}, "c_proj": {"w": [n_embd, n_embd], "b": [n_embd]}}
    mlp = {"c_fc": {"w": [n_embd, 4 * n_embd], "b": [4 * n_embd]}, "c_proj": {"w": [4 * n_embd, n_embd], "b": [n_embd]}}
    assert shape_tree(params) == {
        "wte": [hparams["n_vocab"], n_embd],
        "wpe": [hparams["n_ctx"], n_embd],
        "blocks": [{"ln_1": norm, "attn": attn, "ln_2": norm, "mlp": mlp}] * hparams["n_layer"],
        "ln_f": norm,
    }
    assert str(shape_tree(params)).startswith("{")


def test_encoding_and_decoding(encoder):
    ids = encoder.encode("Not all heroes wear capes.")
    assert ids == [3673, 477, 10281, 5806, 1451, 274, 13]
    assert encoder.decode(ids) == "Not all heroes wear capes."
    assert [encoder.decode([token_id]) for token_id in ids] == ["Not", " all", " heroes", " wear", " cap", "es", "."]
    assert [encoder.decoder[token_id] for token_id in ids] == ["Not", "Ġall", "Ġheroes", "Ġwear", "Ġcap", "es", "."]
    assert [encoder.decoder[token_id] for token_id in encoder.encode("zjqfl")] == ["z", "j", "q", "fl"]
    assert len(encoder.decoder) == 50257


def official_answers():
    """The answers of OpenAI's own code: see tests/test_parity.py."""
    path = ROOT / "tests" / "golden" / "shakespeare.json"
    return {answer["prompt"]: answer for answer in json.loads(path.read_text("utf-8"))["official"]["prompts"]}


@both
@pytest.mark.parametrize(
    "prompt", ["Alan Turing theorized that computers would one day become", "ROMEO:\nBut soft", "x"]
)
def test_a_prompt_is_continued_as_by_openais_code(model, shakespeare, prompt):
    encoder, hparams, params = shakespeare
    official = official_answers()[prompt]
    ids = encoder.encode(prompt)
    assert ids == official["prompt_ids"]
    logits = model.gpt2(ids, **params, n_head=hparams["n_head"])[-1]
    np.testing.assert_allclose(logits, official["logits"], rtol=1e-4, atol=1e-3)
    new_ids = list(model.generate(ids, params, hparams["n_head"], n_tokens_to_generate=12))
    assert new_ids == official["new_ids"][:12]
    assert official["text"].startswith(encoder.decode(new_ids))
    assert encoder.decode(ids) == prompt  # the list that was given is as it was


def test_unconditional_text(shakespeare):
    """From <|endoftext|> alone, as OpenAI's generate_unconditional_samples.py begins."""
    encoder, hparams, params = shakespeare
    inputs = encoder.encode("<|endoftext|>", allow_special=True)
    assert inputs == encoder.start_of_text() == [encoder.encoder["<|endoftext|>"]]
    texts = [list(model.generate(inputs, params, hparams["n_head"], 12)) for model in (plain, fast)]
    assert texts[0] == texts[1]
    assert encoder.decode(texts[0]).strip()


def test_main_prints_the_text_and_returns_nothing(capsys):
    from picogpt.commands.generate import main

    assert main("ROMEO:\nBut soft", n_tokens_to_generate=12, model_size="shakespeare") is None
    text = capsys.readouterr().out
    assert len(text) > 12
    assert official_answers()["ROMEO:\nBut soft"]["text"].startswith(text.removesuffix("\n"))


SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "model.md").read_text("utf-8"), re.DOTALL)


def test_the_snippets_of_the_docs_print_what_the_docs_say(monkeypatch):
    """Those of docs/model.md, in order; those for JAX and PyTorch only if these are installed."""
    monkeypatch.setattr(plain, "array_namespace", plain.array_namespace)  # a snippet puts another one in its place
    monkeypatch.chdir(ROOT)
    names = {}
    missing = [name for name in ("jax", "torch", "array_api_compat") if importlib.util.find_spec(name) is None]
    n_run = 0
    for number, snippet in enumerate(SNIPPETS):
        if not any(name in snippet for name in missing):
            test = doctest.DocTestParser().get_doctest(snippet, names, f"snippet {number}", "docs/model.md", 0)
            results = doctest.DocTestRunner().run(test, clear_globs=False)
            names = test.globs
            assert results.failed == 0
            n_run += 1
    assert n_run >= 5
