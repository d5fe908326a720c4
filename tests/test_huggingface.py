"""Models saved by transformers give the same logits as in transformers; models that are not GPT-2 are refused."""

import gc
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from picogpt import files, gpt2, utils
from picogpt.errors import UserError
from tests import disks
from tests.helpers import ROOT, SHAKESPEARE, TINY, make_model, run, write_small_files

pytest.importorskip("safetensors", reason="safetensors is not installed: it writes the checkpoints")
from safetensors.numpy import load_file, save_file

from picogpt.weights import find, store
from picogpt.weights.state_dict import key_of

IDS = [5, 1, 1000, 3, 3, 7, 500, 2]
CONFIG = {"vocab_size": 1024, "n_positions": 32, "n_embd": 24, "n_head": 3, "n_layer": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where the weights of directories outside models_dir go."""
    monkeypatch.setenv("PICOGPT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted"


# against transformers


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch", reason="torch is not installed: transformers runs on it")
    return pytest.importorskip("transformers", reason="transformers is not installed: it is the oracle")


def save_pretrained(transformers, directory, dtype="float32", **settings):
    """A model with random weights, saved by transformers, and the logits it gives after a round trip."""
    import torch

    torch.manual_seed(0)
    config = transformers.GPT2Config(**CONFIG | settings.pop("config", {}))
    kind = getattr(transformers, settings.pop("kind", "GPT2LMHeadModel"))
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.to(getattr(torch, dtype)).save_pretrained(directory, **settings)
    add_tokenizer(directory)
    model = transformers.GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0].numpy()


def add_tokenizer(directory):
    shutil.copy(SHAKESPEARE / "encoder.json", directory / "vocab.json")
    shutil.copy(SHAKESPEARE / "vocab.bpe", directory / "merges.txt")


def logits(model_dir, models_dir):
    _, hparams, params = utils.load_encoder_hparams_and_params(str(model_dir), models_dir)
    return gpt2.gpt2(IDS, **params, n_head=hparams["n_head"])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_logits_are_those_of_transformers_in_every_dtype(transformers, tmp_path, dtype):
    expected = save_pretrained(transformers, tmp_path / "gpt2", dtype)
    np.testing.assert_allclose(logits(tmp_path / "gpt2", tmp_path / "models"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"config": {"n_layer": 1, "n_embd": 64, "n_head": 4, "n_positions": 50}},
        {"config": {"activation_function": "gelu_pytorch_tanh"}},
        {"config": {"n_inner": 96, "reorder_and_upcast_attn": True}},
        {"kind": "GPT2Model"},
        {"max_shard_size": "50KB"},
        {"config": {"tie_word_embeddings": False}},
    ],
    ids=[
        "another shape",
        "another name of the same activation",
        "n_inner spelt out",
        "no head",
        "several files",
        "own head",
    ],
)
def test_logits_are_those_of_transformers_in_every_form(transformers, tmp_path, settings):
    expected = save_pretrained(transformers, tmp_path / "gpt2", **settings)
    np.testing.assert_allclose(logits(tmp_path / "gpt2", tmp_path / "models"), expected, rtol=1e-4, atol=1e-4)


def test_a_tokenizer_that_transformers_saved_encodes_alike(transformers, tmp_path):
    save_pretrained(transformers, tmp_path / "gpt2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "gpt2")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "gpt2" / name).unlink()
    tokenizer.save_pretrained(tmp_path / "saved")
    shutil.copy(tmp_path / "saved" / "tokenizer.json", tmp_path / "gpt2")
    encoder, _ = utils.load_encoder_and_hparams(str(tmp_path / "gpt2"), tmp_path)
    text = "ROMEO:\nWhat light through yonder window breaks? é 42"
    assert encoder.encode(text) == tokenizer.encode(text)
    assert encoder.decode(encoder.encode(text)) == text


# without transformers: what it saved and said, see tests/data/make_transformers.py; then files of our own


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32-in-two-files"])
def test_logits_are_those_that_transformers_gave(tmp_path, name):
    shutil.copytree(ROOT / "tests" / "data" / "transformers" / name, tmp_path / "gpt2")
    add_tokenizer(tmp_path / "gpt2")
    expected = np.load(tmp_path / "gpt2" / "logits.npy")
    np.testing.assert_allclose(logits(tmp_path / "gpt2", tmp_path / "models"), expected, rtol=1e-4, atol=1e-4)


def write_checkpoint(directory, prefix="transformer.", config=None, **extra):
    """The tiny model of tests/helpers.py, in Hugging Face's form, without what that model does not need."""
    made = make_model(directory.parent, f"{directory.name}-made")
    tensors = store.open_tensors(made, TINY)
    directory.mkdir()
    keyed = {prefix + key_of(name): np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(keyed | extra, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"model_type": "gpt2", **CONFIG} | (config or {})))
    add_tokenizer(directory)
    expected = utils.load_params(made.name, made.parent, TINY)
    return gpt2.gpt2(IDS, **expected, n_head=TINY["n_head"]).copy()


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_keys_with_and_without_a_prefix_and_with_masks_are_read(tmp_path, prefix):
    masks = {
        f"{prefix}h.0.attn.bias": np.ones((1, 1, 32, 32), bool),
        f"{prefix}h.1.attn.masked_bias": np.float32([-1e4]),
    }
    expected = write_checkpoint(tmp_path / "gpt2", prefix, **masks)
    np.testing.assert_array_equal(logits(tmp_path / "gpt2", tmp_path / "models"), expected)


