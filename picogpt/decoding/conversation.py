"""A text that a person and a model write by turns. What has been computed is kept, so a turn costs only what is new."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

import numpy as np

from picogpt.arrays import Array, ArrayLike, Params
from picogpt.errors import UserError
from picogpt.gpt2 import KVCache, new_cache, next_logits
from picogpt.model import Model


class Kept:
    """The keys and values of a text, kept between two generations. `start` takes the place of gpt2.start.

    ids  the tokens whose keys and values are in the cache; those of the last one may be wrong
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.kv_cache: KVCache | None = None

    def start(self, inputs: ArrayLike, params: Params, n_head: int, max_length: int) -> tuple[KVCache, Array]:
        """As gpt2.start, but tokens with which an earlier text began are not computed again.

        An interrupt at any time leaves only ids here that the cache has.
        """
        ids = np.asarray(inputs).tolist()
        if self.kv_cache is None:
            self.kv_cache = new_cache(params, n_head, len(params["wpe"]))
        same = takewhile(lambda pair: pair[0] == pair[1], zip(ids[:-1], self.ids[:-1], strict=False))
        self.ids = ids[: len(list(same))]
        self.kv_cache.truncate(len(self.ids))
        at = next_logits(ids[len(self.ids) :], params, n_head, self.kv_cache)[-1]
        self.ids = ids
        return self.kv_cache, at


class Conversation:
    """A text that grows by turns.

    ids       the text so far
    settings  those of Model.generate_ids

    >>> import picogpt
    >>> talk = Conversation(picogpt.load("shakespeare"), n_tokens_to_generate=8)
    >>> "".join(talk.say("ROMEO:"))
    "\\nI'll tell thee, I'll"
    >>> "".join(talk.say("JULIET:"))
    "\\nI'll tell thee, I'll"
    >>> talk.text
    "ROMEO:\\nI'll tell thee, I'll\\nJULIET:\\nI'll tell thee, I'll"
    """

    def __init__(self, model: Model, **settings: Any):
        self.model = model
        self.settings = settings
        self.kept = Kept()
        self.restart()

    def restart(self) -> None:
        """Start a new text."""
        self.ids: list[int] = []
        self.n_before = 0  # the tokens before the last answer
        self.n_answers = 0

    @property
    def text(self) -> str:
        """The text so far."""
        end = self.model.encoder.end_of_text  # a text that began with nothing has it first
        return self.model.decode(self.ids[1:] if self.ids[:1] == [end] else self.ids)

    def say(self, text: str) -> Iterator[str]:
        """Add a text, on a line of its own, and yield the pieces of the model's answer. "" lets the model go on.

        Raises UserError when called, as Model.generate_ids does. Then nothing has been added.
        """
        apart = "\n" if text and self.text and not self.text.endswith("\n") else ""
        return self._answer(self.ids + self.model.encode(apart + text))

    def retry(self) -> Iterator[str]:
        """Forget the last answer, and yield another, which differs if it is drawn."""
        return self._answer(self.ids[: self.n_before])

    def _answer(self, ids: list[int]) -> Iterator[str]:
        ids = ids or self.model.encoder.start_of_text()
        settings = {"n_tokens_to_generate": 40} | self.settings
        if settings.get("sliding_window") is None:
            n_ctx = self.model.hparams["n_ctx"]
            if len(ids) >= n_ctx:
                found = f"the model sees {n_ctx} tokens, found {len(ids)} in the text"
                raise UserError(f"{found}: start a new one, with /new, or /set sliding_window half")
            settings["n_tokens_to_generate"] = min(settings["n_tokens_to_generate"], n_ctx - len(ids))
        if settings.get("seed") is not None:
            settings["seed"] += self.n_answers  # each answer has its own random numbers
        new_ids = self.model.generate_ids(ids, start=self.kept.start, **settings)
        self.ids, self.n_before, self.n_answers = ids, len(ids), self.n_answers + 1
        return self.model.encoder.decode_stream(self._recorded(new_ids))

    def _recorded(self, new_ids: Iterable[int]) -> Iterator[int]:
        """Each new id, once it is a part of the text."""
        for token_id in new_ids:
            self.ids.append(token_id)
            self.kept.ids.append(token_id)
            yield token_id
