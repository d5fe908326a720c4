"""`python -m picogpt.train TEXT_FILE`: train a GPT-2 on a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from picogpt import files
from picogpt.arrays import Array, Params
from picogpt.commands import arguments, cli
from picogpt.commands.runs import characters_per_token, check_new, line, save_new, to_the_end
from picogpt.encoder import Encoder
from picogpt.errors import UserError
from picogpt.model import Model, open_model
from picogpt.training import prepare, tokenizers
from picogpt.training.data import Windows
from picogpt.training.run import ADVICE, Row, Run
from picogpt.training.settings import Settings, Shape
from picogpt.weights.shapes import checked_hparams

SMALL, DEFAULT = Shape(), Settings()


def main(
    text_file: str | None = None, *, output_dir: str | None = None, resume: bool = False,
    settings_file: str | None = None, recipe: str | None = None, sweep: str | None = None,
    tokenizer: str | None = None, held_out: float = 0.1, shape: Shape = SMALL, start_from: str | None = None,
    settings: Settings = DEFAULT, evaluate_every: int = 250, sample: str | None = None, n_threads: int | None = None,
) -> None:  # fmt: skip
    """Train a GPT-2 on a text, with NumPy on all cores.

    The output directory is a model: picogpt "prompt" -m ./OUTPUT_DIR continues a prompt with the best weights so far.
    Ctrl-C saves a checkpoint, and --resume goes on from the last one as if the run had not been interrupted.

    Files:
        text_file: a text in UTF-8
        output_dir: where the model, the log and the checkpoint go: a new or empty directory
        resume: go on with the run in output_dir; its settings need not be given again
        settings_file: a TOML file with settings, a line `name = value` for each; flags win over it
        recipe: the settings of a paper: gpt1, gpt2 or gpt3; the settings file and flags win over it
        sweep: a TOML file with lists of values, as `learning_rate = [1e-3, 2e-3]`: every combination becomes a run on
            one core, in a directory of its own in output_dir, n_threads of them at a time

    Text:
        tokenizer: characters (by default), bytes, a number of tokens for a byte-level BPE that is learnt from the text,
            or the name of a model whose tokenizer is taken
        held_out: the part at the end of the text that is not trained on, but evaluated

    Model:
        shape: the size of a new model
        start_from: a model whose weights are trained further, with its size and its tokenizer, instead of a new one

    Training:
        settings: how the model is trained

    Running:
        evaluate_every: steps between evaluations; each writes a checkpoint
        sample: a prompt that is continued at each evaluation
        n_threads: the number of cores; by default all of them

    Examples:
        picogpt shakespeare.txt --output_dir runs/shakespeare --tokenizer 1024 --dropout 0.2
        picogpt --output_dir runs/shakespeare --resume
        picogpt shakespeare.txt --output_dir runs/sweep --sweep rates.toml --steps 500
        picogpt mine.txt --output_dir runs/mine --start_from 124M --n_ctx 256 --batch_size 4 --steps 200
    """
    cli.at_least(1, evaluate_every=evaluate_every, n_threads=1 if n_threads is None else n_threads)
    if output_dir is None:
        raise UserError("expected --output_dir, found none: name a new directory for the model")
    if text_file is None:
        raise UserError("expected a text file, found none; see --help")
    directory = Path(output_dir)
    asked = {
        "text_file": text_file, "tokenizer": tokenizer, "held_out": held_out, "start_from": start_from,
        **asdict(shape), **asdict(settings), "evaluate_every": evaluate_every, "sample": sample,
    }  # fmt: skip
    if sweep is not None:
        from picogpt.commands import sweep as many

        many.main(directory, asked | {"sweep": sweep}, Path(sweep), resume, n_threads, arguments.flags_of(main))
        return
    with files.only_one(directory):
        if not resume:
            begin(directory, asked, shape)
        model, run = open_model(directory.absolute()), Run(directory)
        train, test = (windows(run, name, shape.n_ctx, model) for name in prepare.PARTS)
        per_token = characters_per_token(model, test.tokens)

        def report(row: Row, params: Params) -> list[str]:
            lines = [line(row, f" ({row['held_out_loss'] / per_token:.4f} per character)")]
            return lines if sample is None else [*lines, sampled(model, params, sample, settings.seed)]

        to_the_end(run, model, train, test, settings, evaluate_every, n_threads, report, start_from)


def begin(directory: Path, asked: Mapping[str, Any], shape: Shape) -> None:
    """Write the files that a run starts with, settings.toml last. Before, raise UserError for all that can be wrong."""
    check_new(directory)
    texts = prepare.read_parts(Path(asked["text_file"]), asked["held_out"])
    if asked["start_from"]:
        origin = open_model(asked["start_from"])
        encoder, hparams = origin.encoder, origin.hparams
        asked = {**asked, **size_of(origin, asked)}
    else:
        asked = {**asked, "tokenizer": asked["tokenizer"] or "characters"}
        encoder = tokenizer_for(asked["tokenizer"], *texts)
        hparams = checked_hparams({"n_vocab": 1 + encoder.largest_id, **asdict(shape)}, directory)
    if asked["sample"] is not None:
        Model(encoder, hparams, {}).prompt_ids(asked["sample"], 1)
    tokens = dict(zip(prepare.PARTS, (prepare.encoded(encoder, text) for text in texts), strict=True))
    for name, ids in tokens.items():
        check_length(name, ids, min(shape.n_ctx, hparams["n_ctx"]))
    save_new(directory, encoder, hparams, tokens, asked)


def size_of(origin: Model, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The size of the model that is trained further. Raises UserError if another one, or a tokenizer, is asked for."""
    beside = f"beside --start_from {asked['start_from']}"
    if (found := asked["tokenizer"]) is not None:
        raise UserError(f"--tokenizer: expected none {beside}, whose own is taken, found {found}: leave it out")
    size = asdict(SMALL) | origin.hparams
    for name, default in asdict(SMALL).items():
        if (found := asked[name]) not in (size[name], default) and (name != "n_ctx" or found > size[name]):
            or_less = " or less" if name == "n_ctx" else ""
            raise UserError(f"--{name}: expected {size[name]}{or_less} {beside}, found {found}: leave it out")
    return {name: size[name] for name in asdict(SMALL)} | {"n_ctx": min(asked["n_ctx"], size["n_ctx"])}


