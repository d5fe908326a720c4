"""The answers of PyTorch and transformers, and the program that writes them to tests/golden/pytorch.json.

    python -m parity.pytorch        # needs torch and transformers

Layers are compared with the functions of PyTorch, whole models with GPT2LMHeadModel. Inputs and weights are made from
seeds and are not stored. Of a large answer, the file holds one random sum of each row, so that every number counts.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity import golden
from parity.ours import N_TOP
from picogpt import utils
from picogpt.arrays import Array
from picogpt.commands import cli
from picogpt.errors import UserError
from picogpt.weights import store

GOLDEN_PATH = golden.GOLDEN_DIR / "pytorch.json"
ATTENTION = ((3, 2, 16), (3, 9, 16), (3, 9, 16), (2, 9))  # q, k, v, mask
MOST_NUMBERS = 1024  # larger answers are stored as random sums

MODELS = {
    "24x2x3": {"n_vocab": 97, "n_ctx": 32, "n_embd": 24, "n_head": 3, "n_layer": 2},
    "64x1x1": {"n_vocab": 50, "n_ctx": 80, "n_embd": 64, "n_head": 1, "n_layer": 1},
    "160x4x5": {"n_vocab": 300, "n_ctx": 100, "n_embd": 160, "n_head": 5, "n_layer": 4},
    "64x2x4": {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 64, "n_head": 4, "n_layer": 2},
}


def random_tensors(hparams: Mapping[str, int]) -> Iterable[tuple[str, Array]]:
    return store.random_tensors(hparams, seed=0, std=0.2)


def random_ids(hparams: Mapping[str, int], *shape: int) -> Array:
    return np.random.default_rng(1).integers(0, hparams["n_vocab"], shape)


def random_array(*shape: int, seed: int = 2) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def layers() -> dict[str, tuple[str, list[Array]]]:
    """The name of a function of gpt2.py and its arguments, by the name of the case."""
    cases = {
        "gelu": ("gelu", [np.linspace(-5, 5, 1001, dtype=np.float32)]),
        "softmax": ("softmax", [random_array(3, 4, 50) * 30]),
        "linear": ("linear", [random_array(2, 7, 24), random_array(24, 5), random_array(5)]),
        "attention": ("attention", [random_array(*shape, seed=i) for i, shape in enumerate(ATTENTION)]),
    }
    for scale in (1e-3, 1, 1e3):
        x = np.float32(scale) * (random_array(5, 64) + 3)
        cases[f"layer_norm of {scale:g}"] = ("layer_norm", [x, random_array(64, seed=3), random_array(64, seed=4)])
    for n_q, n_k in ((1, 1), (2, 2), (2, 9), (96, 96), (97, 97), (287, 287)):
        inputs = [random_array(2, 3, n, 16, seed=seed) for seed, n in enumerate((n_q, n_k, n_k))]
        cases[f"causal_attention {n_q} of {n_k}"] = ("causal_attention", inputs)
    return cases


def torch_functions() -> dict[str, Any]:
    """PyTorch's functions under the names of gpt2.py."""
    import torch
    from torch.nn import functional

    def causal_attention(q: Any, k: Any, v: Any) -> Any:
        n_q, n_k = q.shape[-2], k.shape[-2]
        may_look = torch.ones(n_q, n_k, dtype=torch.bool).tril(n_k - n_q)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=may_look)

    return {
        "gelu": lambda x: functional.gelu(x, approximate="tanh"),
        "softmax": lambda x: functional.softmax(x, -1),
        "linear": lambda x, w, b: functional.linear(x, w.T, b),
        "layer_norm": lambda x, g, b: functional.layer_norm(x, g.shape, g, b, eps=1e-5),
        "attention": functional.scaled_dot_product_attention,
        "causal_attention": causal_attention,
    }


def layer_answer(case: str) -> Array:
    import torch

    name, inputs = layers()[case]
    return torch_functions()[name](*map(torch.from_numpy, inputs)).numpy()


