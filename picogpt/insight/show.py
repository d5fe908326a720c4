"""Tokens as they are shown to a person: every byte visible, and in columns."""

from __future__ import annotations

import unicodedata

from picogpt.encoder import BYTE_OF, Encoder


def visible(data: bytes) -> str:
    r"""The text of some bytes, with "·" for a space and escapes for what does not print or is not UTF-8.

    >>> visible(b" be\n"), visible("é".encode()[:1])
    ('·be\\n', '\\xc3')
    """
    text = data.decode("utf-8", errors="backslashreplace").replace(" ", "·")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def name_of(encoder: Encoder, token_id: int) -> str:
    """A token as it is shown. Some models have more ids than their vocabulary has tokens: these have only a number.

    >>> name_of(Encoder({"Ġa": 0}, []), 0), name_of(Encoder({"Ġa": 0}, []), 1)
    ('·a', '#1')
    """
    return visible(encoder.decode_bytes([token_id])) if token_id in encoder.decoder else f"#{token_id}"


def visible_symbols(symbols: str) -> str:
    r"""The same for a token in the symbols of encoder.json.

    >>> visible_symbols("ĠbeĊ")
    '·be\\n'
    """
    return visible(symbols.translate(BYTE_OF).encode("latin-1"))


def width(text: str) -> int:
    """The columns that a text takes in a terminal: 2 for a wide character, 0 for an accent that joins the one before.

    >>> width("café"), width("日本")
    (4, 4)
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    joined = sum(unicodedata.combining(c) > 0 for c in text)
    return len(text) + wide - joined


def padded(text: str, columns: int) -> str:
    return text + " " * max(columns - width(text), 0)


def count(n: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "word"), count(2, "word")
    ('1 word', '2 words')
    """
    return f"{n} {noun}{'s' * (n != 1)}"
