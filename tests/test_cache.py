"""Converted models: what is damaged is found, made anew or explained, and what is whole opens at once."""

import json
import mmap
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from picogpt import files, utils
from picogpt.errors import UserError
from picogpt.weights import store, openai
from tests import disks
from tests.helpers import ROOT, SHAKESPEARE, TINY, make_model, run

WTE, W, G = "wte.npy", "h0.mlp.c_fc.w.npy", "h0.ln_1.g.npy"


@pytest.fixture
def model_dir(tmp_path):
    return make_model(tmp_path)


def load(model_dir):
    return utils.load_params(model_dir.name, model_dir.parent, TINY)


def refused(model_dir):
    with pytest.raises(UserError) as error:
        load(model_dir)
    return str(error.value)


def flip(path, byte, mask=1):
    data = bytearray(path.read_bytes())
    data[byte] ^= mask
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"x")


def swap(path):
    other = path.with_name("h0.attn.c_attn.w.npy")
    data = other.read_bytes()
    other.write_bytes(path.read_bytes())
    path.write_bytes(data)


def pickle(path):
    np.save(path, np.array([{}]), allow_pickle=True)


def other_dtype(path):
    np.save(path, np.zeros((24, 96)))


def zip_file(path):
    np.savez(path.with_suffix(""), np.zeros(3))
    path.with_suffix(".npz").replace(path)


def directory(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    directory: f"{W}: cannot read it: Is a directory",
    os.remove: "expected the tensor h0/mlp/c_fc/w, which is missing",
    empty: rf"{W}: expected float32 \[24, 96\], found a damaged file",
    truncate: f"{W}: expected 9344 bytes, found 9343",
    lengthen: f"{W}: expected 9344 bytes, found 9345",
    swap: r"h0\.attn\.c_attn\.w\.npy: expected float32 \[24, 72\], found float32 \[24, 96\] in Fortran order",
    pickle: rf"{W}: expected float32 \[24, 96\], found a damaged file",
    other_dtype: rf"{W}: expected float32 \[24, 96\], found float64 \[24, 96\] in C order",
    zip_file: rf"{W}: expected float32 \[24, 96\], found a damaged file",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_told_what_to_do(model_dir, damage):
    damage(model_dir / "params" / W)
    message = refused(model_dir)
    assert re.search(DAMAGES[damage], message)
    assert message.endswith(f": delete {model_dir / 'params'} and run again with its checkpoint put there")


def test_a_file_too_many_is_named(model_dir):
    shutil.copy(model_dir / "params" / G, model_dir / "params" / "h2.ln_1.g.npy")
    assert "found the tensor h2/ln_1/g, which this model does not have" in refused(model_dir)


def test_whichever_bit_of_a_header_flips_it_is_found_or_changes_nothing(model_dir):
    path = model_dir / "params" / G
    whole, expected = path.read_bytes(), load(model_dir)["blocks"][0]["ln_1"]["g"].copy()
    for bit in range(8 * 128):
        flip(path, bit // 8, 1 << bit % 8)
        try:
            np.testing.assert_array_equal(load(model_dir)["blocks"][0]["ln_1"]["g"], expected)
        except UserError as error:
            assert G in str(error)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ('{"format": 2, "source": null, "sha256": {}}', "expected format 1, found 2"),
        ('{"format": "1"}', "expected format 1, found '1'"),
        ("[]", "expected format 1, found None"),
        ("{", "expected the list of this model's files, found none"),
        (None, "expected the list of this model's files, found none"),
    ],
)
def test_another_format_is_not_opened(model_dir, manifest, message):
    path = model_dir / "params" / "manifest.json"
    path.unlink() if manifest is None else path.write_text(manifest)
    assert f"{path}: {message}" in refused(model_dir)


def test_a_damaged_bundled_model_asks_for_a_new_installation(tmp_path, monkeypatch):
    shutil.copytree(SHAKESPEARE, tmp_path / "shakespeare")
    monkeypatch.setattr(utils, "bundled_models_dir", lambda: tmp_path)
    (tmp_path / "shakespeare" / "params" / WTE).unlink()
    hparams = utils.read_hparams(tmp_path / "shakespeare" / "hparams.json")
    with pytest.raises(UserError, match="which is missing: install picogpt again"):
        utils.load_params("shakespeare", tmp_path / "models", hparams)


