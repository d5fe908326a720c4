"""Converted weights compared with what TensorFlow itself reads from the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from picogpt.errors import UserError
from picogpt.weights import openai, store
from picogpt.weights.find import Place
from picogpt.weights.to_tensorflow import tensorflow
from picogpt.weights.variables import SCOPE


def checkpoint_of(place: Place) -> Path:
    """The prefix of a model's checkpoint. Raises UserError if it has none."""
    if isinstance(place.source, openai.Checkpoint) and place.source.fingerprint() is not None:
        return place.source.prefix()
    raise UserError(f"{place.directory}: expected a TensorFlow checkpoint, found none: leave out with_tensorflow")


def compare(place: Place, hparams: dict[str, int]) -> int:
    """Compare every tensor, and return their number. Raises UserError for one that differs."""
    prefix = checkpoint_of(place)
    tf = tensorflow("with_tensorflow")
    tensors = store.open_tensors(place.home, hparams, place.source.fingerprint())
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        for name, tensor in tensors.items():
            theirs: Any = reader.get_tensor(SCOPE + name)
            if not np.array_equal(theirs.reshape(tensor.shape), tensor):
                raise UserError(f"{place.home}: {name} differs from what TensorFlow reads: delete params and run again")
    except tf.errors.OpError as error:
        raise UserError(f"{prefix}: TensorFlow cannot read it: {str(error.message)[:200]}") from None
    return len(tensors)