def test_a_head_that_is_the_embedding_is_read_and_another_is_refused(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    path = tmp_path / "gpt2" / "model.safetensors"
    tensors = load_file(path)
    head = tensors["transformer.wte.weight"].copy()
    save_file(tensors | {"lm_head.weight": head}, path)
    logits(tmp_path / "gpt2", tmp_path / "models")
    head[3, 3] += 1
    save_file(tensors | {"lm_head.weight": head}, path)
    with pytest.raises(UserError, match=r"expected lm_head\.weight equal to wte\.weight, found another: if the model"):
        logits(tmp_path / "gpt2", tmp_path / "models")


REFUSED = [
    ({"model_type": "llama"}, "expected the model_type gpt2, found 'llama'"),
    ({"activation_function": "gelu"}, "expected activation_function 'gelu_new' or .*, found 'gelu'"),
    ({"layer_norm_epsilon": 1e-6}, "expected layer_norm_epsilon 1e-05, found 1e-06"),
    ({"scale_attn_weights": False}, "expected scale_attn_weights True, found False"),
    ({"scale_attn_by_inverse_layer_idx": True}, "expected scale_attn_by_inverse_layer_idx False, found True"),
    ({"add_cross_attention": True}, "expected add_cross_attention False, found True"),
    ({"tie_word_embeddings": "no"}, "expected tie_word_embeddings True or False, found 'no'"),
    ({"quantization_config": {"bits": 4}}, "expected quantization_config None, found .*bits"),
    ({"n_inner": 100}, r"expected n_inner 4 \* n_embd, found 100"),
    ({"n_head": 5}, "expected n_head to divide n_embd 24, found 5"),
    ({"n_layer": "two"}, "expected a whole number from 1 to 1024 as n_layer, found 'two'"),
    ({"n_layer": 1_000_000_000}, "expected a whole number from 1 to 1024 as n_layer, found 1000000000"),
    ({"n_embd": None}, "expected a whole number from 1 to 65536 as n_embd, found None"),
    ({"n_head": True}, "expected a whole number from 1 to 65536 as n_head, found True"),
    ({"vocab_size": []}, r"expected a whole number from 1 to 4194304 as vocab_size, found \[\]"),
    ({"activation_function": {"\x1b": 1}}, r"expected activation_function .*, found {'\\x1b': 1}"),
    ({"vocab_size": 10}, "expected ids below 10 .*, found 1023"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED, ids=[str(config) for config, _ in REFUSED])
def test_unsupported_features_of_a_config_are_refused_by_name(tmp_path, config, message):
    write_checkpoint(tmp_path / "gpt2", config=config)
    with pytest.raises(UserError, match=message):
        logits(tmp_path / "gpt2", tmp_path / "models")
    assert not (tmp_path / "cache").exists()


def change(path, **tensors):
    kept = {key: tensor for key, tensor in (load_file(path) | tensors).items() if tensor is not None}
    save_file(kept, path)


def test_missing_extra_and_wrong_tensors_are_named(tmp_path):
    write_checkpoint(tmp_path / "gpt2", prefix="")
    path = tmp_path / "gpt2" / "model.safetensors"
    whole = path.read_bytes()
    for tensors, message in (
        ({"h.1.ln_2.bias": None}, "expected the tensor h.1.ln_2.bias, which is missing"),
        ({"score.weight": np.zeros(3)}, "found the tensor score.weight, which this model does not have"),
        (
            {"wpe.weight": np.zeros((31, 24), np.float32)},
            "expected wpe.weight of shape [32, 24] in F32, F16, BF16, found [31, 24]",
        ),
        ({"wpe.weight": np.zeros((32, 24), np.int8)}, "expected wpe.weight of shape [32, 24] in F32, F16, BF16, found"),
    ):
        change(path, **tensors)
        source = find.find(tmp_path / "gpt2", None).source
        for step in (source.prepare, lambda hparams, source=source: next(source.tensors(hparams))):
            with pytest.raises(UserError, match=re.escape(message)):
                step(TINY)
        with pytest.raises(UserError, match=re.escape(message)):
            logits(tmp_path / "gpt2", tmp_path / "models")
        path.write_bytes(whole)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"<html>" + data])
