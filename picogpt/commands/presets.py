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
from picogpt.commands.arguments import Flags, parser_for
from picogpt.errors import UserError, near

FREE = {"resume", "output_dir", "settings_file", "recipe", "n_threads", "sample"}  # may change when a run goes on
RECIPES = Path(__file__).parent.parent / "training" / "recipes"


def with_files(named: Mapping[str, str], flags: Flags) -> dict[str, str]:
    """The values of flags, with those of the files that they name. Raises UserError."""
    values: dict[str, str] = {}
    if "recipe" in named and "recipe" in flags:
        values |= from_file(recipe(named["recipe"]), flags)
    if "settings_file" in named and "settings_file" in flags:
        values |= from_file(Path(named["settings_file"]), flags)
    values |= named
    return resumed(values, flags) if "resume" in flags and values.get("resume") == "True" else values


def resumed(named: Mapping[str, str], flags: Flags) -> dict[str, str]:
    """The settings that a run was started with. Raises UserError if a flag differs from them."""
    if "output_dir" not in named:
        raise UserError("--resume: expected --output_dir, found none: name the directory of the run")
    path = Path(named["output_dir"]) / "settings.toml"
    stored = from_file(path, flags, advice="name the directory of a run that was started")
    for name in named.keys() - FREE:
        parse, expected = parser_for(name, flags[name]), stored.get(name)
        if expected is None or parse(named[name]) != parse(expected):
            raise UserError(
                f"--{name}: expected {expected or 'none'}, with which the run in {path.parent} was started, "
                f"found {named[name]}: leave it out"
            )
    return stored | dict(named)


def recipe(name: str) -> Path:
    """The file of a recipe. Raises UserError if there is none of this name."""
    known = sorted(path.stem for path in RECIPES.glob("*.toml"))
    if name not in known:
        raise UserError(f"--recipe: expected {', '.join(known)}, found {name[:60]!r}: choose one of these")
    return RECIPES / f"{name}.toml"


def from_file(path: Path, flags: Flags, advice: str = "name a TOML file") -> dict[str, str]:
    """The values in a file, as text. Raises UserError for a name that is not a flag's."""
    values = {}
    for name, value in read_toml(path, advice).items():
        check_name(name, flags, path)
        if not isinstance(value, str | int | float):
            raise UserError(f"{path}: expected a number, a text, true or false as {name}, found {files.quoted(value)}")
        values[name] = str(value)
    return values


def check_name(name: str, flags: Flags, path: Path) -> None:
    """Raise UserError, with a hint, if a name in a file is not a flag's."""
    if name not in flags:
        nearest = near(name, flags)
        hint = f"did you mean {nearest}?" if nearest else "--help shows all names"
        raise UserError(f"{path}: unknown setting {name[:60]}: {hint}")


def read_toml(path: Path, advice: str = "name a TOML file") -> dict[str, Any]:
    """The table in a TOML file. Raises UserError."""
    text = files.read_text(path, advice=advice)
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
