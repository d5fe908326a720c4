"""Our side: do the tasks of official.py with picogpt. `python -m parity.ours JOB.json REPORT.json`"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from picogpt import __version__, gpt2, sampling, utils
from picogpt.encoder import get_encoder

N_TOP = 5  # candidates of each generated token that are reported, as in official.py


def continuations(job: dict[str, Any]) -> dict[str, Any]:
    model_dir = Path(job["model_dir"])
    encoder, hparams = utils.load_encoder_and_hparams(model_dir.name, model_dir.parent)
    params = utils.load_params(model_dir.name, model_dir.parent, hparams)
    n_head, n_tokens = hparams["n_head"], job["n_tokens"]
    prompts = []
    for prompt in job["prompts"]:
        prompt_ids = encoder.encode(prompt)
        new_ids = list(gpt2.generate(prompt_ids, params, n_head, n_tokens))
        rows = logits_of_steps(prompt_ids, new_ids, params, n_head)
        last = gpt2.hidden_states(prompt_ids, **params, n_head=n_head)[-1]  # without a cache
        prompts.append(
            {
                "prompt": prompt,
                "prompt_ids": prompt_ids,
                "new_ids": new_ids,
                "text": encoder.decode(new_ids),
                "logits": gpt2.logits(last, params["wte"]).tolist(),
                "top": [[[int(i), float(row[i])] for i in np.argsort(row)[::-1][:N_TOP]] for row in rows],
            }
        )
    return {"prompts": prompts}


def logits_of_steps(prompt_ids: list[int], new_ids: list[int], params: Any, n_head: int) -> list[Any]:
    """The logits from which each new id was chosen, [n_vocab] each, computed with a cache as in `generate`."""
    kv_cache = gpt2.new_cache(params, n_head, len(prompt_ids) + len(new_ids))
    rows = []
    for inputs in (prompt_ids, *([token_id] for token_id in new_ids[:-1])):
        x = gpt2.hidden_states(inputs, **params, n_head=n_head, kv_cache=kv_cache)[-1]
        rows.append(gpt2.logits(x, params["wte"]))
    return rows


def encodings(job: dict[str, Any]) -> dict[str, Any]:
    model_dir = Path(job["model_dir"])
    encoder = get_encoder(model_dir.name, model_dir.parent)
    all_ids = [encoder.encode(text) for text in job["texts"]]
    return {"ids": all_ids, "texts": [encoder.decode(ids) for ids in all_ids]}


def kept_sets(job: dict[str, Any]) -> dict[str, Any]:
    kept = []
    for row in job["rows"]:
        logits = np.array(row, np.float32)
        kept.append([np.flatnonzero(np.isfinite(filtered(logits, **s))).tolist() for s in job["settings"]])
    return {"kept": kept}


def filtered(logits: Any, temperature: float, top_k: int, top_p: float) -> Any:
    """The logits from which choosing.next_ids draws."""
    return sampling.top_p_logits(sampling.top_k_logits(logits / temperature, top_k), top_p)


TASKS = {"continue": continuations, "encode": encodings, "filter": kept_sets}


def report(job: dict[str, Any]) -> dict[str, Any]:
    world = {"python": platform.python_version(), "numpy": np.__version__, "picogpt": __version__}
    return TASKS[job["task"]](job) | {"world": world}


def main(job_path: str, report_path: str) -> None:
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    Path(report_path).write_text(json.dumps(report(job)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
