"""picogpt batch, python -m picogpt.batch: continue every prompt of a file."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from picogpt import files, utils
from picogpt.commands import cli, results
from picogpt.decoding.completion import Completion, Writers, check_logprobs
from picogpt.decoding.stopping import stop_bytes
from picogpt.errors import UserError
from picogpt.model import Model, open_model
from picogpt.sampling import GREEDY, Sampling

LARGEST = 1 << 28  # bytes of an input file
MOST = 1 << 20  # prompts in it
SPLIT = "split it into several files"


def main(
    input_file: str, *, output_file: str | None = None, n_tokens_to_generate: int = 40, model_size: str = "124M",
    models_dir: str | None = None, sampling: Sampling = GREEDY, batch_size: int = 16,
    stop: tuple[str, ...] = (), json: bool = False, logprobs: int = 0,
) -> None:  # fmt: skip
    """Continue every prompt of a file: a line {"prompt": ..., "text": ...} for each, in the order of the prompts.

    A run with an output file can be interrupted at any time: start it again to resume. OUTPUT_FILE.run, beside it,
    keeps the settings and every complete text. A run with other settings, prompts or weights is refused, and so is an
    output file that does not come from such a run.

    Files:
        input_file: a file or a pipe, or - for stdin, with a prompt per line; in a .jsonl file a line is a JSON string,
            or an object with a string as "prompt". Bytes that are not UTF-8 become \\udc80 to \\udcff in the output
        output_file: where the lines go, by default stdout. A pipe or a device has no OUTPUT_FILE.run

    Texts:
        n_tokens_to_generate: the number of tokens for each prompt; fewer if the text ends before
        sampling: how tokens are chosen
        stop: end before this text; may be given several times
        json: as for picogpt: each line also has ids, logprobs, finish_reason, seed and timings
        logprobs: with --json, name this many of the likeliest tokens at each position
        batch_size: the number of prompts at a time; it changes the time and the memory, not the texts

    Model:
        model_size: as for picogpt: 124M, 355M, 774M, 1558M, shakespeare, or a directory
        models_dir: as for picogpt

    Examples:
        picogpt prompts.txt -m shakespeare
        picogpt prompts.txt -m shakespeare -t 0.7 -s 1 -o texts.jsonl
    """
    cli.at_least(1, batch_size=batch_size)
    cli.at_least(0, n_tokens_to_generate=n_tokens_to_generate, logprobs=logprobs)
    if logprobs and not json:
        raise UserError("logprobs: expected --json, which shows them, found none: add it")
    stop_bytes(stop)  # checked before anything is read
    check_logprobs(logprobs)
    prompts = read_prompts(Path(input_file))
    model = open_model(model_size, models_dir)
    inputs = encoded(prompts, model, n_tokens_to_generate, "stdin" if input_file == "-" else input_file)
    model.sampling(**vars(sampling))
    settings = {"n_tokens_to_generate": n_tokens_to_generate, **vars(sampling)}
    settings |= {"stop": stop, "json": json, "logprobs": logprobs}
    known = {"model_size": model_size, "small files": fingerprint(model)}
    with results.opened(output_file, prompts) as out:
        out.check(settings, known)
        left = [number for number in range(len(prompts)) if number not in out.there]
        if out.there:
            files.note(f"{len(out.there)} of {len(prompts)} were there already{without_a_seed(sampling)}")
        writers = Writers(
            model.encoder, n_tokens_to_generate, stop, logprobs if json else None, vars(sampling), len(left)
        )
        how = {**writers.settings, "watch": writers.add}
        events = model.batch_ids([inputs[n] for n in left], n_tokens_to_generate, batch_size, **how)
        out.begin(settings, known | {"weights": utils.weights_fingerprint(model_size, models_dir)})
        tokens = taken(events, lambda n: out.add(left[n], **fields_of(writers.completion(n), json)))
        for _ in cli.progress(tokens, len(left) * n_tokens_to_generate, "token", beside_text=output_file is None):
            pass


def fields_of(text: Completion, all_of_them: bool) -> dict[str, Any]:
    """What the line of a text shows."""
    return text.as_dict() if all_of_them else {"text": text.text}


def without_a_seed(sampling: Sampling) -> str:
    """A warning for a resumed run whose new texts cannot be reproduced."""
    return "" if sampling.greedy or sampling.seed is not None else "; without --seed, the others cannot be reproduced"


def read_prompts(path: Path) -> list[str]:
    """A prompt per line; in a .jsonl file a line is a JSON string, or an object with a "prompt". Raises UserError.

    Only "\\n" and "\\r\\n" end a line. Bytes that are not UTF-8 become surrogate escapes, which are encoded as bytes.
    """
    data = cli.read_input(path, LARGEST, "prompts", "input_file")
    if len(data) > LARGEST or data.count(b"\n") > MOST:
        raise UserError(f"{path}: expected at most {files.size(LARGEST)} and {MOST} lines, found more: {SPLIT}")
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="surrogateescape")
    lines = text.removesuffix("\n").split("\n") if text else []
    if path.suffix == ".jsonl":
        return [prompt_in(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    return [line.removesuffix("\r") for line in lines]


def prompt_in(line: str, where: str) -> str:
    """The prompt in a line of JSON. Raises UserError."""
    value = files.json_from(line, where, "fix this line")
    prompt = value.get("prompt") if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise UserError(f'{where}: expected a string or {{"prompt": a string}}, found {files.quoted(value)}')
    return prompt


def encoded(prompts: Sequence[str], model: Model, n_tokens_to_generate: int, input_file: str) -> list[list[int]]:
    """The ids of each prompt. Raises UserError, with the number of the line, if one cannot be continued."""
    ids = []
    for number, prompt in enumerate(prompts, start=1):
        try:
            ids.append(model.prompt_ids(prompt, n_tokens_to_generate))
        except UserError as error:
            raise UserError(f"{input_file}, line {number}: {error}") from None
    return ids


def fingerprint(model: Model) -> str:
    """A digest of a model's hyperparameters and tokenizer."""
    parts = [model.hparams, model.encoder.encoder, list(model.encoder.bpe_ranks)]
    return files.sha256(json.dumps(parts).encode())


def taken(events: Iterable[tuple[int, int | None]], complete: Callable[[int], Any]) -> Iterator[int]:
    """Each token of a batch as it comes; `complete` is called with the number of each text that ends."""
    for number, token_id in events:
        if token_id is None:
            complete(number)
        else:
            yield token_id
