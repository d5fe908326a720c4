"""The settings of a training run: one object, checked when it is made, that a TOML file or flags can fill."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from picogpt.errors import UserError


@dataclass(frozen=True)
class Shape:
    """The size of a new model.

    n_layer: blocks
    n_head: attention heads
    n_embd: the width of hidden states, a multiple of n_head
    n_ctx: the positions that it sees, and the length of a window
    own_head: compute logits with a matrix of its own, lm_head, and not with that of the embedding, as GPT-2 does
    """

    n_layer: int = 6
    n_head: int = 6
    n_embd: int = 192
    n_ctx: int = 256
    own_head: bool = False


@dataclass(frozen=True)
class Settings:
    """How a model is trained.

    steps: the number of updates
    patience: evaluations in a row without a lower loss on held-out text, after which a run ends; 0 for no such end
    batch_size: windows, or examples, per update
    learning_rate: the highest
    min_learning_rate: the lowest, at the end of the cosine
    warmup_steps: updates until the highest rate is reached
    weight_decay: of matrices; gains and biases have none
    beta_1: how much the mean of the gradient keeps at each step
    beta_2: how much the mean of its square keeps at each step
    eps: added to the root of that mean
    clip: the largest norm of the gradient; 0 sets no limit
    dropout: the part of activations that are set to 0, at the embedding, in attention and at both ends of a block
    average: how much the running average of the weights keeps at each step; 0 keeps no average. If there is one, it is
        what is evaluated and saved
    first_batch_size: windows per update at the start, growing linearly to batch_size; 0 for batch_size
    growth_steps: updates until batch_size is reached
    seed: of the first weights, the windows and dropout: the same seed and number of cores give the same model

    Raises UserError for a setting that is out of range.

    >>> Settings(steps=0)
    Traceback (most recent call last):
    picogpt.errors.UserError: steps must be 1 or more, found 0: try 2000
    """

    steps: int = 2000
    patience: int = 0
    batch_size: int = 16
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-4
    warmup_steps: int = 100
    weight_decay: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    eps: float = 1e-8
    clip: float = 1.0
    dropout: float = 0.0
    average: float = 0.0
    first_batch_size: int = 0
    growth_steps: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, whole = getattr(self, field.name), isinstance(field.default, int)
            kind = "a whole number" if whole else "a number"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value != value:
                raise UserError(f"{field.name} must be {kind}, found {value!r}: try {field.default}")
            least, most = LIMITS.get(field.name, (0, math.inf))
            if value < least:
                raise UserError(f"{field.name} must be {least} or more, found {value}: try {field.default}")
            if value > most or math.isinf(value):
                limit = f"{most:g} at most" if most < math.inf else "finite"
                raise UserError(f"{field.name} must be {limit}, found {value}: try {field.default}")

    def batch_size_at(self, step: int) -> int:
        """The number of windows at a step.

        >>> settings = Settings(batch_size=16, first_batch_size=4, growth_steps=10)
        >>> [settings.batch_size_at(step) for step in (0, 5, 10, 100)]
        [4, 10, 16, 16]
        """
        if not self.first_batch_size or step >= self.growth_steps:
            return self.batch_size
        return self.first_batch_size + (self.batch_size - self.first_batch_size) * step // self.growth_steps


BELOW_1 = math.nextafter(1.0, 0.0)
LIMITS: dict[str, tuple[float, float]] = {
    "steps": (1, math.inf),
    "batch_size": (1, math.inf),
    "beta_1": (0, BELOW_1),
    "beta_2": (0, BELOW_1),
    "dropout": (0, BELOW_1),
    "average": (0, BELOW_1),
}
