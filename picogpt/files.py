"""What writing a model's files asks for: one process at a time, room on the disk, and errors that help."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from picogpt.errors import UserError


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Within, no other process writes to this model's directory: where one does, waits for it and says so.

    The lock is a file beside the directory, which stays; the operating system frees it however its holder ends.
    Raises UserError where it cannot be written.
    """
    import filelock  # only a run that writes needs it

    with explained(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(directory.parent / f".{directory.name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            note(f"waiting for another process that is at work on {directory}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def explained(directory: Path) -> Iterator[None]:
    """Raises UserError where the operating system does not let us write to a directory."""
    try:
        yield
    except UserError:
        raise
    except (OSError, NotImplementedError) as error:  # the latter where a file system cannot lock
        raise UserError(
            f"cannot write to {directory}: {getattr(error, 'strerror', None) or error}: "
            "make room there or choose another --models_dir; what has been fetched stays and is continued"
        ) from None


def check_space(directory: Path, needed: int, purpose: str) -> None:
    """Raises UserError where a disk has less than `needed` bytes free."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{directory}: expected {size(needed)} of free disk ({purpose}), found {size(free)}: "
            "make room there or choose another --models_dir"
        )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, found {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected an object, found {value!r:.40}")
    return value


def save_text(path: Path, text: str) -> None:
    """Write a small file, all of it or nothing."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk: then a power cut does no harm either."""
    if path.is_dir() and os.name == "nt":
        return  # directories cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(path: Path, algorithm: str) -> bytes:
    """The digest of a file's bytes, by one of hashlib's algorithms."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
    return state.digest()


def size(n_bytes: float) -> str:
    """12345678 as "12.3 MB"."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.2f} GB"


def note(message: str) -> None:
    """A line on stderr for whoever waits; stdout holds the answer alone."""
    print(message, file=sys.stderr, flush=True)
