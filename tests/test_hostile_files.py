"""Models whose files contain anything: they load, or one line says what is wrong, at once."""

import json
import os
import shutil
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from picogpt import utils
from picogpt.errors import UserError
from tests.helpers import SHAKESPEARE, TINY, make_model, write_checkpoint, write_small_files

# what has broken readers of such files before
FRAGMENTS = [
    b"", b"null", b"true", b"-1", b"1e999", b"1000000000", b"9" * 5000, b"NaN", b'""', b'"\\ud800"', b'"\xe6\xbc\xa2"',
    b"[]", b"{}", b"[" * 100_000, b'{"a":' * 100_000, b'"../../etc/passwd"', b'"\x1b[31m"', b'"\\u001b[31m\\n"', b"\0",
    b"\xff", b"\xef\xbb\xbf", b"\n", b"\r\n", b" ", b'"a":1,"a":2,', b"#version: 0.2\n", b"a b\na b\n", b'"x',
]  # fmt: skip

cuts = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)
edits = st.tuples(cuts, st.sampled_from(FRAGMENTS) | st.binary(max_size=20))


def own(tmp_path):
    return make_model(tmp_path, "own")


def with_checkpoint(tmp_path):
    write_small_files(tmp_path / "checkpoint")
    write_checkpoint(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def huggingface(tmp_path):
    """With every file that transformers may have saved, the weights in two files."""
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed: it writes the checkpoint")
    from picogpt.weights.state_dict import key_of
    from picogpt.weights.store import random_tensors

    directory = tmp_path / "hf"
    directory.mkdir()
    tensors = list(random_tensors(TINY, seed=0))
    index = {}
    for number, (start, stop) in enumerate(pairwise([0, 3, len(tensors)])):
        name = f"model-0000{number}-of-00002.safetensors"
        part = {key_of(each): np.ascontiguousarray(tensor) for each, tensor in tensors[start:stop]}
        numpy.save_file(part, directory / name)
        index |= dict.fromkeys(part, name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    names = {
        "vocab_size": "n_vocab",
        "n_positions": "n_ctx",
        "n_embd": "n_embd",
        "n_head": "n_head",
        "n_layer": "n_layer",
    }
    config = {"model_type": "gpt2", "n_inner": None} | {key: TINY[name] for key, name in names.items()}
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    shutil.copy(SHAKESPEARE / "encoder.json", directory / "vocab.json")
    shutil.copy(SHAKESPEARE / "vocab.bpe", directory / "merges.txt")
    (directory / "added_tokens.json").write_text('{"<|endoftext|>": 0}')
    (directory / "tokenizer_config.json").write_text('{"add_prefix_space": false}')
    return directory


def with_tokenizer_json(tmp_path):
    from tests.test_huggingface import tokenizer_json

    directory = huggingface(tmp_path)
    (directory / "vocab.json").unlink()
    tokenizer_json(directory)
    return directory


FILES = {
    own: ["hparams.json", "encoder.json", "vocab.bpe", "params/manifest.json", "params/weights.npy"],
    with_checkpoint: ["checkpoint", "model.ckpt.index", "model.ckpt.data-00000-of-00001"],
    huggingface: [
        "config.json", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json",
        "model.safetensors.index.json", "model-00000-of-00002.safetensors",
    ],
    with_tokenizer_json: ["tokenizer.json"],
}  # fmt: skip
CASES = [(make, name) for make, names in FILES.items() for name in names]


def loads(directory):
    """Does it load? If not, the one line that says why is as it should be."""
    try:
        encoder, _, _ = utils.load_encoder_hparams_and_params(directory)
        encoder.decode(encoder.encode("To be, or not"))
    except UserError as error:
        assert str(error).isprintable() and ("expected" in str(error) or "cannot" in str(error))
        return False
    return True


@pytest.fixture
def made(request, tmp_path, monkeypatch):
    monkeypatch.setenv("PICOGPT_CACHE_DIR", str(tmp_path / "cache"))
    return lambda make: make(tmp_path)


@pytest.mark.parametrize(("make", "name"), CASES, ids=[f"{make.__name__}-{name}" for make, name in CASES])
def test_any_bytes_in_a_file(made, make, name):
    directory = made(make)
    path = directory / name
    whole = path.read_bytes()
    assert loads(directory)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(edits)
    @example(([0, 1], b""))
    @example(([0, 1], b"[" * 100_000))
    @example(([0, 1], b'{"a": ' * 100_000))
    @example(([1, 1], b" " * (33 << 20)))
    def check(edit):
        (start, stop), fragment = edit
        path.write_bytes(whole[: round(start * len(whole))] + fragment + whole[round(stop * len(whole)) :])
        shutil.rmtree(directory.parent / "cache", ignore_errors=True)
        if make is with_checkpoint:
            shutil.rmtree(directory / "params", ignore_errors=True)
        loads(directory)
        assert not [*directory.parent.glob("**/.*lock"), *directory.parent.glob("**/.params*")]

    check()


SWAPS = {
    "null": None, "true": True, "false": False, "zero": 0, "minus one": -1, "huge": 10**9, "half": 0.5, "text": "x",
    "escape": "\x1b[2J", "list": [], "object": {}, "surrogate": "\ud800", "path": "../x", "deep": [[[[[[1]]]]]],
}  # fmt: skip


@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize(
    ("make", "name"),
    [case for case in CASES if case[1].endswith("json")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_any_value_in_place_of_another(made, make, name, swap):
    """Each of the first values of a JSON file, and each of those within."""
    directory = made(make)
    path = directory / name
    whole = json.loads(path.read_text())

    def check(container, key):
        before, container[key] = container[key], SWAPS[swap]
        path.write_text(json.dumps(whole))
        loads(directory)
        container[key] = before

    def walk(container, depth):
        for key in list(container)[:6] if isinstance(container, dict) else range(min(2, len(container))):
            check(container, key)
            if isinstance(container[key], dict | list) and depth:
                walk(container[key], depth - 1)

    walk(whole, 3)
    path.write_text(json.dumps(SWAPS[swap]))
    loads(directory)
    path.write_text(json.dumps(whole))
    assert loads(directory)


@pytest.mark.skipif(os.name == "nt", reason="pipes with names are not Windows's")
@pytest.mark.parametrize(("make", "name"), CASES, ids=[f"{make.__name__}-{name}" for make, name in CASES])
def test_a_pipe_or_a_device_in_place_of_a_file_is_refused_at_once(made, make, name):
    directory = made(make)
    for put in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), os.mkdir, lambda path: path.symlink_to("x")):
        (directory / name).unlink()
        put(directory / name)
        if name != "checkpoint":  # without which the names are the usual ones
            assert not loads(directory)
        else:
            loads(directory)
        (directory / name).rmdir() if put is os.mkdir else (directory / name).unlink()
        (directory / name).touch()
