"""A model in EleutherAI's lm-evaluation-harness, which has the field's tasks.

    python -m picogpt.lm_eval --model picogpt --model_args model=124M --tasks lambada_openai,hellaswag

is the harness's own command, which then knows `--model picogpt`. Versions of the harness after 0.4.13 look for entry
points and know it by themselves: there `lm_eval --model picogpt` does the same. The harness runs without PyTorch.

It asks for log-likelihoods of continuations, for those of whole texts in windows, and for texts up to a stop sequence:
see https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/model_guide.md.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from picogpt import files
from picogpt.errors import UserError
from picogpt.insight import score
from picogpt.insight.score import Piece, Scores
from picogpt.model import load
from picogpt.sampling import Sampling

NAME = "picogpt"
ALIASES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # the harness's, in its order
MAX_GEN_TOKS = 256  # unless a task says otherwise
SETTINGS = {field.name for field in fields(Sampling)}
DRAWING = {"temperature", "top_k", "top_p", "min_p", "typical_p", "seed"}  # which a greedy text has no use for

Request = tuple[Any, list[int], list[int]]  # the texts, the ids of the context, those of the continuation


def run() -> None:
    """Run the harness's command line. Raises UserError if it is not installed."""
    register()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


def register() -> None:
    """Make --model picogpt known to the harness. Raises UserError if it is not installed."""
    check_installed()
    from lm_eval.api import registry

    if NAME in registry.MODEL_REGISTRY:
        return
    if hasattr(registry, "model_registry"):
        registry.model_registry.register(NAME, target=f"{__name__}:PicoGPT")
    else:  # before 0.4.10
        registry.register_model(NAME)(harness_class())


def check_installed() -> None:
    try:
        import lm_eval  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "expected the package lm_eval, EleutherAI's harness, found none: install it with "
            'pip install "picogpt-numpy[lm_eval]"'
        ) from None


def __getattr__(name: str) -> Any:
    """`PicoGPT`, the class that the harness takes. It is made when it is asked for, because it needs the harness."""
    if name != "PicoGPT":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return harness_class()


@cache
def harness_class() -> type:
    from lm_eval.api.model import TemplateLM

    return type("PicoGPT", (HarnessModel, TemplateLM), {"__doc__": HarnessModel.__doc__, "__module__": __name__})


