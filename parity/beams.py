"""The answers of transformers' beam search on the bundled model, and the program that writes tests/golden/beams.json.

python -m parity.beams        # needs torch and transformers
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from parity import golden, pytorch
from picogpt import utils
from picogpt.commands import cli
from picogpt.weights import store

GOLDEN_PATH = golden.GOLDEN_DIR / "beams.json"
CASES = [  # stop_id 199 is a newline
    {"prompt": "ROMEO:", "n": 24, "num_beams": 5, "nsamples": 3, "length_penalty": 1.0, "stop_id": 1023},
    {"prompt": "JULIET:\nO", "n": 20, "num_beams": 4, "nsamples": 4, "length_penalty": 2.0, "stop_id": 199},
    {"prompt": "To be, or not", "n": 16, "num_beams": 8, "nsamples": 2, "length_penalty": 0.0, "stop_id": 199},
]


def search(
    model: Any, ids: Sequence[int], n: int, num_beams: int, nsamples: int, length_penalty: float, stop_id: int,
    **settings: Any,
) -> tuple[list[list[int]], list[float]]:  # fmt: skip
    """The new ids and the scores of transformers' beam search. All sequences are as long as the longest."""
    import torch

    found = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=n, do_sample=False,
        num_beams=num_beams, num_return_sequences=nsamples, length_penalty=length_penalty, eos_token_id=stop_id,
        pad_token_id=stop_id, return_dict_in_generate=True, output_scores=True, **settings,
    )  # fmt: skip
    return found.sequences[:, len(ids) :].tolist(), found.sequences_scores.tolist()


def main() -> None:
    argparse.ArgumentParser(prog="python -m parity.beams", description=__doc__.splitlines()[0]).parse_args()
    import torch
    import transformers

    model_dir = utils.find_model_dir("shakespeare")
    encoder, hparams = utils.load_encoder_and_hparams("shakespeare")
    model = pytorch.transformers_model(hparams, store.open_tensors(model_dir, hparams).items())
    answers = []
    for case in CASES:
        how = {name: value for name, value in case.items() if name != "prompt"}
        sequences, scores = search(model, encoder.encode(str(case["prompt"])), **how)
        answers.append(case | {"sequences": sequences, "scores": scores})
    world = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    golden.write(GOLDEN_PATH, {"made_by": "python -m parity.beams", "world": world, "answers": answers})


if __name__ == "__main__":
    with cli.clean_exit():
        main()
