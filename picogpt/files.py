"""Reading files that may contain anything, and writing files completely or not at all.

A file that cannot be read or written raises UserError.
"""

from __future__ import annotations

import json
import os
import reprlib
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EISDIR, ELOOP, ENAMETOOLONG, ENOTDIR, ENXIO
from pathlib import Path
from typing import Any, BinaryIO

from picogpt.errors import UserError, printable

SMALL = 1 << 20  # bytes; far more than any hparams.json, config.json or manifest.json
TABLE = 4 << 20  # bytes; far more than any list of tensors
VOCABULARY = 16 << 20  # bytes; far more than any file of a tokenizer
ADVICE = "put a good one there"
LATER = "nothing was changed; run again when it can be read"
ROOM = "make room there or choose another --models_dir; an interrupted download resumes"
WRONG_PATH = (EISDIR, ELOOP, ENAMETOOLONG, ENOTDIR, ENXIO)  # the path is not that of a regular file

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


class UnreadableError(UserError):
    """A file that may be good, but that cannot be read now."""


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Keep other processes from writing to a directory. If one is writing, say so and wait for it.

    The lock is a file beside the directory, which is removed afterwards. The operating system releases it however its
    holder ends. Directories that were made for the lock are removed if they stay empty. Raises UserError if the lock
    cannot be created.
    """
    path = directory.parent / f".{directory.name[:60]}.lock"  # a name may have 255 bytes
    made = [parent for parent in (directory, *directory.parents) if not is_there(parent)]
    with explained(directory):
        descriptor = _lock(path, f"waiting for another process that is at work on {directory}")
    try:
        yield
    finally:
        with suppress(OSError):  # on Windows an open file stays
            path.unlink()
        os.close(descriptor)
        for parent in made:
            with suppress(OSError):  # not empty, or not there
                parent.rmdir()


def _lock(path: Path, waiting: str) -> int:
    """Lock a file and return its descriptor. Raises OSError."""
    while True:
        descriptor = _open_lock(path)
        try:
            if not try_to_lock(descriptor, wait=False):
                note(waiting)
                try_to_lock(descriptor, wait=True)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has removed the file: try again with a new one


def _open_lock(path: Path) -> int:
    for _ in range(100):  # its holder may be removing the directory at this moment
        with suppress(FileNotFoundError, FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def try_to_lock(descriptor: int, wait: bool) -> bool:
    """Lock a file for this process; False if another one holds it. Raises OSError if files cannot be locked there."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True
    import msvcrt

    while True:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            return True
        except PermissionError:
            if not wait:
                return False
            time.sleep(0.1)


@contextmanager
def explained(directory: Path, advice: str = ROOM) -> Iterator[None]:
    """Turn an OSError from writing to a directory into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror or error}: {advice}") from None


def check_space(directory: Path, needed: int, purpose: str) -> None:
    """Raise UserError if a disk has fewer than `needed` bytes free."""
    import shutil  # only for a run that writes

    existing = next(path for path in (directory, *directory.absolute().parents) if is_dir(path))
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(f"{directory}: expected {size(needed)} of free disk ({purpose}), found {size(free)}: {ROOM}")


def is_dir(path: Path) -> bool:
    """Whether a path is a directory. False, not an error, for an impossible path."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_there(path: Path) -> bool:
    """Whether a path exists, even as a broken link."""
    return os.path.lexists(path)


def open_file(path: str | os.PathLike[str], advice: str = ADVICE) -> BinaryIO:
    """A regular file, open for reading. Pipes and devices are refused: reading one may block or never end.

    Raises UserError, or UnreadableError if the file may be good but cannot be read now.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise _refused(path, error, advice) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path}: expected a file, found a directory, a pipe or a device{then(advice)}")
    return os.fdopen(descriptor, "rb")


@contextmanager
def readable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError from reading an open file into an UnreadableError."""
    try:
        yield
    except OSError as error:
        raise UnreadableError(f"{path}: cannot read it: {error.strerror or error}: {LATER}") from None


def status(path: str | os.PathLike[str], advice: str = ADVICE) -> os.stat_result:
    """Size and date of a regular file. Raises UserError as `open_file` does."""
    with open_file(path, advice) as file:
        return os.fstat(file.fileno())


def _refused(path: str | os.PathLike[str], error: OSError | ValueError, advice: str) -> UserError:
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: expected a file, found none{then(advice)}")
    if isinstance(error, OSError) and error.errno not in WRONG_PATH:
        return UnreadableError(f"{path}: cannot read it: {reason}: {LATER}")
    return UserError(f"{path}: cannot read it: {reason}{then(advice)}")


