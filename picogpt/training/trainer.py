"""The training of a model, step by step, without files: batch, gradient, update.

Everything random is drawn from the seed and the number of the step. So a run that goes on from saved weights and
optimizer continues exactly as if it had not been interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from picogpt.arrays import Array, ArrayLike, Params
from picogpt.errors import UserError, check_known
from picogpt.gpt2 import check_ids
from picogpt.training.data import Data, Windows
from picogpt.training.optimizer import AdamW, learning_rate, norm
from picogpt.training.parallel import Team
from picogpt.training.parameters import Vector, flat, initial
from picogpt.training.settings import Settings
from picogpt.weights.shapes import checked_hparams

DIVERGED = "use a smaller learning_rate, or more warmup_steps"


class Step(NamedTuple):
    """What a step was like: the mean loss before it, in nats, the norm of the gradient, the rate, and the tokens."""

    loss: float
    norm: float
    learning_rate: float
    n_tokens: int


class Trainer:
    """A model while it is trained.

    step      the number of steps that were done
    weights   a Vector with the weights as they are now
    averaged  a Vector with their running average; `weights` if settings.average is 0

    Raises UserError for hyperparameters that make no sense.

    >>> hparams = {"n_vocab": 11, "n_ctx": 8, "n_embd": 12, "n_head": 2, "n_layer": 1}
    >>> with Trainer(hparams, Settings(steps=40, learning_rate=0.03, warmup_steps=0)) as trainer:
    ...     data = Windows(np.arange(100) % 11, n_seq=8)
    ...     losses = [trainer.train(data).loss for _ in range(40)]
    >>> round(losses[0], 1), losses[-1] < 0.5
    (2.4, True)
    """

    def __init__(self, hparams: Mapping[str, int], settings: Settings, n_threads: int | None = None):
        self.hparams, self.settings, self.step = checked_hparams(hparams, Path("the new model")), settings, 0
        self.weights = Vector(hparams)
        self.weights.fill(initial(hparams, settings.seed))
        self.averaged = Vector(hparams) if settings.average else self.weights
        self.averaged.values[:] = self.weights.values
        self.optimizer = AdamW(len(self.weights.values), self.weights.n_matrices)
        self.team = Team(hparams, n_threads)

    def __enter__(self) -> Trainer:
        self.team.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.team.__exit__()

    def start_from(self, tensors: Iterable[tuple[str, Array]]) -> None:
        """Begin with the weights of another model instead of new ones."""
        self.weights.fill(tensors)
        self.averaged.values[:] = self.weights.values

    def train(self, data: Data) -> Step:
        """Do one step. Raises UserError if the loss or the gradient is not finite; the weights are as before then."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.step])
        inputs, targets = data.draw(rng, settings.batch_size_at(self.step))
        total, grads = self.team.gradients(
            self.weights.params, inputs, targets, settings.dropout, (settings.seed, self.step)
        )
        n = max(int((targets >= 0).sum()), 1)
        length = norm(grads) / n
        if not (math.isfinite(total) and math.isfinite(length)):
            raise UserError(
                f"step {self.step}: expected a finite loss, found {total / n} with a gradient of norm {length}: "
                f"{DIVERGED}"
            )
        clipped = min(1.0, settings.clip / (length + 1e-6)) if settings.clip else 1.0
        self.team.each_part(lambda part: self._update(grads, clipped / n, part))
        done = Step(total / n, length, learning_rate(self.step, settings), inputs.size)
        self.step += 1
        return done

    def _update(self, grads: Array, scale: float, part: slice) -> None:
        self.optimizer.update(self.weights.values, grads, scale, self.step, self.settings, part)
        if self.averaged is not self.weights:
            # at the beginning the average follows quickly, so that the first weights are soon forgotten
            keep = min(self.settings.average, (1 + self.step) / (10 + self.step))
            averaged = self.averaged.values[part]
            averaged += (1 - keep) * (self.weights.values[part] - averaged)

    def loss(self, data: Data) -> float:
        """The mean loss of the averaged weights over all of `data`, in nats. Raises UserError if it is not finite."""
        found = mean_loss(self.team, self.averaged.params, data)
        if not math.isfinite(found):
            raise UserError(f"step {self.step}: expected a finite loss on held-out text, found {found}: {DIVERGED}")
        return found

    def state(self) -> dict[str, Array]:
        """All that a run needs, with `step`, to go on exactly as before."""
        optimizer = {"mean": self.optimizer.mean, "square": self.optimizer.square}
        averaged = {"averaged": self.averaged.values} if self.averaged is not self.weights else {}
        return {"weights": self.weights.values, **optimizer, **averaged}

    def restore(self, state: Mapping[str, Array], step: int) -> None:
        """Go back to a saved state. Raises UserError if it is another model's."""
        expected = {name: values.shape for name, values in self.state().items()}
        if (found := {name: values.shape for name, values in state.items()}) != expected:
            raise UserError(f"expected a state of {expected}, found {found}: it belongs to another model")
        for name, values in self.state().items():
            values[:] = state[name]
        self.step = step


def mean_loss(team: Team, params: Params, data: Data) -> float:
    """The mean loss over all of `data`, in nats."""
    total, n = 0.0, 0
    for inputs, targets in data.in_order():
        total += float(team.losses(params, inputs, targets).sum(dtype=np.float64))
        n += int((targets >= 0).sum())
    return total / n


def train(params: Params, tokens: ArrayLike, n_head: int, n_ctx: int | None = None, **settings: Any) -> Params:
    """Train a model further on a text, and return the new weights. The old ones stay as they are.

    tokens  [n], the ids of the text
    n_ctx   the length of a window, by default all that the model sees

    `settings` are the fields of Settings: steps, batch_size, learning_rate, ... Raises UserError for a setting that is
    unknown or out of range, a text shorter than a window, or a loss that is not finite.

    >>> import picogpt
    >>> model = picogpt.load("shakespeare")
    >>> tokens = model.encode("The quick brown fox jumps over the lazy dog. " * 20)
    >>> params = train(model.params, tokens, model.hparams["n_head"], n_ctx=32, steps=10, batch_size=4, warmup_steps=2)
    >>> picogpt.Model(model.encoder, model.hparams, params).generate("The quick brown", n_tokens_to_generate=12)
    ' fox jumps over the lazy'
    """
    check_known(settings, Settings.__dataclass_fields__)
    with Trainer(hparams_of(params, n_head), Settings(**settings)) as trainer:
        trainer.start_from(flat(params))
        data = Windows(check_ids(tokens, len(params["wte"])), checked_n_ctx(n_ctx, len(params["wpe"])))
        for _ in range(trainer.settings.steps):
            trainer.train(data)
        return trainer.averaged.params


def checked_n_ctx(n_ctx: int | None, most: int) -> int:
    """The length of a window, by default the longest. Raises UserError if the model has not that many positions."""
    if n_ctx is None:
        return most
    if not isinstance(n_ctx, int | np.integer) or not 1 <= n_ctx <= most:
        raise UserError(f"n_ctx must be a whole number from 1 to {most}, found {n_ctx!r}: leave it out for {most}")
    return int(n_ctx)


def hparams_of(params: Params, n_head: int) -> dict[str, int]:
    """The hyperparameters that a tree of weights implies."""
    (n_vocab, n_embd), n_ctx = params["wte"].shape, len(params["wpe"])
    sizes = {"n_vocab": n_vocab, "n_ctx": n_ctx, "n_embd": n_embd, "n_head": n_head, "n_layer": len(params["blocks"])}
    return sizes | ({"own_head": True} if "lm_head" in params else {})