def test_a_damaged_file_is_reported(tmp_path, damage):
    write_checkpoint(tmp_path / "gpt2")
    path = tmp_path / "gpt2" / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"gpt2/model\.safetensors: expected .*: it is damaged: delete "):
        logits(tmp_path / "gpt2", tmp_path / "models")


def test_a_missing_file_of_several_is_named(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "model.safetensors").unlink()
    index = {"weight_map": {"wte.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "gpt2" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"expected the file model-00001-of-00002\.safetensors, which .* names and"):
        logits(tmp_path / "gpt2", tmp_path / "models")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_a_pickle_is_refused_with_the_line_that_converts_it(tmp_path, name):
    write_checkpoint(tmp_path / "a b")
    (tmp_path / "a b" / "model.safetensors").rename(tmp_path / "a b" / name)
    with pytest.raises(UserError, match=r"expected model.safetensors, found pytorch_model\*\.bin, a pickle") as error:
        logits(tmp_path / "a b", tmp_path / "models")
    assert str(error.value).endswith(f" {shlex.quote(str(tmp_path / 'a b'))}") and "\n" not in str(error.value)


def test_the_line_that_converts_a_pickle_works(transformers, tmp_path):
    import torch

    expected = save_pretrained(transformers, tmp_path / "gpt2")
    model = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2")
    torch.save(model.state_dict(), tmp_path / "gpt2" / "pytorch_model.bin")
    (tmp_path / "gpt2" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"found .* a pickle") as error:
        logits(tmp_path / "gpt2", tmp_path / "models")
    _, program, directory = shlex.split(str(error.value).partition("convert it: python ")[2])
    subprocess.run([sys.executable, "-c", program, directory], check=True, capture_output=True)
    np.testing.assert_allclose(logits(tmp_path / "gpt2", tmp_path / "models"), expected, rtol=1e-4, atol=1e-4)


def test_no_library_is_needed(tmp_path, monkeypatch):
    for name in ("safetensors", "ml_dtypes", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    test_logits_are_those_that_transformers_gave(tmp_path, "bfloat16")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the list of open files is Linux's")
@pytest.mark.parametrize("damaged", ["the first file", "the second file"])
def test_no_file_stays_open(tmp_path, damaged):
    write_checkpoint(tmp_path / "gpt2")
    path = tmp_path / "gpt2" / "model.safetensors"
    if damaged == "the first file":
        change(path, **{"transformer.ln_f.bias": np.ones(3)})
    else:
        path.rename(path.with_name("a.safetensors"))
        path.with_name("b.safetensors").write_bytes(b"")
        index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
        path.with_name("model.safetensors.index.json").write_text(json.dumps(index))
    before = len([*Path("/proc/self/fd").iterdir()])
    gc.disable()
    try:
        with pytest.raises(UserError) as error:
            logits(tmp_path / "gpt2", tmp_path / "models")
        assert error and len([*Path("/proc/self/fd").iterdir()]) == before
    finally:
        gc.enable()


# the tokenizer


def test_added_tokens_that_the_model_knows_are_decoded(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    vocabulary = json.loads((tmp_path / "gpt2" / "vocab.json").read_text())
    known = {token: token_id for token, token_id in vocabulary.items() if 0 < token_id < 1023}
    (tmp_path / "gpt2" / "vocab.json").write_text(json.dumps(known))
    added = {"<|endoftext|>": 0, "<größe mit Raum>": 1023, "<pad>": 1024}
    (tmp_path / "gpt2" / "added_tokens.json").write_text(json.dumps(added))
    encoder, _ = utils.load_encoder_and_hparams(str(tmp_path / "gpt2"), tmp_path)
    assert encoder.end_of_text == 0
    assert encoder.decode([1023, 0]) == "<größe mit Raum><|endoftext|>"
    assert 1024 not in encoder.decoder


def test_a_directory_without_a_tokenizer_is_reported(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "vocab.json").unlink()
    with pytest.raises(UserError, match=r"gpt2: expected vocab\.json and merges\.txt, or tokenizer\.json, found"):
        utils.load_encoder_and_hparams(str(tmp_path / "gpt2"), tmp_path)
    (tmp_path / "gpt2" / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(UserError, match=r"expected model\.type 'BPE', found 'WordPiece'"):
        utils.load_encoder_and_hparams(str(tmp_path / "gpt2"), tmp_path)


# where the converted copy goes


def test_a_directory_of_the_users_may_be_read_only_and_stays_as_it_is(tmp_path, cache):
    expected = write_checkpoint(tmp_path / "gpt2")
    before = sorted(path.name for path in (tmp_path / "gpt2").iterdir())
    with disks.read_only(tmp_path / "gpt2"):
        for _ in range(2):
            np.testing.assert_array_equal(logits(tmp_path / "gpt2", tmp_path / "models"), expected)
    assert sorted(path.name for path in (tmp_path / "gpt2").iterdir()) == before
    assert [path.name for path in cache.glob("gpt2-*/*")] == ["params"]
    assert not (tmp_path / "models").exists()


def test_a_name_in_models_dir_keeps_its_weights_beside_the_checkpoint(tmp_path):
    expected = write_checkpoint(tmp_path / "models")  # whose files move one level down
    (tmp_path / "models").rename(tmp_path / "gpt2")
    (tmp_path / "models").mkdir()
    (tmp_path / "gpt2").rename(tmp_path / "models" / "gpt2")
    np.testing.assert_array_equal(logits("gpt2", tmp_path / "models"), expected)
    assert (tmp_path / "models" / "gpt2" / "params").is_dir()
    assert not (tmp_path / "cache").exists()


def test_a_checkpoint_that_was_saved_again_is_converted_again(tmp_path):
    write_checkpoint(tmp_path / "gpt2", prefix="")
    before = logits(tmp_path / "gpt2", tmp_path / "models").copy()
    change(tmp_path / "gpt2" / "model.safetensors", **{"ln_f.bias": np.ones(24, np.float32)})
    assert not np.array_equal(logits(tmp_path / "gpt2", tmp_path / "models"), before)


def test_the_command_line_takes_a_directory(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    arguments = ("ROMEO:", "--n_tokens_to_generate", "8", "--models_dir", str(tmp_path / "models"))
    env = {"PICOGPT_CACHE_DIR": str(tmp_path / "cache")}
    first = run(*arguments, "--model_size", f"{tmp_path}/gpt2/../gpt2", env=env)
    assert first.returncode == 0 and b"converted 28 tensors" in first.stderr
    again = run(*arguments, "--model_size", f"{tmp_path}/gpt2", env=env)
    made = run(*arguments, "--model_size", f"{tmp_path}/gpt2-made")
    assert (again.stdout, again.stderr) == (first.stdout, b"") and made.stdout == first.stdout


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="XDG_CACHE_HOME is for Linux")
def test_the_cache_is_where_the_system_has_it(tmp_path, monkeypatch):
    monkeypatch.delenv("PICOGPT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    write_checkpoint(tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    logits("./gpt2", None)
    [home] = (tmp_path / "home" / "picogpt" / "converted").iterdir()
    assert home.name.startswith("gpt2-") and not (tmp_path / "models").exists()


def test_nothing_is_left_when_a_conversion_fails(tmp_path, cache):
    write_checkpoint(tmp_path / "gpt2")
    change(tmp_path / "gpt2" / "model.safetensors", **{"transformer.ln_f.bias": np.full(24, np.nan, np.float16)})
    with pytest.raises(UserError, match="gpt2: expected numbers in the tensor ln_f/b, found NaN or infinity"):
        logits(tmp_path / "gpt2", tmp_path / "models")
    assert not cache.parent.exists()
    cache.parent.mkdir()  # one that was there stays
    with pytest.raises(UserError, match="found NaN or infinity"):
        logits(tmp_path / "gpt2", tmp_path / "models")
    assert not [*cache.parent.iterdir()]


def test_a_cache_that_cannot_be_written_is_reported(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "gpt2")
    monkeypatch.setenv("PICOGPT_CACHE_DIR", "/proc")
    with pytest.raises(UserError, match=r"cannot write to /proc/converted/gpt2-\w{12}: .*: " + re.escape(files.ROOM)):
        logits(tmp_path / "gpt2", tmp_path / "models")


def test_names_that_are_long_or_no_unicode_are_taken(tmp_path):
    for name in ("x" * 250, os.fsdecode(b"\xff")):
        write_checkpoint(tmp_path / "gpt2")
        (tmp_path / "gpt2").rename(tmp_path / name)
        logits(f"{tmp_path}/{name}", tmp_path / "models")
        logits(name, tmp_path)
        shutil.rmtree(tmp_path / "gpt2-made")


def test_delete_checkpoint_leaves_the_files_of_transformers(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    before = {path.name for path in (tmp_path / "gpt2").iterdir()}
    utils.load_encoder_hparams_and_params("gpt2", tmp_path)
    utils.delete_checkpoint("gpt2", tmp_path)
    assert {path.name for path in (tmp_path / "gpt2").iterdir()} == before | {"params"}


# files that are not what they should be


INDEXES = ["null", "[]", '"x"', '{"weight_map": null}', '{"weight_map": [1]}', '{"weight_map": "x"}',
    '{"weight_map": {"a": null}}', '{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": "/etc/passwd"}}',
    '{"weight_map": {"a": ""}}', '{"weight_map": {"a": ".."}}', '{"weight_map": {"a": "x/y"}}',
    '{"weight_map": {"a": "x\\\\y"}}', "[" * 100_000, '{"weight_map":' * 100_000]  # fmt: skip


@pytest.mark.parametrize("text", INDEXES, ids=lambda text: text[:40])
def test_a_malformed_index_is_reported(tmp_path, text):
    write_checkpoint(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "model.safetensors").unlink()
    (tmp_path / "gpt2" / "model.safetensors.index.json").write_text(text)
    with pytest.raises(
        UserError, match=r"model\.safetensors\.index\.json: expected (JSON|a JSON object|names of files)"
    ):
        logits(tmp_path / "gpt2", tmp_path / "models")


def test_two_tensors_of_one_name_are_reported(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    path = tmp_path / "gpt2" / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"ln_f.bias": tensors["transformer.ln_f.bias"]}, path)
    with pytest.raises(UserError, match=r"expected each tensor once, found ln_f\.bias twice"):
        logits(tmp_path / "gpt2", tmp_path / "models")
    first, second = ({key: tensors[key] for key in sorted(tensors)[part]} for part in (slice(15), slice(14, None)))
    path.unlink()
    for name, part in (("a", first), ("b", second)):
        save_file(part, path.with_name(name))
    index = {"weight_map": {key: "a" if key in first else "b" for key in tensors}}
    path.with_name("model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"expected each tensor once, found .* twice"):
        logits(tmp_path / "gpt2", tmp_path / "models")


def test_a_name_of_a_tensor_cannot_move_the_cursor(tmp_path):
    write_checkpoint(tmp_path / "gpt2", **{"\x1b[31m\n" + "x" * 1000: np.zeros(1)})
    with pytest.raises(UserError, match=r"found the tensor \\x1b\[31m x{70,80}, which") as error:
        logits(tmp_path / "gpt2", tmp_path / "models")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json", "merges.txt"])
def test_a_pipe_is_reported_and_not_waited_for(tmp_path, name):
    write_checkpoint(tmp_path / "gpt2")
    (tmp_path / "gpt2" / name).unlink()
    os.mkfifo(tmp_path / "gpt2" / name)
    with pytest.raises(UserError, match=f"{name}: expected a file, found a directory, a pipe or a device"):
        logits(tmp_path / "gpt2", tmp_path / "models")


# tokenizer.json


def tokenizer_json(directory, change=None):
    """The bundled vocabulary in a tokenizer.json, as transformers writes it."""
    vocabulary = json.loads((SHAKESPEARE / "encoder.json").read_text())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": byte_level,
        "added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": True}],
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False},
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocabulary, "merges": (SHAKESPEARE / "vocab.bpe").read_text().split("\n")[1:-1],
        },
    }  # fmt: skip
    if change:
        change(tokenizer)
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))


