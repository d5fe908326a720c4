"""`python -m picogpt.evaluate`: how well a model predicts a text, the last words of passages, or right answers."""

from __future__ import annotations

import codecs
import json as json_format
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from picogpt import files
from picogpt.arrays import Array
from picogpt.commands import cli
from picogpt.encoder import Encoder
from picogpt.errors import UserError
from picogpt.insight import measures, score
from picogpt.insight.measures import Estimate, Question
from picogpt.insight.score import Piece, Scores
from picogpt.model import Model, open_model

BLOCK = 1 << 20  # bytes of a text that are encoded at a time
UP_TO_A_SPACE = re.compile(r".*\S(?=[ \n])", re.DOTALL)  # no token crosses this place


def main(
    text_file: str | None = None, *, stride: int | None = None, lambada: str | None = None, choices: str | None = None,
    batch_size: int = score.BATCH_SIZE, json: bool = False, model_size: str = "124M", models_dir: str | None = None,
) -> None:  # fmt: skip
    """Measure how well a model predicts a text, the last words of passages, or the right answers to questions.

    What is measured, one of:
        text_file: a text of any length: its loss per token, perplexity, and bits per byte and per character
        lambada: a .jsonl file with a passage {"text": ...} in each line: how often greedy decoding gives its last word,
            and the perplexity of that word
        choices: a .jsonl file with a question {"prompt": ..., "choices": [...], "answer": ...} in each line: how often
            the likeliest choice is the answer. "context" may stand for "prompt"; the answer is a choice or its number,
            from 0

    How:
        stride: a text goes through the model in windows of all positions that it sees, which begin this many tokens
            apart; by default half a window. A smaller one gives each token more context and takes longer
        batch_size: the number of windows, passages or choices at a time
        json: write one line of JSON

    Model:
        model_size: 124M, 355M, 774M or 1558M (downloaded when first used), shakespeare (bundled), or a directory
        models_dir: the directory of models; by default PICOGPT_MODELS_DIR, or else models

    Examples:
        picogpt text.txt -m shakespeare
        picogpt text.txt -m shakespeare --stride 256 --json
        picogpt --choices questions.jsonl -m shakespeare
    """
    cli.at_least(1, batch_size=batch_size)
    given = [name for name in (text_file, lambada, choices) if name is not None]
    if len(given) != 1:
        raise UserError(f"expected a text file, --lambada FILE or --choices FILE, found {len(given)} of them: give one")
    if stride is not None and text_file is None:
        raise UserError("expected a text file with --stride, found none: only a text has windows")
    model = open_model(model_size, models_dir)
    if text_file is not None:
        score.check_stride(stride, model.hparams["n_ctx"])
        found = evaluate_text(Path(text_file), model, stride, batch_size)
    elif lambada is not None:
        found = evaluate_last_words(Path(lambada), model, batch_size)
    else:
        found = evaluate_choices(Path(given[0]), model, batch_size)
    cli.write([as_json(found) if json else as_table(found)])


# the three measurements


def evaluate_text(path: Path, model: Model, stride: int | None, batch_size: int) -> dict[str, Any]:
    """The losses of a text, and how it was cut into windows. Raises UserError if there is nothing to score."""
    n_ctx, n_head = model.hparams["n_ctx"], model.hparams["n_head"]
    stride = score.default_stride(n_ctx) if stride is None else stride
    ids = read_ids(path, model.encoder)
    cuts = list(score.windows(len(ids), n_ctx, stride))
    if not cuts:
        raise UserError(f"{path}: expected a text of two tokens or more, found {len(ids)}: the first is not scored")
    steps = score.score_windows(ids, cuts, model.params, n_head, batch_size)
    scored = np.concatenate(list(cli.progress(steps, len(cuts), "window", doing="scoring")))
    counts = {"tokens": len(ids), "scored": len(scored), "windows": len(cuts), "window": n_ctx, "stride": stride}
    return counts | measures.of_text(scored, cuts, ids, model.encoder, n_ctx)


def evaluate_last_words(path: Path, model: Model, batch_size: int) -> dict[str, Any]:
    """How well the last words of passages are predicted."""
    pieces = []
    for where, record in records(path):
        with at(where):
            context, word = measures.split_at_last_word(text_in(record, "text"))
            pieces.append(measures.piece_of(context, word, model.encoder, model.hparams["n_ctx"]))
    return {"passages": len(pieces)} | measures.of_last_words(score_all(pieces, model, batch_size, "passage"))


