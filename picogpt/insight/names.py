"""The names of all activations of one pass, and how a name is looked up.

Names follow OpenAI's model.py: the scope of the weights that make an activation, as `h3.attn.c_attn`, or the variable
that holds it, as `h3.attn.q`. Where it has no name of its own, TransformerLens's is used, as in `h3.resid_pre`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from picogpt.errors import UserError


@dataclass(frozen=True)
class Activation:
    """One kind of activation: the letters of its shape, its name in TransformerLens, and what it is."""

    shape: str
    transformer_lens: str
    meaning: str


BEFORE = {
    "wte": Activation("n_seq n_embd", "hook_embed", "the embedding of each token"),
    "wpe": Activation("n_seq n_embd", "hook_pos_embed", "the embedding of each position"),
}
BLOCK = {  # each after "h0.", "h1.", ...
    "resid_pre": Activation("n_seq n_embd", "hook_resid_pre", "the residual stream before the block"),
    "ln_1": Activation("n_seq n_embd", "ln1.hook_normalized", "what attention reads: the stream, normalized"),
    "attn.c_attn": Activation("n_seq 3*n_embd", "", "queries, keys and values of all heads, side by side"),
    "attn.q": Activation("n_head n_seq d_head", "attn.hook_q", "queries"),
    "attn.k": Activation("n_head n_seq d_head", "attn.hook_k", "keys"),
    "attn.v": Activation("n_head n_seq d_head", "attn.hook_v", "values"),
    "attn.scores": Activation("n_head n_q n_k", "attn.hook_attn_scores", "q k / sqrt(d_head), -1e10 for later keys"),
    "attn.pattern": Activation("n_head n_q n_k", "attn.hook_pattern", "softmax of the scores: who looks at whom"),
    "attn.z": Activation("n_head n_seq d_head", "attn.hook_z", "the mean of the values, weighted by the pattern"),
    "attn.result": Activation("n_head n_seq n_embd", "attn.hook_result", "what each head adds; kept only if asked for"),
    "attn.c_proj": Activation("n_seq n_embd", "hook_attn_out", "what attention adds: all heads and a bias"),
    "resid_mid": Activation("n_seq n_embd", "hook_resid_mid", "the residual stream after attention"),
    "ln_2": Activation("n_seq n_embd", "ln2.hook_normalized", "what the MLP reads: the stream, normalized"),
    "mlp.c_fc": Activation("n_seq 4*n_embd", "mlp.hook_pre", "the neurons of the MLP before GELU"),
    "mlp.gelu": Activation("n_seq 4*n_embd", "mlp.hook_post", "the neurons after GELU"),
    "mlp.c_proj": Activation("n_seq n_embd", "hook_mlp_out", "what the MLP adds"),
    "resid_post": Activation("n_seq n_embd", "hook_resid_post", "the residual stream after the block"),
}
AFTER = {
    "ln_f": Activation("n_seq n_embd", "ln_final.hook_normalized", "the last residual stream, normalized"),
    "logits": Activation("n_seq n_vocab", "", "the scores of the next token"),
}
ONLY_IF_ASKED = "attn.result"  # n_head times as large as the residual stream


def all_names(n_layer: int) -> list[str]:
    """Every name, in the order in which the activations are computed.

    >>> all_names(1)[:5]
    ['wte', 'wpe', 'h0.resid_pre', 'h0.ln_1', 'h0.attn.c_attn']
    """
    return [*BEFORE, *(f"h{layer}.{name}" for layer in range(n_layer) for name in BLOCK), *AFTER]


def without_layer(name: str) -> str:
    """The name of an activation without that of its block.

    >>> without_layer("h3.attn.z"), without_layer("ln_f")
    ('attn.z', 'ln_f')
    """
    return name if name in BEFORE or name in AFTER else name.partition(".")[2]


def activation(name: str) -> Activation:
    """The kind of activation that a name stands for."""
    return (BEFORE | BLOCK | AFTER)[without_layer(name)]


def in_transformer_lens(name: str) -> str:
    """The name in TransformerLens, or "" if it has none.

    >>> in_transformer_lens("h3.attn.z")
    'blocks.3.attn.hook_z'
    """
    theirs = activation(name).transformer_lens
    return f"blocks.{name[1 : name.index('.')]}.{theirs}" if theirs and without_layer(name) in BLOCK else theirs


def shape_of(name: str, n_seq: int, hparams: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of an activation in a pass over n_seq tokens.

    >>> shape_of("h3.attn.z", 7, {"n_embd": 768, "n_head": 12})
    (12, 7, 64)
    """
    n_embd, n_head = hparams["n_embd"], hparams["n_head"]
    sizes = {**hparams, "n_seq": n_seq, "n_q": n_seq, "n_k": n_seq, "d_head": n_embd // n_head}
    sizes |= {"3*n_embd": 3 * n_embd, "4*n_embd": 4 * n_embd}
    return tuple(sizes[letter] for letter in activation(name).shape.split())


def find(wanted: str, known: Iterable[str]) -> list[str]:
    """The names that `wanted` stands for: itself, one without its block for all blocks, or a pattern with * and ?.

    Raises UserError, with the nearest name, if there is none.

    >>> names = all_names(2)
    >>> find("h1.attn.z", names), find("attn.z", names), find("h1.resid_*", names)
    (['h1.attn.z'], ['h0.attn.z', 'h1.attn.z'], ['h1.resid_pre', 'h1.resid_mid', 'h1.resid_post'])
    >>> find("h1.atn.z", names)
    Traceback (most recent call last):
    picogpt.errors.UserError: unknown activation h1.atn.z: did you mean h1.attn.z? (docs/inside.md lists the names)
    """
    known = list(known)
    if not isinstance(wanted, str):
        raise UserError(f"expected the name of an activation, as 'h0.attn.z', found {wanted!r:.60}")
    if wanted in known:
        return [wanted]
    found = [name for name in known if wanted == without_layer(name) or fnmatchcase(name, wanted)]
    if not found:
        raise UserError(f"unknown activation {wanted[:60]}: {_hint(wanted, known)} (docs/inside.md lists the names)")
    return found


def _hint(wanted: str, known: list[str]) -> str:
    """What may have been meant. A name of TransformerLens is translated."""
    import difflib  # only for a name that is not known

    spellings = {without_layer(name): without_layer(name) for name in known} | {name: name for name in known}
    spellings |= {theirs: name for name in known if (theirs := in_transformer_lens(name))}
    last = max((int(name[1 : name.index(".")]) for name in known if name.startswith("h")), default=0)
    if wanted[1:2].isdigit() and without_layer(wanted) in BLOCK:
        return f"the blocks are h0 to h{last}"
    if ends := [name for name in spellings if name.endswith(f".{wanted}")]:
        return f"did you mean {spellings[ends[0]]}?"
    nearest = difflib.get_close_matches(wanted, spellings, n=1, cutoff=0.5)
    return f"did you mean {spellings[nearest[0]]}?" if nearest else f"names look like h{last}.attn.z"
