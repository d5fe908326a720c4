"""picogpt: GPT-2 in pure NumPy, to read, to trust and to run.

>>> import picogpt
>>> model = picogpt.load("shakespeare")  # or "124M", a directory, ...
>>> model.generate("ROMEO:", n_tokens_to_generate=12, temperature=0.7, seed=1)
'\\nI would not buy.\\n\\nROMEO:'
>>> list(model.stream("ROMEO:", n_tokens_to_generate=4))
['\\n', 'I', ' am', ' a']
>>> model.logits(model.encode("ROMEO:")).shape
(2, 1024)

The model itself is in picogpt.gpt2, and on one page in picogpt.reference.
"""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, which takes a while to import
if TYPE_CHECKING:
    from typing import Any

    from picogpt.arrays import Array, Params
    from picogpt.decoding.completion import Completion
    from picogpt.errors import UserError
    from picogpt.model import Model, load
    from picogpt.sampling import Sampling

__all__ = ["Array", "Completion", "Model", "Params", "Sampling", "UserError", "load"]

__version__ = "0.1.0"

_HOMES = {
    "Array": "arrays", "Params": "arrays", "Model": "model", "load": "model", "Sampling": "sampling",
    "UserError": "errors", "Completion": "decoding.completion",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import picogpt` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
