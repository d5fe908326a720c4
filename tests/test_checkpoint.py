"""OpenAI's checkpoints, written by tensorflow, become the same weights as NumPy files; what is wrong is named."""

import re
import shutil
import sys

import numpy as np
import pytest

from picogpt import utils
from picogpt.errors import UserError
from picogpt.weights import store, openai
from tests.helpers import TINY, run, vocabulary_dir, write_small_files


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow", reason="tensorflow is not installed: it writes the checkpoints")


def as_published(hparams=TINY, seed=0):
    """Tensors by their names and in their shapes in OpenAI's checkpoints."""
    tensors = dict(store.random_tensors(hparams, seed))
    return {f"model/{name}": tensor[None] if name.endswith("/w") else tensor for name, tensor in tensors.items()}


def write_checkpoint(tf, model_dir, variables, prefix="model.ckpt"):
    tf.raw_ops.SaveV2(
        prefix=str(model_dir / prefix),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=list(variables.values()),
    )
    (model_dir / "checkpoint").write_text(
        f'model_checkpoint_path: "{prefix}"\nall_model_checkpoint_paths: "{prefix}"\n'
    )


@pytest.fixture
def model_dir(tf, tmp_path):
    write_small_files(tmp_path / "own")
    write_checkpoint(tf, tmp_path / "own", as_published())
    return tmp_path / "own"


def load(model_dir, **settings):
    return utils.load_params(model_dir.name, model_dir.parent, TINY, **settings)


def check_refused(tf, model_dir, message, variables):
    write_checkpoint(tf, model_dir, variables)
    with pytest.raises(UserError, match=message):
        load(model_dir)
    assert not [path for path in model_dir.iterdir() if path.is_dir()]


def test_every_tensor_of_a_checkpoint_comes_back_bit_by_bit(model_dir):
    expected = store.nested(dict(store.random_tensors(TINY, seed=0)))
    for params in (load(model_dir), load(model_dir)):  # as converted, and as opened
        assert params.keys() == expected.keys() == {"wte", "wpe", "blocks", "ln_f"}
        np.testing.assert_equal(params, expected)


def test_weights_are_read_only_float32_and_matrices_lie_in_fortran_order(model_dir):
    params = load(model_dir)
    w = params["blocks"][1]["mlp"]["c_fc"]["w"]
    assert w.dtype == np.float32 and w.flags.f_contiguous and not w.flags.writeable
    assert params["wte"].flags.c_contiguous and not params["wte"].flags.writeable


def test_a_text_is_generated_from_a_checkpoint_and_a_line_tells_of_the_conversion(model_dir):
    arguments = ("ROMEO:", "--n_tokens_to_generate", "9", "--model_size", "own", "--models_dir", str(model_dir.parent))
    first, second = run(*arguments), run(*arguments)
    assert first.returncode == 0 and first.stdout == second.stdout
    lines = first.stderr.decode().splitlines()
    assert lines[0] == f"converting {model_dir}, once"
    assert re.fullmatch(r"converted 28 tensors, 159 kB, in \d+\.\d s", lines[-1])
    assert second.stderr == b""


def test_the_checkpoint_stays_unless_its_deletion_is_asked_for(model_dir):
    before = {path.name for path in model_dir.iterdir()}
    load(model_dir)
    assert {path.name for path in model_dir.iterdir()} == before | {"params"}
    load(model_dir, delete_checkpoint=True)
    assert {path.name for path in model_dir.iterdir()} == {"encoder.json", "vocab.bpe", "hparams.json", "params"}
    load(model_dir)


def test_another_checkpoint_in_its_place_is_converted_anew(tf, model_dir):
    load(model_dir)
    variables = as_published(seed=1)
    write_checkpoint(tf, model_dir, variables, prefix="model-2000")
    np.testing.assert_array_equal(load(model_dir)["wte"], variables["model/wte"])


def test_variables_that_are_not_the_models_do_not_matter(tf, model_dir):
    write_checkpoint(tf, model_dir, as_published() | {"global_step": np.int64(7)})
    load(model_dir)


