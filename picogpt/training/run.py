"""The directory of a training run: a model that works as it is, and all that the run needs to go on.

    hparams.json encoder.json vocab.bpe params/   the best model so far: --model_size ./DIRECTORY runs it
    train.npy held_out.npy                        the text as token ids, memory-mapped while training
    settings.toml                                 what the run was started with
    state.safetensors                             weights, optimizer and step at the last checkpoint
    log.csv loss.png                              loss, rate and speed at each evaluation

Every file is written beside its place and renamed, so a run that is killed leaves the last checkpoint whole. The state
is written after the log and the model, and a resumed run forgets what the log has after it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from picogpt import files
from picogpt.arrays import Array
from picogpt.errors import UserError
from picogpt.training.trainer import Step, Trainer
from picogpt.weights import store, tensorfile

STATE = "state.safetensors"
SETTINGS = "settings.toml"
LOG = "log.csv"
SINCE = ("loss", "steps", "tokens", "seconds")
COLUMNS = ("step", "tokens", "loss", "held_out_loss", "learning_rate", "norm", "tokens_per_second", "seconds")
ROOM = "make room there, and go on with --resume"
ADVICE = "choose another --output_dir, or start again in an empty one"

Row = dict[str, float]


class Run:
    """The files of a run, and what it has seen so far.

    rows     those of the log
    best     the lowest loss on held-out text
    since    the sum of losses, and the numbers of steps, tokens and seconds, since the last row
    """

    def __init__(self, directory: Path):
        self.directory, self.rows, self.best = directory, list[Row](), float("inf")
        self.since = dict.fromkeys(SINCE, 0.0)

    def tokens(self, name: str) -> Array:
        """The ids in train.npy or held_out.npy, memory-mapped. Raises UserError."""
        path = self.directory / f"{name}.npy"
        try:
            tokens: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: expected token ids, found {error}: {ADVICE}") from None
        return tokens

    def count(self, step: Step, seconds: float) -> None:
        """Count a step that was done."""
        for name, value in zip(SINCE, (step.loss, 1, step.n_tokens, seconds), strict=True):
            self.since[name] += value

    def add_row(self, trainer: Trainer, step: Step, held_out_loss: float) -> Row:
        """Append a row to the log. A model that is better than those before is saved. Raises UserError."""
        since, before = self.since, self.rows[-1] if self.rows else dict.fromkeys(COLUMNS, 0.0)
        row = {
            "step": trainer.step,
            "tokens": before["tokens"] + since["tokens"],
            "loss": since["loss"] / since["steps"],
            "held_out_loss": held_out_loss,
            "learning_rate": step.learning_rate,
            "norm": step.norm,
            "tokens_per_second": since["tokens"] / since["seconds"],
            "seconds": before["seconds"] + since["seconds"],
        }
        self.rows.append(row)
        self.since = dict.fromkeys(SINCE, 0.0)
        with files.explained(self.directory, ROOM):
            if held_out_loss < self.best:
                self.best = held_out_loss
                store.remove_unfinished(self.directory)
                store.save_params(trainer.averaged.tensors.items(), self.directory)
            files.save_text(self.directory / LOG, table(self.rows))
        return row

    def has_settled(self, patience: int) -> bool:
        """Whether the loss on held-out text was lowest `patience` or more evaluations ago; never if that is 0."""
        losses = [row["held_out_loss"] for row in self.rows]
        return 0 < patience < len(losses) - losses.index(min(losses)) if losses else False

    def save_state(self, trainer: Trainer) -> None:
        """Write all that `restore` needs. Raises UserError on a full disk."""
        numbers = {"step": trainer.step, "best": self.best, **self.since}
        metadata = {name: repr(value) for name, value in numbers.items()}
        tensorfile.save(self.directory / STATE, trainer.state(), metadata, ROOM)

    def restore(self, trainer: Trainer) -> None:
        """Go back to the last checkpoint, if there is one. Raises UserError if it is damaged."""
        path = self.directory / STATE
        with files.explained(self.directory, ROOM):
            for unfinished in self.directory.glob(f".{STATE}.*.new"):  # of runs that were killed
                unfinished.unlink()
        if not files.is_there(path):
            return
        with tensorfile.TensorFile(path) as file:
            try:
                numbers = {name: float(file.metadata[name]) for name in ("best", *SINCE)}
                if (step := int(file.metadata["step"])) < 0:
                    raise ValueError
            except (KeyError, ValueError):
                raise UserError(f"{path}: expected the state of a run, found another file: {ADVICE}") from None
            trainer.restore({name: file.read(name) for name in file.entries}, step)
        self.best, self.since = numbers["best"], {name: numbers[name] for name in SINCE}
        self.rows = [row for row in read_table(self.directory / LOG) if row["step"] <= trainer.step]


def table(rows: list[Row]) -> str:
    """Rows as CSV.

    >>> print(table([dict.fromkeys(COLUMNS, 0.5)]), end="")
    step,tokens,loss,held_out_loss,learning_rate,norm,tokens_per_second,seconds
    0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.9g}" for name, value in row.items()} for row in rows)
    return out.getvalue()


def read_table(path: Path) -> list[Row]:
    """The rows of a log. Raises UserError if it is damaged."""
    if not files.is_there(path):
        return []
    try:
        return [
            {name: float(row[name]) for name in COLUMNS}
            for row in csv.DictReader(io.StringIO(files.read_text(path, 1 << 26)))
        ]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: expected the columns {', '.join(COLUMNS)}, found others: {ADVICE}") from None


def save_toml(path: Path, values: Mapping[str, Any]) -> None:
    """Write settings, numbers, texts, True and False, completely or not at all."""
    files.save_text(path, "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
