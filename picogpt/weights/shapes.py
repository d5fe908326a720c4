"""The tensors of a GPT-2: the hyperparameters, and the names and shapes that follow from them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from picogpt import files
from picogpt.arrays import Array, Params
from picogpt.errors import UserError

# the largest values that are accepted; those of any GPT-2 are far smaller
LIMITS = {"n_vocab": 1 << 22, "n_ctx": 1 << 20, "n_embd": 1 << 16, "n_head": 1 << 16, "n_layer": 1 << 10}
HPARAMS = tuple(LIMITS)
MOST_PARAMETERS = 1 << 35  # 137 GB


def checked_hparams(values: Mapping[str, Any], where: Path, keys: Mapping[str, str] | None = None) -> dict[str, int]:
    """{"n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"} from an object that may contain anything.

    A model whose head is not wte has "own_head": True as well. `keys` maps the names to those of the file, if these
    differ. Raises UserError if one makes no sense, before anything of that size is allocated.
    """
    for name, limit in LIMITS.items():
        value, key = values.get(name), (keys or {}).get(name, name)
        if type(value) is not int or not 1 <= value <= limit:
            raise UserError(f"{where}: expected a whole number from 1 to {limit} as {key}, found {files.quoted(value)}")
    hparams = {name: values[name] for name in HPARAMS}
    if type(own_head := values.get("own_head", False)) is not bool:
        raise UserError(f"{where}: expected true or false as own_head, found {files.quoted(own_head)}")
    if own_head:
        hparams["own_head"] = True
    if hparams["n_embd"] % hparams["n_head"]:
        raise UserError(f"{where}: expected n_head to divide n_embd {hparams['n_embd']}, found {hparams['n_head']}")
    if (n_parameters := n_bytes(hparams) // 4) > MOST_PARAMETERS:
        raise UserError(f"{where}: expected at most {MOST_PARAMETERS} parameters, found {n_parameters}")
    return hparams


def param_shapes(hparams: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model, as in OpenAI's model.py: 4 + 12 * n_layer, or with a head one more."""
    n_embd = hparams["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {
        "wte": (hparams["n_vocab"], n_embd),
        "wpe": (hparams["n_ctx"], n_embd),
    }
    for layer in range(hparams["n_layer"]):
        block = f"h{layer}"
        shapes |= _affine(f"{block}/ln_1", n_embd)
        shapes |= _matrix(f"{block}/attn/c_attn", n_embd, 3 * n_embd)
        shapes |= _matrix(f"{block}/attn/c_proj", n_embd, n_embd)
        shapes |= _affine(f"{block}/ln_2", n_embd)
        shapes |= _matrix(f"{block}/mlp/c_fc", n_embd, 4 * n_embd)
        shapes |= _matrix(f"{block}/mlp/c_proj", 4 * n_embd, n_embd)
    shapes |= _affine("ln_f", n_embd)
    return shapes | ({"lm_head": shapes["wte"]} if hparams.get("own_head") else {})


def _affine(name: str, n: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/g": (n,), f"{name}/b": (n,)}


def _matrix(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/w": (n_in, n_out), f"{name}/b": (n_out,)}


def n_bytes(hparams: Mapping[str, int]) -> int:
    """The size of a model's tensors in memory, and on disk except for headers."""
    return 4 * sum(math.prod(shape) for shape in param_shapes(hparams).values())


def check_names(
    expected: Iterable[str], found: Iterable[str], where: Path | str, kind: type[UserError] = UserError
) -> None:
    """Raise UserError, or the given `kind` of it, if a tensor is missing or is not one of the model's."""
    wanted, there = set(expected), set(found)
    if missing := sorted(wanted - there):
        raise kind(f"{where}: expected the tensor {missing[0]}, which is missing{_more(missing)}")
    if extra := sorted(there - wanted):
        raise kind(f"{where}: found the tensor {extra[0][:80]}, which this model does not have{_more(extra)}")


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def nested(tensors: Mapping[str, Array]) -> Params:
    """{"h0/mlp/c_fc/w": ...} as {"blocks": [{"mlp": {"c_fc": {"w": ...}}}]}, the form that gpt2.py takes."""
    params: Params = {}
    for name, tensor in tensors.items():
        *path, last = name.split("/")
        node = params
        for key in path:
            node = node.setdefault(key, {})
        node[last] = tensor
    n_layer = sum(bool(re.fullmatch(r"h\d+", key)) for key in params)
    params["blocks"] = [params.pop(f"h{layer}") for layer in range(n_layer)]
    return params


def random_tensors(hparams: Mapping[str, int], seed: int, std: float = 0.02) -> Iterator[tuple[str, Array]]:
    """Seeded tensors of a model's shapes for tests and benchmarks: normal, gains around 1, the rest around 0."""
    rng = np.random.default_rng(seed)
    for name, shape in param_shapes(hparams).items():
        tensor = rng.standard_normal(shape, dtype=np.float32) * np.float32(std)
        yield name, tensor + np.float32(name.endswith("/g"))
