"""Induction heads: heads that continue a text as it went the last time that the current token occurred.

After "... A B ... A" such a head looks at B, the token after the last A, and makes B likelier (Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits"; Olsson et al. 2022, "In-context Learning and Induction Heads"). A
text of random tokens, read twice, finds them: nothing but what came before says how it goes on.
"""

from __future__ import annotations

import numpy as np

from picogpt.arrays import Array
from picogpt.errors import UserError
from picogpt.model import Model


def induction_scores(model: Model, n_tokens: int = 50, n_texts: int = 4, seed: int = 0) -> Array:
    # -> [n_layer, n_head]
    """How much each head looks at the token after the last occurrence of the current one: 1 is always, 0 never.

    The texts are n_tokens different random tokens, twice. The score is the mean attention in the second half. A head
    that looks everywhere alike has a score of about 1 / (1.5 n_tokens).

    >>> import picogpt
    >>> f"{induction_scores(picogpt.load('shakespeare')).max():.3f}"
    '0.013'
    """
    n_vocab, n_ctx = model.hparams["n_vocab"], model.hparams["n_ctx"]
    if not 2 <= n_tokens <= min(n_vocab, n_ctx // 2):
        raise UserError(f"n_tokens must lie between 2 and {min(n_vocab, n_ctx // 2)}, found {n_tokens}")
    rng = np.random.default_rng(seed)
    texts = [np.tile(rng.permutation(n_vocab)[:n_tokens], 2).tolist() for _ in range(n_texts)]
    patterns = np.stack([model.trace(ids, keep="attn.pattern").patterns for ids in texts])
    looks_after = np.diagonal(patterns, 1 - n_tokens, -2, -1)  # [n_texts, n_layer, n_head, n_tokens + 1]
    scores: Array = looks_after[..., 1:].mean(axis=(0, -1))  # without the last token of the first half
    return scores
