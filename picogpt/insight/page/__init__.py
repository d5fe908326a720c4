"""A page that shows one pass of a model: an HTML file of its own, which needs no network and no other file.

page.html, style.css and the scripts are the page. Here the numbers of a trace are put into it: rounded to
bytes where only a colour comes of them, and written in base64.
"""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from picogpt.arrays import Array
from picogpt.choosing import check_finite
from picogpt.errors import UserError
from picogpt.gpt2 import softmax
from picogpt.insight.show import name_of
from picogpt.insight.surprise import likeliest, surprise
from picogpt.insight.trace import Trace
from picogpt.model import Model

LONGEST = 256  # tokens; the patterns grow with the square of their number
N_NEXT = 256  # tokens whose logits the page has; of the others, it has a histogram
N_BINS = 64
LENS_POSITIONS = 8  # at a time
N_LENS = 5  # tokens that each cell of the logit lens has
N_SHOWN = {"head": 16, "stream": 32}  # numbers of a row that are shown as colours

KEPT = [
    "wte", "wpe", "resid_pre", "ln_1", "attn.q", "attn.k", "attn.v", "attn.pattern", "attn.z", "attn.c_proj",
    "resid_mid", "ln_2", "mlp.c_fc", "mlp.gelu", "mlp.c_proj", "resid_post", "ln_f", "logits",
]  # fmt: skip
SCRIPTS = ["sampling.js", "state.js", "text.js", "flow.js", "attention.js", "lens.js", "page.js"]
OF_HEADS = ["attn.q", "attn.k", "attn.v", "attn.z"]
OF_BLOCKS = [
    "resid_pre", "ln_1", "attn.c_proj", "resid_mid", "ln_2", "mlp.c_fc", "mlp.gelu", "mlp.c_proj", "resid_post",
]  # fmt: skip


def check_length(ids: list[int]) -> None:
    """Raise UserError for a text that is too long for a page."""
    if len(ids) > LONGEST:
        raise UserError(f"expected at most {LONGEST} tokens for a page, found {len(ids)}: give it a shorter text")


def page(model: Model, ids: list[int]) -> str:
    """The page of a text, as HTML. Raises UserError if the text is too long, or if the weights are damaged.

    >>> import picogpt
    >>> model = picogpt.load("shakespeare")
    >>> page(model, model.encode("To be"))[:15]
    '<!doctype html>'
    """
    check_length(ids)
    trace = model.trace(ids, keep=KEPT)
    check_finite(trace["logits"].max(axis=-1))
    return filled(data(trace))


def filled(numbers: dict[str, Any]) -> str:
    """The template with its parts. No part is searched for further places to fill."""
    title = "".join(token["name"] for token in numbers["tokens"]).replace("·", " ").strip()
    values = json.dumps(numbers, separators=(",", ":"), allow_nan=False)
    parts = {
        "title": html.escape(f"Inside GPT-2: {title[:60]}"),
        "style": part("style.css"),
        "script": "\n\n".join(map(part, SCRIPTS)),
        "data": values.replace("<", "\\u003c"),  # "</script>" would end the script
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], part("page.html"))


def part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").rstrip("\n")


def data(trace: Trace) -> dict[str, Any]:
    """Everything that the page shows, as JSON values."""
    model, logits = trace.model, trace["logits"]
    best, rest = likeliest(logits, N_NEXT), tail(logits, N_NEXT)
    lens_ids, lens_probabilities = lens(trace)
    ids, which = np.unique(np.concatenate([best.ravel(), lens_ids.ravel()]), return_inverse=True)
    names = [name_of(model.encoder, token_id) for token_id in ids.tolist()]
    which = which.astype(np.uint32)
    return {
        "model": {**model.hparams, "own_head": "lm_head" in model.params, "n_weights": n_weights(model.params)},
        "tokens": tokens(trace),
        "ids": ids.tolist(),
        "names": names,  # of the ids that the arrays `which` point to
        "next": {
            "which": packed(which[: best.size].reshape(best.shape)),
            "logits": packed(np.take_along_axis(logits, best, axis=-1)),
            "tail_logits": packed(rest[0]),
            "tail_counts": packed(rest[1]),
        },
        "lens": {
            "which": packed(which[best.size :].reshape(lens_ids.shape)),
            "probabilities": packed(lens_probabilities),
        },
        "patterns": packed(patterns(trace)),
        "strips": strips(trace),
    }


