"""Write the answers of the official code to tests/golden/*.json, for tests that run without Python 3.7.

    make golden PYTHON37=... GPT2_REPO=...

The weights of random models are made from a seed. The files hold only their SHA-256.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from parity import jobs
from picogpt import utils
from picogpt.commands import cli

GOLDEN_DIR = Path(__file__).resolve().parent.parent / "tests" / "golden"
MODELS = ["shakespeare", "random-tiny", "random-odd", "random-sharp"]
TASKS = ["encode-shakespeare", "encode-openai", "filters"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m parity.golden", description=__doc__.splitlines()[0])
    parser.add_argument("--official_python", type=Path, required=True, help="a Python 3.7 with TensorFlow 1.15")
    parser.add_argument("--gpt2_repo", type=Path, required=True, help=f"a clone of {jobs.OFFICIAL_URL}")
    arguments = parser.parse_args()
    GOLDEN_DIR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, job, facts in all_jobs(Path(scratch), arguments.gpt2_repo.resolve()):
            report = jobs.run_official(arguments.official_python, job, Path(scratch))
            job = {key: value for key, value in job.items() if not isinstance(value, str)}  # without paths
            write(GOLDEN_DIR / f"{name}.json", {"made_by": "make golden", **facts, "job": job, "official": report})


def all_jobs(scratch: Path, gpt2_repo: Path) -> Any:
    """Yield the name of each golden file, its job, and further facts for the file."""
    models_dir = utils.bundled_models_dir()
    for name in MODELS:
        model_dir = jobs.find_model(name, models_dir, scratch)
        (job_dir := scratch / "jobs" / name).mkdir(parents=True)
        job = jobs.continue_job(model_dir, gpt2_repo, job_dir)
        yield name, job, {"weights_sha256": jobs.weights_sha256(model_dir)}
    vocabularies = {"shakespeare": models_dir / "shakespeare", "openai": jobs.openai_vocabulary_dir(models_dir)}
    common = {"gpt2_repo": str(gpt2_repo)}
    for name, model_dir in vocabularies.items():
        yield f"encode-{name}", {"task": "encode", **common, "model_dir": str(model_dir), "texts": jobs.TEXTS}, {}
    yield "filters", {"task": "filter", **common, "rows": filter_rows(), "settings": jobs.FILTERS}, {}


def filter_rows() -> list[list[float]]:
    """Logits of many kinds: far apart, close together, with ties, and with sums of probabilities that are exact."""
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal(100) * std for std in (0.5, 2, 2, 5)]
    rows += [rng.integers(-3, 3, 60) for _ in range(3)]  # ties
    rows += [[0.0] * 64, [1.0, 1.0, 1.0, 0.0] + [-1.0] * 60, [3.0] + [0.0] * 63]
    halves = [1, 2, 3, 4, 5, 6, *[7] * 2, *[60] * 56]  # 1/2, 1/4, ...: sums that are exact
    rows += [-np.log(2) * np.array(halves), -np.log(2) * np.array(halves[::-1])]
    rows += [np.log([0.4, 0.3, 0.2, 0.1] + [1e-9] * 60), np.log([0.25] * 4 + [1e-9] * 60)]
    rows += [[0.0, -1e-8, -2e-8, -3e-8] + [-200.0] * 60]  # four logits whose probability is 1/4, without rounding
    return [np.asarray(row, np.float32).tolist() for row in rows]


def write(path: Path, golden: dict[str, Any]) -> None:
    """Write JSON with one object per line and with as few digits as float32 needs."""
    text = json.dumps(shortened(golden), ensure_ascii=True, separators=(",", ":"))
    path.write_text(text.replace('},{"', '},\n{"') + "\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size} bytes")


def shortened(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}")  # nine digits identify every float32
    if isinstance(value, dict):
        return {key: shortened(entry) for key, entry in value.items()}
    return [shortened(entry) for entry in value] if isinstance(value, list) else value


if __name__ == "__main__":
    with cli.clean_exit():
        main()
