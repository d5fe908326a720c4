"""Files of arrays, memory-mapped: the operating system reads a part of a file when it is used."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from picogpt import files
from picogpt.arrays import Array
from picogpt.errors import UserError

DAMAGED = "it is damaged"  # the end of a message to which `named` adds what to do
AGAIN = "fetch it again"


class MappedFile:
    """A file that is read in parts. Close it after use; arrays stay valid.

    size  in bytes
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = files.open_file(path, AGAIN)
        self.size = os.fstat(self._file.fileno()).st_size

    def part(self, offset: int, n_bytes: int) -> Array:
        """A part of the file as read-only uint8 [n_bytes]. Its memory, and a file descriptor, are freed with the array.

        The file must not be shortened as long as the array is in use. Raises UserError.
        """
        if n_bytes == 0:
            return np.empty(0, np.uint8)  # mmap refuses an empty part
        extra = offset % mmap.ALLOCATIONGRANULARITY
        try:
            mapped = mmap.mmap(
                self._file.fileno(), extra + n_bytes, access=mmap.ACCESS_READ, offset=offset - extra
            )  # fails if a part of this is beyond the end of the file
        except (OSError, ValueError) as error:
            raise files.UnreadableError(f"{self.path}: cannot map it: {error}: {files.LATER}") from None
        return np.frombuffer(mapped, np.uint8, n_bytes, extra)

    def close(self) -> None:
        self._file.close()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Put the path of a file before the message of each UserError, and say what to do if it is damaged.

    A damaged file has to be deleted, because a file that is there is never fetched.
    """
    try:
        yield
    except files.UnreadableError:  # names it already
        raise
    except UserError as error:
        advice = f": delete {path.name}, and run again or put a good one there" if str(error).endswith(DAMAGED) else ""
        raise UserError(f"{path}: {error}{advice}") from None
