"""Checkpoints as transformers saves them give the logits that transformers gives; what is not GPT-2 is refused."""

import json
import re
import shutil
import sys

import numpy as np
import pytest

from picogpt import gpt2, utils
from picogpt.errors import UserError
from tests import disks
from tests.helpers import SHAKESPEARE, TINY, make_model, run

pytest.importorskip("safetensors", reason="safetensors is not installed: it reads the checkpoints")
from safetensors.numpy import load_file, save_file

from picogpt.weights.huggingface import key_of

IDS = [5, 1, 1000, 3, 3, 7, 500, 2]
CONFIG = {"vocab_size": 1024, "n_positions": 32, "n_embd": 24, "n_head": 3, "n_layer": 2}


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
    np.testing.assert_allclose(logits(tmp_path / "gpt2", tmp_path), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"config": {"n_layer": 1, "n_embd": 64, "n_head": 4, "n_positions": 50}},
        {"config": {"activation_function": "gelu_pytorch_tanh"}},
        {"config": {"n_inner": 96, "reorder_and_upcast_attn": True}},
        {"kind": "GPT2Model"},
        {"max_shard_size": "50KB"},
    ],
    ids=["another shape", "another name of the same activation", "n_inner spelt out", "no head", "several files"],
)
def test_logits_are_those_of_transformers_in_every_form(transformers, tmp_path, settings):
    expected = save_pretrained(transformers, tmp_path / "gpt2", **settings)
    np.testing.assert_allclose(logits(tmp_path / "gpt2", tmp_path), expected, rtol=1e-4, atol=1e-4)


def test_what_transformers_saves_with_a_head_of_its_own_is_refused(transformers, tmp_path):
    save_pretrained(transformers, tmp_path / "gpt2", config={"tie_word_embeddings": False})
    with pytest.raises(UserError, match="expected tie_word_embeddings True, found False: this model does not do that"):
        logits(tmp_path / "gpt2", tmp_path)


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


# the same without transformers, written by safetensors


def write_checkpoint(directory, prefix="transformer.", config=None, **extra):
    """The tiny model of tests/helpers.py, in Hugging Face's form, without what that model does not need."""
    made = make_model(directory.parent, f"{directory.name}-made")
    params = made / "params"
    tensors = {path.name[:-4].replace(".", "/"): np.load(path) for path in params.glob("*.npy")}
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
    np.testing.assert_array_equal(logits(tmp_path / "gpt2", tmp_path), expected)


def test_a_head_that_is_the_embedding_is_read_and_another_is_refused(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    path = tmp_path / "gpt2" / "model.safetensors"
    tensors = load_file(path)
    head = tensors["transformer.wte.weight"].copy()
    save_file(tensors | {"lm_head.weight": head}, path)
    logits(tmp_path / "gpt2", tmp_path)
    head[3, 3] += 1
    save_file(tensors | {"lm_head.weight": head}, path)
    with pytest.raises(UserError, match=r"lm_head\.weight differs from wte\.weight: a model with a head of its own is"):
        logits(tmp_path / "gpt2", tmp_path)


REFUSED = [
    ({"model_type": "llama"}, "expected the model_type gpt2, found 'llama'"),
    ({"activation_function": "gelu"}, "expected activation_function 'gelu_new' or .*, found 'gelu'"),
    ({"layer_norm_epsilon": 1e-6}, "expected layer_norm_epsilon 1e-05, found 1e-06"),
    ({"scale_attn_weights": False}, "expected scale_attn_weights True, found False"),
    ({"scale_attn_by_inverse_layer_idx": True}, "expected scale_attn_by_inverse_layer_idx False, found True"),
    ({"add_cross_attention": True}, "expected add_cross_attention False, found True"),
    ({"tie_word_embeddings": False}, "expected tie_word_embeddings True, found False"),
    ({"quantization_config": {"bits": 4}}, "expected quantization_config None, found .*bits"),
    ({"n_inner": 100}, r"expected n_inner 4 \* n_embd, found 100"),
    ({"n_head": 5}, "expected n_head to divide n_embd 24, found 5"),
    ({"n_layer": "two"}, "expected a whole number from 1 as n_layer, found 'two'"),
    ({"vocab_size": 10}, "expected ids below 10 .*, found 1023"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED, ids=[next(iter(config)) for config, _ in REFUSED])
def test_what_a_config_asks_for_and_this_model_does_not_do_is_refused_by_name(tmp_path, config, message):
    write_checkpoint(tmp_path / "gpt2", config=config)
    with pytest.raises(UserError, match=message):
        logits(tmp_path / "gpt2", tmp_path)
    assert not (tmp_path / ".converted").exists()


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
            {"wpe.weight": np.zeros((31, 24))},
            "expected wpe.weight of shape [32, 24] in F32, F16, BF16, found [31, 24]",
        ),
        ({"wpe.weight": np.zeros((32, 24), np.int8)}, "expected wpe.weight of shape [32, 24] in F32, F16, BF16, found"),
    ):
        change(path, **tensors)
        with pytest.raises(UserError, match=re.escape(message)):
            logits(tmp_path / "gpt2", tmp_path)
        path.write_bytes(whole)
    assert not list(tmp_path.glob(".converted/*/*params*"))


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"<html>" + data])
def test_a_damaged_file_is_told(tmp_path, damage):
    write_checkpoint(tmp_path / "gpt2")
    path = tmp_path / "gpt2" / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"gpt2: expected safetensors, found a damaged file \(.*\): fetch it again"):
        logits(tmp_path / "gpt2", tmp_path)


