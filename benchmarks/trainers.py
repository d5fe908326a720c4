"""One trainer in a separate process, for training.py: python -m benchmarks.trainers NAME SHAPE N_CORES [CLONE]

SHAPE is a JSON object. Reads requests from stdin, one JSON line {"steps": n} each, and answers with one JSON line: the
loss and the seconds of every step. A step draws a batch, computes the loss and its gradient, limits the norm, and
updates the weights by AdamW. All trainers begin with the same weights and draw the same batches, so their losses agree.
CLONE is a directory with nanoGPT: its own model.py is used then.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from picogpt.training import memory
from picogpt.training.data import Windows
from picogpt.training.parameters import initial
from picogpt.training.settings import Settings

Step = Callable[[], float]

CONTEXTS = ExitStack()  # until the process ends
RATE, BETAS, EPS, DECAY, CLIP = 1e-3, (0.9, 0.99), 1e-8, 0.1, 1.0


def hparams_of(shape: dict[str, int]) -> dict[str, int]:
    return {name: shape[name] for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")}


def text(shape: dict[str, int]) -> Windows:
    tokens = np.random.default_rng(0).integers(0, shape["n_vocab"], 100_000)
    return Windows(tokens.astype(np.uint16), shape["n_seq"])


def batches(shape: dict[str, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Those that picogpt.training draws with seed 0."""
    data, step = text(shape), 0
    while True:
        inputs, targets = data.draw(np.random.default_rng([0, step]), shape["batch_size"])
        yield np.ascontiguousarray(inputs), np.ascontiguousarray(targets)
        step += 1


def picogpt(shape: dict[str, int], n_cores: int) -> Step:
    from picogpt.training.trainer import Trainer

    rate = {"learning_rate": RATE, "min_learning_rate": RATE, "warmup_steps": 0}
    optimizer = {"beta_1": BETAS[0], "beta_2": BETAS[1], "eps": EPS, "weight_decay": DECAY, "clip": CLIP}
    settings = Settings(batch_size=shape["batch_size"], **rate, **optimizer)
    trainer, data = Trainer(hparams_of(shape), settings, n_cores), text(shape)
    return lambda: trainer.train(data).loss


# PyTorch


def torch_step(model: Any, loss_of: Callable[[Any, Any], Any], shape: dict[str, int], n_cores: int) -> Step:
    """A step of a model whose weights are set already."""
    import torch

    torch.set_num_threads(n_cores)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPS, fused=True)
    rows = batches(shape)
    model.train()

    def step() -> float:
        inputs, targets = (torch.from_numpy(ids) for ids in next(rows))
        loss = loss_of(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def nano_model(shape: dict[str, int]) -> Any:
    """A GPT-2 as nanoGPT computes it: linear layers, PyTorch's own attention, a tied head."""
    import torch
    from torch import nn
    from torch.nn import functional

    width, n_head = shape["n_embd"], shape["n_head"]

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x: Any) -> Any:  # [n_rows, n_seq, n_embd] -> [n_rows, n_seq, n_embd]
            heads = [part.unflatten(-1, (n_head, -1)).transpose(1, 2) for part in self.c_attn(x).split(width, dim=-1)]
            y = functional.scaled_dot_product_attention(*heads, is_causal=True)
            return self.c_proj(y.transpose(1, 2).flatten(2))

    class MLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            return self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.attn, self.ln_2, self.mlp = nn.LayerNorm(width), Attention(), nn.LayerNorm(width), MLP()

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(shape["n_vocab"], width), nn.Embedding(shape["n_ctx"], width)
            self.h = nn.ModuleList(Block() for _ in range(shape["n_layer"]))
            self.ln_f = nn.LayerNorm(width)

        def forward(self, inputs: Any, targets: Any) -> Any:  # [n_rows, n_seq], [n_rows, n_seq] -> []
            x = self.wte(inputs) + self.wpe(torch.arange(inputs.shape[1]))
            for block in self.h:
                x = block(x)
            logits = self.ln_f(x) @ self.wte.weight.T
            return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return Model()