# with the checkpoint still there


@pytest.fixture
def with_checkpoint(model_dir, monkeypatch):
    """A converted model beside its checkpoint; its tensors come from here instead of from tensorflow."""
    (model_dir / "model.ckpt.index").write_text("checksums")
    monkeypatch.setattr(openai, "tensors", lambda *_: store.random_tensors(TINY, seed=0, std=0.2))
    shutil.rmtree(model_dir / "params")
    load(model_dir)
    return model_dir


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_made_anew_from_the_checkpoint_and_it_is_told(with_checkpoint, damage, capsys):
    expected = load(with_checkpoint)["blocks"][0]["mlp"]["c_fc"]["w"].copy()
    damage(with_checkpoint / "params" / W)
    capsys.readouterr()
    np.testing.assert_array_equal(load(with_checkpoint)["blocks"][0]["mlp"]["c_fc"]["w"], expected)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert re.search(DAMAGES[damage], first) and first.endswith(": making the weights anew from the checkpoint")
    assert last.startswith("converted 28 tensors, 159 kB, in ")
    assert not list(with_checkpoint.glob(".params*"))


def test_a_conversion_that_fails_keeps_the_weights_that_were_there(with_checkpoint, monkeypatch):
    def tensors(*_):
        yield next(store.random_tensors(TINY, seed=0))
        raise UserError("out of luck")

    before = sorted(path.name for path in (with_checkpoint / "params").iterdir())
    (with_checkpoint / "model.ckpt.index").write_text("other checksums")
    monkeypatch.setattr(openai, "tensors", tensors)
    assert refused(with_checkpoint) == "out of luck"
    assert sorted(path.name for path in (with_checkpoint / "params").iterdir()) == before
    assert not list(with_checkpoint.glob(".params*"))


def test_what_killed_conversions_left_is_removed_by_the_next(with_checkpoint):
    left = with_checkpoint / ".params-abc"
    left.mkdir()
    (left / WTE).write_bytes(b"half")
    shutil.rmtree(with_checkpoint / "params")
    load(with_checkpoint)
    assert not left.exists()


def test_too_little_space_for_the_converted_weights_is_told(with_checkpoint, monkeypatch):
    shutil.rmtree(with_checkpoint / "params")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    message = r"tiny: expected 159 kB of free disk \(for the converted weights\), found 10 bytes: make room there or"
    with pytest.raises(UserError, match=message):
        load(with_checkpoint)


# the deep check


