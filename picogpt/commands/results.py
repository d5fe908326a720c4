"""The output of a batch: a line of JSON for each text, in the order of the prompts.

A line is written as soon as all lines before it are. A file has a journal beside it, OUTPUT.run, which gets each text
first. The file is therefore always a prefix of the lines that the journal gives in order. A file for which this does
not hold is not ours: it is refused and not changed. Our own files are only appended to.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from picogpt import files
from picogpt.commands import cli
from picogpt.commands.journal import OTHER, Journal, json_line, write_whole
from picogpt.errors import UserError

FAR = 1 << 40  # bytes; Windows locks a range of a file, here one far beyond the text


class Results:
    """Writes the texts of prompts to a stream.

    there  numbers of the prompts whose texts earlier runs have completed
    texts  number of the prompt -> {"text": text, ...}, for texts that are complete but not yet written
    """

    def __init__(self, prompts: Sequence[str], write: Callable[[bytes], object]):
        self.prompts = prompts
        self.write = write
        self.there: set[int] = set()
        self.texts: dict[int, dict[str, Any]] = {}
        self.next = 0

    def check(self, settings: Mapping[str, Any], model: Mapping[str, str]) -> None:
        """Raise UserError if earlier runs used other settings or another model."""

    def begin(self, settings: Mapping[str, Any], model: Mapping[str, str]) -> None:
        """Check again and prepare to write. Nothing is written before this call."""

    def add(self, number: int, text: str, **more: Any) -> None:
        """Add a complete text, with what else its line shows, and write all lines that can be written in order."""
        self.texts[number] = {"text": text, **more}
        for line in self.lines():
            self.write(line)

    def lines(self) -> Iterator[bytes]:
        """The lines that come next in order and are complete."""
        while self.next in self.texts:
            yield json_line({"prompt": self.prompts[self.next], **self.texts.pop(self.next)})
            self.next += 1


class ResumableResults(Results):
    """Writes the texts of prompts to a file, with a journal.

    Raises UserError if the file or its journal was not left by a run of these prompts.
    """

    def __init__(self, prompts: Sequence[str], path: Path, file: BinaryIO):
        super().__init__(prompts, lambda line: write_whole(file, line))
        self.path = path
        self.journal = Journal(path.with_name(f"{path.name}.run"), prompts)
        self.there, self.texts = set(self.journal.texts), dict(self.journal.texts)
        self.unwritten = self._after(file)

    def _after(self, file: BinaryIO) -> bytes:
        """The bytes of complete lines that the file does not have yet. Raises UserError if the file is not ours."""
        unwritten = []
        for line in self.lines():
            found = file.read(len(line))
            if not line.startswith(found):
                self._refuse()
            unwritten.append(line[len(found) :])
        if file.read(1):
            self._refuse()
        return b"".join(unwritten)

    def _refuse(self) -> None:
        raise UserError(
            f"{self.path}: expected no file, an empty one, or the texts that {self.journal.path} keeps, "
            f"found something else: {OTHER}"
        )

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    def check(self, settings: Mapping[str, Any], model: Mapping[str, str]) -> None:
        """See Results."""
        self.journal.check(settings, model)

    def begin(self, settings: Mapping[str, Any], model: Mapping[str, str]) -> None:
        """See Results."""
        self.journal.check(settings, model)
        with explained(self.journal.path):
            self.journal.begin(settings, model)
        with explained(self.path):
            self.write(self.unwritten)

    def add(self, number: int, text: str, **more: Any) -> None:
        """See Results."""
        with explained(self.journal.path):
            self.journal.append(number, {"text": text, **more})
        with explained(self.path):
            super().add(number, text, **more)


@contextmanager
def opened(output_file: str | None, prompts: Sequence[str]) -> Iterator[Results]:
    """Results that go to a file or a stream: a pipe, a device, or stdout if none is named. Raises UserError."""
    path = Path(os.devnull if output_file is None else output_file)
    if output_file is None or _is_stdout(path):
        yield Results(prompts, lambda line: cli.write([line.decode("ascii")], end=""))
    elif _is_stream(path):
        with explained(path):
            stream = path.open("wb", buffering=0)
        with stream:
            yield Results(prompts, lambda line: _write(stream, line, path))
    else:
        if os.path.islink(path):  # noqa: PTH114 no error for a name that cannot be one
            path = Path(os.path.realpath(path))  # the journal lies beside the file itself
        with _held(path) as file, closing(ResumableResults(prompts, path, file)) as results:
            yield results


def _write(file: BinaryIO, line: bytes, path: Path) -> None:
    with explained(path):
        write_whole(file, line)


def _is_stdout(path: Path) -> bool:
    """Whether stdout goes to this path, as it does to /dev/stdout."""
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    except OSError:
        return False


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextmanager
def _held(path: Path) -> Iterator[BinaryIO]:
    """A file, open for reading and appending, and locked against other runs until this process ends.

    A new file is removed if something fails while it is empty. Raises UserError.
    """
    new = not files.is_there(path)
    with explained(path):
        file = path.open("a+b", buffering=0)
    with file:
        _lock(file, path)
        file.seek(0)
        try:
            yield file
        except BaseException:
            if new and os.fstat(file.fileno()).st_size == 0:
                with suppress(OSError):  # on Windows an open file stays
                    path.unlink()
            raise


def _lock(file: BinaryIO, path: Path) -> None:
    """Lock a file. Raises UserError if another process has locked it, or if it is not a regular file."""
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: expected a file, a pipe or a terminal, found another device: {OTHER}")
    if os.name == "nt":
        file.seek(FAR)  # others cannot read a locked range there
    with explained(path):
        if not files.try_to_lock(file.fileno(), wait=False) or not os.path.samestat(found, path.stat()):
            raise UserError(f"{path}: another run is writing to it: wait until that ends, or {OTHER}")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError from writing into a UserError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot write to it: {error.strerror}: fix that and run again, or {OTHER}") from None
