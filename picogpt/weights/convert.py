"""Opening the converted weights of a model. They are converted first if they are missing or damaged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np

from picogpt import files
from picogpt.arrays import Array, Params
from picogpt.errors import UserError
from picogpt.weights import store
from picogpt.weights.find import Place
from picogpt.weights.shapes import n_bytes, param_shapes
from picogpt.weights.source import Source


def open_or_convert(place: Place, hparams: Mapping[str, int]) -> Params:
    """The weights, memory-mapped. Raises UserError if there are none and none can be made."""
    try:
        return store.open_params(place.home, hparams, place.source.fingerprint())
    except store.UnusableError as problem:
        _check_can_convert(place, problem)
    with files.only_one(place.home), files.explained(place.home):
        try:
            return store.open_params(place.home, hparams, place.source.fingerprint())  # another process has made them
        except store.UnusableError:
            place.source.prepare(hparams)
            _convert(place, hparams)
    return store.open_params(place.home, hparams, place.source.fingerprint())


def _check_can_convert(place: Place, problem: UserError) -> None:
    """Raise UserError, saying what to do, if weights cannot be used and there is nothing to make them from."""
    params = place.home / store.PARAMS_DIR
    there, has_checkpoint = files.is_there(params), place.source.fingerprint() is not None
    if there and has_checkpoint:
        files.note(f"{problem}: converting the checkpoint again")
    elif place.is_bundled:
        raise UserError(f"{problem}: install picogpt-numpy again")
    elif there and place.source.can_fetch:
        raise UserError(f"{problem}: delete {params} and run again to fetch it again")
    elif there:
        raise UserError(f"{problem}: put the checkpoint that it was made from into {place.directory} and run again")
    elif not (has_checkpoint or place.source.can_fetch):
        raise UserError(place.source.nothing_found())


def _convert(place: Place, hparams: Mapping[str, int]) -> None:
    """Convert the weights. The caller must hold the lock of their directory."""
    from tqdm import tqdm

    started, size, n_tensors = time.monotonic(), n_bytes(hparams), len(param_shapes(hparams))
    files.check_space(place.home, size, "for the converted weights")
    place.home.mkdir(parents=True, exist_ok=True)
    store.remove_unfinished(place.home)
    files.note(f"converting {place.directory}, once")
    tensors = tqdm(_finite(place.source, hparams), "converting", n_tensors, unit="tensor", disable=None)
    store.save_params(tensors, place.home, place.source.fingerprint())
    files.note(f"converted {n_tensors} tensors, {files.size(size)}, in {time.monotonic() - started:.1f} s")


def _finite(source: Source, hparams: Mapping[str, int]) -> Iterator[tuple[str, Array]]:
    """The tensors of a source. Raises UserError for NaN and infinity."""
    for name, tensor in source.tensors(hparams):
        with np.errstate(invalid="ignore"):
            if not np.isfinite([tensor.min(), tensor.max()]).all():  # both are NaN if one number is
                raise UserError(
                    f"{source.directory}: expected numbers in the tensor {name}, found NaN or infinity: "
                    "these weights are damaged, or their training failed: fetch them again or use others"
                )
        yield name, tensor
