"""The first run of a model as a process: python -m tests.first_run MODELS_DIR [kill:TENSOR | byte:N | full:N]

OpenAI's own data is half a gigabyte and more, so a small model stands for 124M: its sizes and checksums replace those
that picogpt knows. All else is the real thing, without the libraries that are NOT_NEEDED. From the big files on, kill:
ends the process by SIGKILL when that tensor is reached, byte: by a signal in the middle of a write, when a file grows
past N bytes, and full: lets that write fail.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from picogpt import utils
from picogpt.commands import cli
from picogpt.weights import openai
from picogpt.weights.bundle import Bundle
from picogpt.weights.source import Known
from tests.helpers import vocabulary_dir, write_checkpoint

NOT_NEEDED = ("tensorflow", "google.protobuf", "safetensors", "ml_dtypes", "torch")
HPARAMS = {"n_vocab": 50257, "n_ctx": 16, "n_embd": 16, "n_head": 2, "n_layer": 2}


def published() -> dict[str, bytes]:
    """What OpenAI's server would have of this model, name -> bytes."""
    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(Path(directory), seed=1, hparams=HPARAMS)
        checkpoint = {path.name: path.read_bytes() for path in Path(directory).iterdir()}
    return {
        "hparams.json": json.dumps(HPARAMS).encode(),
        **{name: (vocabulary_dir() / name).read_bytes() for name in openai.TOKENIZER},
        **checkpoint,
    }


def stand_in(kill_at: str = "") -> None:
    """Make this model the 124M of this process."""
    openai.HPARAMS["124M"] = HPARAMS
    for name, data in published().items():
        openai.KNOWN["124M"][name] = Known(len(data), hashlib.sha256(data).hexdigest())

    def read(bundle, name):
        if name == f"model/{kill_at}":
            os.kill(os.getpid(), signal.SIGKILL)
        return really_read(bundle, name)

    really_read, Bundle.read = Bundle.read, read


def limit_files(n: int, deadly: bool) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))
    if deadly:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it; the system's default is death


if __name__ == "__main__":
    models_dir, fate = [*sys.argv[1:], ":"][:2]
    kind, _, where = fate.partition(":")
    sys.modules |= dict.fromkeys(NOT_NEEDED)  # cannot be imported
    stand_in(where if kind == "kill" else "")
    with cli.clean_exit():
        encoder, hparams = utils.load_encoder_and_hparams("124M", models_dir)
        if kind in ("byte", "full"):
            limit_files(int(where), deadly=kind == "byte")
        params = utils.load_params("124M", models_dir, hparams)
        print(encoder.decode([31373]), float(params["wte"][31373].sum()))
