"""Models by their names on the Hugging Face Hub, from a server on loopback that answers as the Hub does."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import picogpt
from picogpt import utils
from picogpt.errors import UserError
from picogpt.weights import download, find, hub, huggingface, state_dict, store, tensorfile
from picogpt.weights.source import Known
from tests.helpers import ROOT, SHAKESPEARE, TINY, make_model, run
from tests.hub_server import COMMIT, TOKEN, HubServer

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: it downloads")
from huggingface_hub import constants
from huggingface_hub.utils import _http

CONFIG = {"model_type": "gpt2", "vocab_size": 1024, "n_positions": 32, "n_embd": 24, "n_head": 3, "n_layer": 2}
WEIGHTS, INDEX = huggingface.WEIGHTS, huggingface.INDEX
PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A directory with a converted random model, and the bytes of its files as transformers would save it."""
    home = make_model(tmp_path_factory.mktemp("made"))
    tensors = {state_dict.key_of(name): array for name, array in store.open_tensors(home, TINY).items()}
    names, parts = sorted(tensors), {}
    for path, keys in (WEIGHTS, names), (PARTS[0], names[:9]), (PARTS[1], names[9:]):
        tensorfile.save(home / path, {key: tensors[key] for key in keys}, {"format": "pt"})
        parts[path] = (home / path).read_bytes()
    small = {
        "config.json": json.dumps(CONFIG).encode(),
        "vocab.json": (SHAKESPEARE / "encoder.json").read_bytes(),
        "merges.txt": (SHAKESPEARE / "vocab.bpe").read_bytes(),
        "README.md": b"not needed",
        "pytorch_model.bin": b"not needed",
    }
    whole = small | {WEIGHTS: parts[WEIGHTS], "tf_model.h5": b"not needed"}
    weight_map = {key: PARTS[key not in names[:9]] for key in names}
    split = small | {INDEX: json.dumps({"weight_map": weight_map}).encode()} | {path: parts[path] for path in PARTS}
    return home, {"me/tiny": whole, "me/split": split, "me/pickle": small}