def read_tokenizer(directory):
    return utils.load_encoder_and_hparams(directory)[0]


@pytest.fixture
def with_tokenizer(tmp_path):
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text(json.dumps({"model_type": "gpt2", **CONFIG}))
    return tmp_path / "gpt2"


def test_a_tokenizer_json_gives_the_ids_of_vocab_json(with_tokenizer):
    add_tokenizer(with_tokenizer)
    plain = read_tokenizer(with_tokenizer)
    for change in (None, lambda t: t["model"].update(merges=[line.split() for line in t["model"]["merges"]])):
        tokenizer_json(with_tokenizer, change)
        encoder = read_tokenizer(with_tokenizer)
        assert (encoder.encoder, encoder.bpe_ranks) == (plain.encoder, plain.bpe_ranks)


def test_trimmed_offsets_and_a_template_that_adds_nothing_are_harmless(with_tokenizer):
    def change(tokenizer):
        tokenizer["pre_tokenizer"]["trim_offsets"] = False
        single = [{"Sequence": {"id": "A", "type_id": 0}}]
        tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": single, "special_tokens": {}}

    tokenizer_json(with_tokenizer, change)
    read_tokenizer(with_tokenizer)


SPLIT = {"type": "Split", "pattern": {"Regex": r"\d"}, "behavior": "Isolated", "invert": False}
BOS = [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
FOREIGN = {
    "pre_tokenizer.add_prefix_space": True,
    "pre_tokenizer.use_regex": False,
    "pre_tokenizer.type": "Whitespace",
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, {"type": "ByteLevel"}]},
    "normalizer": {"type": "Lowercase"},
    "post_processor.single": BOS,
    "post_processor.type": "BertProcessing",
    "decoder.type": "WordPiece",
    "decoder": None,
    "model.type": "Unigram",
    "model.dropout": 0.1,
    "model.continuing_subword_prefix": "##",
    "model.end_of_word_suffix": "</w>",
    "model.byte_fallback": True,
    "model.ignore_merges": True,
    "model.merges": None,
    "model.vocab": [],
    "model": [],
}


