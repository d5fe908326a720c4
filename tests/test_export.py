"""Exported models give the same numbers in the programs they are for, and the same arrays when they are read again."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import picogpt
from picogpt import utils
from picogpt.encoder import Encoder, get_encoder
from picogpt.errors import UserError
from picogpt.weights import export, store, to_gguf, variables
from tests import bundle_writer, disks
from tests.helpers import ENVIRONMENT, ROOT, SHAKESPEARE, TINY, make_model, snapshot, vocabulary_dir

IDS = [5, 1, 1000, 3, 3, 7, 500, 2]
TEXTS = [
    "ROMEO:\nWhat light through yonder window breaks? é 42",
    "  naïve café – 你好 🙂\t\n\n",
    "I'm you're\u00a0x ½ \r\n",
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PICOGPT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models"))


def tensors_of(model_dir):
    return store.open_tensors(model_dir, utils.read_hparams(model_dir / "hparams.json"))


def assert_equal(found, model_dir):
    expected = tensors_of(model_dir)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, strict=True)


# transformers


def test_hf_is_read_again_with_the_same_arrays_hparams_and_tokenizer(tiny, tmp_path, capsys):
    utils.export(tiny, tmp_path / "out")
    assert re.fullmatch(r"exported 28 tensors to .*/out in \d+\.\d s\n", capsys.readouterr().err)
    encoder, hparams = utils.load_encoder_and_hparams(tmp_path / "out")
    original = get_encoder(tiny.name, tiny.parent)
    assert hparams == TINY
    assert (encoder.encoder, encoder.bpe_ranks) == (original.encoder, original.bpe_ranks)
    utils.load_params(tmp_path / "out", None, hparams)
    [converted] = (tmp_path / "cache" / "converted").iterdir()
    assert_equal(store.open_tensors(converted, TINY), tiny)


def test_an_export_of_an_export_has_the_same_bytes(tiny, tmp_path):
    utils.export(tiny, tmp_path / "first")
    utils.export(tmp_path / "first", tmp_path / "second")
    assert snapshot(tmp_path / "first") == snapshot(tmp_path / "second")


def test_transformers_gives_the_same_ids_and_logits_and_saves_the_same_bytes(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: transformers runs on it")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: it is the oracle")
    utils.export(SHAKESPEARE, tmp_path / "out")
    ours = picogpt.load(SHAKESPEARE)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in TEXTS:
        assert tokenizer.encode(text) == ours.encode(text)
        assert tokenizer.decode(ours.encode(text)) == text
    assert len(tokenizer) == 1024 and tokenizer.eos_token_id == ours.encoder.end_of_text
    model = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0].numpy()
    np.testing.assert_allclose(ours.logits(IDS), logits, rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path / "again")
    weights = "model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (tmp_path / "out" / weights).read_bytes()
    for key, value in json.loads((tmp_path / "out" / "config.json").read_text()).items():
        assert json.loads((tmp_path / "again" / "config.json").read_text()).get(key, value) == value


def test_a_vocabulary_without_an_end_of_text_keeps_its_size_in_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: it is the oracle")
    whole = get_encoder("shakespeare", SHAKESPEARE.parent)
    others = [token for token in export.vocabulary(whole) if token != "<|endoftext|>"]
    encoder = Encoder({token: i for i, token in enumerate(others)}, list(whole.bpe_ranks))
    hparams = TINY | {"n_vocab": len(others)}
    (tmp_path / "out").mkdir()
    tensors = dict(store.random_tensors(hparams, seed=0))
    export.writer("hf", "f32")(export.Whole(encoder, hparams, tensors), tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer) == len(others)
    assert [tokenizer.encode(text) for text in TEXTS] == [encoder.encode(text) for text in TEXTS]
    assert utils.load_encoder_and_hparams(tmp_path / "out")[0].encoder == encoder.encoder


def test_the_tokenizers_files_are_openais_byte_for_byte(tmp_path):
    directory = vocabulary_dir()
    encoder = get_encoder(directory.name, directory.parent)
    export.write_vocabulary(encoder, tmp_path / "encoder.json")
    export.write_merges(encoder, tmp_path / "vocab.bpe")
    for name in ("encoder.json", "vocab.bpe"):
        assert (tmp_path / name).read_bytes() == (directory / name).read_bytes()


def test_tokens_that_were_added_are_told_apart():
    encoder = Encoder(
        {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġ[é]".replace("é", "Ã©"): 4, "<|endoftext|>": 5, "Ã": 6}, ["a b"]
    )
    assert export.added_tokens(encoder) == {4: " [é]", 5: "<|endoftext|>"}


# OpenAI's code


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow", reason="tensorflow is not installed: it writes the checkpoint")


def test_tf_is_what_openai_published(tf, tiny, tmp_path):
    utils.export(tiny, tmp_path / "out", "tf")
    checkpoint = {"checkpoint", "model.ckpt.index", "model.ckpt.meta", "model.ckpt.data-00000-of-00001"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == checkpoint | {
        "hparams.json", "encoder.json", "vocab.bpe"
    }  # fmt: skip
    text = 'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'
    assert (tmp_path / "out" / "checkpoint").read_text() == text and len(text) == 77  # as OpenAI's
    prefix = tmp_path / "out" / "model.ckpt"
    assert tf.train.latest_checkpoint(str(tmp_path / "out")) == str(prefix)
    assert_equal(dict(variables.tensors(prefix, TINY)), tiny)
    theirs = tf.train.load_checkpoint(str(prefix))
    for name, tensor in bundle_writer.as_published(tensors_of(tiny).items()):
        np.testing.assert_array_equal(theirs.get_tensor(name), tensor, strict=True)
    encoder, hparams = utils.load_encoder_and_hparams(tmp_path / "out")
    assert hparams == TINY and encoder.encoder == get_encoder(tiny.name, tiny.parent).encoder


def test_a_checkpoint_comes_back_byte_for_byte(tf, tiny, tmp_path):
    utils.export(tiny, tmp_path / "first", "tf")
    utils.export(tmp_path / "first", tmp_path / "second", "tf")
    first, second = snapshot(tmp_path / "first"), snapshot(tmp_path / "second")
    for name in first.keys() - {"model.ckpt.meta"}:  # the graph has dates in it
        assert first[name] == second[name], name


def test_hparams_are_written_as_openai_wrote_them(tf, tmp_path, monkeypatch):
    from picogpt.weights import openai, to_tensorflow

    monkeypatch.setattr(to_tensorflow, "write_checkpoint", lambda *_: None)
    directory = vocabulary_dir()
    encoder = get_encoder(directory.name, directory.parent)
    export.writer("tf", "f32")(export.Whole(encoder, openai.HPARAMS["124M"], {}), tmp_path)
    openai.check_files("124M", tmp_path, openai.TOKENIZER_FILES, deep=True)
    assert len(list(tmp_path.iterdir())) == 3


def test_verify_compares_with_tensorflow(tf, tiny, tmp_path, capsys):
    from picogpt.commands import verify

    with pytest.raises(UserError, match="tiny: expected a TensorFlow checkpoint, found none"):
        verify.main(str(tiny), with_tensorflow=True)
    utils.export(tiny, tmp_path / "out", "tf")
    picogpt.load(tmp_path / "out")
    verify.main(str(tmp_path / "out"), with_tensorflow=True)
    assert capsys.readouterr().out.endswith("/params: 28 tensors: equal to what TensorFlow reads\n")

    [home] = (tmp_path / "cache" / "converted").iterdir()
    manifest = json.loads((home / "params" / "manifest.json").read_text())
    tensors = {name: np.array(tensor) for name, tensor in tensors_of(tiny).items()}
    tensors["h1/attn/c_proj/w"][3, 5] += 1
    store.save_params(tensors.items(), home, manifest["source"])
    with pytest.raises(UserError, match="h1/attn/c_proj/w differs from what TensorFlow reads"):
        verify.main(str(tmp_path / "out"), with_tensorflow=True)


# llama.cpp


@pytest.fixture
def gguf():
    return pytest.importorskip("gguf", reason="gguf is not installed: it writes the file")


def tensors_in(gguf, file):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_gguf_holds_the_same_tensors(gguf, tiny, tmp_path, dtype):
    utils.export(tiny, tmp_path / "out", "gguf", dtype)
    found = tensors_in(gguf, tmp_path / "out" / f"model-{dtype}.gguf")
    expected = tensors_of(tiny)
    assert len(found) == len(expected)
    for name, tensor in expected.items():
        half = dtype == "f16" and name.rsplit("/", 1)[-1] in ("w", "wte")
        theirs = found[to_gguf.name_of(name)]
        assert theirs.tensor_type.name == ("F16" if half else "F32")
        data = tensor.T if name.endswith("/w") else tensor
        np.testing.assert_array_equal(theirs.data, data.astype(np.float16) if half else data)


def test_gguf_in_blocks_of_32(gguf, tiny, tmp_path):
    utils.export(tiny, tmp_path / "out", "gguf", "q8_0")
    found = tensors_in(gguf, tmp_path / "out" / "model-q8_0.gguf")
    kinds = {name: found[to_gguf.name_of(name)].tensor_type.name for name in tensors_of(tiny)}
    assert kinds["h1/mlp/c_proj/w"] == "Q8_0"
    assert {kinds[name] for name in ("wte", "h0/attn/c_attn/w", "h1/mlp/c_fc/w")} == {"F16"}  # rows of 24
    assert {kinds[name] for name in ("wpe", "ln_f/g", "h0/mlp/c_fc/b")} == {"F32"}
    for name in ("h0/mlp/c_proj/w", "h1/mlp/c_proj/w"):  # [96, 24]
        blocks = found[to_gguf.name_of(name)].data.reshape(-1, 34)
        expected = tensors_of(tiny)[name].T.reshape(-1, 32)
        scales = np.abs(expected).max(axis=1, keepdims=True) / np.float32(127)
        np.testing.assert_array_equal(blocks[:, :2].copy().view(np.float16), scales.astype(np.float16))
        assert np.abs(blocks[:, 2:].view(np.int8) - expected / scales).max() < 0.5001


def test_gguf_in_blocks_is_what_llama_cpp_makes(gguf, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: it makes blocks too")
    for dtype in "f32", "q8_0":
        utils.export(SHAKESPEARE, tmp_path / dtype, "gguf", dtype)
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.token_embedding_type = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, llama_cpp.GGML_TYPE_Q8_0
    source, made = tmp_path / "f32" / "model-f32.gguf", tmp_path / "made.gguf"
    assert llama_cpp.llama_model_quantize(bytes(source), bytes(made), settings) == 0
    expected, found = tensors_in(gguf, made), tensors_in(gguf, tmp_path / "q8_0" / "model-q8_0.gguf")
    assert found.keys() == expected.keys()
    for name, theirs in expected.items():
        assert found[name].tensor_type == theirs.tensor_type
        np.testing.assert_array_equal(found[name].data, theirs.data)


def test_gguf_holds_the_tokenizer_and_the_sizes(gguf, tmp_path):
    encoder = get_encoder("shakespeare", SHAKESPEARE.parent)
    hparams = TINY | {"n_vocab": 1026}
    (tmp_path / "out").mkdir()
    export.writer("gguf", "f32")(
        export.Whole(encoder, hparams, dict(store.random_tensors(hparams, 0))), tmp_path / "out"
    )
    fields = gguf.GGUFReader(tmp_path / "out" / "model-f32.gguf").fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert tokens[:1024] == list(export.vocabulary(encoder)) and tokens[1024:] == ["[PAD1024]", "[PAD1025]"]
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert kinds == [gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * 1023, *[gguf.TokenType.UNUSED] * 2]
    assert [fields[f"tokenizer.ggml.{key}"].contents() for key in ("model", "pre")] == ["gpt2", "gpt-2"]
    assert fields["tokenizer.ggml.merges"].contents() == list(encoder.bpe_ranks)
    sizes = {"vocab_size": 1026, "context_length": 32, "embedding_length": 24, "block_count": 2,
             "attention.head_count": 3, "feed_forward_length": 96}  # fmt: skip
    assert {key: fields[f"gpt2.{key}"].contents() for key in sizes} == sizes


def test_numbers_that_float16_cannot_hold_are_refused(gguf, tmp_path):
    encoder = get_encoder("shakespeare", SHAKESPEARE.parent)
    tensors = dict(store.random_tensors(TINY, 0))
    tensors["h1/mlp/c_proj/w"][3, 3] = -1e5
    whole = export.Whole(encoder, TINY, tensors)
    with pytest.raises(UserError, match="expected numbers up to 65504 in h1/mlp/c_proj/w for f16, found larger ones"):
        export.writer("gguf", "f16")(whole, tmp_path)
    export.writer("gguf", "f32")(whole, tmp_path)
    export.writer("gguf", "q8_0")(whole, tmp_path)
    tensors["h1/mlp/c_proj/w"][3, 3] = 1e7
    with pytest.raises(UserError, match="expected numbers up to 8319008 in h1/mlp/c_proj/w for q8_0, found larger"):
        export.writer("gguf", "q8_0")(whole, tmp_path)
    tensors["h1/mlp/c_proj/w"][3, 3] = np.nan
    with pytest.raises(UserError, match="in h1/mlp/c_proj/w for f32, found larger ones: the weights are damaged"):
        export.writer("gguf", "f32")(whole, tmp_path)


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0"])
def test_llama_cpp_gives_the_same_greedy_tokens(gguf, tmp_path, dtype):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: it runs the file")
    utils.export(SHAKESPEARE, tmp_path / "out", "gguf", dtype)
    ours = picogpt.load(SHAKESPEARE)
    llama = llama_cpp.Llama(str(tmp_path / "out" / f"model-{dtype}.gguf"), n_ctx=256, verbose=False)
    for text in TEXTS:
        assert llama.tokenize(text.encode(), add_bos=False) == ours.encode(text)
    ids = ours.encode(TEXTS[0])
    theirs = llama.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0)
    n = 10 if dtype == "q8_0" else 60  # rounding so far decides between two tokens sooner or later
    assert [next(theirs) for _ in range(n)] == list(ours.generate_ids(ids, n))


# whole or not at all


def failing(monkeypatch, error):
    def write(model, directory):
        (directory / "half").write_text("half")
        raise error

    monkeypatch.setattr(export, "writer", lambda *_: write)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), UserError("no")])
def test_an_export_that_fails_leaves_nothing(tiny, tmp_path, monkeypatch, error):
    failing(monkeypatch, error)
    with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
        utils.export(tiny, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_removed_by_the_next(tiny, tmp_path):
    code = f"""
