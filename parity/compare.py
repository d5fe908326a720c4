"""Compare two reports of one job (see official.py), and print what differs as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# How far a different order of float32 sums may move a logit, as a fraction of the largest logit. Seen: up to 2e-6.
# Changing a constant of the model (see docs/parity.md) moves logits by at least 7e-5.
TOLERANCE = 2e-5


@dataclass
class Row:
    """The comparison of one prompt. `problems` are sentences; the two sides agree if there are none."""

    prompt: str
    n_equal: int  # new tokens that are the same on both sides, up to the first that is not
    n_tokens: int
    difference: float  # the largest between two logits
    scale: float  # the largest logit
    problems: list[str]


def compare(official: dict[str, Any], ours: dict[str, Any]) -> list[Row]:
    return [compare_prompt(*both) for both in zip(official["prompts"], ours["prompts"], strict=True)]


def compare_prompt(official: dict[str, Any], ours: dict[str, Any]) -> Row:
    """Two entries of "prompts": {"prompt", "prompt_ids", "new_ids", "text", "logits", "top"}."""
    pairs = zip(official["new_ids"], ours["new_ids"], strict=True)
    n_tokens = len(official["new_ids"])
    n_equal = next((step for step, (a, b) in enumerate(pairs) if a != b), n_tokens)
    scale = float(np.max(np.abs(official["logits"])))
    last = np.subtract(official["logits"], ours["logits"])
    steps = list(step_differences(official["top"][: n_equal + 1], ours["top"]))
    difference = float(np.max(np.abs([*last, *steps])))

    problems = []
    if official["prompt_ids"] != ours["prompt_ids"]:
        problems.append(f"prompt ids: official {official['prompt_ids']}, ours {ours['prompt_ids']}")
    if n_equal < n_tokens:
        problems.append(token_problem(official, ours, n_equal, TOLERANCE * scale))
    elif official["text"] != ours["text"]:
        problems.append(f"text of the same tokens: official {official['text']!r}, ours {ours['text']!r}")
    if not difference <= TOLERANCE * scale:  # NaN is a difference too
        problems.append(f"logits: {difference:.1e} apart, float error explains up to {TOLERANCE * scale:.1e}")
    return Row(official["prompt"], n_equal, n_tokens, difference, scale, problems)


def step_differences(official: list[Any], ours: list[Any]) -> Iterator[float]:
    """Differences of the logits of the candidates that both sides list for a step. [step][candidate] is (id, logit)."""
    for theirs, mine in zip(official, ours, strict=False):
        logits = dict(map(tuple, mine))
        yield from (logit - logits[i] for i, logit in theirs if i in logits)


def token_problem(official: dict[str, Any], ours: dict[str, Any], step: int, float_error: float) -> str:
    """Describe the first token that differs, and say whether float error can explain it."""
    a, b = official["new_ids"][step], ours["new_ids"][step]
    message = f"token {step + 1}: official {a}, ours {b}"
    gaps = []
    for side, best, other in (("official", a, b), ("ours", b, a)):
        logits = dict(map(tuple, (official if side == "official" else ours)["top"][step]))
        if best not in logits or other not in logits:
            return f"{message}: not a near tie, {other} is not among the best {len(logits)} of {side}"
        gaps.append(logits[best] - logits[other])
    close = max(gaps) <= 2 * float_error
    verdict = "float error explains it" if close else "float error does not explain it"
    return f"{message}: the two logits are {gaps[0]:.1e} (official) and {gaps[1]:.1e} (ours) apart, {verdict}"


def compare_kept(job: dict[str, Any], official: list[Any], ours: list[Any]) -> dict[str, list[str]]:
    """Sort the kept sets of a job "filter", [row][setting], into "same", "rounding" and "differs": a sentence each."""
    verdicts: dict[str, list[str]] = {"same": [], "rounding": [], "differs": []}
    for row, theirs, mine in zip(job["rows"], official, ours, strict=True):
        for setting, a, b in zip(job["settings"], theirs, mine, strict=True):
            verdict = kept_verdict(np.array(row, np.float32), **setting, official=a, ours=b)
            verdicts[verdict].append(f"{setting}: of {len(row)} the official code keeps {len(a)}, ours {len(b)}")
    return verdicts


def kept_verdict(
    logits: Any, temperature: float, top_k: int, top_p: float, official: list[int], ours: list[int]
) -> str:
    """Compare two kept sets: "same", "rounding" or "differs".

    A token is kept as long as the running sum of float32 probabilities does not pass top_p. If the exact sum equals
    top_p to seven digits, rounding decides, and TensorFlow and NumPy round differently. "rounding" means that each set
    is right for some p within float32 error of top_p.
    """
    if official == ours:
        return "same"
    logits = logits / np.float32(temperature)
    descending = np.sort(logits)[::-1]
    n_kept = np.count_nonzero(logits >= descending[top_k - 1]) if top_k else len(logits)
    exact = np.exp(descending[:n_kept].astype(np.float64))
    cumulative = np.cumsum(exact / exact.sum())
    float_error = np.sqrt(len(logits)) * np.finfo(np.float32).eps
    fewest, most = (max(np.count_nonzero(cumulative <= top_p + error), 1) for error in (-float_error, float_error))
    possible = [np.flatnonzero(logits >= descending[n - 1]).tolist() for n in range(fewest, most + 1)]
    return "rounding" if official in possible and ours in possible else "differs"


def table(model: str, rows: list[Row]) -> Iterator[str]:
    for row in rows:
        prompt = ascii(row.prompt)
        prompt = prompt if len(prompt) <= 28 else prompt[:25] + "..."
        verdict = "DIFFERS" if row.problems else "same"
        numbers = f"{row.n_equal:>2} of {row.n_tokens:<2} {row.difference:13.1e} of {row.scale:<7.1f}"
        yield f"{model:<12} {prompt:<28} {numbers} {verdict}"
        yield from (f"    {problem}" for problem in row.problems)


HEADER = f"{'model':<12} {'prompt':<28} {'tokens':<8} {'largest difference of logits'}"
