"""A small training run, and what becomes of it when its process is killed: python -m tests.small_run DIRECTORY

A child trains, and sends itself SIGKILL before the n-th operation on files after its first evaluation, for every 11th
n, or every n with EVERY_MOMENT=1. Then the model must be whole, and the run goes on to the same bits as one that was
not killed. Prints the number of moments.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from picogpt.training.data import Windows
from picogpt.training.loop import fit
from picogpt.training.run import LOG, STATE, Run
from picogpt.training.settings import Settings
from picogpt.training.trainer import Step, Trainer
from picogpt.weights import store, tensorfile
from tests.helpers import write_small_files

HPARAMS = {"n_vocab": 1024, "n_ctx": 16, "n_embd": 12, "n_head": 2, "n_layer": 1}
SETTINGS = Settings(steps=6, batch_size=5, learning_rate=0.02, warmup_steps=2, dropout=0.2, average=0.9)
EVERY = 3
OPERATIONS = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "remove", "rmdir")


def prepare(directory: Path) -> Path:
    """The files that a run starts with. The text can be learnt, so that each evaluation finds a better model."""
    write_small_files(directory, HPARAMS)
    for name, n in (("train", 400), ("held_out", 90)):
        np.save(directory / f"{name}.npy", (np.arange(n) % 13).astype(np.uint16))
    return directory


def go_on(
    directory: Path, settings: Settings = SETTINGS, on_step: Callable[[Step], None] = lambda step: None,
    on_row: Callable[[dict[str, float]], None] = lambda row: None,
) -> None:  # fmt: skip
    """Train from the last checkpoint, if there is one, to the end."""
    run = Run(directory)
    with Trainer(HPARAMS, settings, n_threads=2) as trainer:
        run.restore(trainer)
        data = [Windows(run.tokens(name), HPARAMS["n_ctx"]) for name in ("train", "held_out")]
        fit(trainer, run, *data, EVERY, on_step, on_row)


def outcome(directory: Path) -> dict[str, object]:
    """All that a run leaves, but for times."""
    with tensorfile.TensorFile(directory / STATE) as file:
        state = {name: file.read(name).tobytes() for name in file.entries}
        numbers = {name: value for name, value in file.metadata.items() if name != "seconds"}
    rows = list(csv.DictReader(io.StringIO((directory / LOG).read_text())))
    timeless = [{name: value for name, value in row.items() if "second" not in name} for row in rows]
    model = {name: tensor.tobytes() for name, tensor in store.open_tensors(directory, HPARAMS).items()}
    names = sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
    return {"state": state, "numbers": numbers, "log": timeless, "model": model, "files": names}


def killed_at(moment: int, directory: Path) -> bool:
    """Train in a child that is killed before that operation on files. False if there are fewer of them."""
    child = os.fork()
    if child == 0:
        left = iter(range(moment, -1, -1))

        def watch(frame: object, event: str, function: object) -> None:
            if event == "c_call" and getattr(function, "__name__", "") in OPERATIONS and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        rows = itertools.count(1)
        try:
            # from the first evaluation on
            go_on(directory, on_row=lambda _: sys.setprofile(watch) if next(rows) == 1 else None)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), "the run failed by itself"
    return status != 0


def main(directory: Path) -> None:
    prepared = prepare(directory / "prepared")
    undisturbed = shutil.copytree(prepared, directory / "undisturbed")
    go_on(undisturbed)
    expected = outcome(undisturbed)
    for moment in itertools.count(step=int(os.environ.get("EVERY_MOMENT", "11"))):
        run = shutil.copytree(prepared, directory / f"run-{moment}")
        killed = killed_at(moment, run)
        if not killed:
            break
        assert store.verify_params(run, HPARAMS), f"moment {moment}: no model"
        go_on(run)
        found = outcome(run)
        for name, value in expected.items():
            assert found[name] == value, f"moment {moment}: {name}: {found['files']}"
        shutil.rmtree(run)
    print(moment)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
