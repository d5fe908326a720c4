"""A batch on all cores: each core takes its share of the sequences from end to end.

A core's share goes through the model a few sequences at a time, in a Python thread of its own, with BLAS on one thread.
What a sequence needs then stays in that core's cache, and no core waits for another before the end of the step. NumPy
lets other threads run during each of its operations. With fewer sequences than cores, BLAS gets the cores that are
left.

The threads add their gradients into one vector each, which are summed at the end. The same number of threads gives the
same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from typing import TypeVar

import numpy as np

from picogpt.arrays import Array, Params
from picogpt.cores import blas_threads, n_cores
from picogpt.training import memory
from picogpt.training.model import add_grads, losses
from picogpt.training.parameters import Vector

T = TypeVar("T")

POSITIONS = 1024  # that go through the model at a time


class Team:
    """Threads that compute gradients together.

    n_threads  how many; by default one for each core
    """

    def __init__(self, hparams: Mapping[str, int], n_threads: int | None = None):
        self.n_head, self.n_threads = hparams["n_head"], n_threads or n_cores()
        self.grads = [Vector(hparams) for _ in range(self.n_threads)]
        self.executor = ThreadPoolExecutor(self.n_threads, thread_name_prefix="training")
        self.contexts = ExitStack()

    def __enter__(self) -> Team:
        self.contexts.enter_context(memory.kept())
        self.contexts.enter_context(self.executor)
        return self

    def __exit__(self, *_: object) -> None:
        self.contexts.close()

    def gradients(
        self, params: Params, inputs: Array, targets: Array, dropout: float = 0.0, seeds: Sequence[int] = (0,)
    ) -> tuple[float, Array]:  # [n_rows, n_seq], [n_rows, n_seq] -> [n]
        """The sum of the losses, and its gradient as one vector, which the next call overwrites.

        Targets below 0 do not count. Dropout draws from `seeds` and the number of each part of the batch.
        """
        chunks = list(enumerate(pieces(len(inputs), inputs.shape[1], self.n_threads)))
        n_busy = min(self.n_threads, len(chunks))

        @np.errstate(all="ignore")  # the caller looks at the sum; errstate holds for one thread
        def share(thread: int) -> float:
            self.grads[thread].values[:] = 0
            total = 0.0
            for number, rows in chunks[thread::n_busy]:
                rng = np.random.Generator(np.random.SFC64([*seeds, number])) if dropout else None
                found = add_grads(
                    self.grads[thread].params, params, inputs[rows], targets[rows], self.n_head, dropout, rng
                )
                total += float(found.sum(dtype=np.float64))
            return total

        with blas_threads(self.n_threads // n_busy):
            total = sum(self.executor.map(share, range(n_busy)))
            self.each_part(lambda part: self._sum(part, n_busy))
        return total, self.grads[0].values

    def _sum(self, part: slice, n_busy: int) -> None:
        for other in self.grads[1:n_busy]:
            self.grads[0].values[part] += other.values[part]

    def each_part(self, work: Callable[[slice], T]) -> list[T]:
        """Call a function for each thread's part of the vector, in the threads."""
        size = len(self.grads[0].values)
        borders = [size * i // self.n_threads for i in range(self.n_threads + 1)]
        parts = [slice(start, stop) for start, stop in pairwise(borders)]
        return list(self.executor.map(work, parts))

    def losses(self, params: Params, inputs: Array, targets: Array) -> Array:  # [n_rows, n_seq] -> [n_rows, n_seq]
        """The loss at each position, without gradients."""
        chunks = list(pieces(len(inputs), inputs.shape[1], self.n_threads))

        @np.errstate(all="ignore")
        def share(rows: slice) -> Array:
            return losses(params, inputs[rows], targets[rows], self.n_head)

        with blas_threads(max(self.n_threads // max(len(chunks), 1), 1)):
            found = self.executor.map(share, chunks)
            return np.concatenate([np.empty((0, inputs.shape[1]), np.float32), *found])


def pieces(n_rows: int, n_seq: int, n_threads: int) -> Iterator[slice]:
    """The rows of a batch, as many at a time as have POSITIONS positions, but no more than a thread's share."""
    size = max(min(POSITIONS // n_seq, -(-n_rows // n_threads)), 1)
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))