def test_a_missing_file_of_several_is_named(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "model.safetensors").unlink()
    index = {"weight_map": {"wte.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "gpt2" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"expected the file model-00001-of-00002\.safetensors, which .* names and"):
        logits(tmp_path / "gpt2", tmp_path)


def test_weights_in_pytorchs_own_form_are_explained(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "model.safetensors").rename(tmp_path / "gpt2" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"or model\.safetensors, found neither"):
        logits(tmp_path / "gpt2", tmp_path)


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "gpt2")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UserError, match=r'safetensors is needed to .*: pip install "picogpt\[huggingface\]", or'):
        logits(tmp_path / "gpt2", tmp_path)


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


def test_a_directory_without_a_tokenizer_is_told(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "vocab.json").unlink()
    with pytest.raises(UserError, match=r"gpt2: expected vocab\.json and merges\.txt, or tokenizer\.json, found"):
        utils.load_encoder_and_hparams(str(tmp_path / "gpt2"), tmp_path)
    (tmp_path / "gpt2" / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(UserError, match="expected byte-level BPE, found another tokenizer"):
        utils.load_encoder_and_hparams(str(tmp_path / "gpt2"), tmp_path)


# where the converted copy goes


def test_a_directory_of_the_users_is_read_only_and_stays_as_it_is(tmp_path):
    expected = write_checkpoint(tmp_path / "gpt2")
    before = sorted(path.name for path in (tmp_path / "gpt2").iterdir())
    with disks.read_only(tmp_path / "gpt2"):
        for _ in range(2):
            np.testing.assert_array_equal(logits(tmp_path / "gpt2", tmp_path / "models"), expected)
    assert sorted(path.name for path in (tmp_path / "gpt2").iterdir()) == before
    assert [path.name for path in (tmp_path / "models" / ".converted").glob("gpt2-*/*")] == ["params"]


def test_a_name_in_models_dir_keeps_its_weights_beside_the_checkpoint(tmp_path):
    expected = write_checkpoint(tmp_path / "models")  # whose files move one level down
    (tmp_path / "models").rename(tmp_path / "gpt2")
    (tmp_path / "models").mkdir()
    (tmp_path / "gpt2").rename(tmp_path / "models" / "gpt2")
    np.testing.assert_array_equal(logits("gpt2", tmp_path / "models"), expected)
    assert (tmp_path / "models" / "gpt2" / "params").is_dir()
    assert not (tmp_path / "models" / ".converted").exists()


def test_a_checkpoint_that_was_saved_anew_is_converted_anew(tmp_path):
    write_checkpoint(tmp_path / "gpt2", prefix="")
    before = logits(tmp_path / "gpt2", tmp_path).copy()
    change(tmp_path / "gpt2" / "model.safetensors", **{"ln_f.bias": np.ones(24, np.float32)})
    assert not np.array_equal(logits(tmp_path / "gpt2", tmp_path), before)


def test_the_command_line_takes_a_directory(tmp_path):
    write_checkpoint(tmp_path / "gpt2")
    arguments = ("ROMEO:", "--n_tokens_to_generate", "8", "--models_dir", str(tmp_path))
    first = run(*arguments, "--model_size", f"{tmp_path}/gpt2")
    assert first.returncode == 0 and b"converted 28 tensors" in first.stderr
    again = run(*arguments, "--model_size", f"{tmp_path}/gpt2")
    made = run(*arguments, "--model_size", "gpt2-made")
    assert (again.stdout, again.stderr) == (first.stdout, b"") and made.stdout == first.stdout
