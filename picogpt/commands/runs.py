"""Shared by the commands that train: how a run begins, how it is shown, and its way to the end."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from picogpt import files
from picogpt.arrays import Array, Params
from picogpt.commands import cli
from picogpt.encoder import Encoder
from picogpt.errors import UserError
from picogpt.model import Model, load
from picogpt.training import picture, prepare
from picogpt.training.data import Data
from picogpt.training.loop import fit
from picogpt.training.parameters import flat
from picogpt.training.run import SETTINGS, Row, Run, save_toml
from picogpt.training.settings import Settings
from picogpt.training.trainer import Step, Trainer


def check_new(directory: Path) -> None:
    """Raise UserError if the directory is there and not empty. What a start that was killed has left does not count."""
    if files.is_there(directory / SETTINGS):
        raise UserError(f"{directory}: expected a new directory, found a run: go on with --resume, or name another one")
    if files.is_there(directory) and not files.is_dir(directory):
        raise UserError(f"{directory}: expected a new or empty directory, found a file: name another one")
    if files.is_dir(directory) and any(not is_beginning(path.name) for path in directory.iterdir()):
        raise UserError(f"{directory}: expected a new or empty directory, found files: name another one")


def is_beginning(name: str) -> bool:
    """Whether a file is one that `save_new` writes before settings.toml."""
    tokens = [f"{part}.npy" for part in prepare.PARTS]
    return name in ("encoder.json", "vocab.bpe", "hparams.json", *tokens) or name.endswith(".new")


def save_new(
    directory: Path, encoder: Encoder, hparams: Mapping[str, int], tokens: Mapping[str, Array], asked: Mapping[str, Any]
) -> None:
    """Write the files that a run starts with. Raises UserError if that fails."""
    with files.explained(directory, "make room there, or name another --output_dir"):
        directory.mkdir(parents=True, exist_ok=True)
        prepare.save_tokenizer(encoder, directory)
        prepare.save_hparams(hparams, directory)
        for name, ids in tokens.items():
            prepare.save_array(directory / f"{name}.npy", ids)
        save_toml(directory / SETTINGS, {name: value for name, value in asked.items() if value is not None})


def characters_per_token(model: Model, tokens: Array) -> float:
    """The mean length of a token in a text, or in its first million tokens."""
    first = tokens[: 1 << 20].tolist()
    return len(model.decode(first)) / len(first)


def to_the_end(
    run: Run, model: Model, data: Data, held_out: Data, settings: Settings, evaluate_every: int, n_threads: int | None,
    report: Callable[[Row, Params], list[str]], start_from: str | None = None,
) -> None:  # fmt: skip
    """Begin a run or go on with it, up to its last step. Each evaluation writes the lines of `report` to stdout."""
    with Trainer(model.hparams, settings, n_threads) as trainer:
        if start_from:
            trainer.start_from(flat(load(start_from).params))
        run.restore(trainer)
        if trainer.step >= settings.steps:
            files.note(f"{run.directory}: all {settings.steps} steps were done before")
        with progress(trainer) as (on_step, write), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a loss that is not finite ends the run with one line
            fit(
                trainer, run, data, held_out, evaluate_every, on_step,
                lambda row: write(report(row, trainer.averaged.params)),
            )  # fmt: skip
    if trainer.step < settings.steps:
        files.note(f"{run.directory}: ended at step {trainer.step}, {settings.patience} evaluations after the best one")
    picture.draw(run)


@contextmanager
def progress(trainer: Trainer) -> Iterator[tuple[Callable[[Step], None], Callable[[list[str]], None]]]:
    """A progress bar on stderr: what is called after each step, and to write lines to stdout without disturbing it."""
    from tqdm import tqdm

    bar = tqdm(total=trainer.settings.steps, initial=trainer.step, unit="step", disable=None, leave=False)

    def on_step(step: Step) -> None:
        speed = (bar.format_dict["rate"] or 0) * step.n_tokens
        bar.set_postfix_str(f"loss {step.loss:.3f}, {speed:.0f} tokens/s", refresh=False)
        bar.update()

    def write(lines: list[str]) -> None:
        with bar.external_write_mode(file=sys.stdout):
            cli.write(["\n".join(lines)])

    with bar:
        yield on_step, write


def line(row: Row, more: str = "") -> str:
    """A row of the log in words."""
    return (
        f"step {row['step']:.0f}: loss {row['loss']:.4f}, held out {row['held_out_loss']:.4f}{more}, "
        f"{row['tokens_per_second']:.0f} tokens/s"
    )
