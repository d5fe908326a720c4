"""An unfinished download: NAME.part holds the bytes so far, and NAME.part.json what the server promised."""

from __future__ import annotations

import json
import os
import stat
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from picogpt import files
from picogpt.errors import UserError
from picogpt.weights.source import Known
from picogpt.weights.transport import MD5, VALIDATOR, matching


class Promise(NamedTuple):
    """What a server says about a whole file. The validator, an ETag or a date, changes when the file does."""

    url: str
    total: int
    validator: str | None
    md5: str | None


class Part:
    """A file that is being downloaded: the bytes so far, and what the server promised.

    Anything else at one of the two paths, such as a pipe, a link or a file with a second name, is replaced and never
    written to. A directory is refused.
    """

    def __init__(self, goal: Path):
        self.goal = goal
        self.path = goal.with_name(f"{goal.name}.part")
        self.note = goal.with_name(f"{goal.name}.part.json")
        self.received = 0  # bytes that came over the network

    @property
    def size(self) -> int:
        try:
            status = self.path.lstat()
        except OSError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else 0

    def promise(self, url: str, known: Known) -> Promise | None:
        """What was promised of the file on disk, if the download can be resumed and a changed file would be noticed."""
        try:
            note = files.read_object(self.note)
        except UserError:
            return None
        total, validator, md5 = note.get("total"), matching(VALIDATOR, note.get("validator")), note.get("md5")
        promise = Promise(url, total if type(total) is int else 0, validator, matching(MD5, md5))
        seen = promise.validator or promise.md5 or known.sha256
        fits = 0 < self.size <= promise.total and promise.total == (known.size or promise.total)
        return promise if note.get("url") == url and seen and fits else None

    def begin(self, promise: Promise) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.discard()  # first, so that old bytes never follow a new promise
        self.path.open("xb").close()
        files.save_text(self.note, json.dumps(promise._asdict()))

    def finish(self) -> None:
        self.path.replace(self.goal)
        _remove(self.note)
        files.sync(self.goal.parent)

    def discard(self) -> None:
        _remove(self.path)
        _remove(self.note)

    def tail(self, start: int) -> bytes:
        """The bytes on disk from `start`."""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read()

    def save(self, chunks: Iterable[bytes], total: int) -> None:
        """Append the bytes that arrive. A bar shows their number, rate and time left."""
        bar = tqdm(
            desc=f"fetching {self.goal.name}", total=total, initial=self.size, unit="B", unit_scale=True, disable=None
        )
        with bar, self.path.open("ab") as file:
            for chunk in chunks:
                file.write(chunk)
                bar.update(len(chunk))
                self.received += len(chunk)
                if file.tell() > total:
                    break  # more than was promised
            file.flush()
            os.fsync(file.fileno())

    def wrong(self, promise: Promise, known: Known) -> str | None:
        """Why the bytes on disk are not the file, or None: by length, SHA-256 and MD5, and as no web page."""
        if promise.total != self.size:
            return f"expected {promise.total} bytes, found {self.size}"
        with self.path.open("rb") as file:
            if file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html")):
                return "expected data, found a web page"
        if known.sha256 and known.sha256 != (found := files.digest(self.path, "sha256").hex()):
            return f"expected SHA-256 {known.sha256}, found {found}"
        if promise.md5 and promise.md5 != (found := b64encode(files.digest(self.path, "md5")).decode()):
            return f"expected MD5 {promise.md5}, found {found}"
        return None


def _remove(path: Path) -> None:
    """Delete whatever is at the path of one of our files."""
    if path.is_dir() and not path.is_symlink():
        raise UserError(f"{path}: expected a file, found a directory: move it away and run again")
    path.unlink(missing_ok=True)