def verify(model_dir):
    done = subprocess.run(
        [sys.executable, "-m", "picogpt.utils", "verify", model_dir.name, "--models_dir", str(model_dir.parent)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "Traceback" not in done.stderr
    return done


def test_verify_reads_every_byte_and_says_so(model_dir):
    done = verify(model_dir)
    params = model_dir / "params"
    size = files.size(sum(path.stat().st_size for path in params.glob("*.npy")))
    assert done.stdout == f"{params}: 28 tensors, {size}: every byte as it was written\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_verify_finds_what_opening_cannot(model_dir):
    params = model_dir / "params"
    for damage in (lambda: flip(params / W, -1), lambda: swap_layers(params)):
        damage()
        load(model_dir)
        done = verify(model_dir)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.search(r"npy: expected SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}: a damaged file\n", done.stderr)
        damage()  # twice is not at all
    assert verify(model_dir).returncode == 0


def swap_layers(params):
    first, second = params / W, params / W.replace("h0", "h1")
    first.rename(params / "x")
    second.rename(first)
    (params / "x").rename(second)


def test_verify_needs_a_name_and_its_commands_are_named():
    for arguments, message in (
        (["verify"], "python -m picogpt.utils: error: expected model_size, found nothing; --help tells more\n"),
        (["check"], "python -m picogpt.utils: error: expected one of verify, found 'check'; --help tells more\n"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "picogpt.utils", *arguments], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_verify_of_a_model_without_its_tokenizer_or_its_weights_is_told(model_dir):
    hparams = json.dumps(openai.HPARAMS["124M"])
    official = model_dir.rename(model_dir.parent / "124M")
    (official / "hparams.json").write_text(hparams)
    (official / "encoder.json").unlink()
    assert f"{official / 'vocab.bpe'}: expected 456318 bytes, found 4607: delete it and run" in verify(official).stderr
    (official / "vocab.bpe").unlink()
    assert f"{official / 'encoder.json'}: cannot read the tokenizer's file: No such file" in verify(official).stderr


def test_the_bundled_model_is_as_it_was_written():
    hparams = utils.read_hparams(SHAKESPEARE / "hparams.json")
    assert store.verify_params(SHAKESPEARE, hparams)[0] == 76


def test_the_manifest_is_what_sha256sum_says(model_dir):
    manifest = json.loads((model_dir / "params" / "manifest.json").read_text())
    sums = subprocess.run(["sha256sum", W], cwd=model_dir / "params", capture_output=True, text=True, check=True)
    assert manifest["sha256"]["h0/mlp/c_fc/w"] == sums.stdout.split()[0]


# where models are, and what a start costs


def test_a_converted_model_in_a_read_only_place_is_used(model_dir):
    with disks.read_only(model_dir.parent):
        done = run("A", "--n_tokens_to_generate", "3", "--model_size", "tiny", "--models_dir", str(model_dir.parent))
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_environment_names_the_models_directory_and_the_flag_comes_first(model_dir, tmp_path):
    arguments = ("A", "--n_tokens_to_generate", "3", "--model_size", "tiny")
    assert run(*arguments, env={"PICOGPT_MODELS_DIR": str(tmp_path)}).returncode == 0
    assert run(*arguments, "--models_dir", str(tmp_path), env={"PICOGPT_MODELS_DIR": "/nowhere"}).returncode == 0
    assert b"unknown model 'tiny'" in run(*arguments, env={"PICOGPT_MODELS_DIR": "/nowhere"}).stderr


@pytest.mark.parametrize("name", ["", ".", "..", "a\\b"])
def test_what_is_no_name_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="expected the name of a model, found"):
        utils.find_model_dir(name, tmp_path)


@pytest.mark.parametrize("path", ["../x", "./x", "/x/y", "~/x", "124M/../../x", "a/b"])
def test_a_path_is_only_ever_a_directory_that_is_there(tmp_path, path):
    with pytest.raises(UserError, match=r"expected the name of a model or a directory, found .*: there is no such one"):
        utils.find_model_dir(path, tmp_path)


def test_a_name_is_not_looked_up_outside_models_dir(tmp_path, monkeypatch):
    make_model(tmp_path, "outside")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="unknown model 'outside'"):
        utils.find_model_dir("outside", tmp_path / "models")
    assert utils.find_model_dir("./outside", tmp_path / "models").resolve() == tmp_path / "outside"


def test_a_start_imports_nothing_that_it_does_not_need():
    script = (
        "import sys; from picogpt import cli, gpt2; cli.run(gpt2.main, sys.argv[1:]);"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    arguments = [sys.executable, "-c", script, "A", "--model_size", "shakespeare", "--n_tokens_to_generate", "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "numpy" in loaded
    assert not loaded & {"tensorflow", "torch", "requests", "urllib3", "filelock", "safetensors", "ml_dtypes", "tqdm"}


def test_weights_are_mapped_not_read(model_dir):
    tensor = load(model_dir)["wte"]
    while isinstance(tensor, np.ndarray):
        tensor = tensor.base
    assert isinstance(tensor.obj, mmap.mmap)


def test_any_program_that_reads_npy_files_reads_the_weights(model_dir):
    for name, tensor in store.random_tensors(TINY, seed=0, std=0.2):
        loaded = np.load(model_dir / "params" / f"{name.replace('/', '.')}.npy")
        np.testing.assert_array_equal(loaded, tensor)
        assert loaded.flags.f_contiguous == (loaded.ndim == 1 or name.endswith("/w"))