def nano_clone(shape: dict[str, int], clone: str) -> Any:
    """The model of nanoGPT's own model.py."""
    sys.path.insert(0, clone)
    from model import GPT, GPTConfig  # the clone's

    sizes = {name: shape[name] for name in ("n_layer", "n_head", "n_embd")}
    return GPT(GPTConfig(block_size=shape["n_ctx"], vocab_size=shape["n_vocab"], dropout=0.0, bias=True, **sizes))


def set_weights(model: Any, shape: dict[str, int], transposed: bool) -> None:
    """Copy picogpt's first weights into a module whose parameters have GPT-2's names."""
    import torch

    parameters = {name.removeprefix("transformer."): p for name, p in model.named_parameters()}
    leaves = {"g": "weight", "w": "weight", "b": "bias", "wte": "wte.weight", "wpe": "wpe.weight"}
    with torch.no_grad():
        for name, tensor in initial(hparams_of(shape), seed=0):
            *path, leaf = (f"h.{name[1:]}" if name[0] == "h" else name).split("/")
            turned = tensor.T if leaf == "w" and transposed else tensor
            parameters.pop(".".join([*path, leaves[leaf]])).copy_(torch.from_numpy(np.ascontiguousarray(turned)))
    assert not parameters, f"these have no weights: {list(parameters)}"


def nanogpt(shape: dict[str, int], n_cores: int, clone: str = "", compiled: bool = False) -> Step:
    import torch

    model = nano_clone(shape, clone) if clone else nano_model(shape)
    set_weights(model, shape, transposed=True)
    runs = torch.compile(model) if compiled else model
    if clone:
        return torch_step(model, lambda inputs, targets: runs(inputs, targets)[1], shape, n_cores)
    return torch_step(model, runs, shape, n_cores)


def nanogpt_compiled(shape: dict[str, int], n_cores: int, clone: str = "") -> Step:
    return nanogpt(shape, n_cores, clone, compiled=True)


def nanogpt_memory(shape: dict[str, int], n_cores: int, clone: str = "") -> Step:
    """With freed memory kept, as picogpt does."""
    CONTEXTS.enter_context(memory.kept())
    return nanogpt(shape, n_cores, clone)


def transformers(shape: dict[str, int], n_cores: int, compiled: bool = False) -> Step:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {name: shape[name] for name in ("n_layer", "n_head", "n_embd")}
    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(
        vocab_size=shape["n_vocab"], n_positions=shape["n_ctx"], attn_implementation="sdpa", use_cache=False,
        bos_token_id=0, eos_token_id=0, **sizes, **off,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    set_weights(model, shape, transposed=False)
    runs = torch.compile(model) if compiled else model

    def loss_of(inputs: Any, targets: Any) -> Any:
        return torch.nn.functional.cross_entropy(runs(inputs).logits.flatten(0, 1), targets.flatten())

    return torch_step(model, loss_of, shape, n_cores)


def transformers_compiled(shape: dict[str, int], n_cores: int) -> Step:
    return transformers(shape, n_cores, compiled=True)


TRAINERS: dict[str, Callable[..., Step]] = {
    "picogpt": picogpt,
    "nanoGPT": nanogpt,
    "nanoGPT, torch.compile": nanogpt_compiled,
    "transformers": transformers,
    "nanoGPT, memory kept": nanogpt_memory,
    "transformers, torch.compile": transformers_compiled,
}


def peak_memory() -> int:
    """The peak of this process's resident memory, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(name: str, shape: str, n_cores: str, clone: str = "") -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr  # for anything else that a trainer prints
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(n_cores)])
    more = (str(Path(clone).resolve()),) if clone and name.startswith("nanoGPT") else ()
    step = TRAINERS[name](json.loads(shape), int(n_cores), *more)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        losses, seconds = [], []
        for _ in range(json.loads(line)["steps"]):
            start = time.perf_counter()
            losses.append(step())
            seconds.append(time.perf_counter() - start)
        found = {"losses": losses, "seconds": seconds, "peak_memory": peak_memory()}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