@pytest.mark.parametrize("key", FOREIGN)
def test_unsupported_features_of_a_tokenizer_are_refused_by_name(with_tokenizer, key):
    def change(tokenizer):
        *path, last = key.split(".")
        for part in path:
            tokenizer = tokenizer[part]
        tokenizer[last] = FOREIGN[key]

    tokenizer_json(with_tokenizer, change)
    with pytest.raises(
        UserError, match=rf"tokenizer\.json: expected .*{key if key != 'model.vocab' else 'object'}.*found"
    ):
        read_tokenizer(with_tokenizer)


@pytest.mark.parametrize("key", ["add_prefix_space", "add_bos_token", "add_eos_token"])
def test_the_same_in_tokenizer_config_is_refused_too(with_tokenizer, key):
    add_tokenizer(with_tokenizer)
    path = with_tokenizer / "tokenizer_config.json"
    path.write_text(json.dumps({key: False, "model_max_length": 10**30}))
    read_tokenizer(with_tokenizer)
    path.write_text(json.dumps({key: True}))
    with pytest.raises(UserError, match=f"tokenizer_config.json: expected {key} False, found True: only GPT-2's"):
        read_tokenizer(with_tokenizer)


ADDED = [
    ("x", "added_tokens with a content"), ({"a": 1}, "added_tokens with a content"), ([1], "added_tokens with a"),
    ([{"content": 5, "id": 1}], "added_tokens with a"), ([{"content": "<a>"}], "an id for '<a>', found None"),
    ([{"content": "<a>", "id": -1}], "an id for '<a>', found -1"),
    ([{"content": "<a>", "id": True}], "an id for '<a>', found True"),
    ([{"content": "<a>", "id": "7"}], "an id for '<a>', found '7'"),
    ([{"content": "<a>", "id": 5}], "an id for each token, found 5 for"),
    ([{"content": "<|endoftext|>", "id": 7}], "one id for '<|endoftext|>', found 7"),
    ([{"content": "\ud800", "id": 1023}], "text as an added token, found"),
]  # fmt: skip


