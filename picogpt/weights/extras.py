"""Packages that only some uses need: each is imported when it is used, and comes with an extra of this project."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from picogpt.errors import UserError


def imported(module: str, extra: str, purpose: str) -> Any:
    """A module of a package that may be missing. Raises UserError, naming the extra that installs it.

    >>> imported("gguf9", "gguf", "an export to GGUF")
    Traceback (most recent call last):
    picogpt.errors.UserError: an export to GGUF needs the package gguf9, found none: pip install "picogpt-numpy[gguf]"
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise UserError(
            f'{purpose} needs the package {error.name}, found none: pip install "picogpt-numpy[{extra}]"'
        ) from None