def model_answer(case: str) -> Array:  # -> [n_ctx, n_vocab]
    """The logits at every position of a random text that is as long as the model allows."""
    import torch

    hparams = MODELS[case]
    with torch.no_grad():
        ids = torch.from_numpy(random_ids(hparams, hparams["n_ctx"]))[None]
        return transformers_model(hparams, random_tensors(hparams))(ids).logits[0].numpy()


def answer(case: str) -> Array:
    """The whole answer of the PyTorch that is installed."""
    return model_answer(case) if case in MODELS else layer_answer(case)


def random_sums(x: Array) -> Array:  # [..., n] -> [...]
    """The sum of each row, with a random sign for every number, divided by sqrt(n): about as large as one of them."""
    n = x.shape[-1]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], n)
    sums = [row.astype(np.float64) @ signs / np.sqrt(n) for row in x.reshape(-1, n)]
    return np.reshape(sums, x.shape[:-1])


# the whole model, by transformers


def transformers_model(hparams: Mapping[str, int], tensors: Iterable[tuple[str, Array]]) -> Any:
    """GPT2LMHeadModel with these weights. The names of the tensors are OpenAI's."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {name: hparams[name] for name in ("n_embd", "n_head", "n_layer")}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(vocab_size=hparams["n_vocab"], n_positions=hparams["n_ctx"], **sizes, **ends)
    model = GPT2LMHeadModel(config).eval()
    state = {name_in_transformers(name): torch.from_numpy(np.array(tensor, order="C")) for name, tensor in tensors}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if (missing, unexpected) != (["lm_head.weight"], []):  # which is wte
        raise UserError(f"transformers expects other tensors: {missing} are missing, {unexpected} are not used")
    return model


def name_in_transformers(name: str) -> str:
    """From OpenAI's name of a tensor.

    >>> name_in_transformers("h0/attn/c_attn/w"), name_in_transformers("wte")
    ('transformer.h.0.attn.c_attn.weight', 'transformer.wte.weight')
    """
    name = re.sub(r"^h(\d+)/", r"h/\1/", name).replace("/", ".")
    name = re.sub(r"\.b$", ".bias", name)
    return "transformer." + re.sub(r"(\.[gw]|(?<=wte)|(?<=wpe))$", ".weight", name)


def continuations(job: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """A report on a job "continue", in the form of official.py's. It takes the ids of the prompts from our report."""
    import torch

    model_dir = Path(job["model_dir"])
    hparams = utils.read_hparams(model_dir / "hparams.json")
    model = transformers_model(hparams, store.open_tensors(model_dir, hparams).items())
    prompts = []
    for prompt in ours["prompts"]:
        inputs, past, top, logits = prompt["prompt_ids"], None, [], []
        for _ in range(job["n_tokens"]):
            with torch.no_grad():
                output = model(torch.tensor([inputs]), past_key_values=past, use_cache=True)
            past = output.past_key_values
            logits.append(output.logits[0, -1])
            values, best = logits[-1].topk(N_TOP)
            top.append(list(zip(best.tolist(), values.tolist(), strict=True)))
            inputs = best[:1].tolist()
        new_ids = [candidates[0][0] for candidates in top]
        prompts.append(prompt | {"new_ids": new_ids, "logits": logits[0].tolist(), "top": top})
    return {"prompts": prompts}


def main() -> None:
    argparse.ArgumentParser(prog="python -m parity.pytorch", description=__doc__.splitlines()[0]).parse_args()
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(f"expected torch and transformers, found no {error.name}: install both with pip") from None
    answers = {case: answer(case) for case in (*layers(), *MODELS)}
    stored = {case: (x if x.size <= MOST_NUMBERS else random_sums(x)).tolist() for case, x in answers.items()}
    world = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    golden.write(GOLDEN_PATH, {"made_by": "python -m parity.pytorch", "world": world, "answers": stored})


if __name__ == "__main__":
    with cli.clean_exit():
        main()