@pytest.fixture
def server(made, tmp_path, monkeypatch):
    """The server, and a cache that is empty."""
    with HubServer(made[1]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("PICOGPT_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        # what the library read from these variables when it was imported
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        yield server


def folder(tmp_path, name="me--tiny", commit=COMMIT):
    return tmp_path / "hf" / "hub" / f"models--{name}" / "snapshots" / commit


def assert_same(model, made):
    expected = store.open_tensors(made[0], TINY)
    np.testing.assert_array_equal(model.params["wte"], expected["wte"])
    np.testing.assert_array_equal(model.params["blocks"][1]["mlp"]["c_fc"]["w"], expected["h1/mlp/c_fc/w"])


def test_a_model_is_fetched_with_the_files_it_needs_and_later_opened_without_a_request(server, made):
    model = picogpt.load("hf:me/tiny")
    assert_same(model, made)
    assert model.encode("ROMEO") == picogpt.load("shakespeare", ROOT / "models").encode("ROMEO")
    assert sorted(server.asked()) == ["config.json", "merges.txt", WEIGHTS, "vocab.json"]
    server.requests.clear()
    assert_same(picogpt.load("hf:me/tiny"), made)
    assert server.requests == []


def test_the_weights_alone_can_be_asked_for_first(server, made):
    params = utils.load_params("hf:me/tiny", None, TINY)
    np.testing.assert_array_equal(params["wte"], store.open_tensors(made[0], TINY)["wte"])


def test_weights_in_several_files_are_fetched_and_a_broken_off_download_is_continued(server, made):
    kept = server.models["me/split"]
    server.models = {"me/split": {name: data for name, data in kept.items() if name != PARTS[1]}}
    with pytest.raises(UserError, match=f"hf:me/split: expected the file {PARTS[1]} there, found none"):
        picogpt.load("hf:me/split")
    server.models = {"me/split": kept}
    for path in hub.snapshot("hf:me/split").parent.parent.glob(f".no_exist/*/{PARTS[1]}"):
        path.unlink()
    server.requests.clear()
    assert_same(picogpt.load("hf:me/split"), made)
    assert server.asked() == [PARTS[1]]


def test_a_prompt_that_is_too_long_is_refused_before_the_weights_are_fetched(server):
    answer = run("x" * 40, "--model_size", "hf:me/tiny", env=dict(os.environ))
    assert answer.returncode == 2 and b"32" in answer.stderr
    assert sorted(server.asked()) == ["config.json", "merges.txt", "vocab.json"]


def test_the_command_and_verify_know_the_name(server, tmp_path):
    answer = run("Hello", "--model_size", "hf:me/tiny", "--n_tokens_to_generate", "3", env=dict(os.environ))
    assert answer.returncode == 0, answer.stderr
    assert b"Traceback" not in answer.stderr and b"converted 28 tensors" in answer.stderr
    assert len(answer.stdout) > 1
    command = [sys.executable, "-m", "picogpt.verify", "hf:me/tiny"]
    lines = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    assert lines[0] == (
        f"{folder(tmp_path)}: config.json, vocab.json, merges.txt, {WEIGHTS}: nothing differs from what was published"
    )
    assert "me--tiny-" in lines[1] and lines[1].endswith("28 tensors, 160 kB: every byte as it was written")


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1", COMMIT])
def test_a_revision_is_a_branch_a_tag_or_a_commit(server, made, revision):
    assert_same(picogpt.load(f"hf:me/tiny@{revision}"), made)
    first = next(path for method, path, _ in server.requests if method == "HEAD")
    assert first == f"/me/tiny/resolve/{revision.replace('/', '%2F')}/config.json"


def test_all_files_are_of_one_commit_and_a_new_commit_is_another_model(server, made, tmp_path):
    utils.load_encoder_and_hparams("hf:me/tiny")
    server.commit = "f" * 40  # between the small files and the weights
    picogpt.load("hf:me/tiny")
    assert (folder(tmp_path) / WEIGHTS).exists()
    picogpt.load("hf:me/tiny@" + "f" * 40)
    assert len(list((tmp_path / "cache" / "converted").glob("me--tiny-*/params"))) == 2


def test_a_token_is_sent_and_a_private_model_is_not_there_without_one(server, made, monkeypatch):
    server.private.add("me/tiny")
    with pytest.raises(UserError, match=r"hf:me/tiny: expected a model at .*, found none.*hf auth login.*HF_TOKEN"):
        picogpt.load("hf:me/tiny")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert_same(picogpt.load("hf:me/tiny"), made)


def refused(name, *words):
    with pytest.raises(UserError) as caught:
        picogpt.load(name)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_what_the_hub_refuses_is_said_in_one_line(server, tmp_path):
    server.gated.add("me/gated")
    refused("hf:me/gated", "hf:me/gated: its owner asks", f"{server.url}/me/gated", "hf auth login")
    refused("hf:me/none", "hf:me/none: expected a model at", "found none of this name")
    refused("hf:me/tiny@v9", "hf:me/tiny@v9: expected the revision v9, found none")
    refused(
        "hf:me/pickle", f"expected {WEIGHTS} there, found none", "pytorch_model*.bin", "save_pretrained", "me/pickle"
    )
    server.models = {"me/other": {"README.md": b"hello"}}
    refused("hf:me/other", "expected the file config.json there, found none")
    server.models = {"me/llama": {"config.json": b'{"model_type": "llama"}', "vocab.json": b"{}"}}
    refused("hf:me/llama", "expected the model_type gpt2, found 'llama'")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_server_that_is_ill_is_said_in_one_line(server, status):
    server.status = status
    refused("hf:me/tiny", "hf:me/tiny: cannot fetch it", str(status), "run again to continue")


def test_a_server_that_cannot_be_reached_is_named(server, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:1/{repo_id}/{revision}/{filename}")
    refused("hf:me/tiny", "cannot fetch it from http://127.0.0.1:1", "refused", "run again to continue")


def test_offline_only_the_cache_is_used(server, made, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("hf:me/tiny", "expected it in the cache", "HF_HUB_OFFLINE is set")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    picogpt.load("hf:me/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_same(picogpt.load("hf:me/tiny"), made)


def test_offline_a_cache_that_another_program_filled_is_enough(server, made, monkeypatch):
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "vocab.json", "merges.txt", WEIGHTS):
        hf_hub_download("me/tiny", name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_same(picogpt.load("hf:me/tiny"), made)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_damaged_file_in_the_cache_is_found_by_its_digest(server, tmp_path, name):
    utils.load_encoder_and_hparams("hf:me/tiny")
    from huggingface_hub import hf_hub_download

    hf_hub_download("me/tiny", WEIGHTS, revision=COMMIT)
    blob = (folder(tmp_path) / name).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + (b" " if name == WEIGHTS else b"\n}"))
    with pytest.raises(UserError, match=f"expected the digest {blob.name}, found .*: delete {blob}"):
        find.find("hf:me/tiny", None).source.prepare(TINY)
    blob.unlink()
    picogpt.load("hf:me/tiny")


NO_NAMES = ["hf:", "hf:gpt2", "hf:/x", "hf:a/b/c", "hf:a/..", "hf:../../x", "hf:a/b@", "hf:a/b@../c", "hf:a/b@c/../d",
            "hf:a/b c", "hf:a--b/c", "hf:a/b@\n", "hf:.a/b", "HF:a/b"]  # fmt: skip


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_without_a_request(server, name):
    with pytest.raises(UserError, match=r"expected (hf:OWNER/NAME|the name of a model)"):
        picogpt.load(name)
    assert server.requests == []


def test_a_commit_in_the_cache_that_is_none_is_not_followed(server, made, tmp_path):
    (refs := folder(tmp_path).parent.parent / "refs").mkdir(parents=True)
    (refs / "main").write_text("../../../../secret")
    assert hub.snapshot("hf:me/tiny").name == "unknown"
    assert_same(picogpt.load("hf:me/tiny"), made)


def test_verify_says_that_a_model_has_not_been_fetched(server):
    with pytest.raises(UserError, match=r"hf:me/tiny: expected it in the cache.*picogpt .* --model_size hf:me/tiny"):
        utils.load_encoder_and_hparams("hf:me/tiny", fetch=False)
    assert server.requests == []


def test_delete_checkpoint_leaves_the_cache_alone(server, capsys, tmp_path):
    picogpt.load("hf:me/tiny")
    utils.delete_checkpoint("hf:me/tiny")
    assert (folder(tmp_path) / WEIGHTS).exists() and "so its checkpoint stays" in capsys.readouterr().err


def test_without_the_library_the_extra_is_named(server, monkeypatch):
    for name in [*sys.modules]:
        if name.partition(".")[0] == "huggingface_hub":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("hf:me/tiny", "needs the package huggingface_hub", 'pip install "picogpt-numpy[hub]"')


@pytest.mark.parametrize(("size", "copy"), [("124M", "gpt2"), ("1558M", "gpt2-xl")])
def test_the_message_for_openais_server_names_the_hub(tmp_path, monkeypatch, size, copy):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UserError, match=f"--model_size hf:openai-community/{copy}, or use the bundled model"):
        download.fetch_all("http://127.0.0.1:1", ["checkpoint"], tmp_path / size, lambda name: Known())