def tokens(trace: Trace) -> list[dict[str, Any]]:
    """Each token: its id, its text as it reads, its name with every byte visible, and its surprise in bits."""
    found = []
    for i, token_id in enumerate(trace.ids):
        encoder, bits = trace.model.encoder, None if i == 0 else surprise(trace["logits"][i - 1], token_id)
        text, name = readable(encoder.decode_bytes([token_id])), name_of(encoder, token_id)
        found.append({"id": token_id, "text": text, "name": name, "bits": bits})
    return found


def readable(data: bytes) -> str:
    r"""The text of a token as it stands in a text, or "" if it has bytes that do not print.

    >>> readable(b" be\n"), readable("é".encode()[:1])
    (' be\n', '')
    """
    text = data.decode("utf-8", errors="ignore")
    return text if text.encode() == data and all(c.isprintable() or c in "\n\t" for c in text) else ""


def n_weights(params: Any) -> int:
    """How many numbers there are in nested dicts and lists of arrays."""
    if isinstance(params, np.ndarray):
        return params.size
    return sum(map(n_weights, params.values() if isinstance(params, dict) else params))


def tail(logits: Array, n_before: int) -> tuple[Array, Array]:  # [n_seq, n_vocab] -> 2 x [n_seq, N_BINS]
    """A histogram of all but the n_before largest logits of each row, the largest first: logits, and how many.

    The logit of a bin is that of its mean probability, so that at temperature 1 the sum of all is exact.
    """
    means, counts = np.zeros((2, len(logits), N_BINS))
    for row, (mean, count) in enumerate(zip(means, counts, strict=True)):
        rest = np.sort(logits[row].astype(np.float64))[::-1][n_before:]
        if len(rest) == 0:
            continue
        edges = np.linspace(rest[0], rest[-1], N_BINS, endpoint=False)
        bins = np.searchsorted(-edges, -rest, side="right") - 1
        np.add.at(count, bins, 1)
        np.add.at(mean, bins, np.exp(rest - rest[0]))
        mean[:] = np.log(np.divide(mean, count, where=count > 0, out=np.ones_like(mean))) + rest[0]
    return means.astype(np.float32), counts.astype(np.uint32)


def lens(trace: Trace) -> tuple[Array, Array]:  # -> 2 x [n_layer + 1, n_seq, N_LENS]
    """The likeliest next tokens after each block, and their probabilities, a few positions at a time to save memory."""
    ids, probabilities = [], []
    for start in range(0, len(trace.ids), LENS_POSITIONS):
        at = softmax(trace.logit_lens(slice(start, start + LENS_POSITIONS)))  # [n_layer + 1, n_positions, n_vocab]
        ids.append(likeliest(at, N_LENS))
        probabilities.append(np.take_along_axis(at, ids[-1], axis=-1))
    return np.concatenate(ids, axis=1), np.concatenate(probabilities, axis=1)


def patterns(trace: Trace) -> Array:  # -> [n_layer, n_head, n_seq * (n_seq + 1) / 2]
    """The lower triangles of all patterns. A byte is 255 times the root of a weight, which keeps small ones apart."""
    rows, columns = np.tril_indices(len(trace.ids))
    triangles: Array = trace.patterns[:, :, rows, columns]
    roots: Array = np.rint(255 * np.sqrt(triangles))
    return roots.astype(np.uint8)


def strips(trace: Trace) -> dict[str, Any]:
    """The first numbers of the rows of activations, by name."""
    found = {name: (trace[name], N_SHOWN["stream"]) for name in ("wte", "wpe", "ln_f")}
    found["x"] = trace["h0.resid_pre"], N_SHOWN["stream"]
    found |= {name: (trace.stack(name), N_SHOWN["stream"]) for name in OF_BLOCKS}
    found |= {name: (trace.stack(name), N_SHOWN["head"]) for name in OF_HEADS}
    return {name: strip(x[..., :n]) for name, (x, n) in found.items()}


def strip(x: Array) -> dict[str, Any]:  # [..., n]
    """Rows of numbers as bytes from -127 to 127, and the largest of each row, which 127 stands for."""
    largest = np.abs(x).max(axis=-1)
    values = np.rint(127 * x / np.maximum(largest, np.finfo(np.float32).tiny)[..., None])
    return {"values": packed(values.astype(np.int8)), "largest": packed(largest)}


def packed(array: Array) -> dict[str, Any]:
    """An array as a JSON value.

    >>> packed(np.float32([[1, 2]]))
    {'shape': [1, 2], 'type': 'float32', 'base64': 'AACAPwAAAEA='}
    """
    little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {
        "shape": list(array.shape),
        "type": array.dtype.name,
        "base64": base64.b64encode(little_endian.tobytes()).decode("ascii"),
    }
