"""python gpt2.py "prompt", picogpt "prompt": continue a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from picogpt import utils
from picogpt.commands import cli
from picogpt.decoding.stopping import stop_bytes, stopped
from picogpt.errors import UserError
from picogpt.model import Model, load, open_model
from picogpt.sampling import GREEDY, Sampling

if TYPE_CHECKING:
    from picogpt.decoding.beam import Hypothesis
    from picogpt.decoding.completion import Completion


def main(
    prompt: str | None = None, *, prompt_file: str | None = None, n_tokens_to_generate: int = 40,
    model_size: str = "124M", models_dir: str | None = None, sampling: Sampling = GREEDY, nsamples: int = 1,
    lookahead: bool = True, draft_model: str | None = None, cache_prompt: str | None = None,
    delete_checkpoint: bool = False, interactive: bool = False, stop: tuple[str, ...] = (), json: bool = False,
    logprobs: int = 0, num_beams: int = 1, length_penalty: float = 1.0,
    sliding_window: Literal["crop", "half"] | None = None,
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
        num_beams: search for the likeliest texts as a whole with this many beams; nsamples of them are printed
        length_penalty: with --num_beams, above 0 favours long texts, below 0 short ones
        sliding_window: go on past the model's context from its last tokens: crop as the tutorials do, half is cheaper
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
        python -m picogpt.train     train a model on a text of yours
        python -m picogpt.addition  train a model that adds numbers
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
    beams = num_beams != 1
    if beams:
        check_beams(num_beams, nsamples, length_penalty, sampling)
        without("num_beams", draft_model=draft_model, stop=stop, logprobs=logprobs, sliding_window=sliding_window)
    if length_penalty != 1 and not beams:
        raise UserError("length_penalty: expected --num_beams, whose scores it is for, found none: add it")
    if sliding_window:
        without("sliding_window", draft_model=draft_model)
    if interactive:
        without("interactive", nsamples=nsamples > 1, draft_model=draft_model, cache_prompt=cache_prompt)
        without("interactive", stop=stop, json=json, num_beams=beams)
        begun = prompt is not None or prompt_file is not None
        text = cli.read_prompt(prompt, prompt_file) if begun else None
        how: dict[str, Any] = {"lookahead": lookahead, "sliding_window": sliding_window}
        converse(load(model_size, models_dir), text, sampling, n_tokens_to_generate=n_tokens_to_generate, **how)
        return
    text = cli.read_prompt(prompt, prompt_file)

    # what is small first: a prompt that is too long is refused before the weights are downloaded or used
    model = open_model(model_size, models_dir, read_ahead=True)
    model.sampling(**vars(sampling))
    draft = open_model(draft_model, models_dir) if draft_model else None
    ids = model.prompt_ids(text, n_tokens_to_generate, draft, sliding_window)
    if beams:
        check_beams(num_beams, nsamples, length_penalty, sampling, model.hparams["n_vocab"])
    if cache_prompt is not None:
        check_prompt_file(cache_prompt, ids, model, sliding_window)
    if delete_checkpoint:
        model.params  # noqa: B018 opened now, because it may need the checkpoint
        utils.delete_checkpoint(model_size, models_dir)

    settings: dict[str, Any] = {**vars(sampling), "cache_prompt": cache_prompt}
    if beams:
        settings |= {"num_beams": num_beams, "nsamples": nsamples, "length_penalty": length_penalty}
        write_beams(model.beam_search(ids, n_tokens_to_generate, **settings), json)
        return
    settings["sliding_window"] = sliding_window
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


def check_prompt_file(path: str, ids: list[int], model: Model, sliding_window: str | None) -> None:
    """Raise UserError if a file is there that is not of this prompt."""
    from picogpt.decoding import window
    from picogpt.decoding.prompt_file import PromptFile

    shown = ids if sliding_window is None else window.seen(ids, model.hparams["n_ctx"], sliding_window)
    PromptFile(path, shown, model.encoder, model.hparams)


def without(flag: str, **given: object) -> None:
    """Raise UserError if a flag is given that another one cannot be with."""
    if wrong := [name for name, value in given.items() if value]:
        raise UserError(f"--{flag}: expected no --{wrong[0]}, found one: leave one of the two out")


def check_beams(*settings: Any) -> None:
    """See beam.check, which only beam search imports."""
    from picogpt.decoding import beam

    beam.check(*settings)


def write_beams(found: list[Hypothesis], json: bool) -> None:
    """Write the texts that beam search has found, each with its score if there are several."""
    if json:
        from json import dumps

        cli.write((f"{dumps(text.as_dict())}\n" for text in found), end="")
    elif len(found) == 1:
        cli.write([found[0].text])
    else:
        cli.write_samples((text.text for text in found), [f", SCORE {text.score:.4f}" for text in found])


def converse(model: Model, prompt: str | None, sampling: Sampling, **settings: Any) -> None:
    """See interactive.py, which only a conversation imports."""
    from picogpt.commands.interactive import talk

    talk(model, prompt, sampling, **settings)
