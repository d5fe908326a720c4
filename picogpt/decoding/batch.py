"""Many prompts of different lengths, several at a time, one in each row of a batch.

A step adds one token to each row and reads the weights once for all rows. When the text of a row is complete, the row
takes the next prompt. Prompts that begin together are shared out among the cores, each on its own. So padding costs
nothing, except in attention: there the shorter rows are computed as if they were as long as the longest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from picogpt.arrays import Array, Params
from picogpt.choosing import Chooser
from picogpt.cores import each
from picogpt.errors import UserError
from picogpt.gpt2 import KVCache, Watch, check_request, choosers, new_cache, next_logits
from picogpt.sampling import GREEDY, Sampling


@dataclass
class Text:
    """A prompt that is being continued, with the random numbers that it would get alone."""

    number: int
    chooser: Chooser
    n_left: int


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
    max_length = max(map(len, prompts), default=0) + n_tokens
    kv_cache = new_cache(params, n_head, max_length, n_rows)
    texts: list[Text] = []  # texts[i] is in row i of the cache
    waiting = enumerate(prompts)

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

    def begin(number: int, prompt: list[int]) -> Text:
        how = sampling if seeds is None else replace(sampling, seed=seeds[number])
        [chooser] = choosers(prompt, params, n_head, how)
        return Text(number, chooser, n_tokens)

    while n_tokens:
        while following := list(islice(waiting, n_rows - len(texts))):
            free = [kv_cache[row] for row in range(len(texts), len(texts) + len(following))]
            for row in free:
                row.truncate(0)
            passes = [partial(next_logits, p, params, n_head, row) for (_, p), row in zip(following, free, strict=True)]
            new = [begin(number, prompt) for number, prompt in following]
            texts += new
            for text, at in zip(new, each(passes), strict=True):
                yield from choose(text, at[-1])
            remove_ended(texts, kv_cache)
        if not texts:
            return
        last = [text.chooser.ids[-1:] for text in texts]  # they have not been through the model
        ats = next_logits(last, params, n_head, kv_cache[: len(texts)])[:, -1]  # [n_rows, n_vocab]
        for text, at in zip(texts, ats, strict=True):
            yield from choose(text, at)
        remove_ended(texts, kv_cache)
    yield from ((number, None) for number, _ in waiting)


def remove_ended(texts: list[Text], kv_cache: KVCache) -> None:
    """Remove the texts that have ended. The last row in use moves to the place of one that is free."""
    for row in reversed(range(len(texts))):
        if not texts[row].n_left:
            kv_cache.reorder([*range(row), len(texts) - 1])
            texts[row] = texts[-1]
            texts.pop()


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
