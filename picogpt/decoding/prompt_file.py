"""The keys and values of a prompt, kept in a file, so that a text that starts with it starts at once.

The file is in the format safetensors (weights/tensorfile.py): the keys and values of every layer, the logits after the
last token, and as texts the ids of the prompt and the fingerprint of the model. It is written completely or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from picogpt import files, gpt2
from picogpt.arrays import Array, ArrayLike, Params
from picogpt.encoder import Encoder
from picogpt.errors import UserError
from picogpt.gpt2 import KVCache
from picogpt.weights import tensorfile
from picogpt.weights.tensorfile import TensorFile

AnyPath: TypeAlias = str | os.PathLike[str]

FORMAT = "picogpt prompt 1"
KEYS_AND_VALUES, LOGITS = "keys_and_values", "logits"
OTHER = "choose another file for --cache_prompt"
ADVICE = f"delete it, or {OTHER}"


class PromptFile:
    """A file for the keys and values of a prompt, which may not exist yet.

    prompt  the ids of the file's prompt, which is this prompt or the beginning of it; None if there is no file yet
    model   the fingerprint of the model that has computed it

    Raises UserError if the file is of another prompt or something else, or if it could not be written. The weights are
    not needed for this.
    """

    def __init__(self, path: AnyPath, ids: Sequence[int], encoder: Encoder, hparams: Mapping[str, int]):
        self.path = Path(path)
        self.ids = list(ids)
        self.prompt: list[int] | None = None
        self.model = ""
        try:
            self.path.lstat()
        except FileNotFoundError:
            self._check_directory()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{self.path}: cannot read it: {reason}: {OTHER}") from None
        else:
            self.prompt = self._read_header(encoder, hparams)
            if not encoder.decode_bytes(ids).startswith(encoder.decode_bytes(self.prompt)):
                found = f"one of {len(self.prompt)} tokens, {files.quoted(encoder.decode(self.prompt))}"
                raise UserError(f"{self.path}: expected this prompt or its beginning, found {found}: {ADVICE}")

    def _check_directory(self) -> None:
        if not files.is_dir(self.path.parent):
            raise UserError(f"{self.path}: expected a directory {self.path.parent}, found none: make it, or {OTHER}")
        if not os.access(self.path.parent, os.W_OK):
            raise UserError(f"{self.path}: cannot write to {self.path.parent}: {OTHER}")

    def _read_header(self, encoder: Encoder, hparams: Mapping[str, int]) -> list[int]:
        """The ids of the file's prompt. Raises UserError if the file is not one of ours, or if it cannot be read."""
        try:
            with TensorFile(self.path) as file:
                self.model = file.metadata["model"]
                ids = [int(number) for number in file.metadata["ids"].split()]
                shapes = {name: entry.shape for name, entry in file.entries.items()}
                ours = file.metadata["format"] == FORMAT and shapes == expected_shapes(hparams, len(ids))
        except files.UnreadableError:
            raise
        except (UserError, KeyError, ValueError):
            ours = False
        if not (ours and ids and all(token_id in encoder.decoder for token_id in ids)):
            expected = "expected a whole file that --cache_prompt has written for a model of this size"
            raise UserError(f"{self.path}: {expected}, found something else: {ADVICE}")
        return ids

    def check_model(self, fingerprint: str) -> None:
        """Raise UserError if the file is of another model than the one with this fingerprint."""
        if self.prompt is not None and self.model != fingerprint:
            raise UserError(f"{self.path}: expected keys and values of this model, found another model's: {ADVICE}")
        self.model = fingerprint

    def start(self, inputs: ArrayLike, params: Params, n_head: int, max_length: int) -> tuple[KVCache, Array]:
        """As gpt2.start, but what the file knows is not computed. If there is no file, it is written.

        Raises UserError if it cannot be read or written.
        """
        ids = np.asarray(inputs).tolist()
        if ids != self.ids:  # a sliding window has moved
            return gpt2.start(ids, params, n_head, max_length)
        if self.prompt is None:
            kv_cache, at = gpt2.start(ids, params, n_head, max_length)
            metadata = {"format": FORMAT, "model": self.model, "ids": " ".join(map(str, ids))}
            tensorfile.save(self.path, {KEYS_AND_VALUES: kv_cache.seen, LOGITS: at}, metadata, OTHER)
            return kv_cache, at
        kv_cache = gpt2.new_cache(params, n_head, max_length)
        with TensorFile(self.path) as file:
            if ids == self.prompt:
                kv_cache.restore(file.read(KEYS_AND_VALUES))
                return kv_cache, file.read(LOGITS)
            # the text after it may have changed the last tokens; and one token, at least, gives the logits
            known = takewhile(lambda pair: pair[0] == pair[1], zip(ids[:-1], self.prompt, strict=False))
            kv_cache.restore(file.read(KEYS_AND_VALUES)[..., : len(list(known)), :])
        at = gpt2.next_logits(ids[kv_cache.length :], params, n_head, kv_cache)[-1]
        return kv_cache, at


def expected_shapes(hparams: Mapping[str, int], n_prompt: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a file."""
    n_head, d_head = hparams["n_head"], hparams["n_embd"] // hparams["n_head"]
    return {KEYS_AND_VALUES: (hparams["n_layer"], 2, n_head, n_prompt, d_head), LOGITS: (hparams["n_vocab"],)}


def digest(params: Params) -> str:
    """The SHA-256 of all weights, for a model that has no files. For 124M this takes about a second."""
    import hashlib

    state = hashlib.sha256()
    for path, tensor in leaves(params):
        state.update(f"{path} {tensor.shape} {tensor.dtype}".encode())
        state.update(np.ascontiguousarray(tensor).data)
    return state.hexdigest()


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Array]]:
    """The arrays of nested dicts and lists, each with its path.

    >>> list(leaves({"b": [np.array(1), np.array(2)], "a": np.array(3)}))
    [('/a', array(3)), ('/b/0', array(1)), ('/b/1', array(2))]
    """
    if isinstance(tree, (dict, list)):
        for key, branch in sorted(tree.items()) if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(branch, f"{path}/{key}")
    else:
        yield path, np.asarray(tree)
