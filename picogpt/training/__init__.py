"""Training in NumPy: gradients, the optimizer, data and the loop.

>>> import picogpt
>>> from picogpt.training import train
>>> model = picogpt.load("shakespeare")
>>> tokens = model.encode("The quick brown fox jumps over the lazy dog. " * 20)
>>> params = train(model.params, tokens, model.hparams["n_head"], n_ctx=32, steps=2, batch_size=4)
>>> sorted(params)
['blocks', 'ln_f', 'wpe', 'wte']
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from picogpt.training.model import loss_and_grads
    from picogpt.training.settings import Settings
    from picogpt.training.trainer import Trainer, train

__all__ = ["Settings", "Trainer", "loss_and_grads", "train"]

_HOMES = {"Settings": "settings", "Trainer": "trainer", "loss_and_grads": "model", "train": "trainer"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that a command imports only what it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
