"""Flags in a file: --settings_file FILE.toml, and --recipe NAME for a file that comes with picogpt.

A file has lines `name = value`, with the names of flags. A flag on the command line wins over the settings file, which
wins over the recipe. With --resume, the flags are those that the run was started with.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from picogpt import files
from picogpt.commands.arguments import Flags, near, parser_for
from picogpt.errors import UserError

RECIPES = Path(__file__).parent.parent / "training" / "recipes"


def with_files(named: Mapping[str, str], flags: Flags) -> dict[str, str]:
    """The values of flags, with those of the files that they name. Raises UserError."""
    values: dict[str, str] = {}
    if named.get("resume") == "True" and "output_dir" in named:
        return resumed(named, flags)
    if "recipe" in named and "recipe" in flags:
        values |= from_file(recipe(named["recipe"]), flags)
    if "settings_file" in named and "settings_file" in flags:
        values |= from_file(Path(named["settings_file"]), flags)
    return values | dict(named)


def resumed(named: Mapping[str, str], flags: Flags) -> dict[str, str]:
    """The settings that a run was started with. Raises UserError if a flag differs from them."""
    path = Path(named["output_dir"]) / "settings.toml"
    stored = from_file(path, flags)
    for name in named.keys() & stored.keys():
        parse = parser_for(name, flags[name])
        if parse(named[name]) != parse(stored[name]):
            raise UserError(
                f"--{name}: expected {stored[name]}, with which the run in {path.parent} was started, "
                f"found {named[name]}: leave it out"
            )
    return stored | dict(named)


def recipe(name: str) -> Path:
    """The file of a recipe. Raises UserError if there is none of this name."""
    known = sorted(path.stem for path in RECIPES.glob("*.toml"))
    if name not in known:
        raise UserError(f"--recipe: expected {', '.join(known)}, found {name[:60]!r}: choose one of these")
    return RECIPES / f"{name}.toml"


def from_file(path: Path, flags: Flags) -> dict[str, str]:
    """The values in a file, as text. Raises UserError for a name that is not a flag's."""
    values = {}
    for name, value in read_toml(path).items():
        if name not in flags:
            nearest = near(name, flags)
            hint = f"did you mean {nearest}?" if nearest else "--help shows all names"
            raise UserError(f"{path}: unknown setting {name[:60]}: {hint}")
        if not isinstance(value, str | int | float):
            raise UserError(f"{path}: expected a number, a text, true or false as {name}, found {files.quoted(value)}")
        values[name] = str(value)
    return values


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file. Raises UserError."""
    text = files.read_text(path, advice="name a TOML file")
    try:
        return _tomllib().loads(text)  # type: ignore[no-any-return]
    except ValueError as error:  # TOMLDecodeError
        raise UserError(f"{path}: expected TOML, found {error}: fix it") from None


def _tomllib() -> Any:
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    try:
        import tomli
    except ModuleNotFoundError:
        raise UserError("TOML needs Python 3.11 or the package tomli, found neither: pip install tomli") from None
    return tomli
