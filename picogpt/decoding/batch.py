"""Many prompts of different lengths, several at a time.

In each step the new tokens of all texts, one after another, go through the model in a single pass. It reads the weights
once for all of them. A text that begins brings its prompt, the others bring their last token. Nothing is padded, and
when a text is complete the next prompt takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np

from picogpt.arrays import Array, Params
from picogpt.choosing import Chooser
from picogpt.cores import LONG, SHORTEST, each, for_rows, n_cores
from picogpt.errors import UserError
from picogpt.gpt2 import (
    KVCache,
    KVCaches,
    Watch,
    check_request,
    choosers,
    head_of,
    hidden_states,
    logits,
    new_cache,
    next_logits,
)
from picogpt.sampling import GREEDY, Sampling

MANY = 1024  # tokens in a pass: about as many as a core takes at a time, which limits the memory


@dataclass
class Text:
    """A prompt that is being continued, with the random numbers that it would get alone."""

    number: int
    chooser: Chooser
    kv_cache: KVCache
    n_left: int

    @property
    def new(self) -> list[int]:
        """The ids that have not been through the model."""
        return self.chooser.ids[self.kv_cache.length :]


def generate(
    prompts: Sequence[list[int]], params: Params, n_head: int, n_tokens_to_generate: int, *,
    batch_size: int = 16, sampling: Sampling = GREEDY, stop_id: int | None = None, watch: Watch | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[tuple[int, int | None]]:  # fmt: skip
    """Continue every prompt by the ids that gpt2.generate would generate for it alone.

    Yields (number of the prompt, id) for each new token as soon as it is known, and (number, None) when a text ends.
    watch(number, id, logits) is called before; if it returns True, the text ends with that token. With `seeds`, each
    prompt has its own seed.

    Raises UserError as gpt2.generate does, naming the prompt.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be 1 or more, found {batch_size}")
    for number, prompt in enumerate(prompts):
        try:
            check_request(prompt, params, n_tokens_to_generate, sampling)
        except UserError as error:
            raise UserError(f"prompt {number}: {error}") from None
    n_rows = min(batch_size, len(prompts))
    return _generate(prompts, params, n_head, n_tokens_to_generate, n_rows, sampling, stop_id, watch, seeds)


def _generate(
    prompts: Sequence[list[int]], params: Params, n_head: int, n_tokens: int, n_rows: int, sampling: Sampling,
    stop_id: int | None, watch: Watch | None, seeds: Sequence[int] | None,
) -> Iterator[tuple[int, int | None]]:  # fmt: skip
    def begin(number: int, prompt: list[int]) -> Text:
        how = sampling if seeds is None else replace(sampling, seed=seeds[number])
        [chooser] = choosers(prompt, params, n_head, how)
        return Text(number, chooser, new_cache(params, n_head, len(prompt) + n_tokens), n_tokens)

    def choose(text: Text, at: Array) -> Iterator[tuple[int, int | None]]:
        """Choose the next token of a text from the logits `at`."""
        token_id = text.chooser.next(at)
        text.n_left -= 1
        if token_id != stop_id:
            if watch is not None and watch(text.number, token_id, text.chooser.logits):
                text.n_left = 0
            yield text.number, token_id
        if token_id == stop_id or not text.n_left:
            text.n_left = 0
            yield text.number, None

    if not n_tokens:
        yield from ((number, None) for number in range(len(prompts)))
        return
    waiting = enumerate(prompts)
    texts: list[Text] = []
    while texts := texts + [begin(*prompt) for prompt in islice(waiting, n_rows - len(texts))]:
        for text, at in zip(texts, next_of_each(texts, params, n_head), strict=True):
            yield from choose(text, at)
        texts = [text for text in texts if text.n_left]


def next_of_each(texts: Sequence[Text], params: Params, n_head: int) -> list[Array]:  # -> n_texts x [n_vocab]
    """Run the new tokens of all texts through the model and return the logits after the last one of each."""
    groups = in_groups([len(text.new) for text in texts])
    ats = each([partial(next_of_group, [texts[i] for i in group], params, n_head) for group in groups])
    found = {i: at for group, rows in zip(groups, ats, strict=True) for i, at in zip(group, rows, strict=True)}
    return [found[i] for i in range(len(texts))]


def in_groups(sizes: Sequence[int]) -> list[list[int]]:
    """The numbers of the texts that go through the model together, if text i has sizes[i] new tokens.

    Long texts go alone. The others are shared out among the cores if they have many tokens.
    """
    long = [[i] for i, size in enumerate(sizes) if size >= LONG]
    short = sorted((i for i, size in enumerate(sizes) if size < LONG), key=lambda i: -sizes[i])
    n_tokens = sum(sizes[i] for i in short)
    n_groups = min(n_cores() * math.ceil(n_tokens / (n_cores() * MANY)), n_tokens // SHORTEST) or 1
    groups: list[list[int]] = [[] for _ in range(n_groups)]
    for i in short:
        min(groups, key=lambda group: sum(sizes[j] for j in group)).append(i)
    return long + [group for group in groups if group]


def next_of_group(texts: Sequence[Text], params: Params, n_head: int) -> Array:  # -> [n_texts, n_vocab]
    """The same in a single pass."""
    if len(texts) == 1:
        return next_logits(texts[0].new, params, n_head, texts[0].kv_cache)
    news = [text.new for text in texts]
    kv_caches = KVCaches([text.kv_cache for text in texts], list(map(len, news)))
    with for_rows(params["wte"].shape[1]), np.errstate(all="ignore"):  # Chooser.next finds numbers that are not finite
        x = hidden_states(np.concatenate(news), **params, n_head=n_head, kv_cache=kv_caches, n_last=1)
        return logits(x, head_of(params))


def in_order(events: Iterable[tuple[int, int | None]]) -> Iterator[list[int]]:
    """The ids of each prompt, in the order of the prompts. A text that is complete early is held back.

    >>> list(in_order([(1, 7), (0, 5), (1, None), (0, 6), (0, None)]))
    [[5, 6], [7]]
    """
    ids: dict[int, list[int]] = {}
    complete: set[int] = set()
    expected = 0
    for number, token_id in events:
        text = ids.setdefault(number, [])
        if token_id is not None:
            text.append(token_id)
            continue
        complete.add(number)
        while expected in complete:
            yield ids.pop(expected)
            expected += 1
