"""What a source of weights must do: a directory in the form in which somebody published a GPT-2.

A new form is a subclass of `Source`, and a line in find.py that chooses it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from picogpt.arrays import Array
from picogpt.encoder import Encoder


class Known(NamedTuple):
    """What is known of a file beforehand; None where it is not."""

    size: int | None = None
    sha256: str | None = None


class Source(ABC):
    """A directory with a tokenizer, hyperparameters and weights. Every method raises UserError for what is wrong there.

    can_fetch  can files that are missing be downloaded?
    """

    can_fetch = False

    def __init__(self, directory: Path):
        self.directory = directory

    def fetch_small_files(self) -> None:  # noqa: B027 most cannot
        """Download the tokenizer and the hyperparameters where they are missing, if this source can."""

    @abstractmethod
    def read_hparams(self) -> dict[str, int]:
        """{"n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"}, each checked."""

    @abstractmethod
    def read_encoder(self, hparams: Mapping[str, int]) -> Encoder:
        """The tokenizer."""

    @abstractmethod
    def fingerprint(self) -> str | None:
        """What tells these weights from others, found without reading them; None where there are none."""

    def nothing_found(self) -> str:
        """What to say where there are no weights."""
        return f"{self.directory}: expected model.ckpt.index or model.safetensors, found neither: put one there"

    @abstractmethod
    def prepare(self, hparams: Mapping[str, int]) -> None:
        """Fetch and check all that `tensors` needs. Only for whoever holds the lock of the directory."""

    @abstractmethod
    def tensors(self, hparams: Mapping[str, int]) -> Iterator[tuple[str, Array]]:
        """(name, float32 array) of each tensor, in the order of `param_shapes`, read one at a time.

        Names and shapes are checked before the first is read.
        """

    def verify(self) -> list[str]:
        """Compare the files with what is known of them, to the last byte; returns the names of these files."""
        return []

    def delete_checkpoint(self) -> None:  # noqa: B027
        """Delete the weights as they were published, and nothing else; a source that cannot leaves them."""
