"""All weights of a model in one vector, and GPT-2's initialization.

One vector makes an optimizer a few lines, a checkpoint one array, and the sum of two gradients one addition. The model
sees the same memory as the nested dicts that it knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from picogpt.arrays import Array, Params
from picogpt.weights.shapes import nested, param_shapes


class Vector:
    """A vector and, as views of it, the tensors of a model. Matrices come first, then gains and biases.

    values      [n], float32
    tensors     the views by their names, as "h0/attn/c_attn/w"
    params      the same views as a tree, as picogpt.gpt2 and picogpt.training take it
    n_matrices  where the matrices end: only these get weight decay

    >>> vector = Vector({"n_vocab": 11, "n_ctx": 8, "n_embd": 4, "n_head": 2, "n_layer": 1})
    >>> vector.values.size, vector.n_matrices
    (328, 268)
    >>> vector.params["blocks"][0]["mlp"]["c_fc"]["w"].shape
    (4, 16)
    """

    def __init__(self, hparams: Mapping[str, int]):
        shapes = param_shapes(hparams)
        order = sorted(shapes, key=lambda name: len(shapes[name]) == 1)  # a stable sort
        self.n_matrices = sum(math.prod(shape) for shape in shapes.values() if len(shape) > 1)
        self.values = np.zeros(sum(math.prod(shape) for shape in shapes.values()), np.float32)
        self.tensors, start = {}, 0
        for name in order:
            end = start + math.prod(shapes[name])
            self.tensors[name] = self.values[start:end].reshape(shapes[name])
            start = end
        self.tensors = {name: self.tensors[name] for name in shapes}
        self.params: Params = nested(self.tensors)

    def fill(self, tensors: Iterable[tuple[str, Array]]) -> None:
        """Copy tensors, (name, array) each, into the vector."""
        for name, tensor in tensors:
            self.tensors[name][...] = tensor


def flat(params: Params) -> Iterator[tuple[str, Array]]:
    """The tensors of a tree with their names: the inverse of `nested`.

    >>> tensors = {"wte": np.zeros((11, 4)), "h0/ln_1/g": np.ones(4)}
    >>> [name for name, _ in flat(nested(tensors))]
    ['wte', 'h0/ln_1/g']
    """
    for name, value in params.items():
        if name == "blocks":
            for i, block in enumerate(value):
                yield from ((f"h{i}/{rest}", tensor) for rest, tensor in flat(block))
        elif isinstance(value, dict):
            yield from ((f"{name}/{rest}", tensor) for rest, tensor in flat(value))
        else:
            yield name, value


def initial(hparams: Mapping[str, int], seed: int) -> Iterator[tuple[str, Array]]:
    """New weights as OpenAI's model.py has them: N(0, 0.02), positions N(0, 0.01), gains 1 and biases 0.

    The projections that end in the residual stream are scaled by 1/sqrt(2 n_layer), so that its variance does not grow
    with the depth (Radford et al. 2019, section 2.3).
    """
    rng = np.random.default_rng(seed)
    for name, shape in param_shapes(hparams).items():
        if len(shape) == 1:
            yield name, np.full(shape, float(name.endswith("/g")), np.float32)
            continue
        std = 0.01 if name == "wpe" else 0.02
        if name.endswith("/c_proj/w"):
            std /= math.sqrt(2 * hparams["n_layer"])
        yield name, rng.standard_normal(shape, np.float32) * np.float32(std)
