"""The loop of a run: steps, evaluation, checkpoints, and an end that loses nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from picogpt.errors import UserError
from picogpt.training.data import Data
from picogpt.training.run import Row, Run
from picogpt.training.trainer import Step, Trainer


def fit(
    trainer: Trainer, run: Run, data: Data, held_out: Data, evaluate_every: int,
    on_step: Callable[[Step], None] = lambda step: None, on_row: Callable[[Row], None] = lambda row: None,
) -> None:  # fmt: skip
    """Train to the last step, or until the held-out loss has settled. Every `evaluate_every` steps, and after the last,
    there are an evaluation and a checkpoint.

    Ctrl-C saves a checkpoint after the step that is being done, and raises KeyboardInterrupt. A second one does so at
    once. Raises UserError if a loss is not finite, or a file cannot be written; the last checkpoint stays.
    """
    last, patience = trainer.settings.steps, trainer.settings.patience
    with interrupted() as is_interrupted:
        while trainer.step < last and not run.has_settled(patience):
            started = time.perf_counter()
            with told(run):
                step = trainer.train(data)
            run.count(step, time.perf_counter() - started)
            on_step(step)
            if trainer.step % evaluate_every == 0 or trainer.step == last:
                with told(run):
                    loss = trainer.loss(held_out)
                on_row(run.add_row(trainer, step, loss))
                run.save_state(trainer)
            if is_interrupted():
                run.save_state(trainer)
                raise KeyboardInterrupt


@contextmanager
def told(run: Run) -> Iterator[None]:
    """Add to an error which model is saved."""
    try:
        yield
    except UserError as error:
        if not run.rows:
            raise
        raise UserError(
            f"{error}; the model in {run.directory} is the best up to step {run.rows[-1]['step']:.0f}"
        ) from None


@contextmanager
def interrupted() -> Iterator[Callable[[], bool]]:
    """A function that tells whether Ctrl-C was pressed. Only the second one raises KeyboardInterrupt.

    Nothing changes in a thread other than the main one, which gets no signals.
    """
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    try:
        before = signal.signal(signal.SIGINT, press)
    except ValueError:  # not the main thread
        yield lambda: False
        return
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
