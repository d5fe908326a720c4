"""python -m parity MODEL...: run the same prompts through the official code and through picogpt, print a table.

The exit status is 0 if every prompt gives the same tokens, and the same logits within float32 error. Else it is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from parity import compare, jobs
from picogpt import utils
from picogpt.commands import cli


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m parity", description=__doc__.splitlines()[0])
    known = [*utils.MODEL_SIZES, "shakespeare", *jobs.RANDOM_MODELS]
    parser.add_argument("models", nargs="+", metavar="MODEL", help=f"{', '.join(known)}, or a directory in models_dir")
    parser.add_argument("--official_python", type=Path, required=True, help="a Python 3.7 with TensorFlow 1.15")
    parser.add_argument("--gpt2_repo", type=Path, required=True, help=f"a clone of {jobs.OFFICIAL_URL}")
    parser.add_argument("--models_dir", type=Path, default=Path("models"))
    parser.add_argument("--work_dir", type=Path, default=Path(".parity"), help="for random models and reports")
    arguments = parser.parse_args()

    work_dir = arguments.work_dir
    work_dir.mkdir(parents=True, exist_ok=True)
    n_prompts, problems = 0, 0
    for name in arguments.models:
        with tempfile.TemporaryDirectory(dir=work_dir) as scratch:
            model_dir = jobs.find_model(name, arguments.models_dir, Path(scratch))
            job = jobs.continue_job(model_dir, arguments.gpt2_repo, Path(scratch))
            official, ours = both_sides(job, arguments.official_python, work_dir)
        if n_prompts == 0:
            print(worlds(official, ours), compare.HEADER, sep="\n\n")
        rows = compare.compare(official, ours)
        print("\n".join(compare.table(name, rows)), flush=True)
        n_prompts += len(rows)
        problems += sum(bool(row.problems) for row in rows)
        problems += not same_kept_sets(official, arguments, work_dir)
    print(f"\nNO PARITY: {problems} differences" if problems else f"\nPARITY: {n_prompts} prompts, no differences")
    sys.exit(1 if problems else 0)


def both_sides(job: dict[str, Any], official_python: Path, work_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    official = jobs.run_official(official_python, job, work_dir)
    return official, jobs.run_side([sys.executable, "-m", "parity.ours"], job, work_dir, "our")


def same_kept_sets(report: dict[str, Any], arguments: argparse.Namespace, work_dir: Path) -> bool:
    """Run both sides' sampling filters on the official logits of a report, and print one line about them."""
    rows = [prompt["logits"] for prompt in report["prompts"]]
    gpt2_repo = str(arguments.gpt2_repo.resolve())
    job = {"task": "filter", "gpt2_repo": gpt2_repo, "rows": rows, "settings": jobs.FILTERS}
    official, ours = both_sides(job, arguments.official_python, work_dir)
    verdicts = compare.compare_kept(job, official["kept"], ours["kept"])
    same, rounding, differs = (len(verdicts[verdict]) for verdict in ("same", "rounding", "differs"))
    counts = f"{same} kept sets are equal, {rounding} differ by rounding, {differs} differ"
    print(f"{'':12} temperature, top_k, top_p: {counts}", *verdicts["differs"], sep="\n    ", flush=True)
    return not verdicts["differs"]


def worlds(official: dict[str, Any], ours: dict[str, Any]) -> str:
    theirs, mine = official["world"], ours["world"]
    return (
        f"official: {jobs.OFFICIAL_URL} {jobs.OFFICIAL_COMMIT[:12]}, src/ unchanged (SHA-256); "
        f"Python {theirs['python']}, TensorFlow {theirs['tensorflow']}, NumPy {theirs['numpy']}\n"
        f"ours:     picogpt {mine['picogpt']}; Python {mine['python']}, NumPy {mine['numpy']}"
    )


if __name__ == "__main__":
    with cli.clean_exit():
        main()