def read_bytes(path: str | os.PathLike[str], limit: int = SMALL, advice: str = ADVICE) -> bytes:
    """The bytes of a file. Raises UserError as `open_file` does, and for a file of more than `limit` bytes."""
    with open_file(path, advice) as file, readable(path):
        data = file.read(limit + 1) or b""  # None if there is nothing yet, in /proc
    if len(data) > limit:
        raise UserError(f"{path}: expected at most {size(limit)}, found more{then(advice)}")
    return data


def read_text(path: str | os.PathLike[str], limit: int = SMALL, advice: str = ADVICE) -> str:
    """The text of a file in UTF-8. Raises UserError, as `read_bytes` does."""
    try:
        return read_bytes(path, limit, advice).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8, found {error.reason} at byte {error.start}{then(advice)}") from None


def read_json(path: str | os.PathLike[str], limit: int = SMALL, advice: str = ADVICE, unique: bool = True) -> Any:
    """The JSON value in a file. Raises UserError, as `read_bytes` and `json_from` do."""
    return json_from(read_text(path, limit, advice), str(path), advice, unique)


def read_object(
    path: str | os.PathLike[str], limit: int = SMALL, advice: str = ADVICE, unique: bool = True
) -> dict[str, Any]:
    """The JSON object in a file. Raises UserError, as `read_bytes` and `json_from` do."""
    return json_object_from(read_text(path, limit, advice), str(path), advice, unique)


def json_from(text: str, where: str, advice: str = ADVICE, unique: bool = True) -> Any:
    """The value of a JSON text. `where` names the text in messages.

    An object that has a key twice is refused, because one of the values would be lost. unique=False skips this check
    and takes a quarter less time. Raises UserError.

    >>> json_from('{"n_head": 12}', "hparams.json")
    {'n_head': 12}
    >>> json_from('{"n_head": 12, "n_head": 16}', "hparams.json", "fetch it again")
    Traceback (most recent call last):
    picogpt.errors.UserError: hparams.json: expected each key once, found 'n_head' twice: fetch it again
    """
    try:
        return json.loads(text, object_pairs_hook=_unique if unique else None)
    except _TwiceError as error:
        raise UserError(f"{where}: expected each key once, found {error} twice{then(advice)}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: expected JSON, found {error}{then(advice)}") from None
    except ValueError:
        raise UserError(f"{where}: expected JSON, found a number of thousands of digits{then(advice)}") from None
    except RecursionError:
        raise UserError(f"{where}: expected JSON, found brackets nested too deeply{then(advice)}") from None


def json_object_from(text: str, where: str, advice: str = ADVICE, unique: bool = True) -> dict[str, Any]:
    """The object of a JSON text. Raises UserError as `json_from` does, and for any other value."""
    value = json_from(text, where, advice, unique)
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, found {quoted(value)}{then(advice)}")
    return value


class _TwiceError(Exception):
    """A key that an object has twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise _TwiceError(quoted(key))
    return values


def then(advice: str) -> str:
    """The end of a message: what to do next, if anything."""
    return f": {advice}" if advice else ""


def quoted(value: object) -> str:
    """A value as shown in a message: one short line, with characters escaped that are not printable.

    >>> quoted([0, 1, 2, 3, 4, 5, 6, 7, "x" * 1000])
    '[0, 1, 2, 3, 4, 5, ...]'
    """
    return _SHORT.repr(value)


def save_text(path: Path, text: str) -> None:
    """Write a small file completely or not at all."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)  # never write to a pipe or through a link that is there
    with unfinished.open("x", encoding="utf-8") as file:
        file.write(text)
    unfinished.replace(path)


def sync(path: Path) -> None:
    """Wait until a file, or the list of files in a directory, is on the disk and would survive a power cut."""
    if path.is_dir() and os.name == "nt":
        return  # directories cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    import hashlib  # a start with converted weights needs none

    return hashlib.sha256(data).hexdigest()


def digest(path: Path, algorithm: str) -> bytes:
    """The digest of a file's bytes, by one of hashlib's algorithms."""
    import hashlib

    state = hashlib.new(algorithm, usedforsecurity=False)
    with open_file(path) as file, readable(path):
        while chunk := file.read(1 << 20):
            state.update(chunk)
    return state.digest()


def size(n_bytes: float) -> str:
    """12345678 as "12.3 MB"."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.2f} GB"


def note(message: str) -> None:
    """Print a line to stderr, because stdout is for the answer alone."""
    print(printable(message), file=sys.stderr, flush=True)
