"""python gpt2.py "prompt", picogpt "prompt": continue a prompt."""

from __future__ import annotations

from dataclasses import asdict

from picogpt import utils
from picogpt.commands import cli
from picogpt.errors import UserError
from picogpt.model import open_model
from picogpt.sampling import GREEDY, Sampling


def main(
    prompt: str | None = None, *, n_tokens_to_generate: int = 40, model_size: str = "124M",
    models_dir: str | None = None, sampling: Sampling = GREEDY, nsamples: int = 1, lookahead: bool = True,
    draft_model: str | None = None, delete_checkpoint: bool = False,
) -> None:  # fmt: skip
    """Continue a prompt with GPT-2: the text goes to stdout as it is generated, everything else to stderr.
    """
    if nsamples < 1:
        raise UserError(f"nsamples must be 1 or more, found {nsamples}")
    if nsamples > 1 and draft_model:
        raise UserError(f"a draft model guesses for one text at a time, found nsamples {nsamples}: leave one of them out")
    text = cli.read_prompt(prompt)

    # the small files first: a prompt that does not fit is refused before the weights are opened, or even downloaded
    model = open_model(model_size, models_dir)
    draft = open_model(draft_model, models_dir) if draft_model else None
    ids = model.prompt_ids(text, n_tokens_to_generate, draft)

    settings = asdict(sampling)
    if nsamples > 1:
        steps = model.sample_ids(ids, nsamples, n_tokens_to_generate, **settings)
        steps = cli.progress(steps, n_tokens_to_generate, "token")
        cli.write_samples(model.decode_samples(steps, nsamples))
    else:
        new_ids = model.generate_ids(ids, n_tokens_to_generate, lookahead=lookahead, draft=draft, **settings)
        new_ids = cli.progress(new_ids, n_tokens_to_generate, "token", beside_text=True)
        cli.write(model.encoder.decode_stream(new_ids))
