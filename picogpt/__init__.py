"""picogpt: GPT-2 in pure NumPy, to read, to trust and to run.

>>> import picogpt
>>> model = picogpt.load("shakespeare")  # or "124M", a directory, ...
>>> model.generate("ROMEO:", n_tokens_to_generate=12, temperature=0.7, seed=1)
'\\nI will not bite to die.\\n\\nROMEO'
>>> list(model.stream("ROMEO:", n_tokens_to_generate=4))
['\\n', 'I', "'ll", ' tell']
>>> model.logits(model.encode("ROMEO:")).shape
(2, 1024)

The model itself is in picogpt.gpt2, and on one page in picogpt.reference.
"""

from __future__ import annotations

import os

# log2 of the ticks that a thread of OpenBLAS keeps a core busy after a product, waiting for the next one: less than a
# millisecond, where 2^28 would take the core from our own threads for a tenth of a second. NumPy reads it when it loads
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "21")

TYPE_CHECKING = False  # not from typing, which takes a while to import
if TYPE_CHECKING:
    from collections.abc import Callable
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


def lazily(module: str, homes: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The __getattr__ and __dir__ of a package that imports a public name from its home when it is first used."""
    from sys import modules

    def getattr_(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{module}.{homes[name]}"), name)
        setattr(modules[module], name, value)
        return value

    return getattr_, lambda: sorted({*vars(modules[module]), *homes})


__getattr__, __dir__ = lazily(__name__, _HOMES)  # so that `import picogpt` costs nothing
