"""The class that `picogpt.load` returns: a model's tokenizer, hyperparameters and weights, and what they can do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picogpt import files, gpt2, utils
from picogpt.arrays import Array, ArrayLike, Edits, Params
from picogpt.encoder import Encoder
from picogpt.errors import UserError, check_known
from picogpt.sampling import Sampling

if TYPE_CHECKING:
    from picogpt.decoding.beam import Hypothesis
    from picogpt.decoding.completion import Completion, CompletionStream
    from picogpt.insight.trace import Trace


def load(model_size: str | Path = "124M", models_dir: str | Path | None = None) -> Model:
    """A model by its name: 124M, 355M, 774M or 1558M, shakespeare (bundled), or the path of a directory.

    hf:OWNER/NAME is a GPT-2 of the Hugging Face Hub. It needs the package huggingface_hub, and is kept in its cache.

    OpenAI's models are downloaded and converted when they are used for the first time. They are kept in models_dir, by
    default PICOGPT_MODELS_DIR or "models". Raises UserError if that fails.

    >>> import picogpt
    >>> model = picogpt.load("shakespeare")
    >>> model
    <picogpt.Model: 6 layers, 6 heads, width 192, 256 positions, 1024 tokens>
    >>> model.generate("ROMEO:", n_tokens_to_generate=8)
    "\\nI'll tell thee, I'll"
    """
    model = open_model(model_size, models_dir)
    model.params  # noqa: B018 downloaded and converted now, not when they are first used
    return model


def open_model(
    model_size: str | Path = "124M", models_dir: str | Path | None = None, read_ahead: bool = False
) -> Model:  # fmt: skip
    """As `load`, but the weights are loaded when they are first used, so that a prompt can be checked before.

    With read_ahead, another thread begins to read weights that are there already, while this one reads the tokenizer.
    """
    params = utils.params_read_ahead(model_size, models_dir) if read_ahead else None
    encoder, hparams = utils.load_encoder_and_hparams(model_size, models_dir)
    weights = params or partial(utils.load_params, model_size, models_dir, hparams)
    return Model(encoder, hparams, weights, partial(utils.weights_fingerprint, model_size, models_dir))


class Model:
    """A GPT-2.

    encoder  the tokenizer
    hparams  {"n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"}
    params   the weights: nested dicts of arrays, as gpt2.gpt2 takes them

    `settings` are the fields of Sampling: temperature, top_k, top_p, seed, repetition_penalty and others. By default
    the likeliest token is taken each time. A prompt is a text or a list of token ids; an empty one starts a new text.
    `stop` is a text, or a list of them, that ends what is generated and does not belong to it. `generate`
    and `stream` also take what `generate_ids` takes, as `edit`.

    The methods raise UserError when they are called, if a setting is out of range, or if the prompt and the tokens to
    generate do not fit into n_ctx.
    """

    def __init__(
        self, encoder: Encoder, hparams: dict[str, int], params: Params | Callable[[], Params],
        fingerprint: Callable[[], str] | None = None,
    ):  # fmt: skip
        self.encoder = encoder
        self.hparams = hparams
        self._params = params
        self._fingerprint = fingerprint

    def __repr__(self) -> str:
        h = self.hparams
        return (
            f"<picogpt.Model: {h['n_layer']} layers, {h['n_head']} heads, width {h['n_embd']}, "
            f"{h['n_ctx']} positions, {h['n_vocab']} tokens>"
        )

    @cached_property
    def params(self) -> Params:
        """The weights: read-only float32 arrays in nested dicts."""
        return self._params() if callable(self._params) else self._params

    @cached_property
    def fingerprint(self) -> str:
        """A string that identifies the hyperparameters and the weights."""
        from picogpt.decoding.prompt_file import digest

        params = self.params  # the first use writes the file that the fingerprint is taken from
        weights = self._fingerprint() if self._fingerprint else digest(params)
        return files.sha256(repr((sorted(self.hparams.items()), weights)).encode())

    def encode(self, text: str) -> list[int]:
        """The token ids of a text.

        >>> load("shakespeare").encode("To be, or not to be")
        [397, 305, 12, 530, 322, 288, 305]
        """
        if not isinstance(text, str):
            raise UserError(f"expected a text to encode, found {text!r:.60}")
        return self.encoder.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids. Bytes that are not UTF-8 become U+FFFD.

        >>> load("shakespeare").decode([397, 305])
        'To be'
        """
        return self.encoder.decode(ids)

    def logits(self, ids: ArrayLike) -> Array:  # [n_seq] -> [n_seq, n_vocab]
        """The logits of the token after each position.

        >>> model = load("shakespeare")
        >>> at = model.logits(model.encode("ROMEO:"))
        >>> at.shape, model.decode([at[-1].argmax()])
        ((2, 1024), '\\n')
        """
        gpt2.check_request(ids, self.params, 0)
        return gpt2.gpt2(ids, **self.params, n_head=self.hparams["n_head"])

    def score(self, text: str | ArrayLike, stride: int | None = None) -> Array:  # [n_seq] -> [n_seq - 1]
        """The log-probability, in float64, of each token of a text or of a list of ids, given those before it.

        The first token has none before it, so the result begins with the second one. Only n_ctx tokens can be seen at a
        time. A longer text is scored in windows that begin `stride` tokens apart, by default half of n_ctx, so that
        each token has at least n_ctx - stride tokens before it: see insight/score.py. Raises UserError if the stride is
        not from 1 to n_ctx - 1, and for ids outside the vocabulary.

        >>> load("shakespeare").score("To be, or not to be").round(2)
        array([-3.41, -4.17, -4.46, -4.57, -3.25, -2.5 ])
        """
        from picogpt.insight import score

        ids = self.encode(text) if isinstance(text, str) else text
        score.check_stride(stride, self.hparams["n_ctx"] - 1)
        return score.log_probabilities(ids, self.params, self.hparams["n_head"], stride)

    def trace(
        self, text: str | Sequence[int], *, keep: str | Collection[str] | None = None, edit: Edits | None = None,
        limit: int = 2 * 10**9,
    ) -> Trace:  # fmt: skip
        """Run a text through the model and keep its activations by name: see docs/inside.md.

        keep: the names to keep, as "h3.attn.z", "attn.z" for all layers, or "h3.*"; by default all but attn.result
        edit: {name: function}: each function gets an array of its own and returns the one to go on with, or changes
            it in place; an array or a number takes the activation's place
        limit: the largest number of bytes that may be kept

        Raises UserError for unknown names, and before anything is computed if the trace would be larger than limit.

        >>> trace = load("shakespeare").trace("To be, or not to be")
        >>> trace["h3.attn.pattern"].shape, trace["logits"].shape
        ((6, 7, 7), (7, 1024))
        """
        from picogpt.insight.trace import trace

        return trace(self, text, keep=keep, edit=edit, limit=limit)

    def generate(
        self, prompt: str | Sequence[int], n_tokens_to_generate: int = 40, *, stop: str | Sequence[str] = (),
        **settings: Any,
    ) -> str:  # fmt: skip
        """The text that follows a prompt: n_tokens_to_generate tokens, or fewer if the model ends the text.

        >>> load("shakespeare").generate("ROMEO:", n_tokens_to_generate=12, temperature=0.7, seed=1)
        '\\nI will not bite to die.\\n\\nROMEO'
        """
        return "".join(self.stream(prompt, n_tokens_to_generate, stop=stop, **settings))

    def stream(
        self, prompt: str | Sequence[int], n_tokens_to_generate: int = 40, *, stop: str | Sequence[str] = (),
        **settings: Any,
    ) -> Iterator[str]:  # fmt: skip
        """As `generate`, in pieces, each as soon as it is known.

        >>> for piece in load("shakespeare").stream("ROMEO:", 3):
        ...     print(repr(piece))
        '\\n'
        'I'
        "'ll"
        """
        from picogpt.decoding import stopping

        stops = stopping.stop_bytes(stop)
        return stopping.stopped(self.generate_ids(prompt, n_tokens_to_generate, **settings), self.encoder, stops)

    def samples(
        self, prompt: str | Sequence[int], nsamples: int, n_tokens_to_generate: int = 40, *,
        stop: str | Sequence[str] = (), **settings: Any,
    ) -> list[str]:  # fmt: skip
        """Several texts that follow one prompt, generated as one batch.

        >>> load("shakespeare").samples("ROMEO:", 2, n_tokens_to_generate=6, temperature=1, seed=1)
        ['\\nI take good heart beg', '\\nBy such saints']
        """
        request = prompt, nsamples, n_tokens_to_generate
        return [text.text for text in self.complete_samples(*request, stop=stop, logprobs=None, **settings)]

    def generate_many(
        self, prompts: Sequence[str | Sequence[int]], n_tokens_to_generate: int = 40, *,
        stop: str | Sequence[str] = (), batch_size: int = 16, **settings: Any,
    ) -> Iterator[str]:  # fmt: skip
        """The text that follows each of many prompts, in their order. It is what `generate` returns for each alone.

        >>> list(load("shakespeare").generate_many(["ROMEO:", "To be, or not"], n_tokens_to_generate=6))
        ["\\nI'll tell thee,", 'hing,\\nAnd I am']
        """
        request = prompts, n_tokens_to_generate
        done = self.complete_many(*request, stop=stop, logprobs=None, batch_size=batch_size, **settings)
        return (text.text for text in done)

    def complete(
        self, prompt: str | Sequence[int], n_tokens_to_generate: int = 40, *, stop: str | Sequence[str] = (),
        logprobs: int | None = 0, **settings: Any,
    ) -> Completion:  # fmt: skip
        """The text that follows a prompt with all that is known of it: see Completion.

        logprobs: at each token, name this many of the likeliest tokens; None saves the time that all probabilities take

        >>> done = load("shakespeare").complete("ROMEO:", stop="\\n\\n")
        >>> done.text, done.finish_reason, done.ids[:3], round(done.logprobs[0], 3)
        ("\\nI'll tell thee, I'll not, and I'll not stay.", 'stop', [199, 41, 458], -0.005)
        """
        running = self.complete_stream(prompt, n_tokens_to_generate, stop=stop, logprobs=logprobs, **settings)
        for _ in running:
            pass
        return running.completion

    def complete_stream(
        self, prompt: str | Sequence[int], n_tokens_to_generate: int = 40, *, stop: str | Sequence[str] = (),
        logprobs: int | None = 0, **settings: Any,
    ) -> CompletionStream:  # fmt: skip
        """As `complete`, in pieces of text, each as soon as it is known; `.completion` is the whole after the last one.

        >>> running = load("shakespeare").complete_stream("ROMEO:", 3)
        >>> list(running), running.completion.finish_reason
        (['\\n', 'I', "'ll"], 'length')
        """
        from picogpt.decoding.completion import CompletionStream, Writers

        writers = Writers(self.encoder, n_tokens_to_generate, stop, logprobs, settings)
        ids = self.generate_ids(prompt, n_tokens_to_generate, watch=writers.add, **writers.settings)
        return CompletionStream(ids, writers)

    def complete_samples(
        self, prompt: str | Sequence[int], nsamples: int, n_tokens_to_generate: int = 40, *,
        stop: str | Sequence[str] = (), logprobs: int | None = 0, **settings: Any,
    ) -> list[Completion]:  # fmt: skip
        """Several completions of one prompt, generated as one batch.

        >>> texts = load("shakespeare").complete_samples("ROMEO:", 3, stop="\\n\\n", temperature=1, seed=1)
        >>> [text.finish_reason for text in texts]
        ['stop', 'stop', 'length']
        """
        from picogpt.decoding.completion import Writers

        writers = Writers(self.encoder, n_tokens_to_generate, stop, logprobs, settings)
        for _ in self.sample_ids(prompt, nsamples, n_tokens_to_generate, watch=writers.add, **writers.settings):
            pass
        return [writers.completion(row) for row in range(nsamples)]

    def complete_many(
        self, prompts: Sequence[str | Sequence[int]], n_tokens_to_generate: int = 40, *,
        stop: str | Sequence[str] = (), logprobs: int | None = 0, batch_size: int = 16, **settings: Any,
    ) -> Iterator[Completion]:  # fmt: skip
        """The completion of each of many prompts, in their order: that of `complete` for each alone.

        >>> for done in load("shakespeare").complete_many(["ROMEO:", "To be, or not"], 20, stop="\\n\\n"):
        ...     print(repr(done.text), done.finish_reason)
        "\\nI'll tell thee, I'll not, and I'll not stay." stop
        'hing,\\nAnd I am nothing but to be a bondage.' stop
        """
        from picogpt.decoding.batch import in_order
        from picogpt.decoding.completion import Writers

        n_prompts = len(prompts) if hasattr(prompts, "__len__") else 0
        writers = Writers(self.encoder, n_tokens_to_generate, stop, logprobs, settings, n_prompts)
        request = prompts, n_tokens_to_generate, batch_size
        events = self.batch_ids(*request, watch=writers.add, **writers.settings)
        return (writers.completion(number) for number, _ in enumerate(in_order(events)))

    def generate_ids(
        self, prompt: str | Sequence[int], n_tokens_to_generate: int = 40, *,
        lookahead: bool = True, draft: Model | None = None, edit: Edits | None = None,
        cache_prompt: str | Path | None = None, sliding_window: str | None = None, start: gpt2.Start | None = None,
        watch: gpt2.Watch | None = None, **settings: Any,
    ) -> Iterator[int]:  # fmt: skip
        """The token ids that follow a prompt, each as soon as it is known.

        lookahead: guess the next tokens when the text repeats itself, and verify them: the same ids, faster
        draft: a smaller model with the same vocabulary that guesses instead
        edit: changes of activations on the way, as in `trace`; without cache and guesses, so much slower
        cache_prompt: a file that keeps the keys and values of the prompt; a text that begins with it starts at once
        sliding_window: go on past n_ctx from the last tokens: "crop" or "half", see decoding/window.py
        start: a function that takes the place of gpt2.start
        watch: a function of (0, id, logits) that is called with each token; if it returns True, the text ends there
        """
        from picogpt.decoding import lookahead as ahead

        sampling = self.sampling(**settings)
        ids = self.prompt_ids(prompt, n_tokens_to_generate, draft, sliding_window)
        request = ids, self.params, self.hparams["n_head"], n_tokens_to_generate
        stop_id = self.encoder.end_of_text
        if edit is not None:
            from picogpt.insight import traced

            if draft is not None:
                raise UserError("edit: expected no draft, found one: its guesses cannot be edited, so leave one out")
            if cache_prompt is not None:
                raise UserError("edit: expected no cache_prompt, found one: its keys and values are not edited")
            if sliding_window is not None:
                raise UserError("edit: expected no sliding_window, found one: edited texts end at n_ctx")
            return traced.generate(*request, edit=edit, sampling=sampling, stop_id=stop_id, watch=watch)
        start = start or self._start(ids, cache_prompt, sliding_window)
        how: dict[str, Any] = {"sampling": sampling, "stop_id": stop_id, "start": start}
        if draft is not None:
            max_length = len(ids) + n_tokens_to_generate
            how["guesser"] = ahead.DraftModel(ids, draft.params, draft.hparams["n_head"], max_length)
        if sliding_window is not None:
            from picogpt.decoding import window

            return window.generate(*request, window=sliding_window, lookahead=lookahead, watch=watch, **how)
        generate = ahead.generate if lookahead or draft is not None else gpt2.generate
        return generate(*request, watch=watch, **how)

    def beam_search(
        self, prompt: str | Sequence[int], n_tokens_to_generate: int = 40, *, num_beams: int = 4, nsamples: int = 1,
        length_penalty: float = 1.0, cache_prompt: str | Path | None = None, **settings: Any,
    ) -> list[Hypothesis]:  # fmt: skip
        """The nsamples likeliest texts that num_beams beams find, the best first: see decoding/beam.py.

        >>> for found in load("shakespeare").beam_search("JULIET:", 8, num_beams=4, nsamples=2):
        ...     print(f"{found.score:.4f} {found.text!r}")
        -1.3057 "\\nI'll tell thee.\\n\\n"
        -1.4911 "\\nI'll tell thee, I'll"
        """
        from picogpt.decoding import beam

        sampling, ids = self.sampling(**settings), self.prompt_ids(prompt, n_tokens_to_generate)
        beam.check(num_beams, nsamples, length_penalty, sampling, self.hparams["n_vocab"])
        found = beam.generate(
            ids, self.params, self.hparams["n_head"], n_tokens_to_generate, num_beams=num_beams, nsamples=nsamples,
            length_penalty=length_penalty, sampling=sampling, stop_id=self.encoder.end_of_text,
            start=self._start(ids, cache_prompt),
        )  # fmt: skip
        return [text._replace(text=self.decode(text.ids)) for text in found]

    def sample_ids(
        self, prompt: str | Sequence[int], nsamples: int, n_tokens_to_generate: int = 40, *,
        cache_prompt: str | Path | None = None, sliding_window: str | None = None, watch: gpt2.Watch | None = None,
        **settings: Any,
    ) -> Iterator[list[int]]:  # fmt: skip
        """At each step, the next ids of nsamples texts. A text that has ended repeats its last token."""
        sampling, ids = self.sampling(**settings), self.prompt_ids(prompt, n_tokens_to_generate, None, sliding_window)
        request = ids, self.params, self.hparams["n_head"], n_tokens_to_generate
        how: dict[str, Any] = {"sampling": sampling, "nsamples": nsamples, "stop_id": self.encoder.end_of_text}
        how |= {"watch": watch, "start": self._start(ids, cache_prompt, sliding_window)}
        if sliding_window is not None:
            from picogpt.decoding import window

            return window.samples(*request, window=sliding_window, **how)
        return gpt2.generate(*request, **how)

    def batch_ids(
        self, prompts: Sequence[str | Sequence[int]], n_tokens_to_generate: int = 40, batch_size: int = 16,
        *, watch: gpt2.Watch | None = None, seeds: Sequence[int] | None = None, **settings: Any,
    ) -> Iterator[tuple[int, int | None]]:  # fmt: skip
        """(number of the prompt, next id) for each new token, and (number, None) when a text ends.

        seeds: a seed for each prompt, instead of one for all
        """
        from picogpt.decoding import batch

        if isinstance(prompts, str):
            raise UserError(f"prompts: expected a list of prompts, found the text {prompts!r:.60}: put it into a list")
        sampling, inputs = self.sampling(**settings), [self.prompt_ids(p, n_tokens_to_generate) for p in prompts]
        return batch.generate(
            inputs, self.params, self.hparams["n_head"], n_tokens_to_generate,
            batch_size=batch_size, sampling=sampling, stop_id=self.encoder.end_of_text, watch=watch,
            seeds=seeds,
        )  # fmt: skip

    def _start(
        self, ids: Sequence[int], cache_prompt: str | Path | None, sliding_window: str | None = None
    ) -> gpt2.Start:
        """What runs the prompt through the model. Raises UserError if the file is of another prompt or model."""
        if cache_prompt is None:
            return gpt2.start
        if sliding_window is not None:
            from picogpt.decoding import window

            ids = window.seen(ids, self.hparams["n_ctx"], sliding_window)
        from picogpt.decoding.prompt_file import PromptFile

        file = PromptFile(cache_prompt, ids, self.encoder, self.hparams)
        file.check_model(self.fingerprint)
        return file.start

    def sampling(self, **settings: Any) -> Sampling:
        """The settings as one object.

        Raises UserError if one is unknown or out of range, or names a token that there is not.
        """
        check_known(settings, Sampling.__dataclass_fields__)
        sampling = Sampling(**settings)
        sampling.check_ids(self.hparams["n_vocab"])
        return sampling

    def prompt_ids(
        self, prompt: str | Sequence[int], n_tokens_to_generate: int, draft: Model | None = None,
        sliding_window: str | None = None,
    ) -> list[int]:  # fmt: skip
        """The ids that generation starts from. Raises UserError if they and the new tokens do not fit into n_ctx.

        This does not need the weights, so that a prompt can be refused before they are downloaded.
        """
        if not isinstance(draft, Model | None):
            raise UserError(f"draft: expected a Model, found {draft!r}: picogpt.load returns one")
        if draft is not None and draft.encoder.encoder != self.encoder.encoder:
            raise UserError(f"draft: expected a model with the same vocabulary, found {draft!r}, which has another")
        if isinstance(prompt, (bytes, bytearray)) or not (isinstance(prompt, str) or hasattr(prompt, "__len__")):
            raise UserError(f"prompt: expected a text or a list of token ids, found {prompt!r:.60}")
        ids = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        ids = ids or self.encoder.start_of_text()
        if sliding_window is not None:
            from picogpt.decoding import window

            window.check(sliding_window, draft)
            gpt2.check_length(len(ids), n_tokens_to_generate, sys.maxsize)
            return ids
        for model in (self, draft) if draft is not None else (self,):
            gpt2.check_length(len(ids), n_tokens_to_generate, model.hparams["n_ctx"])
        return ids
