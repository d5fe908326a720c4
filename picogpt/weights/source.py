"""The interface of a source of weights: a directory with a GPT-2 in a published format.

A new format needs a subclass of `Source`, and a line in find.py that chooses it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from picogpt.arrays import Array
from picogpt.encoder import Encoder


class Known(NamedTuple):
    """What is known about a file before it is downloaded; None if unknown."""

    size: int | None = None
    sha256: str | None = None


class Source(ABC):
    """A directory with a tokenizer, hyperparameters and weights. Every method raises UserError for a bad file.

    can_fetch  whether missing files can be downloaded
    """

    can_fetch = False

    def __init__(self, directory: Path):
        self.directory = directory

    def fetch_small_files(self) -> None:  # noqa: B027 most cannot
        """Download the tokenizer and the hyperparameters if they are missing and this source can."""

    @abstractmethod
    def read_hparams(self) -> dict[str, int]:
        """{"n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"}, each checked."""

    @abstractmethod
    def read_encoder(self, hparams: Mapping[str, int]) -> Encoder:
        """The tokenizer."""

    @abstractmethod
    def fingerprint(self) -> str | None:
        """A string that identifies these weights, found without reading them; None if there are none."""

    def nothing_found(self) -> str:
        """The message for missing weights."""
        return f"{self.directory}: expected model.ckpt.index or model.safetensors, found neither: put one there"

    @abstractmethod
    def prepare(self, hparams: Mapping[str, int]) -> None:
        """Download and check all that `tensors` needs. The caller must hold the lock of the directory."""

    @abstractmethod
    def tensors(self, hparams: Mapping[str, int]) -> Iterator[tuple[str, Array]]:
        """(name, float32 array) of each tensor, in the order of `param_shapes`, read one at a time.

        Names and shapes are checked before the first is read.
        """

    def verify(self) -> list[str]:
        """Compare the files with their known sizes and digests, and return the names of these files."""
        return []

    def delete_checkpoint(self) -> None:  # noqa: B027
        """Delete the published weights and nothing else. Sources that cannot do this keep them."""
