"""Checkpoints of nanoGPT and minGPT, turned into safetensors by the lines in docs/weights.md, give the same logits."""

import json
import re
import shutil
import sys
from unittest import mock

import numpy as np
import pytest

import picogpt
from picogpt.errors import UserError
from picogpt.weights import tensorfile
from picogpt.weights.shapes import param_shapes
from picogpt.weights.state_dict import PADDING, StateDict, key_of
from tests.helpers import ROOT, SHAKESPEARE, TINY

torch = pytest.importorskip("torch", reason="torch is not installed: nanoGPT and minGPT run on it")
pytest.importorskip("safetensors", reason="safetensors is not installed: it writes the files")
nn, functional = torch.nn, torch.nn.functional

IDS = [5, 1, 1000, 3, 3, 7, 500, 2]
ARGS = {"block_size": 32, "n_embd": 24, "n_head": 3, "n_layer": 2}
LINES = re.search(r"<<'END'\n(.*?)\nEND", (ROOT / "docs" / "weights.md").read_text(encoding="utf-8"), re.DOTALL)[1]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PICOGPT_CACHE_DIR", str(tmp_path / "cache"))


class Attention(nn.Module):
    def __init__(self, bias, mask):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(24, 72, bias=bias), nn.Linear(24, 24, bias=bias)
        if mask:  # minGPT, and nanoGPT without flash attention
            self.register_buffer("bias", torch.tril(torch.ones(32, 32)).view(1, 1, 32, 32))

    def forward(self, x):
        q, k, v = (t.view(*x.shape[:2], 3, 8).transpose(1, 2) for t in self.c_attn(x).split(24, dim=2))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(x.shape))


class Norm(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(24)), nn.Parameter(torch.zeros(24)) if bias else None

    def forward(self, x):
        return functional.layer_norm(x, (24,), self.weight, self.bias, 1e-5)


class Block(nn.Module):
    def __init__(self, bias, mask, form):
        super().__init__()
        self.ln_1, self.attn, self.ln_2, self.form = Norm(bias), Attention(bias, mask), Norm(bias), form
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(24, 96, bias=bias), "c_proj": nn.Linear(96, 24, bias=bias)})

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp.c_proj(functional.gelu(self.mlp.c_fc(self.ln_2(x)), approximate=self.form))


class Net(nn.Module):
    """A GPT whose tensors have the names that nanoGPT and minGPT give them."""

    def __init__(self, bias=True, mask=False, n_vocab=1024, tied=True, form="tanh"):
        super().__init__()
        blocks = nn.ModuleList([Block(bias, mask, form) for _ in range(2)])
        parts = {"wte": nn.Embedding(n_vocab, 24), "wpe": nn.Embedding(32, 24), "h": blocks, "ln_f": Norm(bias)}
        self.transformer, self.lm_head = nn.ModuleDict(parts), nn.Linear(24, n_vocab, bias=False)
        if tied:
            self.transformer.wte.weight = self.lm_head.weight
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))

    def forward(self, ids):
        t = self.transformer
        x = t.wte(ids) + t.wpe(torch.arange(ids.shape[1]))
        for block in t.h:
            x = block(x)
        return self.lm_head(t.ln_f(x))


def made(directory, state=None, n_vocab=1024, lines=LINES, **options):
    """The directory that the lines of the documentation make, and the logits of the model in PyTorch."""
    torch.manual_seed(0)
    net = Net(n_vocab=n_vocab, **options)
    state = (state or dict)(net.state_dict())
    args = ARGS | {"vocab_size": n_vocab, "bias": options.get("bias", True), "dropout": 0.0}
    checkpoint = {"model": state, "model_args": args, "iter_num": 5, "best_val_loss": torch.tensor(3.5), "config": {}}
    torch.save(checkpoint, directory / "ckpt.pt")
    with mock.patch.object(sys, "argv", ["-", str(directory / "ckpt.pt"), str(directory / "gpt")]):
        exec(lines, {})
    shutil.copy(SHAKESPEARE / "encoder.json", directory / "gpt" / "vocab.json")
    shutil.copy(SHAKESPEARE / "vocab.bpe", directory / "gpt" / "merges.txt")
    with torch.no_grad():
        return directory / "gpt", net(torch.tensor([IDS]))[0].numpy()


