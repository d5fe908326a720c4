"""OpenAI's files over HTTP: each is written beside its goal, checked, and renamed only when it is whole."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from picogpt import UserError

WEIGHTS_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"

TOKENIZER_FILES = ("hparams.json", "encoder.json", "vocab.bpe")
CHECKPOINT_FILES = ("checkpoint", "model.ckpt.index", "model.ckpt.meta", "model.ckpt.data-00000-of-00001")

# the same for all sizes
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}

CHUNK = 1 << 20  # bytes
TIMEOUT = (10, 60)  # seconds to connect, and between two chunks


def weights_url() -> str:
    """Where models are fetched from: OpenAI's server, or a mirror named by PICOGPT_WEIGHTS_URL."""
    url = os.environ.get("PICOGPT_WEIGHTS_URL") or WEIGHTS_URL
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise UserError(f"PICOGPT_WEIGHTS_URL: expected an https address, found {url}")
    return url.rstrip("/")


def fetch_missing(model_size: str, model_dir: Path, names: tuple[str, ...]) -> None:
    """Download those of a model's files that are not there. Raises UserError; what is whole by then stays."""
    missing = [name for name in names if not (model_dir / name).exists()]
    if not missing:
        return
    import requests

    made = not model_dir.exists()
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        with requests.Session() as session:
            for name in missing:
                fetch(session, f"{weights_url()}/{model_size}/{name}", model_dir / name)
    except requests.RequestException as error:
        raise UserError(
            f"cannot fetch {model_size} from {weights_url()} ({_reason(error)}): "
            f"put {', '.join(names)} into {model_dir} by hand, "
            "or use the bundled model, which needs no network: --model_size shakespeare"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot write to {model_dir}: {error.strerror or error}: choose another --models_dir"
        ) from None
    finally:
        if made and model_dir.exists() and not any(model_dir.iterdir()):
            model_dir.rmdir()


def fetch(session: Any, url: str, path: Path) -> None:
    """Download one file with a bar in bytes. Raises UserError, and leaves nothing, unless it came as promised."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with session.get(url, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
            length = response.headers.get("Content-Length")
            digest = _save(response, part, path.name, length and int(length))
        size = part.stat().st_size
        if length is not None and size != int(length):
            raise UserError(f"{url}: expected {length} bytes, found {size}: run again")
        if digest != SHA256.get(path.name, digest):
            raise UserError(f"{url}: expected SHA-256 {SHA256[path.name]}, found {digest}: not OpenAI's file")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _save(response: Any, part: Path, name: str, total: int | None) -> str:
    from tqdm import tqdm

    digest = hashlib.sha256()
    with (
        part.open("wb") as file,
        tqdm(desc=f"fetching {name}", total=total, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """The innermost cause of an error of requests, in one line."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    reason = getattr(error, "reason", None)
    return str(reason if isinstance(reason, Exception) else error).splitlines()[0]