import os, signal
from picogpt import utils
from picogpt.weights import export
def write(model, directory):
    (directory / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
export.writer = lambda *_: write
utils.export({str(tiny)!r}, {str(tmp_path / "out")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    utils.export(tiny, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_existing_path_is_refused_and_left_as_it_is(tiny, tmp_path):
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = snapshot(tmp_path)
    for name in before:
        with pytest.raises(UserError, match=f"{name}: expected the name of a new directory, found one that exists"):
            utils.export(tiny, tmp_path / name)
    with pytest.raises(UserError, match=r"expected a directory to make it in, found none: make .*/a first"):
        utils.export(tiny, tmp_path / "a" / "b")
    assert snapshot(tmp_path) == before


def test_a_full_disk_is_refused_before_anything_is_written(tiny, tmp_path, monkeypatch):
    with disks.small_disk(tmp_path / "disk", megabytes=1) as disk:
        with pytest.raises(UserError, match=r"expected 11\.7 MB of free disk \(for the export\), found 1\.05 MB"):
            utils.export(SHAKESPEARE, disk / "out")
        monkeypatch.setattr("picogpt.files.check_space", lambda *_: None)
        with pytest.raises(UserError, match="No space left on device"):
            utils.export(SHAKESPEARE, disk / "out")
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize(("kind", "package"), [("tf", "tensorflow"), ("gguf", "gguf")])
def test_a_missing_package_is_named_before_the_model_is_looked_for(tmp_path, monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UserError, match=rf'needs the package {package}, found none: pip install "picogpt-numpy\[{package}\]'
    ):
        utils.export("no such model", tmp_path / "out", kind)


# the command


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT | dict(os.environ)
    )


@pytest.mark.parametrize("program", [["picogpt.export"], ["picogpt.utils", "export"]])
def test_the_command_exports(tiny, tmp_path, program):
    done = command(*program, str(tiny), str(tmp_path / "out"), "--format", "hf")
    assert (done.returncode, done.stdout.strip()) == (0, "") and done.stderr.startswith("exported 28 tensors to ")
    assert (tmp_path / "out" / "model.safetensors").exists()
    done = command(*program, str(tiny), str(tmp_path / "out"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "one that exists" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "onnx"], "format: expected hf, tf, gguf, found 'onnx'"),
        (["--dtype", "f16"], "dtype: expected f32 for hf, found 'f16'"),
        (["--format", "gguf", "--dtype", "q4"], "dtype: expected f32, f16, q8_0 for gguf, found 'q4'"),
    ],
)
def test_formats_that_are_not_known_are_refused(tiny, tmp_path, flags, message):
    done = command("picogpt.export", str(tiny), str(tmp_path / "out"), *flags)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr
    assert list(tmp_path.iterdir()) == []
