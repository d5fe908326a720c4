"""`python -m picogpt.explain`: what a model thinks of a text, and how the text becomes tokens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from picogpt import utils
from picogpt.commands import cli
from picogpt.errors import UserError
from picogpt.insight import merges, surprise
from picogpt.model import open_model
from picogpt.sampling import GREEDY


def main(
    prompt: str | None = None, *, tokens: str | None = None, n_others: int = 5,
    model_size: str = "124M", models_dir: str | None = None,
) -> None:  # fmt: skip
    """Show what a model thinks of a text: how likely it found each token, and what else it expected.

    In a terminal, the colours show how surprising each token is. They are left out if the output goes into a pipe or a
    file, or if NO_COLOR is set.

    Text:
        prompt: the text, by default read from a pipe; "" starts a new text
        n_others: how many of the likeliest other tokens are shown at each place
        tokens: show instead how this text becomes tokens: the merges of byte pair encoding, one after the other

    Model:
        model_size: 124M, 355M, 774M or 1558M (downloaded when first used), shakespeare (bundled), or a directory
        models_dir: the directory of models; by default PICOGPT_MODELS_DIR, or else models

    Examples:
        picogpt "To be, or not to be" -m shakespeare
        picogpt --tokens "unbelievable" -m shakespeare
    """
    cli.at_least(0, n_others=n_others)
    if tokens is not None:
        if prompt is not None:
            raise UserError("expected a prompt or --tokens, found both: leave one out")
        encoder, _ = utils.load_encoder_and_hparams(model_size, models_dir)
        write_lines(merges.lines(tokens, encoder))
        return
    text = cli.read_prompt(prompt)
    model = open_model(model_size, models_dir)
    ids = model.prompt_ids(text, 0)
    logits = model.logits(ids)
    GREEDY.next_ids(logits, [])  # refuses damaged weights
    write_lines(surprise.lines(ids, logits, model.encoder, n_others, in_colour()))


def in_colour() -> bool:
    """Whether stdout is a terminal that may show colours: see https://no-color.org."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write_lines(lines: Iterable[str]) -> None:
    cli.write((f"{line}\n" for line in lines), end="")
