"""OpenAI's models as they were published: their files, where these come from, and how they are read.

The SHA-256 of all seven files are known for 124M, and the sizes for 355M. A data file holds 4 bytes a parameter, which
gives its size for the other two. encoder.json and vocab.bpe are the same for all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from picogpt import files, published
from picogpt.arrays import Array
from picogpt.encoder import Encoder
from picogpt.errors import UserError
from picogpt.weights.shapes import checked_hparams, n_bytes
from picogpt.weights.source import Known, Source

DATA = "model.ckpt.data-00000-of-00001"
TOKENIZER_FILES = ("hparams.json", "encoder.json", "vocab.bpe")
CHECKPOINT_FILES = ("checkpoint", "model.ckpt.index", "model.ckpt.meta", DATA)

HPARAMS = {
    model_size: {"n_vocab": 50257, "n_ctx": 1024, "n_embd": n_embd, "n_head": n_head, "n_layer": n_layer}
    for model_size, n_embd, n_head, n_layer in (
        ("124M", 768, 12, 12), ("355M", 1024, 16, 24), ("774M", 1280, 20, 36), ("1558M", 1600, 25, 48)
    )
}  # fmt: skip


TOKENIZER = {name: Known(*values) for name, values in published.FILES.items()}
KNOWN: dict[str, dict[str, Known]] = {
    "124M": {
        **TOKENIZER,
        "hparams.json": Known(90, "d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318"),
        "checkpoint": Known(77, "dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb"),
        "model.ckpt.index": Known(5215, "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687"),
        "model.ckpt.meta": Known(471155, "4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b"),
        DATA: Known(497759232, "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118"),
    },
    "355M": {
        **TOKENIZER,
        "hparams.json": Known(91),
        "model.ckpt.index": Known(10399),
        "model.ckpt.meta": Known(926519),
        DATA: Known(1419292672),
    },
    "774M": {**TOKENIZER, DATA: Known(3096120320)},
    "1558M": {**TOKENIZER, DATA: Known(6230444800)},
}


def known(model_size: str, name: str) -> Known:
    return KNOWN.get(model_size, {}).get(name, Known())


def missing(model_dir: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if not files.is_there(model_dir / name)]


def read_hparams(path: Path) -> dict[str, int]:
    """The hyperparameters in a hparams.json. Raises UserError if one makes no sense."""
    return checked_hparams(files.read_object(path), path)


def check_files(model_size: str, model_dir: Path, names: Iterable[str], deep: bool = False) -> None:
    """Raise UserError for a file that differs from OpenAI's in its size or, if `deep`, its SHA-256."""
    advice = "delete it and run again, so that it is fetched again, or put the right one there"
    there = [name for name in names if files.is_there(model_dir / name)]
    for path, (size, _) in ((model_dir / name, known(model_size, name)) for name in there):
        if size not in (None, found := files.status(path, advice).st_size):
            raise UserError(f"{path}: expected {size} bytes, found {found}: {advice}")
    for path, (_, sha256) in ((model_dir / name, known(model_size, name)) for name in there if deep):
        if sha256 and sha256 != (digest := files.digest(path, "sha256").hex()):
            raise UserError(f"{path}: expected SHA-256 {sha256}, found {digest}: {advice}")


class Checkpoint(Source):
    """A directory with hparams.json, encoder.json, vocab.bpe and a TensorFlow checkpoint."""

    def read_hparams(self) -> dict[str, int]:
        return read_hparams(self.directory / "hparams.json")

    def read_encoder(self, hparams: Mapping[str, int]) -> Encoder:
        return published.tokenizer(self.directory)

    def prefix(self) -> Path:
        """The prefix of the checkpoint's files: the one that the file `checkpoint` names, or model.ckpt."""
        try:
            text = files.read_text(self.directory / "checkpoint")
        except files.UnreadableError:
            raise
        except UserError:
            text = ""
        found = re.search(r'^model_checkpoint_path: "([^"]+)"', text, re.MULTILINE)
        name = Path(found[1]).name if found else ""
        return self.directory / (name if name not in ("", "..") else "model.ckpt")

    def _checkpoint_files(self) -> list[Path]:
        """The index and what belongs to it."""
        name = self.prefix().name
        data = [path for path in self.directory.iterdir() if path.name.startswith(f"{name}.data-")]
        return [self.directory / f"{name}.index", self.directory / f"{name}.meta", *data]

    def fingerprint(self) -> str | None:
        """The SHA-256 of the index, which holds a checksum of every tensor."""
        index = self.directory / f"{self.prefix().name}.index"
        if not files.is_there(index):
            return None
        return f"{index.name} {files.sha256(files.read_bytes(index, files.TABLE))}"

    def prepare(self, hparams: Mapping[str, int]) -> None:
        from picogpt.weights import variables  # converted weights are opened without it

        variables.check(self.prefix(), hparams)

    def tensors(self, hparams: Mapping[str, int]) -> Iterator[tuple[str, Array]]:
        from picogpt.weights import variables

        return variables.tensors(self.prefix(), hparams)

    def delete_checkpoint(self) -> None:
        with files.explained(self.directory):
            for path in (*self._checkpoint_files(), self.directory / "checkpoint"):
                path.unlink(missing_ok=True)


class Published(Checkpoint):
    """One of OpenAI's models, whose files are known and can be downloaded."""

    can_fetch = True

    def __init__(self, directory: Path, model_size: str):
        super().__init__(directory)
        self.model_size = model_size

    def read_encoder(self, hparams: Mapping[str, int]) -> Encoder:
        if hparams == HPARAMS[self.model_size]:
            check_files(self.model_size, self.directory, TOKENIZER)
        return super().read_encoder(hparams)

    def fetch_small_files(self) -> None:
        if missing(self.directory, TOKENIZER_FILES):
            with files.only_one(self.directory):
                self._fetch(missing(self.directory, TOKENIZER_FILES))

    def prepare(self, hparams: Mapping[str, int]) -> None:
        self._check_hparams(self.directory / "hparams.json", hparams)
        self._check_space(n_bytes(hparams))
        self._fetch(missing(self.directory, CHECKPOINT_FILES))
        check_files(self.model_size, self.directory, TOKENIZER_FILES + CHECKPOINT_FILES, deep=True)
        super().prepare(hparams)

    def verify(self) -> list[str]:
        there = [name for name in KNOWN[self.model_size] if files.is_there(self.directory / name)]
        check_files(self.model_size, self.directory, there, deep=True)
        return there

    def _check_hparams(self, path: Path, found: Mapping[str, int]) -> None:
        if found != (expected := HPARAMS[self.model_size]):
            raise UserError(f"{path}: expected {expected}, found {dict(found)}: put OpenAI's there")

    def _check_space(self, converted: int) -> None:
        to_fetch = sum(
            known(self.model_size, name).size or 1 << 20 for name in missing(self.directory, CHECKPOINT_FILES)
        )
        to_fetch -= sum(path.lstat().st_size for path in self.directory.glob("*.part"))
        purpose = f"{files.size(to_fetch)} to fetch, {files.size(converted)} converted"
        files.check_space(self.directory, to_fetch + converted, purpose)

    def _fetch(self, names: list[str]) -> None:
        """Download files. The caller must hold the lock of the directory."""
        if names:
            from picogpt.weights import download  # imports requests, which is only needed here

            url = f"{download.weights_url()}/{self.model_size}"
            looks = {"hparams.json": lambda path: self._check_hparams(path, read_hparams(path))}
            download.fetch_all(url, names, self.directory, lambda name: known(self.model_size, name), looks)