def evaluate_choices(path: Path, model: Model, batch_size: int) -> dict[str, Any]:
    """How often the likeliest choice is the right one."""
    questions, pieces = [], []
    for where, record in records(path):
        with at(where):
            questions.append(question := question_in(record))
            for choice in question.choices:
                text = measures.joined(question.prompt, choice)
                pieces.append(measures.piece_of(question.prompt, text, model.encoder, model.hparams["n_ctx"]))
    scores = iter(score_all(pieces, model, batch_size, "choice"))
    of_each = [[next(scores) for _ in question.choices] for question in questions]
    return {"questions": len(questions)} | measures.of_choices(questions, of_each)


def score_all(pieces: Sequence[Piece], model: Model, batch_size: int, unit: str) -> list[Scores]:
    """The scores of pieces, in their order."""
    steps = score.score_pieces(pieces, model.params, model.hparams["n_head"], batch_size)
    scores = dict(cli.progress(steps, len(pieces), unit, doing="scoring"))
    return [scores[number] for number in range(len(pieces))]


# files


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A file or a pipe that is open for reading. Raises UserError if it cannot be read."""
    try:
        with path.open("rb") as file:
            yield file
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot read it: {reason}: choose another file") from None


def read_ids(path: Path, encoder: Encoder) -> Array:  # -> [n_seq]
    """The token ids of a text. It is encoded in blocks, which end before a space, as it would be in one piece.

    Bytes that are not UTF-8 are encoded as they are. A byte order mark at the beginning is left out.
    """
    ids, text = array("i"), ""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    with reading(path) as file:
        while block := file.read(BLOCK):
            text += decoder.decode(block)
            end = found.end() if (found := UP_TO_A_SPACE.match(text)) else 0
            ids.extend(encoder.encode(text[:end]))
            text = text[end:]
    ids.extend(encoder.encode(text + decoder.decode(b"", final=True)))
    return np.array(ids)


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON object in each line of a file, and the words that say where it is. Empty lines are skipped."""
    number = 0
    with reading(path) as file:
        for number, line in enumerate(file, start=1):
            where, text = (
                f"{path}, line {number}",
                line.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape"),
            )
            if text.strip():
                yield where, files.json_object_from(text, where, "fix this line")
    if number == 0:
        raise UserError(f"{path}: expected a JSON object in each line, found an empty file")


@contextmanager
def at(where: str) -> Iterator[None]:
    """Say in an error's message where the mistake is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def text_in(record: Mapping[str, Any], *names: str) -> str:
    """The text that a record has under one of these names. Raises UserError."""
    for name in names:
        if isinstance(text := record.get(name), str):
            return text
    raise UserError(f"expected a text as {' or '.join(map(json_format.dumps, names))}, found {files.quoted(record)}")


def question_in(record: Mapping[str, Any]) -> Question:
    """A question with its choices and the number of the right one. Raises UserError."""
    choices, answer = record.get("choices"), record.get("answer")
    if not (isinstance(choices, list) and choices and all(isinstance(choice, str) and choice for choice in choices)):
        raise UserError(f'expected a list of texts as "choices", found {files.quoted(choices)}')
    number = choices.index(answer) if answer in choices else answer
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(choices):
        expected = f"one of the choices, or a number from 0 to {len(choices) - 1},"
        raise UserError(f'expected {expected} as "answer", found {files.quoted(answer)}')
    return Question(text_in(record, "prompt", "context"), choices, number)


# the answer


def as_json(found: Mapping[str, Any]) -> str:
    """One line. The standard error of NAME is NAME_stderr."""
    values: dict[str, Any] = {}
    for name, value in found.items():
        values |= {name: value.value, f"{name}_stderr": value.stderr} if isinstance(value, Estimate) else {name: value}
    return json_format.dumps(values)


def as_table(found: Mapping[str, Any]) -> str:
    """A line for each number, with its standard error."""
    width = max(map(len, found)) + 2
    return "\n".join(f"{name.replace('_', ' '):{width}}{shown(value)}" for name, value in found.items())


def shown(value: Estimate | int) -> str:
    """A number with its standard error.

    >>> shown(Estimate(32.2312, 1.0123)), shown(Estimate(1.5, None)), shown(7)
    ('32.2312 ± 1.0123', '1.5000', '7')
    """
    if not isinstance(value, Estimate):
        return str(value)
    if value.value is None:
        return "unknown"
    return f"{value.value:.4f}" if value.stderr is None else f"{value.value:.4f} ± {value.stderr:.4f}"
