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

from picogpt import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from picogpt.training.model import loss_and_grads
    from picogpt.training.settings import Settings
    from picogpt.training.trainer import Trainer, train

__all__ = ["Settings", "Trainer", "loss_and_grads", "train"]

_HOMES = {"Settings": "settings", "Trainer": "trainer", "loss_and_grads": "model", "train": "trainer"}


__getattr__, __dir__ = lazily(__name__, _HOMES)  # so that a command imports only what it needs
