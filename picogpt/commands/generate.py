"""python gpt2.py "prompt", picogpt "prompt": continue a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from picogpt import utils
from picogpt.commands import cli
from picogpt.decoding.stopping import stop_bytes, stopped
from picogpt.errors import UserError
from picogpt.model import Model, load, open_model
from picogpt.sampling import GREEDY, Sampling

if TYPE_CHECKING:
    from picogpt.decoding.completion import Completion


def main(
    prompt: str | None = None, *, prompt_file: str | None = None, n_tokens_to_generate: int = 40,
    model_size: str = "124M", models_dir: str | None = None, sampling: Sampling = GREEDY, nsamples: int = 1,
    lookahead: bool = True, draft_model: str | None = None, cache_prompt: str | None = None,
    delete_checkpoint: bool = False, interactive: bool = False, stop: tuple[str, ...] = (), json: bool = False,
    logprobs: int = 0,
) -> None:  # fmt: skip
    """Continue a prompt with GPT-2: the text goes to stdout as it is generated, everything else to stderr.

    Text:
        prompt: the text to continue, by default read from a pipe; "" starts a new text
        prompt_file: a file that holds the prompt; a newline at its end is left out
        n_tokens_to_generate: the number of tokens; fewer if the text ends before, with <|endoftext|>
        sampling: how tokens are chosen
        stop: end before this text; may be given several times
        nsamples: the number of texts, generated as one batch
        json: print an object for each text: text, ids, logprobs, finish_reason, seed and timings
        logprobs: with --json, name this many of the likeliest tokens at each position
        interactive: keep the model loaded and write on by turns: each line that you type is added to the text

    Model:
        model_size: 124M, 355M, 774M or 1558M (downloaded when first used), shakespeare (bundled), the name of a
            directory in models_dir, or the path of one, as ./NAME, in OpenAI's or Hugging Face's form, or hf:OWNER/NAME
            for a model of the Hugging Face Hub
        models_dir: the directory of models; by default PICOGPT_MODELS_DIR, or else models
        delete_checkpoint: delete OpenAI's checkpoint once the weights are converted: half the disk space

    Advanced:
        lookahead: guess the next tokens when the text repeats itself and verify them: the same text, faster
        draft_model: a smaller model with the same vocabulary that guesses for model_size: the same text, faster
        cache_prompt: a file that keeps the keys and values of the prompt: a text that begins with it starts at once

    Examples:
        picogpt "ROMEO:" -m shakespeare
        picogpt "ROMEO:" -m shakespeare -n 100 -t 0.7 -k 40 -s 1
        picogpt "" -m shakespeare --top_p 0.9 --nsamples 3
        echo "JULIET:" | picogpt -m shakespeare
        picogpt -m shakespeare -- "--text that begins with a dash goes last"

    Other commands:
        picogpt --completion bash   complete flags with the Tab key; or zsh
        python -m picogpt.batch     continue every prompt of a file
        python -m picogpt.evaluate  measure how well a model predicts a text
        python -m picogpt.explain   show what a model thinks of a text
        python -m picogpt.verify    check every byte of a model's files
        python -m picogpt.export    write a model for other programs
    """
    cli.at_least(1, nsamples=nsamples)
    cli.at_least(0, n_tokens_to_generate=n_tokens_to_generate, logprobs=logprobs)
    stops = stop_bytes(stop)
    if nsamples > 1 and draft_model:
        raise UserError(f"a draft model guesses for one text at a time, found nsamples {nsamples}: leave one out")
    if logprobs and not json:
        raise UserError("logprobs: expected --json, which shows them, found none: add it")
    if json:
        from picogpt.decoding.completion import check_logprobs

        check_logprobs(logprobs)
    if interactive:
        check_interactive(
            nsamples=nsamples > 1, draft_model=draft_model, cache_prompt=cache_prompt, stop=stop, json=json
        )
        begun = prompt is not None or prompt_file is not None
        text = cli.read_prompt(prompt, prompt_file) if begun else None
        how = {"n_tokens_to_generate": n_tokens_to_generate, "lookahead": lookahead}
        converse(load(model_size, models_dir), text, sampling, **how)
        return
    text = cli.read_prompt(prompt, prompt_file)

    # what is small first: a prompt that is too long is refused before the weights are downloaded or opened
    model = open_model(model_size, models_dir)
    model.sampling(**vars(sampling))
    draft = open_model(draft_model, models_dir) if draft_model else None
    ids = model.prompt_ids(text, n_tokens_to_generate, draft)
    if cache_prompt is not None:
        check_prompt_file(cache_prompt, ids, model)
    if delete_checkpoint:
        model.params  # noqa: B018 opened now, because it may need the checkpoint
        utils.delete_checkpoint(model_size, models_dir)

    settings = {**vars(sampling), "cache_prompt": cache_prompt}
    if nsamples == 1:
        settings |= {"lookahead": lookahead, "draft": draft}
    if nsamples == 1 and not json:
        new_ids = model.generate_ids(ids, n_tokens_to_generate, **settings)
        new_ids = cli.progress(new_ids, n_tokens_to_generate, "token", beside_text=True)
        cli.write(stopped(new_ids, model.encoder, stops))
        return
    texts = completed(model, ids, nsamples, n_tokens_to_generate, stop, logprobs if json else None, settings)
    if json:
        cli.write((f"{text.as_json()}\n" for text in texts), end="")
    else:
        cli.write_samples(text.text for text in texts)


def completed(
    model: Model, ids: list[int], nsamples: int, n_tokens: int, stop: tuple[str, ...], logprobs: int | None,
    settings: dict[str, Any],
) -> list[Completion]:  # fmt: skip
    """One completion or several, with a progress bar."""
    from picogpt.decoding.completion import Writers

    writers = Writers(model.encoder, n_tokens, stop, logprobs, settings)
    how = {**writers.settings, "watch": writers.add}
    one = nsamples == 1
    steps = model.generate_ids(ids, n_tokens, **how) if one else model.sample_ids(ids, nsamples, n_tokens, **how)
    for _ in cli.progress(steps, n_tokens, "token"):
        pass
    return [writers.completion(number) for number in range(nsamples)]


def check_prompt_file(path: str, ids: list[int], model: Model) -> None:
    """Raise UserError if a file is there that is not of this prompt."""
    from picogpt.decoding.prompt_file import PromptFile

    PromptFile(path, ids, model.encoder, model.hparams)


def check_interactive(**given: object) -> None:
    """Raise UserError if a flag is given that --interactive cannot be with."""
    if wrong := [name for name, value in given.items() if value]:
        raise UserError(f"--interactive: expected no --{wrong[0]}, found one: leave one of the two out")


def converse(model: Model, prompt: str | None, sampling: Sampling, **settings: Any) -> None:
    """See interactive.py, which only a conversation imports."""
    from picogpt.commands.interactive import talk

    talk(model, prompt, sampling, **settings)
