"""The tensors of a model in safetensors files, under the names that PyTorch programs give them.

transformers, nanoGPT and minGPT name them alike, "transformer.h.0.attn.c_attn.weight". nanoGPT and minGPT differ in

- the prefix "_orig_mod." of a compiled model
- matrices as [n_out, n_in], as torch.nn.Linear has them; transformers keeps OpenAI's [n_in, n_out]
- no biases at all, if the model was trained without them: they are zeros
- more rows of wte and lm_head than tokens: nanoGPT rounds their number up to a multiple of PADDING
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from picogpt import files
from picogpt.arrays import Array
from picogpt.errors import UserError
from picogpt.weights.shapes import check_names
from picogpt.weights.tensorfile import READ, TensorFile

PREFIX = re.compile(r"(_orig_mod\.)?(transformer\.)?")
LEAVES = {"w": "weight", "g": "weight", "b": "bias"}
HEAD = "lm_head.weight"
MASK = r"h\.\d+\.attn\.(bias|masked_bias)"  # constants, no weights
PADDING = 64


class StateDict:
    """The tensors in one or several files, by their keys without a prefix. Use it in a `with` statement."""

    def __init__(self, directory: Path, paths: list[Path]):
        self.directory = directory
        self.places: dict[str, tuple[TensorFile, str]] = {}
        with ExitStack() as opened:
            for path in paths:
                self._add(opened.enter_context(TensorFile(path)))
            self._opened = opened.pop_all()

    def _add(self, file: TensorFile) -> None:
        for key in file.entries:
            name = PREFIX.sub("", key, count=1)
            if name in self.places:
                expected = f"expected each tensor once, found {name[:80]} twice"
                raise UserError(f"{self.directory}: {expected}: fetch the files again")
            self.places[name] = file, key

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise UserError if names, shapes or dtypes are not those of the model, or if its head is another."""
        weights = {key for key in self.places if not re.fullmatch(MASK, key)}
        expected = {key_of(name): self._stored(name, shape) for name, shape in shapes.items()}
        if not any(key.endswith(".bias") for key in weights):
            expected = {key: shape for key, shape in expected.items() if not key.endswith(".bias")}
        tied = weights & {HEAD} - expected.keys()
        check_names(expected, weights - tied, self.directory)
        for key, shape in expected.items():
            self._check_tensor(key, shape)
        if tied and not np.array_equal(self._read(HEAD), self._read("wte.weight")):
            raise UserError(
                f"{self.directory}: expected {HEAD} equal to wte.weight, found another: if the model has a head of its "
                'own, write "tie_word_embeddings": false into config.json'
            )

    def _check_tensor(self, key: str, shape: tuple[int, ...]) -> None:
        file, full_key = self.places[key]
        entry = file.entries[full_key]
        if entry.shape != shape or entry.dtype not in READ:
            expected = f"expected {full_key} of shape {list(shape)} in {', '.join(READ)}"
            raise UserError(f"{self.directory}: {expected}, found {files.quoted(list(entry.shape))} in {entry.dtype}")

    def read(self, name: str, shape: tuple[int, ...]) -> Array:
        """The tensor that OpenAI calls `name`, as float32."""
        if (key := key_of(name)) not in self.places:
            return np.zeros(shape, np.float32)
        tensor = self._read(key)
        if name.endswith("/w") and self._is_transposed:
            return tensor.T
        return tensor[: shape[0]]  # wte and lm_head without their padding

    def _stored(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which a tensor of the model is stored."""
        if name.endswith("/w") and self._is_transposed:
            return shape[::-1]
        padded = -(-shape[0] // PADDING) * PADDING
        is_padded = name in ("wte", "lm_head") and self._shape(key_of(name))[:1] == (padded,)
        return (padded, *shape[1:]) if is_padded else shape

    @property
    def _is_transposed(self) -> bool:
        """Whether matrices are [n_out, n_in]: c_attn, the first, has three times as many outputs as inputs."""
        n_rows, n_columns = (*self._shape("h.0.attn.c_attn.weight"), 0, 0)[:2]
        return n_rows == 3 * n_columns > 0

    def _shape(self, key: str) -> tuple[int, ...]:
        file, full_key = self.places.get(key, (None, ""))
        return file.entries[full_key].shape if file else ()

    def _read(self, key: str) -> Array:
        file, full_key = self.places[key]
        return file.read(full_key)

    def __enter__(self) -> StateDict:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def key_of(name: str) -> str:
    """h0/attn/c_attn/w as h.0.attn.c_attn.weight, without the prefixes of some checkpoints."""
    path, _, leaf = re.sub(r"^h(\d+)", r"h.\1", name).replace("/", ".").rpartition(".")
    return f"{path}.{LEAVES[leaf]}" if leaf in LEAVES else f"{leaf}.weight"
