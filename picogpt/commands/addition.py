"""`python -m picogpt.addition`: train a model that adds numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from picogpt import files
from picogpt.arrays import Array, Params
from picogpt.commands import cli
from picogpt.commands.runs import check_new, line, save_new, to_the_end
from picogpt.errors import UserError
from picogpt.model import open_model
from picogpt.training import addition
from picogpt.training.data import Examples
from picogpt.training.run import Row, Run
from picogpt.training.settings import Settings, Shape
from picogpt.weights.shapes import checked_hparams

SHAPE = Shape(n_layer=2, n_head=4, n_embd=64, n_ctx=64)
SETTINGS = Settings(steps=2000, batch_size=256, learning_rate=4e-3, min_learning_rate=2e-4, beta_2=0.98)
MOST_DIGITS = 3  # a million sums
SHOWN = 5  # wrong results


def main(
    *, output_dir: str | None = None, resume: bool = False, settings_file: str | None = None, digits: int = 2,
    reverse: bool = False, held_out: float = 0.1, shape: Shape = SHAPE, settings: Settings = SETTINGS,
    evaluate_every: int = 200, n_threads: int | None = None,
) -> None:  # fmt: skip
    """Train a GPT-2 on sums such as 50+32=82, and count how many sums that it has not seen it gets right.

    The output directory is a model: picogpt "50+32=" -m ./OUTPUT_DIR asks it. Ctrl-C saves a checkpoint, and --resume
    goes on from the last one.

    Files:
        output_dir: where the model, the log and the checkpoint go: a new or empty directory
        resume: go on with the run in output_dir; its settings need not be given again
        settings_file: a TOML file with settings, a line `name = value` for each; flags win over it

    Sums:
        digits: the most digits that a number has: 1, 2 or 3
        reverse: write the result from its last digit to its first, the order in which it is computed
        held_out: the part of all sums that is not trained on, but asked; with a+b, b+a is held out as well

    Model:
        shape: the size of the model

    Training:
        settings: how the model is trained

    Running:
        evaluate_every: steps between evaluations; each writes a checkpoint
        n_threads: the number of cores; by default all of them

    Examples:
        picogpt --output_dir runs/addition
        picogpt --output_dir runs/addition-3 --digits 3 --reverse --held_out 0.01 --steps 6000
    """
    cli.at_least(1, evaluate_every=evaluate_every, n_threads=1 if n_threads is None else n_threads)
    if output_dir is None:
        raise UserError("expected --output_dir, found none: name a new directory for the model")
    if not 1 <= digits <= MOST_DIGITS:
        raise UserError(f"digits must be 1 to {MOST_DIGITS}, found {digits}: try 2")
    asked = {
        "digits": digits, "reverse": reverse, "held_out": held_out,
        **asdict(shape), **asdict(settings), "evaluate_every": evaluate_every,
    }  # fmt: skip
    pairs = addition.split(digits, held_out, settings.seed)
    train, test = (addition.examples(part, digits, reverse) for part in pairs)
    directory = Path(output_dir)
    with files.only_one(directory):
        if not resume:
            begin(directory, asked, shape, train.inputs.shape[1])
        model = open_model(directory.absolute())

        def report(row: Row, params: Params) -> list[str]:
            return [line(row, f", {addition.right(test, params, shape.n_head).mean():.2%} of the sums right")]

        to_the_end(Run(directory), model, train, test, settings, evaluate_every, n_threads, report)
        cli.write(["\n".join(results(pairs[1], test, open_model(directory.absolute()).params, shape.n_head))])


def begin(directory: Path, asked: Mapping[str, Any], shape: Shape, n_seq: int) -> None:
    """Write the files that a run starts with. Raises UserError if the directory is not empty."""
    check_new(directory)
    encoder = addition.encoder()
    hparams = checked_hparams({"n_vocab": len(encoder.encoder), **asdict(shape)}, directory)
    if shape.n_ctx < n_seq:
        raise UserError(f"n_ctx must be {n_seq} or more for a sum of {asked['digits']} digits, found {shape.n_ctx}")
    save_new(directory, encoder, hparams, {}, asked)


def results(pairs: Array, data: Examples, params: Params, n_head: int) -> list[str]:
    """How many of the sums a model gets right, and some that it does not."""
    right = addition.right(data, params, n_head)
    lines = [f"{right.sum()} of {len(right)} sums that it has not seen are right: {right.mean():.2%}"]
    if wrong := [f"{a}+{b}" for a, b in pairs[~right].tolist()]:
        lines.append(f"wrong: {', '.join(wrong[:SHOWN])}{', ...' * (len(wrong) > SHOWN)}")
    return lines