def check_length(name: str, ids: Array, n_ctx: int) -> None:
    """Raise UserError if a part of the text is not longer than a window."""
    try:
        Windows(ids, n_ctx)
    except UserError as error:
        part = {"train": "the text to train on", "held_out": "the text held out"}[name]
        raise UserError(f"{part}: {error}") from None


def tokenizer_for(kind: str, train: str, held_out: str) -> Encoder:
    """A tokenizer for a text, or that of a model. Characters of the whole text are known. Raises UserError."""
    if kind == "characters":
        return tokenizers.learn(kind, train + held_out)
    if kind == "bytes" or kind.isdecimal():
        return tokenizers.learn(kind, train)
    try:
        return open_model(kind).encoder
    except UserError as error:
        raise UserError(f"tokenizer: expected {tokenizers.KINDS}, found {kind!r:.80}: {error}") from None


def windows(run: Run, name: str, n_ctx: int, model: Model) -> Windows:
    """The windows of a part of the text. Raises UserError if it is too short, or has ids that the model does not."""
    tokens, n_vocab = run.tokens(name), model.hparams["n_vocab"]
    if tokens.size and int(tokens.max()) >= n_vocab:
        raise UserError(f"{run.directory / name}.npy: expected ids below {n_vocab}, found {tokens.max()}: {ADVICE}")
    return Windows(tokens, min(n_ctx, model.hparams["n_ctx"]))


def sampled(model: Model, params: Params, prompt: str, seed: int) -> str:
    """A prompt and what the model makes of it now: up to 100 tokens, the same ones for the same weights."""
    now = Model(model.encoder, model.hparams, params)
    n = min(100, model.hparams["n_ctx"] - len(now.prompt_ids(prompt, 1)))
    return prompt + now.generate(prompt, n, temperature=0.8, top_k=40, seed=seed)
