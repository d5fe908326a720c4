"""From the name of a model to its directory, the source that reads it, and the directory of its converted weights."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from picogpt import files
from picogpt.errors import UserError
from picogpt.weights import openai, store
from picogpt.weights.source import Source

HUB = "hf:"
MODEL_SIZES = tuple(openai.HPARAMS)
ALIASES = {size.lower(): size for size in MODEL_SIZES} | {
    "gpt2": "124M",
    "gpt2-medium": "355M",
    "gpt2-large": "774M",
    "gpt2-xl": "1558M",
}


class Place:
    """Where a model is.

    name  OpenAI's name for it if it is one of theirs, its name on the Hub (hf:...) if it comes from there, else None
    """

    def __init__(self, directory: Path, models_dir: Path, name: str | None = None):
        self.directory = directory
        self.models_dir = models_dir
        self.name = name

    @cached_property
    def source(self) -> Source:
        """The source that reads this directory. Formats are told apart only here."""
        if self.name is not None and self.name.startswith(HUB):
            from picogpt.weights import hub

            return hub.Checkpoint(self.directory, self.name)
        if self.name is not None:
            return openai.Published(self.directory, self.name)
        has_config, has_hparams = (files.is_there(self.directory / f"{name}.json") for name in ("config", "hparams"))
        if has_config and not has_hparams:
            from picogpt.weights import huggingface  # not needed for OpenAI's format

            return huggingface.Checkpoint(self.directory)
        return openai.Checkpoint(self.directory)

    @property
    def is_ours(self) -> bool:
        """Whether it is in models_dir, where we may write and delete. Directories elsewhere belong to the user."""
        return os.path.realpath(self.directory.parent) == os.path.realpath(self.models_dir)

    @property
    def is_bundled(self) -> bool:
        return self.directory.parent == bundled_models_dir()

    @property
    def home(self) -> Path:
        """The directory of the converted weights: the model's, or one in the cache if it is not ours and has none."""
        if self.is_ours or self.is_bundled or files.is_dir(self.directory / store.PARAMS_DIR):
            return self.directory
        full = self.directory.resolve()
        label = (self.name or full.name).removeprefix(HUB).partition("@")[0].replace("/", "--")
        return cache_dir() / "converted" / f"{label[:40]}-{files.sha256(os.fsencode(full))[:12]}"


def find(model: str | os.PathLike[str], models_dir: str | os.PathLike[str] | None) -> Place:
    """A model in models_dir, a bundled one, or one of OpenAI's that has not been downloaded yet.

    A name never leads out of models_dir. With a separator in it, as in ./x, /x/y or ~/x, it is the path of a directory,
    but hf:OWNER/NAME and hf:OWNER/NAME@REVISION are models of the Hugging Face Hub, in the cache of huggingface_hub.
    Raises UserError if there is no such model.
    """
    name, parent = os.fspath(model), _models_dir(models_dir)
    if name.startswith(HUB):
        from picogpt.weights import hub

        return Place(hub.snapshot(name), parent, name)
    if os.sep in name or (os.altsep and os.altsep in name):
        return Place(_existing_directory(name), parent)
    if name in ("", ".", "..") or "\\" in name or Path(name).name != name:
        raise UserError(f"expected the name of a model, found {files.quoted(name)}: a directory has a {os.sep} in it")
    if official := _official_name(name, parent):
        return Place(parent / official, parent, official)
    for models in (parent, bundled_models_dir()):
        if files.is_dir(models / name):
            return Place(models / name, parent)
    raise _unknown(name, parent)


def _models_dir(models_dir: str | os.PathLike[str] | None) -> Path:
    return _expanded(models_dir or os.environ.get("PICOGPT_MODELS_DIR") or "models")


def cache_dir() -> Path:
    """PICOGPT_CACHE_DIR, or the operating system's cache directory for this user."""
    if given := os.environ.get("PICOGPT_CACHE_DIR"):
        return _expanded(given)
    import platformdirs  # only needed if a model is not in models_dir

    return platformdirs.user_cache_path("picogpt", appauthor=False)


def _expanded(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~nosuchuser
        raise UserError(f"{os.fspath(path)}: there is no such user's directory: give its full path") from None


def _existing_directory(name: str) -> Path:
    directory = _expanded(name)
    if files.is_dir(directory):
        return directory
    try:
        directory.stat()
        reason = "it is not a directory"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise UserError(f"expected the name of a model or a directory, found {files.quoted(name)}: {reason}")


def _official_name(name: str, models_dir: Path) -> str | None:
    """OpenAI's name for one of its models, also from an alias such as gpt2-xl, unless a directory has that name."""
    if name in MODEL_SIZES:
        return name
    alias = ALIASES.get(name.lower())
    return alias if alias and name not in _names(models_dir) else None


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 names alone; a file system may take 124m for 124M
    except (OSError, ValueError):
        return []


def _unknown(name: str, models_dir: Path) -> UserError:
    import difflib

    known = [*MODEL_SIZES, *sorted({*_models_in(bundled_models_dir()), *_models_in(models_dir)} - {*MODEL_SIZES})]
    nearest = difflib.get_close_matches(name, [*known, *(alias for alias in ALIASES if alias[0] == "g")], n=1)
    hint = f"did you mean {nearest[0]}? Known are" if nearest else "expected one of"
    return UserError(f"unknown model {files.quoted(name)}: {hint} {', '.join(known)}, or a directory in {models_dir}")


def _models_in(directory: Path) -> list[str]:
    small_files = ("hparams.json", "config.json")
    return [name for name in _names(directory) if any(files.is_there(directory / name / file) for file in small_files)]


def bundled_models_dir() -> Path:
    """The directory of bundled models: inside the installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parent.parent
    return next((d for d in (package / "models", package.parent / "models") if d.is_dir()), package / "models")