class HarnessModel:
    """A model as the harness sees it. `PicoGPT` is this class and the harness's TemplateLM, which encodes requests.

    model, models_dir: as for picogpt.load
    batch_size: the number of texts at a time; "auto" is that of score.BATCH_SIZE
    max_length: the number of positions to use, by default all that the model sees
    """

    cache_hook: Any  # the harness keeps answers in a file if it is asked to

    def __init__(
        self, model: str = "124M", models_dir: str | None = None, batch_size: int | str = 1,
        max_length: int | None = None, max_batch_size: Any = None, device: Any = None, **unknown: Any,
    ):  # fmt: skip
        super().__init__()
        if unknown:
            raise UserError(f"expected model, models_dir or max_length in --model_args, found {', '.join(unknown)}")
        self.model = load(str(model), models_dir)
        self.batch_size = batch_size_of(batch_size)
        self.max_length = max_length_of(max_length, self.model.hparams["n_ctx"])

    @property
    def eot_token_id(self) -> int:
        """The id of <|endoftext|>, which stands for an empty context. Raises UserError if there is none."""
        if self.model.encoder.end_of_text is None:
            raise UserError("expected a model with <|endoftext|> in its vocabulary, found one without")
        return self.model.encoder.end_of_text

    @property
    def tokenizer_name(self) -> str:
        """A name for the harness's cache of requests."""
        encoder = self.model.encoder
        return f"{NAME}-{files.sha256(json.dumps([encoder.encoder, list(encoder.bpe_ranks)]).encode())[:16]}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text. <|endoftext|> in it is the special token, as for transformers."""
        return self.model.encoder.encode(string, allow_special=True)

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes into its results."""
        from picogpt import __version__

        return {"picogpt_version": __version__, **self.model.hparams}

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """The log-probability of each continuation, and whether greedy decoding gives it."""
        pieces = [self.piece(context, continuation) for _, context, continuation in requests]
        answers: dict[int, tuple[float, bool]] = {}
        for number, scores in shown(self.score(pieces), len(pieces), "loglikelihood", disable_tqdm):
            answers[number] = float(scores.log_probabilities.sum()), bool(scores.is_likeliest.all())
            if (texts := requests[number][0]) is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answers[number])
        return [answers[number] for number in range(len(pieces))]

    def piece(self, context: list[int], continuation: list[int]) -> Piece:
        """The last max_length ids of a context, and a continuation. Raises UserError if that does not fit."""
        if not 1 <= len(continuation) <= self.max_length:
            raise UserError(f"expected a continuation of 1 to {self.max_length} tokens, found {len(continuation)}")
        return Piece((context + continuation)[-self.max_length - 1 :], len(continuation))

    def score(self, pieces: Sequence[Piece]) -> Iterator[tuple[int, Scores]]:
        return score.score_pieces(pieces, self.model.params, self.model.hparams["n_head"], self.batch_size)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of whole texts, in windows without overlap. The first follows <|endoftext|>."""
        texts = [request.args[0] for request in requests]
        owners, pieces = [], []
        for owner, text in enumerate(texts):
            for piece in self.rolling(self.tok_encode(text)):
                owners.append(owner)
                pieces.append(piece)
        totals = [0.0] * len(texts)
        for number, scores in shown(self.score(pieces), len(pieces), "loglikelihood_rolling", disable_tqdm):
            totals[owners[number]] += float(scores.log_probabilities.sum())
        for text, total in zip(texts, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def rolling(self, ids: list[int]) -> Iterator[Piece]:
        """Windows that score each token once. The last one has as much context as there is room for."""
        ids = [self.eot_token_id, *ids]
        for first_new in range(1, len(ids), self.max_length):
            end = min(first_new + self.max_length, len(ids))
            yield Piece(ids[max(end - self.max_length - 1, 0) : end], end - first_new)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text that follows each context, up to a stop sequence. A context that is too long loses its beginning."""
        texts: dict[int, str] = {}
        groups: dict[str, list[int]] = defaultdict(list)  # requests of a batch have the same settings
        for number, request in enumerate(requests):
            groups[repr(sorted(request.args[1].items()))].append(number)
        for numbers in groups.values():
            how = Generation(requests[numbers[0]].args[1])
            contexts = {number: self.context_ids(requests[number].args[0], how.n_tokens) for number in numbers}
            numbers.sort(key=lambda number: -len(contexts[number]))
            new = self.model.generate_many(
                [contexts[number] for number in numbers], how.n_tokens, stop=how.until, batch_size=self.batch_size,
                **how.settings,
            )  # fmt: skip
            for number, text in shown(zip(numbers, new, strict=True), len(numbers), "generate_until", disable_tqdm):
                texts[number] = text
                self.cache_hook.add_partial("generate_until", requests[number].args, text)
        return [texts[number] for number in range(len(requests))]

    def context_ids(self, context: str, n_tokens: int) -> list[int]:
        """The last ids of a context, so that n_tokens fit after them. Raises UserError if there is no room at all."""
        room = self.max_length - n_tokens
        if room < 1:
            raise UserError(
                f"the model sees {self.max_length} tokens, found {n_tokens} to generate: use "
                f"--gen_kwargs max_gen_toks={self.max_length // 2}"
            )
        return self.tok_encode(context)[-room:] or [self.eot_token_id]


class Generation:
    """What a task asks of a generated text.

    n_tokens  the largest number of tokens
    until     stop sequences
    settings  of Sampling
    """

    def __init__(self, asked: Mapping[str, Any]):
        given = dict(asked)
        until = given.pop("until", None) or []
        self.until = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
        numbers = [number for alias in ALIASES if (number := given.pop(alias, None)) is not None]
        self.n_tokens = int(numbers[0]) if numbers else MAX_GEN_TOKS
        temperature = float(given.get("temperature") or 0)
        drawn = given.pop("do_sample", temperature > 0)
        self.settings = {name: given.pop(name) for name in SETTINGS & set(given)}
        if drawn:
            self.settings["temperature"] = temperature or 1.0
        else:
            self.settings = {name: value for name, value in self.settings.items() if name not in DRAWING}
        if given.pop("num_beams", 1) != 1 or given:
            raise UserError(f"expected generation_kwargs that picogpt knows, found {asked}")


def batch_size_of(found: int | str) -> int:
    """A batch size from a command line; "auto" and "auto:4" leave it to us. Raises UserError."""
    if str(found).startswith("auto"):
        return score.BATCH_SIZE
    return whole(found, "batch_size", 1)


def max_length_of(found: Any, n_ctx: int) -> int:
    number = n_ctx if found is None else whole(found, "max_length", 1)
    if number > n_ctx:
        raise UserError(f"max_length must be at most {n_ctx}, which the model sees, found {number}")
    return number


def whole(found: Any, name: str, least: int) -> int:
    try:
        number = int(found)
    except ValueError:
        number = least - 1
    if number < least:
        raise UserError(f"{name} must be a whole number, {least} or more, found {found!r}")
    return number


def shown(steps: Iterable[Any], total: int, kind: str, hidden: bool) -> Iterable[Any]:
    """Steps with a progress bar, as the harness's own models show one."""
    from tqdm import tqdm

    return tqdm(steps, f"Running {kind} requests", total=total, disable=hidden)
