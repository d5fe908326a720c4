"""GPT-2 as Hugging Face's transformers saves it: config.json, model.safetensors, vocab.json and merges.txt.

A config may ask for features that this model does not have: everything that differs from OpenAI's GPT-2 is refused by
name. The tensors are those of OpenAI's checkpoints under other names (state_dict.py); they become float32.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from picogpt import files
from picogpt.arrays import Array
from picogpt.encoder import Encoder
from picogpt.errors import UserError
from picogpt.weights import openai
from picogpt.weights.shapes import checked_hparams, param_shapes
from picogpt.weights.source import Source
from picogpt.weights.state_dict import StateDict
from picogpt.weights.tokenizer_json import read_encoder

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # if the weights are split over several files

# key in config.json: the supported values; the first is the default of a missing key
EXPECTED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),  # three names of the tanh form
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True, False),
    "quantization_config": (None,),
}
HPARAMS = {
    "n_vocab": "vocab_size",
    "n_ctx": "n_positions",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}
PICKLE = "pytorch_model*.bin"  # what transformers saved before; one part or several
CONVERT = (
    'python -c "import sys; from transformers import GPT2LMHeadModel as Model; '
    'Model.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])"'
)


class Checkpoint(Source):
    """A directory that transformers saved."""

    def read_hparams(self) -> dict[str, int]:
        """A config's hyperparameters by OpenAI's names. Raises UserError for a feature that is not supported."""
        path = self.directory / CONFIG
        config = files.read_object(path)
        if (found := config.get("model_type")) != "gpt2":
            raise UserError(f"{path}: expected the model_type gpt2, found {files.quoted(found)}: only GPT-2 can be run")
        for key, values in EXPECTED.items():
            if (found := config.get(key, values[0])) not in values:
                raise _refused(path, key, " or ".join(map(repr, values)), found)
        sizes = {name: config.get(key, openai.HPARAMS["124M"][name]) for name, key in HPARAMS.items()}
        own_head = not config.get("tie_word_embeddings", True)
        hparams = checked_hparams(sizes | {"own_head": own_head}, path, HPARAMS)
        if (found := config.get("n_inner")) not in (None, 4 * hparams["n_embd"]):
            raise _refused(path, "n_inner", "4 * n_embd", found)
        return hparams

    def read_encoder(self, hparams: Mapping[str, int]) -> Encoder:
        return read_encoder(self.directory, hparams["n_vocab"])

    def fingerprint(self) -> str | None:
        """The size and the date of each file."""
        stats = [files.status(path) for path in self._weight_files()]
        return f"{WEIGHTS} {[(stat.st_size, stat.st_mtime_ns) for stat in stats]}" if stats else None

    def _weight_files(self) -> list[Path]:
        if files.is_there(self.directory / WEIGHTS):
            return [self.directory / WEIGHTS]
        if not files.is_there(self.directory / INDEX):
            return []
        names = file_names(self.directory / INDEX)
        for name in names:
            if not files.is_there(self.directory / name):
                raise UserError(f"{self.directory}: expected the file {name}, which {INDEX} names and which is missing")
        return [self.directory / name for name in names]

    def nothing_found(self) -> str:
        if not any(self.directory.glob(PICKLE)):
            return super().nothing_found()
        return (
            f"{self.directory}: expected {WEIGHTS}, found {PICKLE}, a pickle, and reading one may run any program: "
            f"if you trust it, convert it: {CONVERT} {shlex.quote(str(self.directory))}"
        )

    def prepare(self, hparams: Mapping[str, int]) -> None:
        with StateDict(self.directory, self._weight_files()) as found:
            found.check(param_shapes(hparams))

    def tensors(self, hparams: Mapping[str, int]) -> Iterator[tuple[str, Array]]:
        shapes = param_shapes(hparams)
        with StateDict(self.directory, self._weight_files()) as found:
            found.check(shapes)
            for name, shape in shapes.items():
                yield name, found.read(name, shape)


def _refused(path: Path, key: str, expected: str, found: Any) -> UserError:
    return UserError(f"{path}: expected {key} {expected}, found {files.quoted(found)}: this is not supported")


def file_names(path: Path) -> list[str]:
    """The names of the files in an index, which must be in its directory. Raises UserError."""
    weight_map = files.read_object(path, files.TABLE).get("weight_map")
    names: list[Any] = list(weight_map.values()) if isinstance(weight_map, dict) else [None]
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name or "\\" in name:
            raise UserError(
                f"{path}: expected names of files in weight_map, found {files.quoted(name)}: fetch it again"
            )
    return sorted(set(names))