@pytest.mark.parametrize(("added", "message"), ADDED)
def test_malformed_added_tokens_are_reported(with_tokenizer, added, message):
    tokenizer_json(with_tokenizer, lambda tokenizer: tokenizer.update(added_tokens=added))
    with pytest.raises(UserError, match=f"tokenizer.json: expected {re.escape(message)}") as error:
        read_tokenizer(with_tokenizer)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "vocabulary",
    [{"a": -1}, {"a": True}, {"a": 1.0}, {"a": "1"}, {"a": None}, {"a": 0, "b": 0}, {"漢": 0}, {}],
    ids=str,
)
@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "encoder.json"])
def test_malformed_vocabularies_are_reported(with_tokenizer, tmp_path, name, vocabulary):
    directory = with_tokenizer
    if name == "tokenizer.json":
        tokenizer_json(directory, lambda tokenizer: tokenizer["model"].update(vocab=vocabulary))
    elif name == "vocab.json":
        add_tokenizer(directory)
        (directory / name).write_text(json.dumps(vocabulary))
    else:
        directory = tmp_path / "own"
        write_small_files(directory)
        (directory / name).write_text(json.dumps(vocabulary))
    with pytest.raises(UserError, match=r"expected (ids|an id|tokens|an object)"):
        read_tokenizer(directory)


@pytest.mark.parametrize(
    "merges", ["a b", {}, [1], [None], ["a"], [["a"]], [["a", 1, 2]], ["a b\nc d"], ["a b", "a b"]]
)
def test_malformed_merges_are_reported(with_tokenizer, merges):
    tokenizer_json(with_tokenizer, lambda tokenizer: tokenizer["model"].update(merges=merges))
    with pytest.raises(
        UserError, match=r"tokenizer\.json: expected (a list as model.merges|merges of|each merge once)"
    ):
        read_tokenizer(with_tokenizer)
