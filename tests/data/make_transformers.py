"""Small checkpoints that transformers saved, and the logits it gives for them: python -m tests.data.make_transformers

tests/test_huggingface.py reads them, so that it can compare with transformers where that is not installed.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent / "transformers"
IDS = [5, 1, 1000, 3, 3, 7, 500, 2]


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    for name, dtype, settings in (
        ("float16", torch.float16, {}),
        ("bfloat16", torch.bfloat16, {}),
        ("float32-in-two-files", torch.float32, {"max_shard_size": "20KB"}),
    ):
        torch.manual_seed(0)
        config = transformers.GPT2Config(vocab_size=1024, n_positions=16, n_embd=8, n_head=2, n_layer=2)
        model = transformers.GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            model.to(dtype).save_pretrained(HERE / name, **settings)
            model = transformers.GPT2LMHeadModel.from_pretrained(HERE / name, dtype=torch.float32)
            np.save(HERE / name / "logits.npy", model(torch.tensor([IDS])).logits[0].numpy())
        (HERE / name / "generation_config.json").unlink()


if __name__ == "__main__":
    main()
