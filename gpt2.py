"""python gpt2.py "prompt", and the tutorial's names: `from gpt2 import gelu, softmax, gpt2, generate, main`."""

MODEL = ("gelu", "softmax", "layer_norm", "linear", "ffn", "attention", "mha", "transformer_block", "gpt2", "generate")
__all__ = [*MODEL, "main"]


def __getattr__(name: str) -> object:
    """Import a name when it is first used, so that the command line handles Ctrl-C before it imports anything."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("picogpt.gpt2" if name in MODEL else "picogpt.commands.generate"), name)


if __name__ == "__main__":
    from picogpt.__main__ import main

    main()
