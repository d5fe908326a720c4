"""picogpt: GPT-2 in pure NumPy, to read, to trust and to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Params = dict[str, Any]  # a model's weights: nested dicts and lists of arrays, see utils.py

__version__ = "0.1.0"


class UserError(ValueError):
    """Something a person can put right: says what was expected, what was found and what to do next.

    The command line prints it as one line on stderr and exits with status 2.
    """