def compiled(state):
    return {f"_orig_mod.{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"mask": True, "tied": False}, {"state": compiled, "bias": False}],
    ids=["nanoGPT", "without biases", "with masks and a head, as minGPT", "compiled"],
)
def test_logits_are_those_of_pytorch(tmp_path, options):
    directory, expected = made(tmp_path, **options)
    model = picogpt.load(directory)
    assert model.hparams == TINY | ({} if options.get("tied", True) else {"own_head": True})
    np.testing.assert_allclose(model.logits(IDS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_a_padded_vocabulary_is_cut_to_the_tokens(tmp_path, tied):
    lines = LINES.replace("50257", "1001").replace("50304", "1024")
    assert lines != LINES and PADDING == 64 and -(-50257 // PADDING) * PADDING == 50304
    directory, expected = made(tmp_path, lines=lines, tied=tied)
    vocabulary = json.loads((directory / "vocab.json").read_text())
    few = {token: i for token, i in vocabulary.items() if i < 1001}
    (directory / "vocab.json").write_text(json.dumps(few))
    model = picogpt.load(directory)
    assert model.hparams["n_vocab"] == 1001 and model.params["wte"].shape == (1001, 24)
    np.testing.assert_allclose(model.logits(IDS), expected[:, :1001], rtol=1e-4, atol=1e-4)


def test_a_head_that_the_config_does_not_name_is_refused(tmp_path):
    directory, _ = made(tmp_path, tied=False)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(UserError, match=r'found another: if .* "tie_word_embeddings": false into config\.json'):
        picogpt.load(directory)


def test_the_form_of_gelu_makes_a_small_difference(tmp_path):
    directory, expected = made(tmp_path, form="none")
    difference = np.abs(picogpt.load(directory).logits(IDS) - expected).max() / np.abs(expected).max()
    assert 1e-6 < difference < 1e-2


# without the lines


def saved(directory, **changes):
    """The tensors of a model as nanoGPT has them, in one file; None leaves one out."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in param_shapes(TINY).items():
        shape = shape[::-1] if name.endswith("/w") else shape
        tensors[f"transformer.{key_of(name)}"] = rng.standard_normal(shape, np.float32)
    tensors = {key: value for key, value in (tensors | changes).items() if value is not None}
    tensorfile.save(directory / "model.safetensors", tensors)
    return tensors


def read(directory):
    with StateDict(directory, [directory / "model.safetensors"]) as found:
        found.check(param_shapes(TINY))
        return {name: found.read(name, shape) for name, shape in param_shapes(TINY).items()}


def test_square_matrices_are_transposed_like_the_others(tmp_path):
    stored, found = saved(tmp_path), read(tmp_path)
    for name in ("attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj"):
        expected = stored[f"transformer.{key_of(f'h1/{name}/w')}"].T
        np.testing.assert_array_equal(found[f"h1/{name}/w"], expected, strict=True)
    np.testing.assert_array_equal(found["wpe"], stored["transformer.wpe.weight"], strict=True)


def test_matrices_of_both_forms_in_one_file_are_refused(tmp_path):
    saved(tmp_path, **{"transformer.h.1.mlp.c_fc.weight": np.zeros((24, 96), np.float32)})
    with pytest.raises(UserError, match=r"c_fc.weight of shape \[96, 24\].*found \[24, 96\]"):
        read(tmp_path)


def test_one_missing_bias_is_named(tmp_path):
    saved(tmp_path, **{"transformer.h.1.ln_2.bias": None})
    with pytest.raises(UserError, match=r"expected the tensor h\.1\.ln_2\.bias, which is missing"):
        read(tmp_path)


@pytest.mark.parametrize("n_rows", [1023, 1025, 1088])
def test_another_number_of_rows_than_that_of_the_padding_is_refused(tmp_path, n_rows):
    saved(tmp_path, **{"transformer.wte.weight": np.zeros((n_rows, 24), np.float32)})
    with pytest.raises(UserError, match=rf"wte.weight of shape \[1024, 24\].*found \[{n_rows}, 24\]"):
        read(tmp_path)


@pytest.mark.parametrize("shape", [(), (72,), (72, 24, 1), (0, 0)])
def test_a_first_matrix_of_another_shape_is_refused(tmp_path, shape):
    saved(tmp_path, **{"transformer.h.0.attn.c_attn.weight": np.zeros(shape, np.float32)})
    with pytest.raises(UserError, match=r"expected transformer.* of shape"):
        read(tmp_path)
