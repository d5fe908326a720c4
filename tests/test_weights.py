"""From a model's name to its weights: where models are found, and how published checkpoints are converted, once."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from picogpt import files, utils
from picogpt.errors import UserError
from picogpt.weights import find, openai, store, variables
from picogpt.weights.source import Known
from tests import bundle_writer, disks
from tests.blob_server import BlobServer
from tests.helpers import (
    ROOT,
    SHAKESPEARE,
    TINY,
    make_model,
    run,
    vocabulary_dir,
    write_checkpoint,
    write_small_files,
)


def load(model_dir):
    return utils.load_params(model_dir.name, model_dir.parent, TINY)


def refused(model_dir):
    with pytest.raises(UserError) as error:
        load(model_dir)
    return str(error.value)


def names(directory):
    return {path.name for path in directory.iterdir()}


# names


@pytest.mark.parametrize("name", ["", ".", "..", "a\\b"])
def test_what_is_no_name_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="expected the name of a model, found"):
        utils.find_model_dir(name, tmp_path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        *((path, "No such file or directory") for path in ("../x", "./x", "/x/y", "~/x", "124M/../../x", "a/b")),
        ("./" + "x" * 300, "File name too long"),
        ("/dev/null", "it is not a directory"),
        ("a/\0", "embedded null"),
    ],
)
def test_a_path_is_only_ever_a_directory_that_is_there(tmp_path, path, reason):
    with pytest.raises(UserError, match=f"expected the name of a model or a directory, found .*: {reason}"):
        utils.find_model_dir(path, tmp_path)


@pytest.mark.parametrize("where", ["model", "models_dir", "PICOGPT_MODELS_DIR", "PICOGPT_CACHE_DIR"])
def test_the_directory_of_nobody_is_reported(tmp_path, monkeypatch, where):
    monkeypatch.setenv(where, "~nosuchuser/y")
    model, models_dir = tmp_path, None
    if where == "model":
        model = "~nosuchuser/y"
    elif where == "models_dir":
        models_dir = "~nosuchuser/y"
    with pytest.raises(UserError, match=r"~nosuchuser/y: there is no such user's directory"):
        print(find.find(model, models_dir).home)


def test_a_name_is_not_looked_up_outside_models_dir(tmp_path, monkeypatch):
    make_model(tmp_path, "outside")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="unknown model 'outside'"):
        utils.find_model_dir("outside", tmp_path / "models")
    assert utils.find_model_dir("./outside", tmp_path / "models").resolve() == tmp_path / "outside"


@pytest.mark.parametrize(
    ("name", "official"),
    [("124m", "124M"), ("1558M", "1558M"), ("gpt2", "124M"), ("GPT2", "124M"), ("gpt2-medium", "355M"),
     ("gpt2-large", "774M"), ("gpt2-xl", "1558M")],
)  # fmt: skip
def test_other_names_of_openais_models_are_known_unless_a_directory_has_them(tmp_path, name, official):
    assert utils.find_model_dir(name, tmp_path) == tmp_path / official
    assert find.find(name, tmp_path).name == official
    (tmp_path / name).mkdir()
    assert utils.find_model_dir(name, tmp_path) == tmp_path / name
    assert find.find(name, tmp_path).name == (name if name == official else None)


def test_a_name_that_is_misspelt_gets_a_hint(tmp_path):
    make_model(tmp_path, "mine")
    for name, hint in (("shakespear", "did you mean shakespeare?"), ("gtp2-medium", "did you mean gpt2-medium?"),
                       ("mime", "did you mean mine?"), ("x" * 300, "expected one of 124M, 355M")):  # fmt: skip
        with pytest.raises(UserError, match=re.escape(hint)) as error:
            utils.find_model_dir(name, tmp_path)
        assert f"124M, 355M, 774M, 1558M, mine, shakespeare, or a directory in {tmp_path}" in str(error.value)


def test_paths_are_taken_wherever_names_are(tmp_path):
    make_model(tmp_path)
    for model, models_dir in ((tmp_path / "tiny", None), (str(tmp_path / "tiny"), tmp_path), (Path("tiny"), tmp_path)):
        _, hparams, params = utils.load_encoder_hparams_and_params(model, models_dir)
        assert hparams == TINY and params["wte"].shape == (1024, 24)


def test_the_environment_names_the_models_directory_and_the_flag_comes_first(tmp_path):
    make_model(tmp_path)
    arguments = ("A", "--n_tokens_to_generate", "3", "--model_size", "tiny")
    assert run(*arguments, env={"PICOGPT_MODELS_DIR": str(tmp_path)}).returncode == 0
    assert run(*arguments, "--models_dir", str(tmp_path), env={"PICOGPT_MODELS_DIR": "/nowhere"}).returncode == 0
    assert b"unknown model 'tiny'" in run(*arguments, env={"PICOGPT_MODELS_DIR": "/nowhere"}).stderr


@pytest.mark.parametrize("models_dir", ["/proc", "/dev/null", "x" * 300])
def test_a_models_directory_that_cannot_be_written_is_reported_at_once(models_dir):
    done = run("A", "--models_dir", models_dir)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(f"gpt2.py: error: cannot write to {models_dir}/124M: ".encode())
    assert done.stderr.count(b"\n") == 1


def test_a_start_imports_nothing_that_it_does_not_need():
    arguments = ("-X", "importtime", "-m", "picogpt", "A", "--model_size", "shakespeare", "--n_tokens_to_generate", "1")
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "numpy" in loaded
    assert not loaded & {
        "tensorflow",
        "torch",
        "requests",
        "urllib3",
        "safetensors",
        "ml_dtypes",
        "tqdm",
        "platformdirs",
        "picogpt.weights.bundle",
        "picogpt.weights.download",
        "picogpt.weights.huggingface",
    }


# hyperparameters


@pytest.mark.parametrize(
    "change",
    [{"n_layer": 1_000_000_000}, {"n_embd": None}, {"n_head": True}, {"n_ctx": 0}, {"n_vocab": -1}, {"n_vocab": 1.5},
     {"n_ctx": "8"}, {"n_embd": []}, {"n_layer": 1025}, {"n_vocab": 1 << 40}],
    ids=str,
)  # fmt: skip
def test_hyperparameters_that_make_no_sense_are_named(tmp_path, change):
    [name] = change
    write_small_files(tmp_path / "own", TINY | change)
    with pytest.raises(UserError, match=rf"hparams\.json: expected a whole number from 1 to \d+ as {name}, found"):
        utils.load_encoder_and_hparams("own", tmp_path)


def test_more_parameters_than_any_model_has_are_refused_before_anything_of_that_size_is_made(tmp_path):
    write_small_files(tmp_path / "own", TINY | {"n_vocab": 1 << 22, "n_embd": 3 << 13, "n_layer": 1 << 10})
    with pytest.raises(UserError, match="expected at most 34359738368 parameters, found"):
        utils.load_encoder_and_hparams("own", tmp_path)


@pytest.mark.parametrize("n_vocab", [1023, 1024])
def test_an_id_equal_to_the_size_of_the_vocabulary_is_refused(tmp_path, n_vocab):
    write_small_files(tmp_path / "own", TINY | {"n_vocab": n_vocab})
    if n_vocab == 1024:
        utils.load_encoder_and_hparams("own", tmp_path)  # whose largest id is 1023
    else:
        with pytest.raises(UserError, match=r"expected ids below 1023 .*, found 1023"):
            utils.load_encoder_and_hparams("own", tmp_path)


# conversion


@pytest.fixture
def model_dir(tmp_path):
    write_small_files(tmp_path / "own")
    write_checkpoint(tmp_path / "own")
    return tmp_path / "own"


def test_every_tensor_of_a_checkpoint_comes_back_bit_by_bit(model_dir):
    expected = store.nested(dict(store.random_tensors(TINY, seed=0)))
    for params in (load(model_dir), load(model_dir)):  # as converted, and as opened
        assert params.keys() == expected.keys() == {"wte", "wpe", "blocks", "ln_f"}
        np.testing.assert_equal(params, expected)


def test_lines_tell_of_the_conversion_once(model_dir, capsys):
    load(model_dir)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"converting {model_dir}, once"
    assert re.fullmatch(r"converted 28 tensors, 159 kB, in \d+\.\d s", lines[-1])
    load(model_dir)
    assert capsys.readouterr() == ("", "")


def test_the_checkpoint_stays_unless_its_deletion_is_asked_for(model_dir):
    before = names(model_dir)
    load(model_dir)
    assert names(model_dir) == before | {"params"}
    utils.delete_checkpoint("own", model_dir.parent)
    assert names(model_dir) == {"encoder.json", "vocab.bpe", "hparams.json", "params"}
    load(model_dir)
    utils.delete_checkpoint("own", model_dir.parent)  # where there is none


def test_a_checkpoint_is_not_deleted_while_its_weights_are_not_safe(model_dir):
    before = names(model_dir)
    with pytest.raises(UserError, match="expected converted weights, found nothing"):
        utils.delete_checkpoint("own", model_dir.parent)
    load(model_dir)
    (model_dir / "params" / store.DATA).write_bytes(b"")
    with pytest.raises(UserError, match=r"expected .* bytes, found 0"):
        utils.delete_checkpoint("own", model_dir.parent)
    assert names(model_dir) == before | {"params"}


@pytest.mark.parametrize("home", ["the cache", "beside it"])
def test_the_checkpoint_of_a_directory_elsewhere_is_never_deleted(model_dir, tmp_path, monkeypatch, capsys, home):
    monkeypatch.setenv("PICOGPT_CACHE_DIR", str(tmp_path / "cache"))
    if home == "beside it":
        load(model_dir)
    utils.load_params(model_dir, tmp_path / "models", TINY)
    before = names(model_dir)
    utils.delete_checkpoint(model_dir, tmp_path / "models")
    assert names(model_dir) == before and "checkpoint" in before
    assert capsys.readouterr().err.endswith(f"{model_dir}: not in {tmp_path / 'models'}, so its checkpoint stays\n")


@pytest.mark.parametrize("name", ["*", "..", "", "[a-z]*", "x/../../own/vocab"])
def test_only_the_files_of_the_checkpoint_are_deleted_whatever_it_is_called(tmp_path, name):
    model_dir = make_model(tmp_path)
    (model_dir / "model.ckpt.index").touch()
    (model_dir / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    utils.delete_checkpoint("tiny", tmp_path)
    assert names(model_dir) - {"model.ckpt.index"} == {"encoder.json", "vocab.bpe", "hparams.json", "params"}


@pytest.mark.parametrize("name", ["..", ".", "/", "x/.."])
def test_a_name_that_is_no_files_stands_for_the_usual_one(tmp_path, name):
    model_dir = make_model(tmp_path)
    write_checkpoint(model_dir)
    expected = find.find("tiny", tmp_path).source.fingerprint()
    (model_dir / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    assert expected is not None and find.find("tiny", tmp_path).source.fingerprint() == expected


def test_another_checkpoint_in_its_place_is_converted_again(model_dir, capsys):
    load(model_dir)
    write_checkpoint(model_dir, seed=1, prefix="model-2000")
    expected = dict(store.random_tensors(TINY, seed=1))["wte"]
    np.testing.assert_array_equal(load(model_dir)["wte"], expected)
    assert "made from another checkpoint than the one that is there now: converting the checkpoint again" in (
        capsys.readouterr().err
    )


def test_weights_in_the_format_of_earlier_versions_are_converted_again_or_explained(model_dir, capsys):
    (model_dir / "params").mkdir()
    (model_dir / "params" / "wte.npy").touch()
    (model_dir / "params" / "manifest.json").write_text('{"format": 1, "source": null, "sha256": {}}')
    shutil.copytree(model_dir, model_dir.parent / "alone", ignore=shutil.ignore_patterns("model.ckpt*"))
    load(model_dir)
    assert "manifest.json: expected format 2, found 1: converting the checkpoint again" in capsys.readouterr().err
    assert names(model_dir / "params") == {"weights.npy", "manifest.json"}
    assert refused(model_dir.parent / "alone").endswith(
        f"found 1: put the checkpoint that it was made from into {model_dir.parent / 'alone'} and run again"
    )


def test_a_conversion_that_fails_keeps_the_weights_that_were_there(model_dir, monkeypatch):
    def tensors(*_):
        yield next(store.random_tensors(TINY, seed=0))
        raise UserError("out of luck")

    load(model_dir)
    before = (model_dir / "params" / store.DATA).read_bytes()
    write_checkpoint(model_dir, seed=1)
    monkeypatch.setattr(openai.Checkpoint, "tensors", tensors)
    assert refused(model_dir) == "out of luck"
    assert (model_dir / "params" / store.DATA).read_bytes() == before
    assert not list(model_dir.glob(".params*"))


def test_what_killed_conversions_left_is_removed_by_the_next(model_dir):
    left = model_dir / ".params-abc"
    left.mkdir()
    (left / "weights.npy").write_bytes(b"half")
    load(model_dir)
    assert not left.exists()


def test_too_little_space_for_the_converted_weights_is_reported(model_dir, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    message = r"own: expected 159 kB of free disk \(for the converted weights\), found 10 bytes: "
    with pytest.raises(UserError, match=message + re.escape(files.ROOM)):
        load(model_dir)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["wte", "h1/mlp/c_proj/b"])
def test_weights_that_are_no_numbers_are_reported_at_conversion(model_dir, name, value):
    tensors = as_published()
    tensors[f"model/{name}"].flat[-1] = value
    bundle_writer.save(model_dir / "model.ckpt", tensors.items())
    assert f"own: expected numbers in the tensor {name}, found NaN or infinity" in refused(model_dir)
    assert not (model_dir / "params").exists()


def test_files_that_cannot_be_written_are_no_reason_to_convert_again(model_dir, capsys, monkeypatch):
    load(model_dir)
    capsys.readouterr()
    for error in (OSError(24, "Too many open files"), OSError(5, "Input/output error"), PermissionError(13, "no")):
        monkeypatch.setattr(files.os, "open", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        assert f"cannot read it: {error.strerror}: nothing was changed" in refused(model_dir)
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_a_text_is_generated_from_a_checkpoint_that_tensorflow_wrote(tmp_path):
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed: it writes the checkpoint")
    write_small_files(tmp_path / "own")
    variables = as_published() | {"global_step": np.int64(7)}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "own" / "model.ckpt"),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=list(variables.values()),
    )
    arguments = ("ROMEO:", "--n_tokens_to_generate", "9", "--model_size", "own", "--models_dir", str(tmp_path))
    first, second = run(*arguments), run(*arguments)
    assert first.returncode == 0 and first.stdout == second.stdout
    assert b"converted 28 tensors" in first.stderr and second.stderr == b""
    np.testing.assert_equal(load(tmp_path / "own"), store.nested(dict(store.random_tensors(TINY, seed=0))))


# checkpoints of something else, and damaged ones


def as_published():
    return dict(bundle_writer.as_published(store.random_tensors(TINY, seed=0)))


def check_refused(model_dir, message, variables):
    bundle_writer.save(model_dir / "model.ckpt", variables.items())
    source = find.find(model_dir, None).source
    for step in (source.prepare, lambda hparams: next(source.tensors(hparams)), lambda _: load(model_dir)):
        with pytest.raises(UserError, match=message):
            step(TINY)
    assert not [path for path in model_dir.iterdir() if path.is_dir()]


def test_variables_that_are_not_the_models_do_not_matter(model_dir):
    variables = as_published() | {"global_step": np.array(7), "beta": np.ones(3, np.float32), "model": np.ones(2)}
    bundle_writer.save(model_dir / "model.ckpt", variables.items())
    load(model_dir)


def test_missing_and_extra_tensors_are_named(model_dir):
    variables = as_published()
    extra = variables | {"model/h0/attn/c_attn/x": np.ones(1)}
    check_refused(model_dir, r"own/model\.ckpt: found the tensor h0/attn/c_attn/x", extra)
    check_refused(model_dir, r"found the tensor \\x1b\[31mred, which", variables | {"model/\x1b[31mred": np.ones(1)})
    del variables["model/h1/mlp/c_fc/b"], variables["model/wpe"]
    check_refused(model_dir, r"expected the tensor h1/mlp/c_fc/b, which is missing \(and 1 more\)", variables)


@pytest.mark.parametrize(
    ("name", "shape"), [("wte", (1023, 24)), ("h0/ln_1/g", (1, 24)), ("h1/attn/c_proj/w", (24, 24, 1))]
)
def test_a_tensor_of_a_wrong_shape_is_named_with_both_shapes(model_dir, name, shape):
    variables = as_published() | {f"model/{name}": np.zeros(shape, np.float32)}
    expected = list(store.param_shapes(TINY)[name])
    check_refused(model_dir, re.escape(f"expected {name} of shape {expected}, found {list(shape)}"), variables)


def test_a_tensor_of_another_type_is_named(model_dir):
    variables = as_published() | {"model/ln_f/b": np.zeros(24, np.int64)}
    check_refused(model_dir, "expected ln_f/b in float32, found int64", variables)


def test_damaged_data_is_reported_and_leaves_nothing(model_dir):
    data, index = model_dir / openai.DATA, model_dir / "model.ckpt.index"
    whole = {data: data.read_bytes(), index: index.read_bytes()}
    flipped = bytearray(whole[data])
    flipped[70_000] ^= 1
    for path, damaged in ((data, bytes(flipped)), (data, whole[data][:-1]), (index, whole[index][:-1]), (index, b"")):
        path.write_bytes(damaged)
        message = refused(model_dir)
        assert message.startswith(f"{path}: expected ")
        assert message.endswith(f": it is damaged: delete {path.name}, and run again or put a good one there")
        assert not [path for path in model_dir.iterdir() if path.is_dir()]
        path.write_bytes(whole[path])
    data.unlink()
    assert refused(model_dir) == f"{data}: expected a file, found none: fetch it again"


def test_damaged_data_without_a_known_digest_is_to_be_deleted_by_name_and_then_fetched(model_dir, monkeypatch):
    directory = model_dir.rename(model_dir.with_name("355M"))
    sizes = {path.name: Known(path.stat().st_size) for path in directory.iterdir()}
    monkeypatch.setitem(openai.HPARAMS, "355M", TINY)
    monkeypatch.setitem(openai.KNOWN, "355M", sizes)
    data = directory / openai.DATA
    good = data.read_bytes()
    data.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(UserError, match=f"found [0-9a-f]{{8}}: it is damaged: delete {openai.DATA}, and run again"):
        utils.load_params("355M", directory.parent, TINY)
    data.unlink()
    with BlobServer({f"355M/{openai.DATA}": good}) as server:
        monkeypatch.setenv("PICOGPT_WEIGHTS_URL", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert utils.load_params("355M", directory.parent, TINY)["wte"].shape == (1024, 24)


def test_one_of_openais_is_checked_once_it_is_fetched(model_dir, monkeypatch):
    monkeypatch.setitem(openai.HPARAMS, "124M", TINY)
    monkeypatch.setitem(openai.KNOWN, "124M", {})
    source = openai.Published(model_dir, "124M")
    source.prepare(TINY)
    os.truncate(model_dir / openai.DATA, 1000)
    with pytest.raises(UserError, match=r"expected \d+ bytes, found 1000: it is damaged"):
        source.prepare(TINY)


@pytest.mark.parametrize("name", [openai.DATA, "model.ckpt.index"])
def test_a_pipe_among_the_files_of_a_checkpoint_is_reported_and_not_waited_for(model_dir, name):
    (model_dir / name).unlink()
    os.mkfifo(model_dir / name)
    assert f"{name}: expected a file, found a directory, a pipe or a device" in refused(model_dir)


def test_the_graph_is_not_needed(model_dir):
    (model_dir / "model.ckpt.meta").unlink()
    load(model_dir)


def test_a_directory_without_any_weights_is_reported(tmp_path):
    write_small_files(tmp_path / "own")
    with pytest.raises(UserError, match=r"own: expected model\.ckpt\.index or model\.safetensors, found neither"):
        load(tmp_path / "own")


# files of OpenAI's that were put there by hand


@pytest.fixture
def by_hand(tmp_path, monkeypatch):
    """124M's files with their right sizes, as far as can be had: of the right content are only the vocabulary's."""
    monkeypatch.setattr(variables, "check", lambda *_: pytest.fail("converted what it should have refused"))
    model_dir = tmp_path / "124M"
    model_dir.mkdir()
    for name, known in openai.KNOWN["124M"].items():
        with (model_dir / name).open("wb") as file:
            file.truncate(known.size)  # of zeros that take no room on the disk
    for name in openai.TOKENIZER:
        shutil.copy(vocabulary_dir() / name, model_dir)
    return model_dir


def refused_by_hand(model_dir):
    with pytest.raises(UserError) as error:
        utils.load_params("124M", model_dir.parent, openai.HPARAMS["124M"])
    return str(error.value)


@pytest.mark.parametrize("name", openai.KNOWN["124M"])
def test_a_wrong_size_of_a_file_put_there_by_hand_is_reported_before_conversion(by_hand, name):
    size = (by_hand / name).stat().st_size
    with (by_hand / name).open("r+b") as file:
        file.truncate(size - 1)
    assert refused_by_hand(by_hand).startswith(
        f"{by_hand / name}: expected {size} bytes, found {size - 1}: delete it and run again"
    )


def test_wrong_bytes_of_a_file_put_there_by_hand_are_reported_before_conversion(by_hand):
    message = refused_by_hand(by_hand)
    assert message.startswith(f"{by_hand / 'hparams.json'}: expected SHA-256 d9d56e4121c427164e0c55c6f03c08e1daf9002b")


def test_hyperparameters_of_another_size_are_reported(by_hand):
    with pytest.raises(UserError, match=r"hparams\.json: expected .*'n_head': 12.*, found .*'n_head': 16"):
        utils.load_params("124M", by_hand.parent, openai.HPARAMS["355M"])


def test_the_published_data_sizes_are_those_of_the_shapes():
    for model_size, hparams in openai.HPARAMS.items():
        assert openai.known(model_size, openai.DATA).size == store.n_bytes(hparams)


# the bundled model, and places that cannot be written


def test_a_damaged_bundled_model_asks_for_a_new_installation(tmp_path, monkeypatch):
    shutil.copytree(SHAKESPEARE, tmp_path / "shakespeare")
    monkeypatch.setattr(find, "bundled_models_dir", lambda: tmp_path)
    _, hparams = utils.load_encoder_and_hparams("shakespeare", tmp_path / "models")
    for damage in (lambda params: (params / store.DATA).unlink(), shutil.rmtree):
        damage(tmp_path / "shakespeare" / "params")
        with pytest.raises(UserError, match=r"found no.*: install picogpt-numpy again"):
            utils.load_params("shakespeare", tmp_path / "models", hparams)


def test_a_converted_model_in_a_read_only_place_is_used(tmp_path):
    make_model(tmp_path)
    with disks.read_only(tmp_path):
        done = run("A", "--n_tokens_to_generate", "3", "--model_size", "tiny", "--models_dir", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, b"")


def test_verify_of_a_model_without_its_tokenizer_is_reported(tmp_path):
    official = make_model(tmp_path, "124M")
    (official / "hparams.json").write_text(json.dumps(openai.HPARAMS["124M"]))
    (official / "encoder.json").unlink()

    def verify():
        arguments = [sys.executable, "-m", "picogpt.verify", "124M", "--models_dir", str(tmp_path)]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        return done.stderr

    assert f"{official / 'vocab.bpe'}: expected 456318 bytes, found 4607: delete it and run" in verify()
    (official / "vocab.bpe").unlink()
    assert f"{official / 'encoder.json'}: expected a file, found none" in verify()
