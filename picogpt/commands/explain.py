"""`python -m picogpt.explain`: what a model thinks of a text, and how the text becomes tokens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from picogpt import files, utils
from picogpt.choosing import check_finite
from picogpt.commands import cli
from picogpt.errors import UserError
from picogpt.insight import merges, surprise
from picogpt.model import Model, open_model


def main(
    prompt: str | None = None, *, html: str | None = None, tokens: str | None = None, n_others: int = 5,
    model_size: str = "124M", models_dir: str | None = None,
) -> None:  # fmt: skip
    """Show what a model thinks of a text: how likely it found each token, and what else it expected.

    In a terminal, the colours show how surprising each token is. They are left out if the output goes into a pipe or a
    file, or if NO_COLOR is set.

    Text:
        prompt: the text, by default read from a pipe; "" starts a new text
        n_others: how many of the likeliest other tokens are shown at each place
        html: write a page to this file instead, to be opened in a browser: the text, what may come next, attention, and
            how the numbers flow
        tokens: show instead how this text becomes tokens: the merges of byte pair encoding, one after the other

    Model:
        model_size: 124M, 355M, 774M or 1558M (downloaded when first used), shakespeare (bundled), or a directory
        models_dir: the directory of models; by default PICOGPT_MODELS_DIR, or else models

    Examples:
        picogpt "To be, or not to be" -m shakespeare
        picogpt "To be, or not to be" -m shakespeare --html be.html
        picogpt --tokens "unbelievable" -m shakespeare
    """
    cli.at_least(0, n_others=n_others)
    if tokens is not None:
        if prompt is not None or html is not None:
            raise UserError("expected a prompt, with --html or not, or --tokens alone, found both: leave one out")
        encoder, _ = utils.load_encoder_and_hparams(model_size, models_dir)
        write_lines(merges.lines(tokens, encoder))
        return
    text = cli.read_prompt(prompt)
    if html is not None:
        check_place(Path(html).resolve())
    model = open_model(model_size, models_dir)
    ids = model.prompt_ids(text, 0)
    if html is not None:
        write_page(Path(html).resolve(), model, ids)
        return
    logits = model.logits(ids)
    check_finite(logits.max(axis=-1))
    write_lines(surprise.lines(ids, logits, model.encoder, n_others, in_colour()))


def check_place(path: Path) -> None:
    """Raise UserError if a page cannot be written there, before anything is computed."""
    if path.is_dir():
        raise UserError(f"--html: expected the name of a file, found the directory {path}: name a file in it")
    if path.exists() and not path.is_file():
        raise UserError(f"--html: expected the name of a file, found the device or pipe {path}: name a file")
    if not path.parent.is_dir():
        raise UserError(f"--html: expected the directory {path.parent}, found none: make it, or name another file")


def write_page(path: Path, model: Model, ids: list[int]) -> None:
    """Write the page of a text completely, or not at all. Raises UserError if that fails."""
    from picogpt.insight import page

    page.check_length(ids)  # before the weights are opened
    html = page.page(model, ids)
    unfinished = path.with_name(f".{path.name[:60]}.{os.getpid()}")
    try:
        with unfinished.open("x", encoding="utf-8", newline="\n") as file:
            file.write(html)
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}: choose another --html") from None
    finally:
        unfinished.unlink(missing_ok=True)
    files.note(f"{path}: {files.size(len(html))}: open it in a browser")


def in_colour() -> bool:
    """Whether stdout is a terminal that may show colours: see https://no-color.org."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write_lines(lines: Iterable[str]) -> None:
    cli.write((f"{line}\n" for line in lines), end="")
