"""Downloading files over HTTP: resumed after interruptions, checked, and renamed only when they are complete.

After an interruption, or in a later run, a Range request asks for the rest of the file (see partial.py), on condition
that it has not changed (If-Range). The request also covers the last bytes that are on disk, which must be the same
again. If the server sends the whole file instead, the download starts again. See RFC 9110, sections 13 and 14. Limits
on time and size are in transport.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from picogpt import files
from picogpt.errors import UserError
from picogpt.weights import transport
from picogpt.weights.bundle import read_index
from picogpt.weights.partial import Part, Promise
from picogpt.weights.source import Known
from picogpt.weights.transport import Answer, NetworkError, Patience, Session

RETRIES = 5  # without a new byte in between
FIRST_RETRIES = 2  # if nothing has come from the server at all
BACKOFF = 0.5  # seconds before the second try; twice as long before each one after it
LONGEST_WAIT = 300  # seconds; if a server asks for more, the user is told instead
RETRIED = (429, 500, 502, 503, 504)
OVERLAP = 1 << 14  # bytes that a resumed download asks for again

WEIGHTS_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"
COPIES = {"124M": "gpt2", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}  # on the Hugging Face Hub

# the largest sizes in bytes of files of unknown size; OpenAI's have at most 91, 77, 16 kB and 1.8 MB
LIMITS = {"hparams.json": 1 << 12, "checkpoint": 1 << 12, "model.ckpt.index": 1 << 20}
LIMIT = 1 << 24  # of any other file

Look = Callable[[Path], object]  # raises UserError if a file cannot be what its name says


def weights_url() -> str:
    """The address of models: OpenAI's server, or a mirror named by PICOGPT_WEIGHTS_URL. Raises UserError."""
    url = os.environ.get("PICOGPT_WEIGHTS_URL") or WEIGHTS_URL
    if not transport.is_safe(url):
        raise UserError(f"PICOGPT_WEIGHTS_URL: expected an https address, found {url!r}")
    if "@" in urlsplit(url).netloc:
        raise UserError("PICOGPT_WEIGHTS_URL: expected no password in the address, found one: put it into ~/.netrc")
    return url.rstrip("/")


class AgainError(Exception):
    """The server may give another answer the next time, after `wait` seconds if it says so."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class ChangedError(AgainError):
    """The bytes on disk are not the start of the server's file: the next attempt starts again."""


def fetch_all(
    base_url: str,
    names: Iterable[str],
    directory: Path,
    known: Callable[[str], Known],
    looks: Mapping[str, Look] | None = None,
) -> None:
    """Download files into a directory that only we write to. Raises UserError, but keeps what was received.

    Files are compared with `known(name)`. A file without a known SHA-256 is checked by `looks[name]`, or by the entry
    of that name in LOOKS, before it is renamed.
    """
    looks = LOOKS | dict(looks or {})
    started, parts = time.monotonic(), [Part(directory / name) for name in names]
    with Session() as session, files.explained(directory):
        for part in parts:
            name = part.goal.name
            fetch(session, f"{base_url}/{name}", part, known(name), looks.get(name, files.open_file))
    count = "1 file" if len(parts) == 1 else f"{len(parts)} files"
    received = files.size(sum(part.received for part in parts))
    files.note(f"fetched {count} into {directory}: {received} in {time.monotonic() - started:.1f} s from {base_url}")


def fetch(session: Session, url: str, part: Part, known: Known, look: Look) -> None:
    """Download one file, or the rest of it. Raises UserError if another attempt is useless or too many have failed."""
    patience = session.patience = Patience(part.size)
    before, failures = patience.furthest, 0
    while True:
        try:
            _attempt(session, url, part, known, look)
            return part.finish()
        except (AgainError, NetworkError) as error:
            failures = 1 if patience.furthest > before else failures + 1
            before = patience.furthest
            if isinstance(error, ChangedError):
                part.discard()
            tries = RETRIES if before or isinstance(error, AgainError) else FIRST_RETRIES
            if failures > tries or (isinstance(error, NetworkError) and error.final):
                raise _give_up(url, part, str(error)) from None
            _wait(error, url, failures)


def _attempt(session: Session, url: str, part: Part, known: Known, look: Look) -> None:
    """Request the missing part of a file once.

    Raises AgainError or NetworkError if another attempt may help, UserError if not.
    """
    promise = part.promise(url, known)
    start, resumed = max(0, part.size - OVERLAP), promise is not None
    if promise is None or part.size < promise.total:
        with transport.request(session, url, _range_headers(start, promise)) as answer:
            start, promise = _read_head(answer, url, start, promise, part, known)
            resumed = start > 0
            if not resumed:
                part.begin(promise)
            part.save(_new_bytes(answer.chunks, part, start, session.patience), promise.total)
    _check_whole(url, part, promise, known, look, resumed)


def _range_headers(start: int, promise: Promise | None) -> dict[str, str | None]:
    if promise is None or start == 0:
        return {}
    return {"Range": f"bytes={start}-", "If-Range": promise.validator}


