"""The journal that lets an interrupted batch resume: a file beside the output that gets each text once it is complete.

The first line holds the settings and the model. Each line after it holds one text, in the order of completion. Every
line has a checksum, so that damage is detected. An interrupted run may leave an incomplete last line, which the next
run cuts off.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from picogpt import files
from picogpt.errors import UserError

FORMAT = "picogpt batch 2"
FIRST_LINE = 1 << 20  # bytes; far longer than that of any journal
OTHER = "choose another --output_file"


class Journal:
    """The texts of earlier runs, and a place for more. Nothing is written before `begin`.

    prompts    those of this run
    texts      number of the prompt -> {"text": text}, and what else there is in its line
    made_with  {"settings": {name: value}, "model": {"model_size": name, and fingerprints}}, or None before the first
               run

    Raises UserError if the file is something else, or if a prompt differs from that of an earlier run.
    """

    def __init__(self, path: Path, prompts: Sequence[str]):
        self.path = path
        self.prompts = prompts
        self.texts: dict[int, dict[str, Any]] = {}
        self.made_with: dict[str, dict[str, Any]] | None = None
        self.n_bytes = 0  # up to the end of the last whole line
        self.file: BinaryIO | None = None
        if files.is_there(path):
            self._read()

    def _read(self) -> None:
        with files.open_file(self.path, OTHER) as file:
            self._read_first(file.readline(FIRST_LINE))
            for number, line in enumerate(file, start=2):
                if not line.endswith(b"\n"):
                    return
                self._read_text(line, f"{self.path}, line {number}")
                self.n_bytes += len(line)

    def _read_first(self, line: bytes) -> None:
        match unsealed(line):
            case {"journal": str(name), "settings": dict(settings), "model": dict(model)} if name == FORMAT:
                self.made_with = {"settings": settings, "model": model}
                self.n_bytes = len(line)
            case _:
                raise UserError(f"{self.path}: expected no file, or a batch's journal, found another one: {OTHER}")

    def _read_text(self, line: bytes, where: str) -> None:
        found = unsealed(line) or {}
        match found:
            case {"number": int(number), "prompt": str(prompt), "text": str()} if number not in self.texts:
                self._check_prompt(number, prompt, where)
                self.texts[number] = {name: value for name, value in found.items() if name not in ("number", "prompt")}
            case _:
                raise UserError(f"{where}: expected a text of an earlier run, found a line that is damaged: {OTHER}")

    def _check_prompt(self, number: int, prompt: str, where: str) -> None:
        found = self.prompts[number] if 0 <= number < len(self.prompts) else None
        if found != prompt:
            raise UserError(
                f"{where}: expected prompt {number + 1} to be {files.quoted(prompt)} as in the earlier run, "
                f"found {files.quoted(found)}: {OTHER}"
            )

    def check(self, settings: Mapping[str, Any], model: Mapping[str, str]) -> None:
        """Raise UserError if earlier runs used another setting or another model."""
        if self.made_with is None:
            return
        earlier, now = self.made_with["settings"], json.loads(json.dumps(settings))
        for name in {**earlier, **now}:
            if earlier.get(name) != now.get(name):
                self._refuse(f"--{name} {earlier.get(name)}", now.get(name))
        before = self.made_with["model"]
        if any(before.get(name) != value for name, value in model.items() if name != "model_size"):
            self._refuse(f"the model {before.get('model_size')}", f"{model['model_size']}, which is another")

    def _refuse(self, expected: str, found: object) -> None:
        raise UserError(
            f"{self.path}: expected {expected} as in the earlier run, found {found}: use the same again, or {OTHER}"
        )

    def begin(self, settings: Mapping[str, Any], model: Mapping[str, str]) -> None:
        """Prepare to append: create the journal, or cut off an incomplete last line. Raises OSError."""
        if self.made_with is None:
            _save_whole(self.path, sealed({"journal": FORMAT, "settings": settings, "model": model}))
        self.file = self.path.open("ab", buffering=0)
        if self.made_with is not None:
            self.file.truncate(self.n_bytes)

    def append(self, number: int, fields: Mapping[str, Any]) -> None:
        """Append a text, and what else there is. It is on the disk when this returns. Raises OSError."""
        assert self.file is not None, "begin comes first"
        write_whole(self.file, sealed({"number": number, "prompt": self.prompts[number], **fields}))
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file that `begin` opened, if any."""
        if self.file is not None:
            self.file.close()


def json_line(value: object) -> bytes:
    r"""A value as a line of ASCII. Bytes of a prompt that are not UTF-8 become \udc80 to \udcff.

    >>> json_line({"prompt": "caf\udce9"})
    b'{"prompt": "caf\\udce9"}\n'
    """
    return json.dumps(value).encode("ascii") + b"\n"


def sealed(value: Mapping[str, Any]) -> bytes:
    """An object as a line with a checksum."""
    return json_line({**value, "crc32": zlib.crc32(json_line(value))})


def unsealed(line: bytes) -> dict[str, Any] | None:
    """The object in a line that `sealed` made; None for any other bytes."""
    try:
        value = files.json_object_from(line.decode("ascii"), "")
    except ValueError:
        return None
    value.pop("crc32", None)
    return value if line == sealed(value) else None


def write_whole(file: BinaryIO, data: bytes) -> None:
    """Write all of the bytes to an unbuffered file. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _save_whole(path: Path, data: bytes) -> None:
    """Write a file completely or not at all. Raises OSError."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with new.open("xb", buffering=0) as file:
            write_whole(file, data)
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    files.sync(path.parent)
