"""A model as llama.cpp runs GPT-2: one file in the format GGUF, with weights and tokenizer.

The names are those of llama.cpp's architecture "gpt2": https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

q8_0 stores 32 numbers of a row as one float16, their scale, and 32 whole numbers from -127 to 127: 34 bytes, not 128.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from picogpt.arrays import Array
from picogpt.encoder import END_OF_TEXT
from picogpt.errors import UserError
from picogpt.weights.export import Whole, added_tokens, vocabulary
from picogpt.weights.extras import imported

PARTS = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm", "attn/c_attn": "attn_qkv",
    "attn/c_proj": "attn_output", "ln_2": "ffn_norm", "mlp/c_fc": "ffn_up", "mlp/c_proj": "ffn_down",
    "lm_head": "output",
}  # fmt: skip


def writer(dtype: str) -> Callable[[Whole, Path], None]:
    gguf = imported("gguf", "gguf", "an export to GGUF")

    def write(model: Whole, directory: Path) -> None:
        write_file(gguf, model, directory / f"model-{dtype}.gguf", dtype)

    return write


def write_file(gguf: Any, model: Whole, path: Path, dtype: str) -> None:
    """Write the file, one tensor at a time. Raises UserError for a number that the file cannot hold."""
    file = gguf.GGUFWriter(path, "gpt2")
    try:
        _describe(gguf, file, model, dtype)
        _describe_tokenizer(gguf, file, model)
        kinds = {name: _kind(gguf, name, tensor, dtype) for name, tensor in model.tensors.items()}
        for name, tensor in model.tensors.items():
            n_numbers, n_bytes = gguf.GGML_QUANT_SIZES[kinds[name]]  # of a block
            n_bytes *= tensor.size // n_numbers
            file.add_tensor_info(name_of(name), _rows(name, tensor).shape, tensor.dtype, n_bytes, kinds[name])
        file.write_header_to_file()
        file.write_kv_data_to_file()
        file.write_ti_data_to_file()
        for name, tensor in model.tensors.items():
            _check_range(name, tensor, kinds[name].name)
            file.write_tensor_data(gguf.quants.quantize(np.ascontiguousarray(_rows(name, tensor)), kinds[name]))
    finally:
        file.close()


def _describe(gguf: Any, file: Any, model: Whole, dtype: str) -> None:
    sizes = model.hparams
    file.add_file_type(gguf.LlamaFileType["ALL_F32" if dtype == "f32" else f"MOSTLY_{dtype.upper()}"])
    file.add_vocab_size(sizes["n_vocab"])
    file.add_context_length(sizes["n_ctx"])
    file.add_embedding_length(sizes["n_embd"])
    file.add_feed_forward_length(4 * sizes["n_embd"])
    file.add_block_count(sizes["n_layer"])
    file.add_head_count(sizes["n_head"])
    file.add_layer_norm_eps(1e-5)


def _describe_tokenizer(gguf: Any, file: Any, model: Whole) -> None:
    """The tokenizer. Ids without a token, as in a vocabulary that was padded, get a name that no text has."""
    added, kinds = added_tokens(model.encoder), gguf.TokenType
    names = {token_id: token for token, token_id in vocabulary(model.encoder).items()} | added
    ids = range(model.hparams["n_vocab"])
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("gpt-2")
    file.add_token_list([names.get(i, f"[PAD{i}]") for i in ids])
    special = {i: kinds.CONTROL if text == END_OF_TEXT else kinds.USER_DEFINED for i, text in added.items()}
    file.add_token_types([special.get(i, kinds.NORMAL if i in names else kinds.UNUSED) for i in ids])
    file.add_token_merges(list(model.encoder.bpe_ranks))
    if (end := model.encoder.end_of_text) is not None:
        file.add_bos_token_id(end)
        file.add_eos_token_id(end)
    file.add_add_bos_token(False)


def name_of(name: str) -> str:
    """h0/attn/c_attn/w as blk.0.attn_qkv.weight.

    >>> name_of("h11/ln_2/b"), name_of("wte")
    ('blk.11.ffn_norm.bias', 'token_embd.weight')
    """
    block, _, rest = name.partition("/") if name.startswith("h") else ("", "", name)
    part, leaf = rest.rsplit("/", 1) if "/" in rest else (rest, "w")
    theirs = f"{PARTS[part]}.{'bias' if leaf == 'b' else 'weight'}"
    return f"blk.{block[1:]}.{theirs}" if block else theirs


def _kind(gguf: Any, name: str, tensor: Array, dtype: str) -> Any:
    """The type of a tensor in the file: vectors and positions stay float32, as llama.cpp has them.

    q8_0 is f16 where a row cannot be cut into blocks of 32.
    """
    kinds = gguf.GGMLQuantizationType
    if dtype == "f32" or tensor.ndim < 2 or name == "wpe":
        return kinds.F32
    n_numbers, _ = gguf.GGML_QUANT_SIZES[kinds[dtype.upper()]]
    return kinds.F16 if _rows(name, tensor).shape[-1] % n_numbers else kinds[dtype.upper()]


def _rows(name: str, tensor: Array) -> Array:  # [n_in, n_out] -> [n_out, n_in]
    """A tensor as llama.cpp has it: what one output needs is one row."""
    return tensor.T if name.endswith("/w") else tensor


def _check_range(name: str, tensor: Array, kind: str) -> None:
    """Raise UserError for a number that the file cannot hold: one that is not finite, or too large for float16."""
    largest = {"F32": np.finfo(np.float32).max, "F16": 65504, "Q8_0": 65504 * 127}[kind]
    if not np.abs([tensor.min(), tensor.max()]).max() <= largest:
        advice = "the weights are damaged" if kind == "F32" else "use --dtype f32"
        raise UserError(
            f"expected numbers up to {largest:.7g} in {name} for {kind.lower()}, found larger ones: {advice}"
        )
