"""Models by their names on the Hugging Face Hub: hf:OWNER/NAME, or hf:OWNER/NAME@REVISION.

huggingface_hub downloads, so its cache, its token, its offline mode and its HF_ENDPOINT are in force. Its cache is

    models--OWNER--NAME/refs/REVISION          the commit that a branch or tag was at
    models--OWNER--NAME/snapshots/COMMIT/FILE  a link to blobs/DIGEST
    models--OWNER--NAME/.no_exist/COMMIT/FILE  an empty file: that commit has no such file

https://huggingface.co/docs/huggingface_hub/guides/manage-cache. We read it ourselves, because importing the library's
download functions takes longer than opening a model. A model that is in the cache is opened without a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from picogpt import files
from picogpt.errors import UserError, printable
from picogpt.weights import huggingface
from picogpt.weights.extras import imported
from picogpt.weights.huggingface import CONFIG, INDEX, WEIGHTS
from picogpt.weights.tokenizer_json import FILES

NAME = re.compile(r"hf:(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./+-]*))?", re.ASCII)
COMMIT = re.compile("[0-9a-f]{40}")
CONVERT = (
    'python -c "import sys, transformers as t; '
    "[kind.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2]) "
    'for kind in (t.GPT2LMHeadModel, t.AutoTokenizer)]"'
)
LOG_IN = "for a private one, log in with `hf auth login` or set HF_TOKEN"


def snapshot(name: str) -> Path:
    """The directory in the cache for a model's name, or a path where nothing is if it has not been fetched.

    Raises UserError if this is no such name.
    """
    repo, revision = _parsed(name)
    folder = Path(_library("constants").HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    if not COMMIT.fullmatch(revision):
        try:
            revision = files.read_text(folder / "refs" / revision).strip()
        except files.UnreadableError:
            raise
        except UserError:
            revision = ""
    return folder / "snapshots" / (revision if COMMIT.fullmatch(revision) else "unknown")


def _parsed(name: str) -> tuple[str, str]:
    """The repository and the revision. Raises UserError."""
    found = NAME.fullmatch(name)
    if not found or ".." in name or "--" in found["repo"]:
        raise UserError(
            f"expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION, found {files.quoted(name)}: "
            "try hf:openai-community/gpt2"
        )
    return found["repo"], found["revision"] or "main"


def _library(module: str) -> Any:
    return imported(f"huggingface_hub.{module}", "hub", "a model of the Hugging Face Hub")


class Checkpoint(huggingface.Checkpoint):
    """A snapshot in the cache of huggingface_hub. Missing files are downloaded."""

    can_fetch = True

    def __init__(self, directory: Path, name: str):
        super().__init__(directory)
        self.name = name
        self.repo, self.revision = _parsed(name)

    def fetch_small_files(self) -> None:
        if all(self._is_known(name) for name in (CONFIG, *FILES)):
            return
        self.directory = self._fetch_needed(CONFIG).parent
        for name in FILES:
            if not self._is_known(name):
                self._fetch(name)

    def read_hparams(self) -> dict[str, int]:
        if not self._has(CONFIG):
            raise UserError(
                f'{self.name}: expected it in the cache, found it not: fetch it: picogpt "" --model_size {self.name}'
            )
        return super().read_hparams()

    def fingerprint(self) -> str | None:
        """The commit, if its weights are there."""
        names = self._weight_names()
        there = bool(names) and all(map(self._has, names))
        return f"hf:{self.repo}@{self.directory.name}" if there else None

    def prepare(self, hparams: Mapping[str, int]) -> None:
        self.fetch_small_files()  # nothing is asked if they are there
        if not self._weight_names() and self._fetch(WEIGHTS) is None:
            self._fetch_needed(INDEX)
        for name in self._weight_names():
            self._fetch_needed(name)
        self.verify()
        super().prepare(hparams)

    def verify(self) -> list[str]:
        """Compare the files with their digests, which are the names of the files that they link to."""
        there = [name for name in (CONFIG, *FILES, INDEX, *self._weight_names()) if self._has(name)]
        return [name for name in there if _is_compared(self.directory / name)]

    def _weight_names(self) -> list[str]:
        if self._has(WEIGHTS):
            return [WEIGHTS]
        return huggingface.file_names(self.directory / INDEX) if self._has(INDEX) else []

    def _has(self, name: str) -> bool:
        return (self.directory / name).exists()

    def _is_known(self, name: str) -> bool:
        """Whether the file is in the cache, or is known not to exist."""
        commit = self.directory.name
        return self._has(name) or (self.directory.parent.parent / ".no_exist" / commit / name).exists()

    def _fetch_needed(self, name: str) -> Path:
        if (path := self._fetch(name)) is not None:
            return path
        if name == INDEX:
            raise UserError(
                f"{self.name}: expected {WEIGHTS} there, found none: if it has {huggingface.PICKLE}, a pickle, which "
                f"may run any program when it is read, and you trust it, convert it: {CONVERT} {self.repo} DIRECTORY"
            )
        raise UserError(f"{self.name}: expected the file {name} there, found none: it is not a model of transformers")

    def _fetch(self, name: str) -> Path | None:
        """A file of this commit, or of the revision if the commit is not known yet. None if there is no such file."""
        commit = self.directory.name
        revision = commit if COMMIT.fullmatch(commit) else self.revision
        download, errors = _library("file_download").hf_hub_download, _library("errors")
        with self._explained():
            try:
                return Path(download(self.repo, name, revision=revision))
            except errors.LocalEntryNotFoundError as error:
                if name in FILES and isinstance(error.__cause__, errors.OfflineModeIsEnabled):
                    return None  # whoever filled the cache did without it
                raise
            except errors.EntryNotFoundError:
                return None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the errors of huggingface_hub, and of whatever it uses to connect, into UserError."""
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.name}: {self._reason(error)}") from None
        except Exception as error:  # of httpx, httpx2, requests or hf_xet
            raise UserError(f"{self.name}: cannot fetch it: {_first_line(error)}: run again to continue") from None

    def _reason(self, error: OSError) -> str:
        constants, errors = _library("constants"), _library("errors")
        if isinstance(error, errors.GatedRepoError):
            page = f"{constants.ENDPOINT}/{self.repo}"
            return f"its owner asks who uses it: accept the terms at {page}, and log in with `hf auth login`"
        if isinstance(error, errors.RepositoryNotFoundError):
            return f"expected a model at {constants.ENDPOINT}, found none of this name: check it; {LOG_IN}"
        if isinstance(error, errors.RevisionNotFoundError):
            return f"expected the revision {self.revision}, found none: use another branch, tag or commit"
        if isinstance(error, errors.LocalEntryNotFoundError):
            cause = error.__cause__ or error
            if isinstance(cause, errors.OfflineModeIsEnabled):
                return "expected it in the cache, found it not or in part, and HF_HUB_OFFLINE is set: unset it once"
            return f"cannot fetch it from {constants.ENDPOINT} ({_first_line(cause)}): run again to continue"
        return f"cannot fetch it: {_first_line(error)}: run again to continue; {LOG_IN}"


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return printable(lines[0].strip().rstrip(":.")[:300]) if lines else type(error).__name__


def _is_compared(path: Path) -> bool:
    """Compare a file with its digest: SHA-256, or that of git for small files. False if none is known."""
    blob = path.resolve()
    if blob == path or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return False
    if len(blob.name) == 64:
        found = files.digest(blob, "sha256").hex()
    else:
        found = _git_digest(files.read_bytes(blob, files.VOCABULARY))
    if found != blob.name:
        raise UserError(f"{path}: expected the digest {blob.name}, found {found}: delete {blob} and run again")
    return True


def _git_digest(data: bytes) -> str:
    """The name that git gives to a file with these bytes.

    >>> _git_digest(b"hello\\n")
    'ce013625030ba8dba906f756967f9e9ca394464a'
    """
    import hashlib

    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