def _read_head(
    answer: Answer, url: str, start: int, before: Promise | None, part: Part, known: Known
) -> tuple[int, Promise]:
    """The position in the file where the body of an answer begins, and what is promised of the whole file."""
    if answer.status in RETRIED:
        raise AgainError(f"the server says {answer.status} {answer.reason}", answer.wait)
    if answer.status == 200:
        _check_kind(answer, url)
        return 0, _promise(answer, url, part.goal.name, known)
    if answer.status == 206 and before is not None and _continues(answer, start, before):
        _check_kind(answer, url)
        return start, before
    if answer.status in (206, 416):
        raise ChangedError("the server's ranges do not fit what is on disk: starting again")
    raise _give_up(url, part, f"the server says {answer.status} {answer.reason}")


def _continues(answer: Answer, start: int, before: Promise) -> bool:
    """Whether a partial answer is the rest, from `start`, of the same file as before."""
    same = answer.validator is None or answer.validator == before.validator
    return same and answer.range == (start, before.total - 1, before.total)


def _check_kind(answer: Answer, url: str) -> None:
    if answer.kind.lower().startswith("text/html"):
        raise UserError(f"{url}: expected a file, found a web page ({answer.kind}): does a proxy ask for a login?")
    if answer.encoding != "identity":
        raise UserError(f"{url}: expected the file as it is, found it encoded as {answer.encoding}: use another mirror")


def _promise(answer: Answer, url: str, name: str, known: Known) -> Promise:
    """What an answer with a whole file promises. If the server gives no length, the known size is taken.

    Raises UserError if the answer cannot be the file, or if it could be cut off unnoticed.
    """
    total = known.size if answer.length is None else answer.length
    if total is None:
        raise UserError(f"{url}: expected a Content-Length, found none to notice a cut by: use another mirror")
    if total != (known.size or total) or total == 0:
        raise UserError(f"{url}: expected {known.size or 'some'} bytes, found {total}: not OpenAI's file")
    if known.size is None and total > (limit := LIMITS.get(name, LIMIT)):
        raise UserError(f"{url}: expected {limit} bytes at most, found {total}: not OpenAI's file")
    return Promise(url, total, answer.validator, answer.md5)


def _new_bytes(chunks: Iterator[bytes], part: Part, start: int, patience: Patience) -> Iterator[bytes]:
    """The chunks of an answer without the bytes on disk from `start`. Raises ChangedError if these differ."""
    there, size = part.tail(start), part.size
    for chunk in chunks:
        again, new = chunk[: len(there)], chunk[len(there) :]
        if not there.startswith(again):
            raise ChangedError("the server sends other bytes than before: starting again")
        there = there[len(again) :]
        patience.reached(size := size + len(new))
        yield new


def _check_whole(url: str, part: Part, promise: Promise, known: Known, look: Look, resumed: bool) -> None:
    """Raise AgainError if bytes are missing, and ChangedError if parts from several answers do not make the file.

    Raise UserError if a single answer does not; then nothing stays on disk.
    """
    if part.size < promise.total:
        raise AgainError(f"expected {promise.total} bytes, found {part.size}")
    found = part.wrong(promise, known) or (None if known.sha256 else _seen(look, part.path))
    if found is None:
        return
    if resumed:
        raise ChangedError(f"{found}: the file has changed meanwhile, starting again")
    part.discard()
    raise UserError(f"{url}: {found}: not the file that was promised; run again or use another mirror")


def _seen(look: Look, path: Path) -> str | None:
    """The problem that `look` finds in a file, or None."""
    try:
        look(path)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def _look_for(expected: str, is_right: Callable[[bytes], object]) -> Look:
    """A check of a file's bytes."""

    def look(path: Path) -> None:
        if not is_right(data := files.read_bytes(path, LIMIT)):
            raise UserError(f"expected {expected}, found {files.quoted(data[:20])}")

    return look


LOOKS: dict[str, Look] = {
    "encoder.json": lambda path: files.read_object(path, LIMIT),
    "vocab.bpe": _look_for("#version first", lambda data: data.startswith(b"#version")),
    "checkpoint": _look_for("model.ckpt", lambda data: data.startswith(b'model_checkpoint_path: "model.ckpt"\n')),
    "model.ckpt.index": read_index,
    "model.ckpt.meta": _look_for("a graph", lambda data: data.startswith(b"\n")),  # field 1 of a protocol buffer
}


def _wait(error: AgainError | NetworkError, url: str, failures: int) -> None:
    """Wait before the next attempt, as long as the server asks for, else longer each time."""
    asked = error.wait if isinstance(error, AgainError) else None
    seconds = BACKOFF * 2 ** (failures - 1) if asked is None else asked
    if seconds > LONGEST_WAIT:
        raise UserError(f"{url}: the server asks to wait {seconds:.0f} s: run again after that to continue")
    files.note(f"fetching {url}: {error}: trying again in {seconds:g} s")
    time.sleep(seconds)


def _give_up(url: str, part: Part, reason: str) -> UserError:
    directory = part.goal.parent
    copy = f"--model_size hf:openai-community/{COPIES.get(directory.name, 'gpt2')}"
    return UserError(
        f"cannot fetch {url} ({reason}): run again to continue, put the file into {directory} by hand, take Hugging "
        f"Face's copy: {copy}, or use the bundled model, which needs no network: --model_size shakespeare"
    )
