"""A prompt's keys and values in a file: the same text without computing the prompt again, and what is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import picogpt
from picogpt import gpt2
from picogpt.decoding.prompt_file import PromptFile, digest
from picogpt.errors import UserError
from picogpt.model import Model
from picogpt.weights import tensorfile
from picogpt.weights.tensorfile import TensorFile
from tests.fuzz import TIMES
from tests.helpers import SHAKESPEARE, TINY, make_model, refused, run

PROMPT = "ROMEO:\nBut soft, what light"
DRAWN = {"temperature": 0.8, "top_k": 40, "seed": 3}


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


@pytest.fixture
def file(model, tmp_path) -> Path:
    """The file of PROMPT."""
    model.generate(PROMPT, 1, cache_prompt=tmp_path / "prompt")
    return tmp_path / "prompt"


@pytest.fixture
def passes(monkeypatch):
    """The shapes of what goes through the model."""
    shapes: list[tuple[int, ...]] = []
    real = gpt2.hidden_states
    monkeypatch.setattr(gpt2, "hidden_states", lambda x, **kw: shapes.append(np.shape(x)) or real(x, **kw))
    return shapes


@pytest.mark.parametrize("how", [{}, DRAWN], ids=["greedy", "drawn"])
def test_the_text_is_the_same_and_the_prompt_is_not_computed_again(model, tmp_path, passes, how):
    path = tmp_path / "prompt"
    plain = model.generate(PROMPT, 20, **how)
    n = len(model.encode(PROMPT))
    assert model.generate(PROMPT, 20, cache_prompt=path, **how) == plain
    assert passes.count((n,)) == 2 and list(tmp_path.iterdir()) == [path]
    written = path.read_bytes()
    assert model.generate(PROMPT, 20, cache_prompt=str(path), **how) == plain
    assert model.generate(PROMPT, 20, cache_prompt=path, lookahead=False, **how) == plain
    assert passes.count((n,)) == 2
    assert model.generate(PROMPT, 20, cache_prompt=path, draft=model, **how) == plain
    assert model.samples(PROMPT, 2, 20, cache_prompt=path, **how) == model.samples(PROMPT, 2, 20, **how)
    assert path.read_bytes() == written


def test_a_longer_text_costs_only_what_is_new(model, file, passes):
    longer = PROMPT + " is it"
    text = model.generate(longer, 12, cache_prompt=file)
    assert passes[0] == (2,)
    assert text == model.generate(longer, 12)
    assert len(TensorFile(file).metadata["ids"].split()) == len(model.encode(PROMPT))


def test_a_token_that_the_text_after_it_changes_is_computed_again(model, tmp_path, passes):
    begun, longer = "To b", "To be, or not"
    assert model.encode(longer)[: len(model.encode(begun))] != model.encode(begun)
    model.generate(begun, 1, cache_prompt=tmp_path / "prompt")
    passes.clear()
    text = model.generate(longer, 12, cache_prompt=tmp_path / "prompt")
    assert passes[0][0] < len(model.encode(longer))
    assert text == model.generate(longer, 12)


@given(st.text("ab \n'", min_size=1, max_size=12), st.text("ab \n'", max_size=12))
@settings(max_examples=50 * TIMES)
def test_the_text_after_any_beginning_is_the_one_without_a_file(tmp_path_factory, model, begun, rest):
    path = tmp_path_factory.mktemp("prompt") / "file"
    ids = model.encode(begun)
    more = model.encode(begun + rest)
    for _ in range(2):
        kv_cache, at = start_of(model, path, ids)(ids, model.params, 6, 60)
    assert kv_cache.length == len(ids)
    kv_cache, at = start_of(model, path, more)(more, model.params, 6, 60)
    expected_cache, expected = gpt2.start(more, model.params, 6, 60)
    assert kv_cache.length == expected_cache.length
    np.testing.assert_allclose(at, expected, atol=1e-3)
    np.testing.assert_allclose(kv_cache.array, expected_cache.array, atol=1e-3)


def start_of(model, path, ids):
    file = PromptFile(path, ids, model.encoder, model.hparams)
    file.check_model(model.fingerprint)
    return file.start


def test_another_prompt_is_refused(model, file):
    found = f"expected this prompt or its beginning, found one of {len(model.encode(PROMPT))} tokens, 'ROMEO:"
    for other in ("JULIET:", PROMPT[:-1], "", PROMPT.lower()):
        with refused(file.parent, str(file), found, "delete it, or choose another file for --cache_prompt"):
            model.generate(other, 5, cache_prompt=file)


def test_another_model_is_refused_even_with_the_same_sizes(tmp_path):
    ours, other = (picogpt.load(make_model(tmp_path, name, seed=seed)) for name, seed in (("a", 0), ("b", 1)))
    ours.generate("ROMEO:", 3, cache_prompt=tmp_path / "prompt")
    with refused(tmp_path, "expected keys and values of this model, found another model's"):
        other.generate("ROMEO:", 3, cache_prompt=tmp_path / "prompt")
    in_other_heads = Model(ours.encoder, ours.hparams | {"n_head": 2}, ours.params, lambda: "")
    with refused(tmp_path, NOT_OURS):
        in_other_heads.generate("ROMEO:", 3, cache_prompt=tmp_path / "prompt")


def test_a_model_of_ones_own_weights_is_known_by_all_of_them(model, tmp_path):
    own = Model(model.encoder, model.hparams, model.params)
    text = own.generate("ROMEO:", 5, cache_prompt=tmp_path / "prompt")
    assert own.generate("ROMEO:", 5, cache_prompt=tmp_path / "prompt") == text
    block = model.params["blocks"][3]
    changed = block["attn"]["c_attn"]["b"].copy()
    changed[7] += 1e-3
    block = block | {"attn": block["attn"] | {"c_attn": block["attn"]["c_attn"] | {"b": changed}}}
    blocks = [*model.params["blocks"][:3], block, *model.params["blocks"][4:]]
    assert digest(model.params | {"blocks": blocks}) != digest(model.params)
    with refused(tmp_path, "found another model's"):
        Model(model.encoder, model.hparams, model.params | {"blocks": blocks}).generate(
            "ROMEO:", 5, cache_prompt=tmp_path / "prompt"
        )


NOT_OURS = "expected a whole file that --cache_prompt has written for a model of this size, found something else"


@given(st.data())
@settings(max_examples=60 * TIMES)
def test_a_file_that_is_cut_or_changed_in_its_header_is_refused(tmp_path_factory, model, data):
    path = tmp_path_factory.mktemp("prompt") / "file"
    model.generate("ROMEO:", 1, cache_prompt=path)
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, 400))
        damaged = whole[:at] + data.draw(st.binary(max_size=9)) + whole[at + 3 :]
    path.write_bytes(damaged)
    try:
        model.generate("ROMEO:", 3, cache_prompt=path)
    except UserError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    "metadata",
    [
        {"ids": "1 2"}, {"ids": ""}, {"ids": "x"}, {"ids": "-1 5 6"}, {"ids": "5 6 1024"}, {"ids": "9" * 5000},
        {"format": "picogpt prompt 2"}, {"format": None}, {"model": None}, {"ids": None},
    ],
)  # fmt: skip
def test_a_file_with_another_header_is_refused(model, tmp_path, metadata):
    path = tmp_path / "prompt"
    model.generate([5, 6, 7], 1, cache_prompt=path)
    with TensorFile(path) as file:
        tensors, known = {name: file.read(name).copy() for name in file.entries}, file.metadata | metadata
    tensorfile.save(path, tensors, {name: text for name, text in known.items() if text is not None})
    with refused(tmp_path, NOT_OURS):
        model.generate([5, 6, 7], 3, cache_prompt=path)


def test_tensors_of_another_shape_are_refused(model, tmp_path):
    path = tmp_path / "prompt"
    model.generate([5, 6, 7], 1, cache_prompt=path)
    with TensorFile(path) as file:
        tensors, known = {name: file.read(name).copy() for name in file.entries}, file.metadata
    for change in (
        {"keys_and_values": tensors["keys_and_values"][:, :1]},
        {"keys_and_values": tensors["keys_and_values"][:3]},
        {"keys_and_values": np.zeros(3)},
        {"logits": tensors["logits"][:7]},
    ):
        tensorfile.save(path, tensors | change, known)
        with refused(tmp_path, str(path), NOT_OURS):
            model.generate([5, 6, 7], 3, cache_prompt=path)


def test_what_cannot_be_a_file_is_refused(model, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("a text of mine")
    for name in ("pipe", "file", "."):
        with refused(tmp_path, NOT_OURS):
            model.generate("ROMEO:", 3, cache_prompt=tmp_path / name)
    for name, message in [
        ("no/file", "found none"),
        ("x" * 300, "too long"),
        ("\0", "null"),
        ("file/x", "cannot read"),
    ]:
        with refused(tmp_path, message, "choose another file for --cache_prompt"):
            model.generate("ROMEO:", 3, cache_prompt=tmp_path / name)


def test_a_full_disk_leaves_no_file(model, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensorfile, "_write", full)
    with refused(tmp_path, "No space left on device: choose another file for --cache_prompt"):
        model.generate("ROMEO:", 3, cache_prompt=tmp_path / "prompt")


def test_the_command_line(tmp_path):
    flags = ["-m", "shakespeare", "-n", "8", "--cache_prompt", str(tmp_path / "prompt")]
    plain = run("ROMEO:", *flags[:4]).stdout
    for _ in range(2):
        process = run("ROMEO:", *flags)
        assert (process.stdout, process.stderr, process.returncode) == (plain, b"", 0)
    process = run("JULIET:", *flags)
    assert (process.stdout, process.returncode) == (b"", 2)
    assert process.stderr.count(b"\n") == 1 and b"expected this prompt or its beginning" in process.stderr


def test_a_wrong_file_is_refused_before_the_weights_are_opened(tmp_path):
    (tmp_path / "prompt").write_text("a text of mine")
    make_model(tmp_path, hparams=TINY)
    for path in (tmp_path / "tiny").rglob("*.npy"):
        path.unlink()
    process = run("x", "-m", str(tmp_path / "tiny"), "-n", "8", "--cache_prompt", str(tmp_path / "prompt"))
    assert NOT_OURS.encode() in process.stderr and process.returncode == 2
