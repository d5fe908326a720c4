"""Converted weights: damage is found, unreadable files are reported, and good weights open at once."""

import json
import math
import mmap
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from picogpt import files, gpt2, utils
from picogpt.errors import UserError
from picogpt.model import open_model
from picogpt.weights import store
from tests.helpers import ROOT, SHAKESPEARE, TINY, make_model, run, write_checkpoint

NAME = "h0/mlp/c_fc/w"
SHAPES = store.param_shapes(TINY)
SIZES = {name: -(-math.prod(shape) // 16) * 16 for name, shape in SHAPES.items()}  # with the zeros after each
OFFSET = sum(SIZES[name] for name in list(SHAPES)[: list(SHAPES).index(NAME)])


@pytest.fixture
def params(tmp_path):
    return make_model(tmp_path) / "params"


def load(params):
    return utils.load_params(params.parent.name, params.parent.parent, TINY)


def refused(params):
    with pytest.raises(UserError) as error:
        load(params)
    return str(error.value)


def flip(path, byte, mask=1):
    data = bytearray(path.read_bytes())
    data[byte] ^= mask
    path.write_bytes(data)


# damages: each is done to params/, and is found when the weights are opened


def other_bytes(change):
    def damage(params):
        path = params / "weights.npy"
        path.write_bytes(change(path.read_bytes()))

    return damage


def other_file(make):
    def damage(params):
        (params / "weights.npy").unlink()
        make(params / "weights.npy")

    return damage


def other_manifest(change):
    def damage(params):
        manifest = json.loads((params / "manifest.json").read_text())
        (params / "manifest.json").write_text(json.dumps(change(manifest)))

    return damage


def other_text(text):
    return lambda params: (params / "manifest.json").write_text(text)


def without(key):
    return lambda manifest: {name: value for name, value in manifest.items() if name != key}


def entry(**values):
    return lambda m: m | {"tensors": m["tensors"] | {NAME: m["tensors"][NAME] | values}}


N = store.HEADER + 4 * sum(SIZES.values())
DAMAGES = {
    "no data": (other_file(lambda path: None), r"weights\.npy: expected a file, found none"),
    "a directory": (other_file(os.mkdir), r"weights\.npy: expected a file, found a directory, a pipe or a device"),
    "a pipe": (other_file(os.mkfifo), r"weights\.npy: expected a file, found a directory, a pipe or a device"),
    "a device": (other_file(lambda path: path.symlink_to("/dev/zero")), r"weights\.npy: expected a file, found a dir"),
    "empty": (other_bytes(lambda data: b""), rf"weights\.npy: expected {N} bytes, found 0"),
    "cut": (other_bytes(lambda data: data[:-1]), rf"weights\.npy: expected {N} bytes, found {N - 1}"),
    "too long": (other_bytes(lambda data: data + b"x"), rf"weights\.npy: expected {N} bytes, found {N + 1}"),
    "another type": (
        other_bytes(lambda data: data.replace(b"<f4", b"<i4", 1)),
        "expected an array of .* float32, found",
    ),
    "another shape": (other_bytes(lambda data: data.replace(b"shape", b"shaqe", 1)), "found another header"),
    "a pickle": (other_file(lambda path: np.save(path, np.array([{}]), allow_pickle=True)), rf"expected {N} bytes"),
    "no manifest": (lambda params: (params / "manifest.json").unlink(), r"manifest\.json: expected a file, found none"),
    "no JSON": (other_text("{"), r"manifest\.json: expected JSON, found"),
    "a list": (other_text("[]"), r"manifest\.json: expected a JSON object, found \[\]"),
    "deep": (other_text("[" * 100_000), r"manifest\.json: expected JSON, found brackets nested too deeply"),
    "format 3": (other_manifest(lambda m: m | {"format": 3}), "expected format 2, found 3"),
    "format '2'": (other_manifest(lambda m: m | {"format": "2"}), "expected format 2, found '2'"),
    "format 1": (other_text('{"format": 1, "sha256": {}}'), "expected format 2, found 1"),
    "no tensors": (other_manifest(without("tensors")), "expected an object as tensors, found None"),
    "tensors null": (other_manifest(lambda m: m | {"tensors": None}), "expected an object as tensors, found None"),
    "one too few": (
        other_manifest(lambda m: m | {"tensors": without(NAME)(m["tensors"])}),
        f"expected the tensor {NAME}, which is missing",
    ),
    "one too many": (
        other_manifest(lambda m: m | {"tensors": m["tensors"] | {"h2/\x1b[31m": {}}}),
        r"found the tensor h2/\\x1b\[31m, which this model does not have",
    ),
    "no object": (other_manifest(lambda m: m | {"tensors": dict.fromkeys(m["tensors"])}), "expected wte of shape"),
    "shape": (other_manifest(entry(shape=[96, 24])), rf"expected {NAME} of shape \[24, 96\], found \[96, 24\]"),
    "offset": (other_manifest(entry(offset=0)), rf"expected {NAME} of offset {OFFSET}, found 0"),
    "order": (other_manifest(entry(order="A")), rf"expected {NAME} of order C or F, found 'A'"),
    "no order": (other_manifest(entry(order=[])), rf"expected {NAME} of order C or F, found \[\]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_named_with_what_to_do(params, damage):
    DAMAGES[damage][0](params)
    message = refused(params)
    assert re.search(DAMAGES[damage][1], message) and "\n" not in message
    assert message.endswith(f": put the checkpoint that it was made from into {params.parent} and run again")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_made_again_from_the_checkpoint_and_it_is_reported(params, damage, capsys):
    write_checkpoint(params.parent, seed=1)
    DAMAGES[damage][0](params)
    expected = dict(store.random_tensors(TINY, seed=1))[NAME]
    np.testing.assert_array_equal(load(params)["blocks"][0]["mlp"]["c_fc"]["w"], expected)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert re.search(DAMAGES[damage][1], first) and first.endswith(": converting the checkpoint again")
    assert last.startswith("converted 28 tensors, 159 kB, in ")
    assert {path.name for path in params.iterdir()} == {"weights.npy", "manifest.json"}
    assert not list(params.parent.glob(".params*"))


def test_a_file_in_the_place_of_the_directory_is_replaced(params):
    write_checkpoint(params.parent)
    for make in (lambda: params.write_text("x"), lambda: params.symlink_to("/nowhere"), os.mkfifo):
        shutil.rmtree(params)
        make() if make is not os.mkfifo else os.mkfifo(params)
        load(params)
        assert params.is_dir()


def test_any_flipped_bit_of_the_header_is_found(params):
    whole = (params / "weights.npy").read_bytes()
    for bit in range(8 * store.HEADER):
        flip(params / "weights.npy", bit // 8, 1 << bit % 8)
        assert "found another header" in refused(params)
        (params / "weights.npy").write_bytes(whole)


def test_hyperparameters_of_another_shape_with_as_many_numbers_are_reported(params):
    swapped = TINY | {"n_vocab": TINY["n_ctx"], "n_ctx": TINY["n_vocab"]}
    with pytest.raises(UserError, match=r"expected wte of shape \[32, 24\], found \[1024, 24\]"):
        store.open_params(params.parent, swapped)


# errors that are not damage


def test_a_file_that_cannot_be_read_now_is_reported_and_nothing_is_made_again(params, monkeypatch, capsys):
    write_checkpoint(params.parent)
    before = {path.name: path.stat().st_ino for path in params.iterdir()}
    really_open = os.open
    for name in ("weights.npy", "manifest.json"):
        for code, reason in ((24, "Too many open files"), (13, "Permission denied"), (5, "Input/output error")):

            def open_but(path, *arguments, name=name, code=code, reason=reason, **keywords):
                if str(path).endswith(name):
                    raise OSError(code, reason)
                return really_open(path, *arguments, **keywords)

            monkeypatch.setattr(files.os, "open", open_but)
            assert refused(params) == f"{params / name}: cannot read it: {reason}: {files.LATER}"
            monkeypatch.undo()
    monkeypatch.setattr(
        store.mmap, "mmap", lambda *_, **__: (_ for _ in ()).throw(OSError(12, "Cannot allocate memory"))
    )
    assert "cannot map it: [Errno 12] Cannot allocate memory" in refused(params)
    assert {path.name: path.stat().st_ino for path in params.iterdir()} == before
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="descriptors are counted in /dev/fd")
def test_a_model_keeps_one_file_open(params):
    def n_open():
        return len([*Path("/dev/fd").iterdir()])

    before = n_open()
    opened = load(params)
    assert n_open() == before + 1
    del opened
    assert n_open() == before


@pytest.mark.skipif(os.name == "nt", reason="ulimit is the shell's of other systems")
def test_a_model_of_many_layers_runs_where_few_files_may_be_open(tmp_path):
    make_model(tmp_path, hparams=TINY | {"n_layer": 48})
    command = f"ulimit -n 40; exec {sys.executable} gpt2.py A -n 3 --model_size tiny --draft_model tiny --models_dir "
    done = subprocess.run(["sh", "-c", command + str(tmp_path)], capture_output=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, b"")


# the form on disk


def test_weights_are_mapped_read_only(params):
    tensors = store.open_tensors(params.parent, TINY)
    assert list(tensors) == list(store.param_shapes(TINY))
    for tensor in tensors.values():
        assert tensor.dtype == np.float32 and tensor.flags.aligned and not tensor.flags.writeable
        assert tensor.ctypes.data % store.ALIGNMENT == 0
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
            tensor.flags.writeable = True
        while isinstance(tensor, np.ndarray):
            tensor = tensor.base
        assert isinstance(tensor.obj, mmap.mmap)


@pytest.mark.parametrize(
    ("avx512", "columns"),
    [
        (True, ["attn/c_attn/w", "attn/c_proj/w", "mlp/c_fc/w", "mlp/c_proj/w"]),
        (False, ["attn/c_proj/w", "mlp/c_proj/w"]),
    ],
)
def test_matrices_lie_in_the_order_that_is_quicker_here_and_are_read_in_any(tmp_path, monkeypatch, avx512, columns):
    """Without AVX-512 the rows of matrices with more outputs than inputs are contiguous, also those of wte.T."""
    monkeypatch.setattr(store, "has_avx512", lambda: avx512)
    hparams = TINY | {"own_head": True}
    tensors = dict(store.random_tensors(hparams, seed=3))
    store.save_params(iter(tensors.items()), tmp_path)
    monkeypatch.undo()
    loaded = store.open_tensors(tmp_path, hparams)
    contiguous = [name for name, tensor in loaded.items() if tensor.ndim == 2 and tensor.flags.f_contiguous]
    of_blocks = [f"h{layer}/{name}" for layer in range(TINY["n_layer"]) for name in columns]
    assert contiguous == [*([] if avx512 else ["wte"]), *of_blocks, *([] if avx512 else ["lm_head"])]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor)
    store.verify_params(tmp_path, hparams)


def test_reading_ahead_touches_every_page_and_changes_nothing(params, monkeypatch):
    started = []

    class Recorded:
        def __init__(self, target, args, daemon):
            assert daemon, "a command that ends does not wait for it"
            started.append((target, *args))

        def start(self):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(store, "Thread", Recorded)
    tensors = store.open_tensors(params.parent, TINY, ahead=True)
    ((touch, pages),) = started
    assert len(pages) == -(-(N - store.HEADER) // mmap.PAGESIZE) and pages.strides == (mmap.PAGESIZE,)
    touch(pages)
    for name, tensor in store.random_tensors(TINY, seed=0, std=0.2):
        np.testing.assert_array_equal(tensors[name], tensor)


def test_weights_that_cannot_be_opened_are_not_read_ahead(params):
    name, models_dir = params.parent.name, params.parent.parent
    assert utils.params_read_ahead(name, models_dir).keys() == utils.load_params(name, models_dir, TINY).keys()
    (params / "weights.npy").write_bytes(b"")
    assert utils.params_read_ahead(name, models_dir) is None
    with pytest.raises(UserError, match=r"weights\.npy: expected .* bytes, found 0"):
        open_model(name, models_dir, read_ahead=True).params  # noqa: B018


def test_any_program_that_reads_npy_files_reads_the_weights(params):
    array = np.load(params / "weights.npy", mmap_mode="r")
    entries = json.loads((params / "manifest.json").read_text())["tensors"]
    for name, tensor in store.random_tensors(TINY, seed=0, std=0.2):
        offset, shape, order = (entries[name][key] for key in ("offset", "shape", "order"))
        loaded = array[offset : offset + math.prod(shape)].reshape(shape, order=order)
        np.testing.assert_array_equal(loaded, tensor)


def test_shapes_that_are_no_multiples_of_64_bytes_are_kept_apart(tmp_path):
    hparams = {"n_vocab": 7, "n_ctx": 3, "n_embd": 5, "n_head": 1, "n_layer": 1}
    tensors = dict(store.random_tensors(hparams, seed=2))
    store.save_params(iter(tensors.items()), tmp_path)
    for name, tensor in store.open_tensors(tmp_path, hparams).items():
        np.testing.assert_array_equal(tensor, tensors[name])
        assert tensor.ctypes.data % 64 == 0
    store.verify_params(tmp_path, hparams)
    flip(tmp_path / "params" / "weights.npy", store.HEADER + 4 * 7 * 5)  # the first byte after wte
    with pytest.raises(UserError, match="expected zeros after wte, found a damaged file"):
        store.verify_params(tmp_path, hparams)


@pytest.mark.skipif(os.name == "nt", reason="modes are those of other systems")
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_weights_have_the_permissions_of_other_files(tmp_path, umask):
    before = os.umask(umask)
    try:
        params = make_model(tmp_path) / "params"
    finally:
        os.umask(before)
    assert params.stat().st_mode & 0o777 == 0o777 & ~umask
    assert {path.stat().st_mode & 0o777 for path in params.iterdir()} == {0o666 & ~umask}


def test_tensors_of_other_types_are_saved_as_float32(tmp_path):
    tensors = {name: tensor.astype(">f8") for name, tensor in store.random_tensors(TINY, seed=0)}
    store.save_params(iter(tensors.items()), tmp_path)
    for name, tensor in store.open_tensors(tmp_path, TINY).items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_writing_that_fails_leaves_nothing(tmp_path):
    def tensors():
        yield next(store.random_tensors(TINY, seed=0))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.save_params(tensors(), tmp_path)
    assert not [*tmp_path.iterdir()]


# the deep check


def verify(params, module="picogpt.verify"):
    words = ["verify"] * (module == "picogpt.utils") + [params.parent.name, "--models_dir", str(params.parent.parent)]
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("module", ["picogpt.verify", "picogpt.utils"])
def test_verify_reads_every_byte_and_says_so(params, module):
    done = verify(params, module)
    size = files.size((params / "weights.npy").stat().st_size)
    assert done.stdout == f"{params}: 28 tensors, {size}: every byte as it was written\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_verify_finds_every_flipped_bit_that_opening_cannot(params):
    rng = np.random.default_rng(0)
    for byte in (-1, store.HEADER, *rng.integers(store.HEADER, N, 20)):
        flip(params / "weights.npy", byte)
        load(params)
        with pytest.raises(UserError, match=r"expected .* with SHA-256 '\w{64}', found \w{64}|expected zeros"):
            store.verify_params(params.parent, TINY)
        flip(params / "weights.npy", byte)  # flipped back
    store.verify_params(params.parent, TINY)
    flip(params / "weights.npy", -40)  # the last of ln_f/b, before 32 bytes of zeros
    done = verify(params)
    assert (done.returncode, done.stdout) == (2, "") and "expected ln_f/b with SHA-256" in done.stderr


@pytest.mark.parametrize("digest", [None, "", 5, ["0" * 64]])
def test_a_manifest_without_a_digest_is_reported(params, digest):
    other_manifest(entry(sha256=digest))(params)
    load(params)
    with pytest.raises(UserError, match=f"expected {NAME} with SHA-256"):
        store.verify_params(params.parent, TINY)


def test_verify_needs_a_name():
    for module in ("picogpt.verify", "picogpt.utils"):
        done = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, cwd=ROOT)
        assert done.stderr == "python -m picogpt.verify: error: expected model_size, found nothing; see --help\n"
        assert done.returncode == 2


def test_help_is_given_where_docstrings_are_left_out():
    arguments = ["-OO", "-m", "picogpt.utils", "--help"]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "usage: python -m picogpt.verify MODEL_SIZE" in done.stdout


def test_the_bundled_model_is_as_it_was_written():
    hparams = utils.read_hparams(SHAKESPEARE / "hparams.json")
    assert store.verify_params(SHAKESPEARE, hparams) == (76, 11661440)


def test_the_manifest_agrees_with_sha256sum(params):
    entries = json.loads((params / "manifest.json").read_text())["tensors"]
    start = store.HEADER + 4 * OFFSET
    data = (params / "weights.npy").read_bytes()[start : start + 4 * math.prod(SHAPES[NAME])]
    sums = subprocess.run(["sha256sum"], input=data, capture_output=True, check=True)
    assert entries[NAME]["sha256"] == sums.stdout.split()[0].decode()


def test_damage_that_the_model_would_not_survive_leaves_no_traceback(params):
    for name in ("weights.npy", "manifest.json"):
        (params / name).unlink()
        os.mkfifo(params / name)
        done = run("A", "-n", "3", "--model_size", "tiny", "--models_dir", str(params.parent.parent))
        assert (
            done.returncode == 2
            and done.stderr.count(b"\n") == 1
            and f"{name}: expected a file".encode() in done.stderr
        )


def test_the_same_text_comes_from_mapped_and_from_loaded_weights(params):
    mapped = load(params)
    loaded = store.nested(dict(store.random_tensors(TINY, seed=0, std=0.2)))
    logits = [gpt2.gpt2([1, 2, 3], **params, n_head=3).copy() for params in (mapped, loaded)]
    np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)
