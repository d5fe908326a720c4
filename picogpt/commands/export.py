"""`python -m picogpt.export MODEL DIRECTORY`: write a model in the format of another program."""

from __future__ import annotations

from picogpt import utils


def main(
    model_size: str, directory: str, *, format: str = "hf", dtype: str = "f32", models_dir: str | None = None
) -> None:
    """Write a model in the format of another program, into a new directory.

    Model:
        model_size: the model's name, or its directory
        directory: the directory to make; it must not exist
        models_dir: the directory of models

    Format:
        format: hf for transformers; tf for OpenAI's own code (needs the package tensorflow); gguf for llama.cpp (needs
            the package gguf)
        dtype: f32; for gguf also f16, half the size, and q8_0, a quarter, with slightly other numbers

    Examples:
        picogpt 124M gpt2-hf
        picogpt 124M gpt2-gguf --format gguf --dtype q8_0
    """
    utils.export(model_size, directory, format, dtype, models_dir)
