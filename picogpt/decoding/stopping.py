"""Stop strings: where a text ends although the model goes on. They are found in its bytes, across borders of tokens.

Bytes that may be the beginning of a stop string are held back until that is decided, and no longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from picogpt.encoder import Encoder
from picogpt.errors import UserError


def stop_bytes(stop: str | Sequence[str]) -> list[bytes]:
    """One stop string or several, as bytes. Raises UserError for anything else, and for an empty one.

    >>> stop_bytes(["\\n\\n", "END"])
    [b'\\n\\n', b'END']
    """
    stops: list[str] = list(stop) if isinstance(stop, (list, tuple, set)) else [stop]  # type: ignore[list-item]
    for text in stops:
        if not isinstance(text, str) or not text:
            raise UserError(f"stop: expected a text, or a list of texts, none of them empty, found {stop!r:.60}")
    try:
        return [text.encode("utf-8", errors="surrogateescape") for text in stops]
    except UnicodeEncodeError:
        raise UserError(f"stop: expected characters, found a lone surrogate in {stop!r:.60}") from None


class Stopper:
    """Passes on the bytes of a text up to the first stop string that is complete.

    >>> stopper = Stopper([b"END"])
    >>> [stopper.feed(data) for data in (b"the E", b"a", b" EN", b"D of it")], stopper.found
    ([b'the ', b'Ea', b' ', b''], True)
    """

    def __init__(self, stops: Sequence[bytes]):
        self.stops = stops
        self.held = b""  # may be the beginning of a stop string
        self.found = False

    def feed(self, data: bytes) -> bytes:
        """The bytes that are now known to belong to the text."""
        data = self.held + data
        places = [(at + len(stop), at) for stop in self.stops if (at := data.find(stop)) >= 0]
        if places:
            self.found, self.held = True, b""
            return data[: min(places)[1]]
        n_held = max((overlap(data, stop) for stop in self.stops), default=0)
        self.held = data[len(data) - n_held :]
        return data[: len(data) - n_held]

    def rest(self) -> bytes:
        """The bytes that are held back, at the end of the text."""
        held, self.held = self.held, b""
        return held


def overlap(data: bytes, stop: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of `stop`, which is not complete.

    >>> overlap(b"abab", b"ababc"), overlap(b"xab", b"abc"), overlap(b"x", b"abc")
    (4, 2, 0)
    """
    return next((n for n in range(min(len(stop) - 1, len(data)), 0, -1) if data.endswith(stop[:n])), 0)


def stopped(ids: Iterable[int], encoder: Encoder, stops: Sequence[bytes]) -> Iterator[str]:
    """The text of token ids in pieces, up to a stop string; after it, no more ids are asked for."""

    def chunks() -> Iterator[bytes]:
        stopper = Stopper(stops)
        for token_id in ids:
            yield stopper.feed(encoder.decode_bytes([token_id]))
            if stopper.found:
                return
        yield stopper.rest()

    return encoder.decode_chunks(chunks())
