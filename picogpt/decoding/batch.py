"""Many prompts of different lengths: `python -m picogpt.batch --input_file prompts.txt --output_file texts.jsonl`.

Several prompts are continued at a time, one in each row of a batch, so that the weights are read once for all of
them. Each prompt is run alone, into its row of the cache, and every step then adds one token to each row; a row whose
text is complete takes the next prompt at once. So nothing is spent on padding but in attention, where all rows look
as far back as the longest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from picogpt import sampling, utils
from picogpt.errors import UserError
from picogpt.commands import cli
from picogpt.gpt2 import KVCache, check_length, check_request, hidden_states, logits, prefill
from picogpt.decoding.lookahead import too_close
from picogpt.arrays import Array, Params



class Rows(KVCache):
    """A cache for rows of unequal lengths: `length` is [n_rows, 1], and every step adds one position to each row."""

    length: Any

    def __init__(self, capacity: int, n_layer: int, n_head: int, d_head: int, max_length: int):
        super().__init__(n_layer, n_head, d_head, max_length, (capacity,))
        self.length = np.zeros((0, 1), int)

    def extend(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Put k and v, [n_rows, n_head, 1, d_head], behind each row's past; behind the end of a row is padding."""
        rows, ends = np.arange(len(k)), self.length[:, 0]
        n_k = ends.max() + 1
        keys, values = self.array[layer]
        keys[rows, :, ends] = k[:, :, 0]
        values[rows, :, ends] = v[:, :, 0]
        if layer == 0:
            is_padding = np.arange(n_k) > self.length  # [n_rows, n_k]
            self.padding = np.where(is_padding, np.float32(-1e10), np.float32(0))[:, None, None]
        return keys[: len(k), :, :n_k], values[: len(k), :, :n_k]

    def add(self, prompt: list[int], params: Params, n_head: int) -> Array:
        """Run a prompt into a row of its own, the last; returns the hidden state at its end, [n_embd]."""
        row = len(self.length)
        alone = self.alone(row, 0)
        last = prefill(prompt, params, n_head, alone)
        x = hidden_states(last, **params, n_head=n_head, kv_cache=alone, n_last=1)
        self.length = np.append(self.length, [[alone.length]], axis=0)
        end: Array = x[-1]
        return end

    def alone(self, row: int, length: int) -> KVCache:
        """The first positions of a row as a cache of its own, in the same memory."""
        cache = KVCache.__new__(KVCache)
        cache.array, cache.length = self.array[:, :, row], length
        return cache

    def drop(self, row: int) -> None:
        """Take a row out; the last one moves to its place."""
        n_k = self.length[-1, 0]
        self.array[:, :, row, :, :n_k] = self.array[:, :, len(self.length) - 1, :, :n_k]
        self.length[row] = self.length[-1]
        self.length = self.length[:-1]


class Text:
    """A prompt and the ids generated for it, with random numbers of its own: the same as if it were alone."""

    def __init__(self, number: int, prompt: list[int], rngs: list[np.random.Generator]):
        self.number = number
        self.prompt = prompt
        self.ids: list[int] = []
        self.rngs = rngs


def generate(
    prompts: Iterable[list[int]], params: Params, n_head: int, n_tokens_to_generate: int, *, batch_size: int = 16,
    temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int | None = None, stop_id: int | None = None,
) -> Iterator[tuple[int, list[int]]]:  # fmt: skip
    """Continue every prompt by the ids that gpt2.generate would give it alone; yields (number, ids) as they get ready.

    Raises UserError as gpt2.generate does, when it comes to the prompt in question.
    """
    wte, blocks = params["wte"], params["blocks"]
    waiting = (Text(number, prompt, sampling.new_rngs(seed, 1, temperature)) for number, prompt in enumerate(prompts))
    cache = Rows(batch_size, len(blocks), n_head, wte.shape[1] // n_head, len(params["wpe"]))
    texts: list[Text] = []  # one for each row in use

    def completes(text: Text, at: Array) -> bool:
        """Add the token that these logits choose, unless it is the stop token; whether that completes the text."""
        token_id = int(sampling.next_ids(at, text.rngs, temperature, top_k, top_p))
        if token_id != stop_id:
            text.ids.append(token_id)
        return token_id == stop_id or len(text.ids) == n_tokens_to_generate

    while True:
        while len(texts) < batch_size and (text := next(waiting, None)):
            check_request(text.prompt, params, n_tokens_to_generate, temperature, top_k, top_p)
            if completes(text, logits(cache.add(text.prompt, params, n_head), wte)):
                yield text.number, text.ids
                cache.drop(-1)
            else:
                texts.append(text)
        if not texts:
            return
        new = np.array([text.ids[-1:] for text in texts])  # [n_rows, 1]
        x = hidden_states(new, **params, n_head=n_head, kv_cache=cache)[:, -1]
        for row, at in reversed(list(enumerate(logits(x, wte)))):
            if temperature == 0 and too_close(at):
                alone = cache.alone(row, cache.length[row, 0] - 1)
                at = logits(hidden_states(new[row], **params, n_head=n_head, kv_cache=alone)[-1], wte)
            if completes(texts[row], at):
                yield texts[row].number, texts[row].ids
                texts[row] = texts[-1]
                texts.pop()
                cache.drop(row)


def in_order(numbered: Iterable[tuple[int, list[int]]]) -> Iterator[list[int]]:
    """What comes numbered from 0 in any order, in order; what comes early is held back."""
    early = {}
    expected = 0
    for number, ids in numbered:
        early[number] = ids
        while expected in early:
            yield early.pop(expected)
            expected += 1
