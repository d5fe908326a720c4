"""All cores for a long prompt, or for many. Skip this file at the first reading.

A product of matrices can be shared out among cores by BLAS, the library that NumPy calls. But then the cores meet after
every product, and BLAS's threads keep a core busy for a while after it, waiting for more. For a long prompt
it is quicker that each core takes a piece of it through all layers, with BLAS on one thread. A piece needs the keys and
values of the pieces before it, so in each layer it waits until these are there. Later pieces look at more keys, so they
are shorter: all take equally long.

On two cores this is 1.1 times as fast at 300 tokens of 124M, 1.2 times at 512 and 1.3 times at 1000. A short prompt is
not worth it, because every piece reads all weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from itertools import pairwise
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from picogpt.arrays import Array

if TYPE_CHECKING:
    from concurrent.futures import Future

# a pass of new tokens through the model, with a gpt2.KVCache: it returns the output at the last of them, and fills the
# cache for all
Pass: TypeAlias = Callable[[Array, Any], Array]

T = TypeVar("T")

LONG = 256  # tokens of a prompt that is cut
SHORTEST = 128  # tokens of a piece, on average
NARROW = 384  # n_embd of a small model


@cache
def n_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(run: Pass, new: Array, kv_cache: Any) -> Array:  # [..., n_seq] -> [..., n_last, n_embd]
    """`run(new, kv_cache)`; on all cores if `new` is a long prompt."""
    if new.ndim > 1:
        with for_rows(width(kv_cache)):
            return run(new, kv_cache)
    if len(new) < LONG or n_cores() == 1:
        return run(new, kv_cache)
    pieces: list[Piece] = []
    for start, end in pairwise(cuts(len(new), kv_cache, min(n_cores(), len(new) // SHORTEST))):
        pieces.append(Piece(kv_cache, start, end, pieces[-1] if pieces else None))
    outs = in_threads([partial(piece.through, run, new) for piece in pieces])
    kv_cache.advance(len(new))
    return outs[-1]


def cuts(n_new: int, kv_cache: Any, n_pieces: int) -> list[int]:
    """Where pieces of equal work begin and end.

    The work on a position at which t keys are seen is about 3 n_embd + t: the weights take 12 n_embd^2 multiplications
    in a layer, and a key takes 2 n_embd, which are half as fast.
    """
    base = 3 * width(kv_cache) + kv_cache.length
    total = n_new * (base + n_new / 2)
    # the first x positions are x (base + x / 2) of it
    return [round(math.sqrt(base**2 + 2 * total * i / n_pieces) - base) for i in range(n_pieces + 1)]


def width(kv_cache: Any) -> int:
    """n_embd of the model that a cache is for."""
    n_head, _, d_head = kv_cache.array.shape[-3:]
    return int(n_head * d_head)


def for_rows(n_embd: int) -> AbstractContextManager[None]:
    """A context for the rows of a batch, which computes those of a small model on one core.

    BLAS would share out products that take less time than its threads need to meet, and many times that if another
    program uses a core.
    """
    return blas_threads(1) if n_embd <= NARROW else nullcontext()


class Piece:
    """A part of the new positions of a cache, as the model sees it: like a cache of one sequence.

    start, end  its first new position, and the one after its last
    """

    def __init__(self, kv_cache: Any, start: int, end: int, before: Piece | None):
        self.kv_cache, self.start, self.end, self.before = kv_cache, start, end, before
        self.done = [Event() for _ in kv_cache.array]  # one for each layer

    def through(self, run: Pass, new: Array) -> Array:
        """Run this part of `new`. Whatever happens, later pieces do not wait for ever."""
        try:
            return run(new[self.start : self.end], self)
        finally:
            for done in self.done:
                done.set()

    def positions(self, n_seq: int) -> Array:
        positions: Array = self.kv_cache.length + np.arange(self.start, self.end)
        return positions

    def extend(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Write k and v to their places, and wait for those before. See KVCache."""
        keys, values = self.kv_cache.array[layer]
        start, end = self.kv_cache.length + self.start, self.kv_cache.length + self.end
        keys[..., start:end, :] = k
        values[..., start:end, :] = v
        if self.before is not None:
            self.before.done[layer].wait()
        self.done[layer].set()
        return keys[..., :end, :], values[..., :end, :]

    def advance(self, n_seq: int) -> None:
        """Nothing: the cache counts all pieces at the end."""


# threads


def in_threads(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results of some calls, each in a thread of its own with BLAS on one thread; the last one in this thread.

    A call may wait for those before it in the list. The first error is raised when all have ended.
    """
    from concurrent.futures import Future  # a start without a long prompt needs none

    outcomes: list[Future[T]] = [Future() for _ in calls]
    tasks = [Thread(target=_settle, args=task) for task in zip(outcomes, calls, strict=True)]
    started = []
    with blas_threads(1):
        for thread in tasks[:-1]:
            try:
                thread.start()
                started.append(thread)
            except RuntimeError:  # the system has no more threads, or the interpreter is shutting down
                thread.run()
        tasks[-1].run()
        for thread in started:
            thread.join()
    return [outcome.result() for outcome in outcomes]


def each(calls: Sequence[Callable[[], Array]]) -> list[Array]:
    """The results of calls that have nothing to do with each other, shared out among the cores.

    >>> each([lambda: np.arange(2), lambda: np.arange(3), lambda: np.arange(4)])
    [array([0, 1]), array([0, 1, 2]), array([0, 1, 2, 3])]
    """
    if (n := min(n_cores(), len(calls))) <= 1:
        return [call() for call in calls]
    results: dict[int, Array] = {}

    def work(first: int) -> None:
        for number in range(first, len(calls), n):
            results[number] = calls[number]()

    in_threads([partial(work, first) for first in range(n)])
    return [results[number] for number in range(len(calls))]


def _settle(outcome: Future[T], call: Callable[[], T]) -> None:
    try:
        outcome.set_result(call())
    except BaseException as error:  # KeyboardInterrupt too: it is raised when the other threads have ended
        outcome.set_exception(error)


class _Blas:
    """The library that NumPy multiplies with, and how many ask at this moment that it uses fewer threads."""

    def __init__(self) -> None:
        from threadpoolctl import ThreadpoolController  # takes 10 ms

        self.libraries, self.lock, self.n_asking = ThreadpoolController(), Lock(), 0
        self.limit: Any = None


_blas = cache(_Blas)


@contextmanager
def blas_threads(n: int) -> Iterator[None]:
    """A context in which a product uses n threads. Other parts of the program get their threads back at its end.

    If several threads are in such a context at the same time, the first one's n holds for all.
    """
    blas = _blas()
    with blas.lock:
        blas.n_asking += 1
        if blas.n_asking == 1:
            blas.limit = blas.libraries.limit(limits=n, user_api="blas")
    try:
        yield
    finally:
        with blas.lock:
            blas.n_asking -= 1
            if blas.n_asking == 0:
                blas.limit.restore_original_limits()


if hasattr(os, "register_at_fork"):  # another thread of the parent may hold the lock
    os.register_at_fork(after_in_child=_blas.cache_clear)
