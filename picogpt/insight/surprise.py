"""What a model expects at each place of a text, beside what stands there: a table for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from picogpt.arrays import Array
from picogpt.encoder import Encoder
from picogpt.gpt2 import softmax
from picogpt.insight.show import count, name_of, padded, visible, width

# from this many bits on, this background of the 256 colours, under black letters: readable in dark and light terminals
COLOURS = [(2, 229), (5, 222), (8, 215), (11, 209)]
HEADINGS = "token", "probability", "likeliest others"


class Place(NamedTuple):
    """A place in a text, and what the model expects there. It expects nothing before the first token."""

    token: int | None  # None after the last one
    surprise: float | None  # in bits: -log2 of the token's probability
    others: list[tuple[int, float]]  # the likeliest other tokens, with their probabilities


def places(ids: Sequence[int], logits: Array, n_others: int) -> Iterator[Place]:  # [n_seq], [n_seq, n_vocab]
    """Each token of a text, how surprising it is, and the likeliest others; at last, the likeliest tokens to come.

    >>> import numpy as np
    >>> logits = np.log(np.array([[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]))
    >>> for place in places([0, 1], logits, n_others=1):
    ...     print(place)
    Place(token=0, surprise=None, others=[])
    Place(token=1, surprise=1.0, others=[(0, 0.25)])
    Place(token=None, surprise=None, others=[(2, 0.5)])
    """
    yield Place(ids[0], None, [])
    for token, row in zip([*ids[1:], None], logits, strict=True):
        probabilities = softmax(row)
        best = [other for other in likeliest(row, n_others + 1).tolist() if other != token]
        others = [(other, float(probabilities[other])) for other in best[:n_others]]
        yield Place(token, None if token is None else surprise(row, token), others)


def likeliest(logits: Array, n: int) -> Array:  # [..., n_vocab] -> [..., n]
    """The ids of the n largest, the largest first; of equal ones, the smaller id first.

    >>> likeliest(np.float32([1, 3, 2, 3]), 3)
    array([1, 3, 2])
    """
    n = min(n, logits.shape[-1])
    found = np.sort(np.argpartition(-logits, n - 1, axis=-1)[..., :n], axis=-1)  # in the order of their ids
    order = np.argsort(-np.take_along_axis(logits, found, axis=-1), axis=-1, kind="stable")
    return np.take_along_axis(found, order, axis=-1)


def surprise(logits: Array, token: int) -> float:  # [n_vocab] -> []
    """-log2 softmax(logits)[token]: 0 for a token that was certain, 1 more each time its probability halves."""
    x = logits.astype(np.float64) - logits.max()
    return float(np.log(np.exp(x).sum()) - x[token]) / math.log(2)


def lines(ids: Sequence[int], logits: Array, encoder: Encoder, n_others: int, colour: bool) -> Iterator[str]:
    """A table of the tokens of a text, after the text itself in colours if they are wanted."""
    rows = list(places(ids, logits, n_others))
    if colour:
        yield "".join(painted(as_text(encoder, row.token), row.surprise) for row in rows)
        yield f"\nsurprise in bits: {legend()}\n"
    names = ["(next)" if row.token is None else name_of(encoder, row.token) for row in rows]
    columns = max(map(width, [HEADINGS[0], *names]))
    yield f"{padded(HEADINGS[0], columns)}  {HEADINGS[1]}  {HEADINGS[2]}"
    for name, row in zip(names, rows, strict=True):
        name = padded(name, columns)
        name = painted(name, row.surprise) if colour else name
        chance = "" if row.surprise is None else percent(2**-row.surprise)
        others = "  ".join(f"{name_of(encoder, token)} {percent(p)}" for token, p in row.others)
        yield f"{name}  {chance:>{len(HEADINGS[1])}}  {others}".rstrip()
    if known := [row.surprise for row in rows if row.surprise is not None]:
        yield f"\nmean surprise of {count(len(known), 'token')}: {sum(known) / len(known):.2f} bits"


def as_text(encoder: Encoder, token: int | None) -> str:
    """A token as it stands in a text: with its spaces and newlines, but nothing that would control a terminal."""
    data = b"" if token is None else encoder.decode_bytes([token])
    return "\n".join(" ".join(map(visible, line.split(b" "))) for line in data.split(b"\n"))


def percent(probability: float) -> str:
    """A probability in percent.

    >>> percent(0.5), percent(0.0123), percent(0.00001)
    ('50%', '1.2%', '<0.1%')
    """
    p = 100 * probability
    return f"{p:.0f}%" if p >= 9.95 else f"{p:.1f}%" if p >= 0.1 else "<0.1%"


def painted(text: str, bits: float | None) -> str:
    """A text on the background of its surprise, line by line, for a terminal."""
    colour = next((colour for least, colour in reversed(COLOURS) if bits is not None and bits >= least), None)
    if colour is None:
        return text
    return "\n".join(f"\x1b[38;5;16;48;5;{colour}m{line}\x1b[0m" if line else "" for line in text.split("\n"))


def legend() -> str:
    return " ".join([f"0 to {COLOURS[0][0]}", *(painted(f" from {least} ", least) for least, _ in COLOURS)])
