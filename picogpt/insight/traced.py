"""The model once more, written plainly, with a name at every step: the pass that traces and edits go through.

Each `tap(name, x)` hands an activation out and takes it back, perhaps changed. gpt2.py has none of this: its pass stays
short and loses no time to names that nobody asked for, and it may skip what a trace must show, since it writes over
arrays, computes attention in blocks and only what is wanted. So the traced pass is this page, in the order of
reference.py, made of the small functions of gpt2.py. The tests hold the two passes, reference.py and transformers to
the same numbers. There is no cache: all positions are computed, so that each is there to be seen or changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from copy import copy
from typing import Any

import numpy as np

from picogpt.arrays import Array, ArrayLike, Edit, Edits, Params
from picogpt.choosing import Chooser
from picogpt.errors import UserError
from picogpt.gpt2 import Watch, attention_scores, check_request, gelu, layer_norm, linear, logits, softmax
from picogpt.insight.names import all_names, find
from picogpt.sampling import GREEDY, Sampling


class Tap:
    """What happens to the activations of a pass: an edit to those in `edit`, and those in `keep` are kept.

    >>> tap = Tap(keep={"h0.attn.z"}, edit={"h0.attn.z": lambda z: 2 * z})
    >>> tap.inside("h0")("attn.z", np.float32([1, 2]))
    array([2., 4.], dtype=float32)
    >>> tap.kept
    {'h0.attn.z': array([2., 4.], dtype=float32)}
    """

    def __init__(self, keep: Collection[str] = (), edit: Edits | None = None):
        self.keep, self.edit = frozenset(keep), edit or {}
        self.kept: dict[str, Array] = {}
        self.scope = ""

    def inside(self, scope: str) -> Tap:
        """The same for a block, whose functions need not know which one it is."""
        tap = copy(self)
        tap.scope = f"{scope}."
        return tap

    def __call__(self, name: str, x: Array) -> Array:
        name = self.scope + name
        if name in self.edit:
            x = edited(name, x, self.edit[name])
        if name in self.keep:
            x.flags.writeable = False  # the pass goes on with the same array
            self.kept[name] = x
        return x

    def wants(self, name: str) -> bool:
        """Whether an activation is kept or edited, so that it has to be computed."""
        name = self.scope + name
        return name in self.edit or name in self.keep


def edited(name: str, x: Array, edit: Edit) -> Array:
    """An activation after an edit: what the function returns, or the array or number, broadcast.

    Raises UserError if the edit gives no numbers, or another shape.
    """
    own = x.copy()
    new = edit(own) if callable(edit) else edit
    new = own if new is None else new  # changed in place
    try:
        array = np.asarray(new, np.float32)
        if callable(edit) and array.shape != x.shape:  # a head alone, as z[2], would be taken for that of all heads
            raise ValueError
        return np.broadcast_to(array, x.shape).copy()
    except (TypeError, ValueError):
        found = f"shape {list(new.shape)}" if isinstance(new, np.ndarray) else f"{new!r:.60}"
        raise UserError(f"edit of {name}: expected numbers of shape {list(x.shape)}, found {found}") from None


def gpt2(
    ids: ArrayLike, wte: Array, wpe: Array, blocks: list[Params], ln_f: Params, n_head: int, tap: Tap,
    lm_head: Array | None = None,
) -> Array:  # [n_seq] -> [n_seq, n_vocab]  # fmt: skip
    """The logits of the token after each position, as gpt2.gpt2 computes them."""
    ids = np.asarray(ids)
    x = tap("wte", wte[ids]) + tap("wpe", wpe[np.arange(len(ids))])
    for layer, block in enumerate(blocks):
        x = transformer_block(x, **block, n_head=n_head, tap=tap.inside(f"h{layer}"))
    x = tap("ln_f", layer_norm(x, **ln_f))
    return tap("logits", logits(x, wte if lm_head is None else lm_head))


def transformer_block(
    x: Array, mlp: Params, attn: Params, ln_1: Params, ln_2: Params, n_head: int, tap: Tap
) -> Array:  # [n_seq, n_embd] -> [n_seq, n_embd]
    x = tap("resid_pre", x)
    x = x + mha(tap("ln_1", layer_norm(x, **ln_1)), **attn, n_head=n_head, tap=tap)
    x = tap("resid_mid", x)
    x = x + ffn(tap("ln_2", layer_norm(x, **ln_2)), **mlp, tap=tap)
    return tap("resid_post", x)


def mha(x: Array, c_attn: Params, c_proj: Params, n_head: int, tap: Tap) -> Array:  # [n_seq, n_embd] -> the same
    n_seq, n_embd = x.shape
    qkv = tap("attn.c_attn", linear(x, **c_attn))  # [n_seq, 3*n_embd]
    q, k, v = np.moveaxis(qkv.reshape(n_seq, 3, n_head, n_embd // n_head), (-3, -2), (0, -3))
    q, k, v = tap("attn.q", q), tap("attn.k", k), tap("attn.v", v)  # 3 x [n_head, n_seq, d_head]
    scores = tap("attn.scores", attention_scores(q, k) + later(n_seq))  # [n_head, n_q, n_k]
    z = tap("attn.z", tap("attn.pattern", softmax(scores)) @ v)  # [n_head, n_seq, d_head]
    if tap.wants("attn.result"):
        result = tap("attn.result", head_results(z, c_proj["w"]))  # [n_head, n_seq, n_embd]
        return tap("attn.c_proj", result.sum(axis=0) + c_proj["b"])
    return tap("attn.c_proj", linear(z.swapaxes(0, 1).reshape(n_seq, n_embd), **c_proj))


def later(n_seq: int) -> Array:  # -> [n_seq, n_seq]
    """-1e10 at the keys that are later than the query, which gives them a weight of 0."""
    return np.triu(np.full((n_seq, n_seq), -1e10, np.float32), k=1)


def head_results(z: Array, w: Array) -> Array:  # [n_head, n_seq, d_head], [n_embd, n_embd] -> [n_head, n_seq, n_embd]
    """What each head adds to the residual stream: its own rows of c_proj multiply it."""
    n_head, _, d_head = z.shape
    return z @ w.reshape(n_head, d_head, -1)


def ffn(x: Array, c_fc: Params, c_proj: Params, tap: Tap) -> Array:  # [n_seq, n_embd] -> [n_seq, n_embd]
    a = tap("mlp.gelu", gelu(tap("mlp.c_fc", linear(x, **c_fc))))  # [n_seq, 4*n_embd]
    return tap("mlp.c_proj", linear(a, **c_proj))


def check_edits(edit: Edits | None, n_layer: int) -> dict[str, Any]:
    """Edits by full names. Raises UserError for a name that is unknown, or meant twice."""
    checked: dict[str, Any] = {}
    if not isinstance(edit, Mapping | None):
        raise UserError(f"edit: expected a dict of names and functions, found {edit!r:.60}")
    for wanted, change in (edit or {}).items():
        for name in find(wanted, all_names(n_layer)):
            if name in checked:
                raise UserError(f"edit: expected one edit of {name}, found two: {wanted} stands for it as well")
            if change is None:
                raise UserError(f"edit of {name}: expected a function, an array or a number, found None")
            checked[name] = change
    return checked


def generate(
    inputs: ArrayLike, params: Params, n_head: int, n_tokens_to_generate: int, *,
    edit: Edits, sampling: Sampling = GREEDY, stop_id: int | None = None, watch: Watch | None = None,
) -> Iterator[int]:  # fmt: skip
    """As gpt2.generate, with edits. There is no cache: each step computes all positions again.

    So an edit sees the whole text so far, and a step takes as long as a pass over it: use it for short texts.
    """
    check_request(inputs, params, n_tokens_to_generate, sampling)
    tap = Tap(edit=check_edits(edit, len(params["blocks"])))
    rngs = sampling.rngs(1)
    text = Chooser(sampling, np.asarray(inputs).tolist(), rngs[0] if rngs else None)
    return _generate(text, params, n_head, n_tokens_to_generate, tap, stop_id, watch)


def _generate(
    text: Chooser, params: Params, n_head: int, n_tokens_to_generate: int, tap: Tap, stop_id: int | None,
    watch: Watch | None,
) -> Iterator[int]:  # fmt: skip
    for _ in range(n_tokens_to_generate):
        with np.errstate(all="ignore"):  # Chooser.next finds numbers that are not finite
            at = gpt2(text.ids, **params, n_head=n_head, tap=tap)[-1]  # [n_vocab]
        next_id = text.next(at)
        if next_id == stop_id:
            return
        ended = watch is not None and watch(0, next_id, text.logits)
        yield next_id
        if ended:
            return