def test_missing_and_extra_tensors_are_named(tf, model_dir):
    variables = as_published()
    check_refused(
        tf,
        model_dir,
        r"own/model\.ckpt: found the tensor h0/attn/c_attn/x",
        variables | {"model/h0/attn/c_attn/x": 1.0},
    )
    del variables["model/h1/mlp/c_fc/b"], variables["model/wpe"]
    check_refused(tf, model_dir, r"expected the tensor h1/mlp/c_fc/b, which is missing \(and 1 more\)", variables)


@pytest.mark.parametrize(
    ("name", "shape"), [("wte", (1023, 24)), ("h0/ln_1/g", (1, 24)), ("h1/attn/c_proj/w", (24, 24, 1))]
)
def test_a_tensor_of_a_wrong_shape_is_named_with_both_shapes(tf, model_dir, name, shape):
    variables = as_published() | {f"model/{name}": np.zeros(shape, np.float32)}
    expected = list(store.param_shapes(TINY)[name])
    check_refused(tf, model_dir, re.escape(f"expected {name} of shape {expected}, found {list(shape)}"), variables)


def test_damaged_data_is_told_and_leaves_nothing(tf, model_dir):
    data, index = model_dir / openai.DATA, model_dir / "model.ckpt.index"
    whole = {data: data.read_bytes(), index: index.read_bytes()}
    flipped = bytearray(whole[data])
    flipped[70_000] ^= 1
    for path, damaged in ((data, bytes(flipped)), (data, whole[data][:-1]), (index, whole[index][:-1]), (index, b"")):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"expected a checkpoint, found a damaged one \(.*\): delete .* and fetch"):
            load(model_dir)
        assert not [path for path in model_dir.iterdir() if path.is_dir()]
        path.write_bytes(whole[path])
    data.unlink()
    with pytest.raises(UserError, match="damaged"):
        load(model_dir)


def test_without_tensorflow_it_says_what_to_install(tmp_path, monkeypatch):
    write_small_files(tmp_path / "own")
    (tmp_path / "own" / "model.ckpt.index").touch()
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"tensorflow is needed once, .*: pip install tensorflow, or .* shakespeare"):
        load(tmp_path / "own")


def test_a_directory_without_any_weights_is_told(tmp_path):
    write_small_files(tmp_path / "own")
    with pytest.raises(UserError, match=r"own: expected model\.ckpt\.data.* or model\.safetensors, found neither"):
        load(tmp_path / "own")


# files of OpenAI's that were put there by hand


@pytest.fixture
def by_hand(tmp_path, monkeypatch):
    """124M's files with their right sizes, as far as can be had: of the right content are only the vocabulary's."""
    monkeypatch.setattr(openai, "import_tensorflow", lambda: pytest.fail("converted what it should have refused"))
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
def test_a_wrong_size_of_a_file_put_there_by_hand_is_told_before_conversion(by_hand, name):
    size = (by_hand / name).stat().st_size
    with (by_hand / name).open("r+b") as file:
        file.truncate(size - 1)
    assert refused_by_hand(by_hand).startswith(
        f"{by_hand / name}: expected {size} bytes, found {size - 1}: delete it and run again"
    )


def test_wrong_bytes_of_a_file_put_there_by_hand_are_told_before_conversion(by_hand):
    message = refused_by_hand(by_hand)
    assert message.startswith(f"{by_hand / 'hparams.json'}: expected SHA-256 d9d56e4121c427164e0c55c6f03c08e1daf9002b")


def test_hyperparameters_of_another_size_are_told(by_hand):
    with pytest.raises(UserError, match=r"hparams\.json: expected .*'n_head': 12.*, found .*'n_head': 16"):
        utils.load_params("124M", by_hand.parent, openai.HPARAMS["355M"])


def test_the_published_data_sizes_are_those_of_the_shapes():
    for model_size, hparams in openai.HPARAMS.items():
        assert openai.known(model_size, openai.DATA).size == store.n_bytes(hparams)
