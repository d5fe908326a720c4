"""A trace: the activations of one pass, by name, and what can be read off them.

>>> import picogpt
>>> trace = picogpt.load("shakespeare").trace("Good morrow, my")
>>> trace
<Trace: 6 tokens, 100 activations, 551 kB>
>>> trace["h3.attn.z"].shape, trace.patterns.shape
((6, 6, 32), (6, 6, 6, 6))
>>> trace.likeliest(3)
[(' lord', 0.78), (' good', 0.013), (' Lord', 0.012)]
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from picogpt import gpt2
from picogpt.arrays import Array, Edits, Params
from picogpt.encoder import Encoder
from picogpt.errors import UserError
from picogpt.insight import traced
from picogpt.insight.attribution import Attribution, attribute
from picogpt.insight.names import BLOCK, ONLY_IF_ASKED, all_names, find, shape_of, without_layer

LIMIT = 2 * 10**9  # bytes that a trace may take unless it is told otherwise


class TracedModel(Protocol):
    """What is needed of a picogpt.Model."""

    @property
    def encoder(self) -> Encoder: ...
    @property
    def hparams(self) -> dict[str, int]: ...
    @property
    def params(self) -> Params: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def prompt_ids(self, prompt: str | Sequence[int], n_tokens_to_generate: int) -> list[int]: ...


def trace(
    model: TracedModel, text: str | Sequence[int], *,
    keep: str | Collection[str] | None = None, edit: Edits | None = None, limit: int = LIMIT,
) -> Trace:  # fmt: skip
    """Run a text through the model and keep its activations: see Model.trace."""
    ids = model.prompt_ids(text, 0)
    kept = names_to_keep(keep, model.hparams["n_layer"])
    edits = traced.check_edits(edit, model.hparams["n_layer"])
    check_memory(kept, len(ids), model.hparams, limit)
    gpt2.check_request(ids, model.params, 0)
    tap = traced.Tap(kept, edits)
    with np.errstate(all="ignore"):  # damaged weights give numbers that are not finite, as in gpt2.next_logits
        traced.gpt2(ids, **model.params, n_head=model.hparams["n_head"], tap=tap)
    return Trace(model, [int(i) for i in ids], tap.kept, tuple(edits))


def names_to_keep(keep: str | Collection[str] | None, n_layer: int) -> list[str]:
    """Full names, in the order of the pass: by default all but the results of each head.

    Raises UserError for a name that is unknown.

    >>> names_to_keep(["logits", "attn.z"], n_layer=2)
    ['h0.attn.z', 'h1.attn.z', 'logits']
    """
    names = all_names(n_layer)
    if keep is None:
        return [name for name in names if without_layer(name) != ONLY_IF_ASKED]
    if not isinstance(keep, Iterable):
        raise UserError(f"keep: expected names of activations, as ['attn.pattern', 'logits'], found {keep!r:.60}")
    wanted = {name for one in ([keep] if isinstance(keep, str) else keep) for name in find(one, names)}
    return [name for name in names if name in wanted]


def check_memory(kept: Collection[str], n_seq: int, hparams: dict[str, int], limit: int) -> None:
    """Raise UserError, before anything is computed, if a trace would take more than `limit` bytes."""
    if not isinstance(limit, (int, float)):
        raise UserError(f"limit: expected a number of bytes, found {limit!r:.60}")
    sizes = {name: 4 * int(np.prod(shape_of(name, n_seq, hparams), dtype=object)) for name in kept}
    if sum(sizes.values()) > limit:
        by_kind: dict[str, int] = {}
        for name, size in sizes.items():
            by_kind[without_layer(name)] = by_kind.get(without_layer(name), 0) + size
        largest = sorted(by_kind, key=lambda kind: -by_kind[kind])[:3]
        raise UserError(
            f"expected a trace of at most {in_bytes(limit)}, found {in_bytes(sum(sizes.values()))} for {n_seq} tokens, "
            f"most of it {', '.join(f'{kind} ({in_bytes(by_kind[kind])})' for kind in largest)}: keep less, as "
            f"keep=['resid_post', 'logits'], or raise limit"
        )


def in_bytes(n: float) -> str:
    """A number of bytes for a person.

    >>> in_bytes(1234567)
    '1.23 MB'
    """
    for unit in ("bytes", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"


class Trace:
    """The activations of one pass through a model, read-only float32 arrays by name.

    model   the model
    ids     the tokens, [n_seq]
    tokens  their texts
    edits   the names of the activations that were edited

    `trace["h3.attn.z"]` is one activation, `trace.stack("attn.z")` that of all layers. `list(trace)` gives the names.

    >>> import picogpt
    >>> trace = picogpt.load("shakespeare").trace("ROMEO:")
    >>> trace.tokens, list(trace)[:4]
    (['ROMEO', ':'], ['wte', 'wpe', 'h0.resid_pre', 'h0.ln_1'])
    """

    def __init__(self, model: TracedModel, ids: list[int], activations: dict[str, Array], edits: tuple[str, ...] = ()):
        self.model, self.ids, self.edits = model, ids, edits
        self.tokens = [self._text(token_id) for token_id in ids]
        self._activations = activations

    def __repr__(self) -> str:
        edits = f", edited: {', '.join(self.edits)}" if self.edits else ""
        return f"<Trace: {len(self.ids)} tokens, {len(self)} activations, {in_bytes(self.nbytes)}{edits}>"

    def __getitem__(self, name: str) -> Array:
        """An activation. Raises UserError if the name is unknown, or was not kept."""
        if isinstance(name, str) and name in self._activations:
            return self._activations[name]
        several = find(name, all_names(self.model.hparams["n_layer"]))
        if len(several) > 1:
            hint = f"trace.stack({name!r}) has that of all layers" if name in BLOCK else f"{several[0]} is the first"
            raise UserError(f"expected the name of one activation, found {name!r}, which means {len(several)}: {hint}")
        self._require(name)
        return self._activations[several[0]]

    def _require(self, *wanted: str) -> None:
        """Raise UserError if an activation that a name or pattern stands for was not kept."""
        known = all_names(self.model.hparams["n_layer"])
        if missing := [name for one in wanted for name in find(one, known) if name not in self]:
            raise UserError(
                f"expected {missing[0]} in the trace, found that it was not kept: trace again with keep={[*wanted]}"
            )

    def __contains__(self, name: object) -> bool:
        return name in self._activations

    def __iter__(self) -> Iterator[str]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)

    def keys(self) -> list[str]:
        """The names of what was kept, in the order of the pass; `dict(trace)` gives them with their arrays."""
        return list(self)

    @property
    def nbytes(self) -> int:
        """The memory that the activations take. Those that share memory, as q and c_attn, count once."""
        owners = {id(owner): owner.nbytes for owner in map(_owner, self._activations.values())}
        return sum(owners.values())

    def stack(self, name: str) -> Array:  # [n_layer, ...]
        """One kind of activation in all layers.

        >>> import picogpt
        >>> picogpt.load("shakespeare").trace("To be").stack("mlp.gelu").shape
        (6, 2, 768)
        """
        if name not in BLOCK:
            find(name, all_names(self.model.hparams["n_layer"]))
            raise UserError(f"expected a name without its layer, as 'attn.z', found {name!r:.60}")
        self._require(name)
        return np.stack([self[f"h{layer}.{name}"] for layer in range(self.model.hparams["n_layer"])])

    @property
    def patterns(self) -> Array:  # [n_layer, n_head, n_q, n_k]
        """The attention of all layers and heads: each row, that of a query, sums to 1."""
        return self.stack("attn.pattern")

    def attention(self, layer: int, head: int) -> Array:  # [n_q, n_k]
        """How much each position looks at itself and each position before, in one head.

        >>> import picogpt
        >>> picogpt.load("shakespeare").trace("To be, or").attention(layer=2, head=1).round(2)
        array([[1.  , 0.  , 0.  , 0.  ],
               [0.51, 0.49, 0.  , 0.  ],
               [0.33, 0.5 , 0.17, 0.  ],
               [0.27, 0.38, 0.23, 0.11]], dtype=float32)
        """
        within("layer", layer, self.model.hparams["n_layer"])
        within("head", head, self.model.hparams["n_head"])
        pattern: Array = self[f"h{layer}.attn.pattern"][head]
        return pattern

    def likeliest(self, k: int = 5, position: int = -1) -> list[tuple[str, float]]:
        """The k likeliest tokens after a position, and their probabilities.

        >>> import picogpt
        >>> picogpt.load("shakespeare").trace("Good morrow, my").likeliest(2)
        [(' lord', 0.78), (' good', 0.013)]
        """
        if not isinstance(k, (int, np.integer)) or k < 1:
            raise UserError(f"k must be a whole number, 1 or more, found {k!r:.60}")
        probabilities = gpt2.softmax(self["logits"][self.at(position)])
        ids = np.argsort(-probabilities, kind="stable")[:k]
        return [(self._text(i), float(f"{probabilities[i]:.2g}")) for i in ids.tolist()]

    def logit_lens(self, positions: Any = slice(None)) -> Array:  # [n_layer + 1, n_positions, n_vocab]
        """What the model would say if it stopped after each block: the stream through the last layer norm and head.

        Row 0 is before the first block, the last row is the model's own logits. `positions` is an index: all, by
        default, or -1 for the last one alone, which gives [n_layer + 1, n_vocab]. (nostalgebraist 2020, "interpreting
        GPT: the logit lens".)

        >>> import picogpt
        >>> trace = picogpt.load("shakespeare").trace("Good morrow, my")
        >>> [trace.model.decode([at.argmax()]) for at in trace.logit_lens(-1)]
        [' my', ' lord', ' lord', ' lord', ' lord', ' lord', ' lord']
        """
        self._require("h0.resid_pre", "resid_post")
        try:
            stream = np.stack([x[positions] for x in self._streams()])  # [n_layer + 1, n_positions, n_embd]
        except IndexError:
            raise UserError(f"positions: expected some of {len(self.ids)}, found {positions!r:.60}") from None
        if stream.size == 0:
            raise UserError(f"positions: expected some of {len(self.ids)}, found none in {positions!r:.60}")
        needed = 4 * stream[..., 0].size * self.model.hparams["n_vocab"]
        if needed > LIMIT:
            raise UserError(f"the logits of {stream[..., 0].size} hidden states take {in_bytes(needed)}: ask for fewer "
                            "positions")  # fmt: skip
        params = self.model.params
        lens: Array = gpt2.logits(gpt2.layer_norm(stream, **params["ln_f"]), gpt2.head_of(params))
        return lens

    def _text(self, token_id: int) -> str:
        return self.model.decode([token_id])

    def _streams(self) -> Iterator[Array]:
        yield self["h0.resid_pre"]
        for layer in range(self.model.hparams["n_layer"]):
            yield self[f"h{layer}.resid_post"]

    def attribution(self, token: str | int, minus: str | int | None = None, position: int = -1) -> Attribution:
        """What the embeddings, each head and each MLP added to the logit of a token after a position.

        With `minus`, to how far the token is ahead of another one. The parts sum to the logit. See
        picogpt.insight.attribution for the formula.

        >>> import picogpt
        >>> trace = picogpt.load("shakespeare").trace("Good morrow, my")
        >>> trace.attribution(" lord", minus=" heart")
        <Attribution of ' lord' - ' heart': 4.62>
        """
        ids = [self.token_id(token)] if minus is None else [self.token_id(token), self.token_id(minus)]
        last = f"h{self.model.hparams['n_layer'] - 1}.resid_post"
        self._require("wte", "wpe", "attn.z", "mlp.c_proj", last, "logits")
        part, texts = self.__getitem__, tuple(map(self._text, ids))
        return attribute(part, self.model.params, ids, texts, self.at(position), edited=bool(self.edits))

    def token_id(self, token: str | int) -> int:
        """The id of a token, given as an id or as its text. Raises UserError if the text is not one token."""
        ids = self.model.encode(token) if isinstance(token, str) else [token]
        if len(ids) != 1:
            found = " + ".join(repr(self._text(token_id)) for token_id in ids[:5]) or "none"
            raise UserError(f"expected one token, found {token!r:.60}, which is {found}")
        within("token", ids[0], self.model.hparams["n_vocab"])
        return int(ids[0])

    def at(self, position: int) -> int:
        """A position counted from the start. Raises UserError if there is none."""
        n_seq = len(self.ids)
        if not isinstance(position, (int, np.integer)) or not -n_seq <= position < n_seq:
            raise UserError(
                f"expected a position from 0 to {n_seq - 1}, or from -{n_seq} to -1, found {position!r:.60}"
            )
        return int(position) % n_seq


def within(what: str, value: int, n: int) -> None:
    """Raise UserError if a number does not lie between 0 and n - 1."""
    if not isinstance(value, (int, np.integer)) or not 0 <= value < n:
        raise UserError(f"expected a {what} from 0 to {n - 1}, found {value!r:.60}")


def _owner(array: Array) -> Array:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
