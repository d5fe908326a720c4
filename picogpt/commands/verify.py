"""`python -m picogpt.verify MODEL`: check every byte of a model."""

from __future__ import annotations

from picogpt import files
from picogpt.commands import cli
from picogpt.utils import load_encoder_and_hparams
from picogpt.weights import store
from picogpt.weights.find import find


def main(model_size: str, *, models_dir: str | None = None, with_tensorflow: bool = False) -> None:
    """Read every byte of a model and compare it with what was published and with what was converted.

    Model:
        model_size: the model's name, or its directory
        models_dir: the directory of models
        with_tensorflow: read OpenAI's checkpoint with TensorFlow too, and compare the tensors

    Examples:
        picogpt shakespeare
    """
    _, hparams = load_encoder_and_hparams(model_size, models_dir, fetch=False)
    place = find(model_size, models_dir)
    if with_tensorflow:
        from picogpt.weights.with_tensorflow import checkpoint_of, compare

        checkpoint_of(place)  # before all that takes time
    if published := place.source.verify():
        cli.write([f"{place.directory}: {', '.join(published)}: nothing differs from what was published"])
    n_tensors, n_bytes = store.verify_params(place.home, hparams)
    params = place.home / store.PARAMS_DIR
    cli.write([f"{params}: {n_tensors} tensors, {files.size(n_bytes)}: every byte as it was written"])
    if with_tensorflow:
        cli.write([f"{params}: {compare(place, hparams)} tensors: equal to what TensorFlow reads"])
