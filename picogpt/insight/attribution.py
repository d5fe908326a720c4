"""Direct logit attribution: a logit as a sum of what each part of the model added to it.

The last residual stream x is the sum of what the embeddings, heads, MLPs and biases wrote into it. A logit is

    logit = ln_f(x) @ head[token] = ((x - mean(x)) / scale * g + b) @ head[token]

For a given x the scale is one number, so this is linear in x, and each part c of the sum adds

    (c - mean(c)) / scale * g @ head[token]

and ln_f's own bias adds b @ head[token]; the head is wte, unless a model has its own. What a part does to later parts
is counted as theirs: this is the direct effect only (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"; TransformerLens calls it logit_attrs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from picogpt.arrays import Array, Params
from picogpt.gpt2 import head_of

EPSILON = 1e-5  # gpt2.layer_norm's


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each part added to a logit, or to the difference of two.

    wte, wpe  what the embeddings of the token and of the position added
    heads     [n_layer, n_head]
    attn_b    [n_layer], the biases of attn.c_proj, which belong to no head
    mlps      [n_layer]
    ln_f_b    the bias of the last layer norm
    edits     what edits added to the stream or to the logit, besides what the parts wrote
    logit     the logit itself: the sum of all these

    >>> import picogpt
    >>> added = picogpt.load("shakespeare").trace("Good morrow, my").attribution(" lord")
    >>> for name, part in added.largest(3):
    ...     print(f"{name:<12} {part:6.2f}")
    h0.mlp         2.39
    h4.mlp         1.94
    h3.mlp         1.35
    """

    tokens: tuple[str, ...]
    wte: float
    wpe: float
    heads: Array
    attn_b: Array
    mlps: Array
    ln_f_b: float
    edits: float
    logit: float

    def __repr__(self) -> str:
        return f"<Attribution of {' - '.join(map(repr, self.tokens))}: {self.logit:.3g}>"

    def parts(self) -> dict[str, float]:
        """Every part by name, in the order of the pass: 'h3.attn.2' is head 2 of block 3.

        >>> import picogpt
        >>> list(picogpt.load("shakespeare").trace("Good morrow, my").attribution(" lord").parts())[:4]
        ['wte', 'wpe', 'h0.attn.0', 'h0.attn.1']
        """
        parts = {"wte": self.wte, "wpe": self.wpe}
        for layer, heads in enumerate(self.heads.tolist()):
            parts |= {f"h{layer}.attn.{head}": part for head, part in enumerate(heads)}
            parts |= {f"h{layer}.attn.c_proj.b": float(self.attn_b[layer]), f"h{layer}.mlp": float(self.mlps[layer])}
        return parts | {"ln_f.b": self.ln_f_b} | ({"edits": self.edits} if self.edits else {})

    def largest(self, n: int = 10) -> list[tuple[str, float]]:
        """The n parts that matter most, for or against the token."""
        return sorted(self.parts().items(), key=lambda part: -abs(part[1]))[:n]


def attribute(
    activation: Callable[[str], Array], params: Params, ids: list[int], tokens: tuple[str, ...], position: int, *,
    edited: bool,
) -> Attribution:  # fmt: skip
    """The attribution of the logit of ids[0] after a position, or of how far it is ahead of that of ids[1].

    It needs wte, wpe, the last resid_post, logits, and attn.z and mlp.c_proj of all layers. It adds up in float64, so
    that the sum is the logit to the last digits of float32.
    """
    head, ln_f, blocks = head_of(params), params["ln_f"], params["blocks"]
    x = exact(activation(f"h{len(blocks) - 1}.resid_post")[position])
    towards = ahead(exact(head[ids]))  # [n_embd]
    d = towards * ln_f["g"] / np.sqrt(x.var() + EPSILON)
    d -= d.mean()  # (c - mean(c)) @ d is c @ (d - mean(d))

    heads, attn_b, mlps = [], [], []
    for layer, block in enumerate(blocks):
        z, c_proj = exact(activation(f"h{layer}.attn.z")[:, position]), block["attn"]["c_proj"]  # [n_head, d_head]
        heads.append((z * (c_proj["w"] @ d).reshape(z.shape)).sum(axis=-1))  # as sum(z_head @ w_head @ d)
        attn_b.append(c_proj["b"] @ d)
        mlps.append(activation(f"h{layer}.mlp.c_proj")[position] @ d)

    parts: dict[str, Any] = {name: float(activation(name)[position] @ d) for name in ("wte", "wpe")}
    parts |= {"heads": np.array(heads), "attn_b": np.array(attn_b), "mlps": np.array(mlps)}
    parts["ln_f_b"] = float(ln_f["b"] @ towards)
    logit = float(ahead(exact(activation("logits")[position, ids])))
    rest = logit - sum(float(np.sum(part)) for part in parts.values())
    return Attribution(tokens, **parts, edits=rest if edited else 0.0, logit=logit)


def exact(x: Array) -> Array:
    return x.astype(np.float64)


def ahead(x: Array) -> Any:  # [1 or 2, ...] -> [...]
    """The first, or the first minus the second."""
    return x[0] if len(x) == 1 else x[0] - x[1]
