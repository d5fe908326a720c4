"""A model with a head of its own, lm_head, instead of wte: every way to use it, its files, and its training."""

from __future__ import annotations

import json
import re
import signal

import numpy as np
import pytest

import picogpt
from parity import jobs
from picogpt import gpt2, reference, utils
from picogpt.commands import cli, train
from picogpt.decoding import window
from picogpt.errors import UserError
from picogpt.insight import page
from picogpt.model import Model
from picogpt.sampling import GREEDY
from picogpt.training import picture
from picogpt.training.model import loss_and_grads, losses
from picogpt.training.parameters import flat, initial
from picogpt.weights import store, tensorfile
from tests import small_run
from tests.helpers import TINY, make_model, random_model, refused, snapshot, write_small_files

OWN = TINY | {"own_head": True}
N_HEAD = TINY["n_head"]
IDS = [5, 1, 1000, 3, 3, 7, 500, 2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PICOGPT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models"), "own", OWN)


@pytest.fixture(scope="module")
def model(directory):
    return picogpt.load(directory)


def hidden(params, ids):  # [n_seq] -> [n_seq, n_embd]
    """What the head is multiplied with, from the blocks of reference.py."""
    x = params["wte"][ids] + params["wpe"][: len(ids)]
    for block in params["blocks"]:
        x = reference.transformer_block(x, **block, n_head=N_HEAD)
    return reference.layer_norm(x, **params["ln_f"])


def plain(model, ids):  # [n_seq] -> [n_seq, n_vocab]
    return hidden(model.params, ids) @ model.params["lm_head"].T


def greedy(model, ids, n, n_ctx=None):
    """The n tokens that follow, each the likeliest after the last n_ctx ones, without a cache."""
    ids = list(ids)
    for _ in range(n):
        ids.append(int(plain(model, ids[-n_ctx:] if n_ctx else ids)[-1].argmax()))
    return ids[len(ids) - n :]


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


# running it


def test_a_converted_model_has_its_head(directory, model):
    assert model.hparams == OWN and list(model.params) == ["wte", "wpe", "ln_f", "lm_head", "blocks"]
    np.testing.assert_array_equal(model.params["lm_head"], dict(store.random_tensors(OWN, 0, std=0.2))["lm_head"])
    assert store.verify_params(directory, OWN)[0] == 4 + 12 * 2 + 1
    tied = dict(store.random_tensors(TINY, 0, std=0.2))
    assert all((tied[name] == tensor).all() for name, tensor in flat(model.params) if name != "lm_head")


def test_logits(model):
    expected = plain(model, IDS)
    close(model.logits(IDS), expected)
    close(reference.gpt2(IDS, **model.params, n_head=N_HEAD), expected)
    cache = gpt2.new_cache(model.params, N_HEAD, 10)
    close(gpt2.next_logits(IDS, model.params, N_HEAD, cache, n_last=3), expected[-3:])
    tied = Model(model.encoder, TINY, {name: model.params[name] for name in ("wte", "wpe", "blocks", "ln_f")})
    close(tied.logits(IDS), hidden(tied.params, IDS) @ tied.params["wte"].T)


def test_generation_in_every_way(model):
    expected = greedy(model, IDS, 12)
    assert reference.generate(IDS, model.params, N_HEAD, 12) == expected
    for how in ({}, {"lookahead": False}, {"draft": model}, {"draft": random_model()}, {"edit": {}}):
        assert list(model.generate_ids(IDS, 12, **how)) == expected, how
    assert list(model.sample_ids(IDS, 2, 12)) == [[token_id] * 2 for token_id in expected]
    prompts = [IDS, IDS[:3], IDS[2:]]
    texts = list(model.generate_many(prompts, 12, batch_size=2))
    assert texts == [model.decode(greedy(model, prompt, 12)) for prompt in prompts]
    assert list(model.generate_ids(IDS, 30, sliding_window="crop")) == greedy(model, IDS, 30, n_ctx=32)
    best = model.beam_search(IDS, 4, num_beams=3)[0]
    assert best.score == pytest.approx(model.score(IDS + best.ids)[-4:].sum() / 4, abs=1e-4)


def test_close_choices_are_computed_again_with_it(model):
    [chooser] = gpt2.choosers(IDS, model.params, N_HEAD, GREEDY)
    close(chooser.again(IDS), plain(model, IDS)[-1])
    close(window.again(model.params, N_HEAD, "half")(IDS), plain(model, IDS)[-1])


def test_a_draft_may_have_another_head_than_the_model(model):
    tied = random_model()
    assert list(tied.generate_ids(IDS, 12, draft=model)) == list(tied.generate_ids(IDS, 12))


def test_scores(model):
    at = plain(model, IDS[:-1]).astype(np.float64)
    at -= np.log(np.exp(at).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(model.score(IDS), at[np.arange(len(IDS) - 1), IDS[1:]], rtol=1e-5, atol=1e-4)


def test_traces(model):
    trace, params = model.trace(IDS), model.params
    close(trace["logits"], plain(model, IDS))
    lens = trace.logit_lens()
    close(lens[-1], trace["logits"])
    close(lens[1], reference.layer_norm(trace["h1.resid_pre"], **params["ln_f"]) @ params["lm_head"].T)
    added = trace.attribution(300, minus=7)
    assert added.logit == pytest.approx(trace["logits"][-1, 300] - trace["logits"][-1, 7], abs=1e-5)
    assert sum(added.parts().values()) == pytest.approx(added.logit, rel=1e-5, abs=1e-4)
    assert page.data(trace)["model"]["own_head"] and not page.data(random_model().trace(IDS))["model"]["own_head"]


# its files


def test_files_that_do_not_fit_are_refused(directory, tmp_path):
    write_small_files(tmp_path / "word", TINY | {"own_head": "yes"})
    with pytest.raises(UserError, match=r"hparams\.json: expected true or false as own_head, found 'yes'"):
        utils.load_encoder_and_hparams(tmp_path / "word")
    write_small_files(tmp_path / "tied", TINY | {"own_head": False})
    assert utils.load_encoder_and_hparams(tmp_path / "tied")[1] == TINY
    for made, read, message in (
        (TINY, OWN, "expected the tensor lm_head, which is missing"),
        (OWN, TINY, "found the tensor lm_head, which this model does not have"),
    ):
        model_dir = make_model(tmp_path, message[:8], made)
        (model_dir / "hparams.json").write_text(json.dumps(read))
        with pytest.raises(UserError, match=message):
            picogpt.load(model_dir).params  # noqa: B018


def test_transformers_runs_an_export_and_saves_the_same_bytes(directory, model, tmp_path):
    utils.export(directory, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    again = picogpt.load(tmp_path / "out")
    assert again.hparams == OWN
    for (name, found), (_, expected) in zip(flat(again.params), flat(model.params), strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=name)
    utils.export(tmp_path / "out", tmp_path / "second")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "second")

    torch = pytest.importorskip("torch", reason="torch is not installed: transformers runs on it")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: it is the oracle")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        close(model.logits(IDS), theirs(torch.tensor([IDS])).logits[0].numpy())
    theirs.save_pretrained(tmp_path / "saved")
    file = "model.safetensors"
    assert (tmp_path / "saved" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()


def test_a_directory_of_transformers_whose_config_does_not_fit_is_refused(directory, tmp_path):
    utils.export(directory, tmp_path / "own")
    utils.export(make_model(tmp_path, "made"), tmp_path / "tied")
    for name, tied in ("own", True), ("tied", False):
        path = tmp_path / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": tied}))
    with refused(tmp_path / "own", "expected lm_head.weight equal to wte.weight, found another: ", "config.json"):
        picogpt.load(tmp_path / "own").params  # noqa: B018
    with refused(tmp_path / "tied", "expected the tensor lm_head.weight, which is missing"):
        picogpt.load(tmp_path / "tied").params  # noqa: B018


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_gguf_has_it_as_output(directory, model, tmp_path, dtype):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed: it writes the file")
    utils.export(directory, tmp_path / "out", "gguf", dtype)
    path = tmp_path / "out" / f"model-{dtype}.gguf"
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    kind = np.float32 if dtype == "f32" else np.float16
    np.testing.assert_array_equal(found["output.weight"], model.params["lm_head"].astype(kind), strict=True)
    np.testing.assert_array_equal(found["token_embd.weight"], model.params["wte"].astype(kind), strict=True)


def test_llama_cpp_gives_the_same_greedy_tokens(directory, model, tmp_path):
    pytest.importorskip("gguf", reason="gguf is not installed: it writes the file")
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: it runs the file")
    utils.export(directory, tmp_path / "out", "gguf")
    llama = llama_cpp.Llama(str(tmp_path / "out" / "model-f32.gguf"), n_ctx=32, verbose=False)
    theirs = llama.generate(IDS, top_k=1, temp=0.0, repeat_penalty=1.0)
    assert [next(theirs) for _ in range(20)] == list(model.generate_ids(IDS, 20))


def test_openais_format_has_no_place_for_it(directory, tmp_path):
    pytest.importorskip("tensorflow", reason="tensorflow is not installed: it writes the checkpoint")
    with refused(tmp_path, "a head of its own, for which OpenAI's format has no place", "--format hf or gguf"):
        utils.export(directory, tmp_path / "out", "tf")


def test_openais_code_cannot_run_it(directory, tmp_path):
    with pytest.raises(UserError, match="expected wte as the head, found a head of its own, which"):
        jobs.find_model(str(directory), tmp_path, tmp_path)


# training it


def test_losses_and_gradients(model):
    """That of the head is known in closed form; tests/test_gradients.py has those of all tensors."""
    inputs, targets = np.array(IDS[:-1]), np.array(IDS[1:])
    at = plain(model, inputs).astype(np.float64)
    p = np.exp(at) / np.exp(at).sum(axis=-1, keepdims=True)
    expected = -np.log(p[np.arange(len(p)), targets])
    np.testing.assert_allclose(losses(model.params, inputs, targets, N_HEAD), expected, rtol=1e-4, atol=1e-4)
    loss, grads = loss_and_grads(model.params, inputs, targets, N_HEAD)
    assert loss == pytest.approx(expected.mean(), rel=1e-5)
    p[np.arange(len(p)), targets] -= 1
    close(grads["lm_head"], p.T @ hidden(model.params, inputs) / len(p))
    seen = np.isin(np.arange(TINY["n_vocab"]), inputs)
    assert grads["wte"][seen].any() and not grads["wte"][~seen].any()


def test_first_weights():
    tensors, tied = dict(initial(OWN, seed=3)), dict(initial(TINY, seed=3))
    assert all((tensors[name] == tensor).all() for name, tensor in tied.items())
    head = tensors["lm_head"]
    assert head.std() == pytest.approx(0.02, rel=0.05) and (head != tensors["wte"]).any()


def test_train_goes_on_with_it(model):
    tokens = np.arange(300) % 7
    params = picogpt.training.train(model.params, tokens, N_HEAD, n_ctx=8, steps=3, batch_size=2, weight_decay=0.5)
    assert params["lm_head"].shape == (1024, 24)
    rates = [(params[name][900] / model.params[name][900]).mean() for name in ("wte", "lm_head")]
    assert (params["lm_head"][:7] != model.params["lm_head"][:7]).all()
    assert rates[0] == pytest.approx(1 - 0.5 * sum((1e-5, 2e-5, 3e-5)), abs=1e-6)  # decay alone: it is not in the text


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(small_run, "HPARAMS", small_run.HPARAMS | {"own_head": True})
    for name in ("whole", "run"):
        small_run.prepare(tmp_path / name)
    small_run.go_on(tmp_path / "whole")

    def stop(step, steps=[]):  # noqa: B006
        steps.append(step)
        if len(steps) == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        small_run.go_on(tmp_path / "run", on_step=stop)
    small_run.go_on(tmp_path / "run")
    assert small_run.outcome(tmp_path / "run") == small_run.outcome(tmp_path / "whole")
    with tensorfile.TensorFile(tmp_path / "run" / small_run.STATE) as file:
        tied = sum(tensor.size for _, tensor in store.random_tensors(small_run.HPARAMS | {"own_head": False}, 0))
        assert file.read("averaged").size == tied + 1024 * 12


SMALL = [
    *("--n_layer", "1", "--n_head", "2", "--n_embd", "16", "--n_ctx", "16", "--batch_size", "4", "--steps", "4"),
    *("--evaluate_every", "2", "--n_threads", "1"),
]


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(picture, "draw", lambda run: None)
    (tmp_path / "text.txt").write_text("Speak, speak! It's 1607.\n" * 40)
    cli.run(train.main, ["text.txt", "--output_dir", "out", "--own_head", "--sample", "Speak", *SMALL])
    assert "own_head = true" in (tmp_path / "out" / "settings.toml").read_text()
    first = picogpt.load("./out")
    assert first.hparams["own_head"] is True and first.generate("Speak", 3)
    with pytest.raises(UserError, match="--own_head: expected True, with which the run"):
        cli.run(train.main, ["--output_dir", "out", "--resume", "--noown_head"])
    cli.run(train.main, ["--output_dir", "out", "--resume"])
    cli.run(train.main, ["text.txt", "--output_dir", "tuned", "--start_from", "./out", *SMALL[6:]])
    tuned = picogpt.load("./tuned")
    assert tuned.hparams == first.hparams and (tuned.params["lm_head"] != first.params["lm_head"]).any()
    message = r"--own_head: expected False beside --start_from shakespeare, found True: leave it out"
    with pytest.raises(UserError, match=message):
        cli.run(train.main, ["text.txt", "--output_dir", "no", "--start_from", "shakespeare", "--own_head"])
    assert re.search(r"step 4: loss", capsys.readouterr().out)
