"""Every activation of a trace against transformers and against reference.py; what is read off it; edits."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import picogpt
from picogpt import reference
from picogpt.errors import UserError
from picogpt.insight import names
from picogpt.insight.induction import induction_scores
from picogpt.insight.traced import later
from picogpt.model import Model
from picogpt.weights import shapes, store
from tests.helpers import ROOT, SHAKESPEARE, TINY, random_model

TEXT = "To be, or not to be"  # 7 tokens
quick = settings(max_examples=25)


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


@pytest.fixture(scope="module")
def tiny():
    return random_model()


@pytest.fixture(scope="module", params=["model", "tiny"])
def either(request):
    return request.getfixturevalue(request.param)


def close(ours, theirs):
    theirs = np.asarray(theirs)
    assert (ours.shape, ours.dtype) == (theirs.shape, np.float32)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


# the pass


def test_logits_are_those_of_the_fast_model_and_of_the_reference(either):
    trace = either.trace(TEXT)
    close(trace["logits"], either.logits(trace.ids))
    close(trace["logits"], reference.gpt2(trace.ids, **either.params, n_head=either.hparams["n_head"]))


@pytest.mark.parametrize("n_seq", [1, 2, 33, 256])
def test_any_length_gives_the_logits_of_the_fast_model(model, n_seq):
    ids = np.random.default_rng(n_seq).integers(0, 1024, n_seq)
    close(model.trace(ids, keep=["logits"])["logits"], model.logits(ids))


def test_every_activation_is_what_the_functions_of_the_reference_make_of_the_ones_before(either):
    trace, n_head = either.trace(TEXT, keep="*"), either.hparams["n_head"]
    n_seq, params = len(trace.ids), either.params
    mask = np.triu(np.full((n_seq, n_seq), -1e10, np.float32), k=1)
    close(trace["wte"], params["wte"][trace.ids])
    close(trace["wpe"], params["wpe"][:n_seq])
    x = reference.embed(trace.ids, params["wte"]) + params["wpe"][:n_seq]
    for layer, block in enumerate(params["blocks"]):
        h, attn, mlp = f"h{layer}.", block["attn"], block["mlp"]
        close(trace[h + "resid_pre"], x)
        normed = reference.layer_norm(x, **block["ln_1"])
        close(trace[h + "ln_1"], normed)
        qkv = reference.linear(normed, **attn["c_attn"])
        close(trace[h + "attn.c_attn"], qkv)
        q, k, v = (np.stack(np.split(part, n_head, axis=-1)) for part in np.split(qkv, 3, axis=-1))
        close(trace[h + "attn.q"], q)
        close(trace[h + "attn.k"], k)
        close(trace[h + "attn.v"], v)
        scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5 + mask
        close(trace[h + "attn.scores"] * (mask == 0), scores * (mask == 0))
        assert (trace[h + "attn.scores"][:, mask < 0] < -9e9).all()
        close(trace[h + "attn.pattern"], reference.softmax(scores))
        z = reference.attention(q, k, v, mask)
        close(trace[h + "attn.z"], z)
        padded = [np.concatenate([head * (i == j) for j, head in enumerate(z)], axis=-1) for i in range(n_head)]
        close(trace[h + "attn.result"], np.stack([part @ attn["c_proj"]["w"] for part in padded]))
        added = reference.mha(normed, **attn, n_head=n_head)
        close(trace[h + "attn.c_proj"], added)
        close(trace[h + "resid_mid"], x + added)
        normed = reference.layer_norm(x + added, **block["ln_2"])
        close(trace[h + "ln_2"], normed)
        close(trace[h + "mlp.c_fc"], reference.linear(normed, **mlp["c_fc"]))
        close(trace[h + "mlp.gelu"], reference.gelu(reference.linear(normed, **mlp["c_fc"])))
        close(trace[h + "mlp.c_proj"], reference.ffn(normed, **mlp))
        x = reference.transformer_block(x, **block, n_head=n_head)
        close(trace[h + "resid_post"], x)
    close(trace["ln_f"], reference.layer_norm(x, **params["ln_f"]))


def test_shapes_are_those_that_are_documented(tiny):
    trace = tiny.trace(TEXT, keep="*")
    assert list(trace) == names.all_names(2)
    for name in trace:
        assert trace[name].shape == names.shape_of(name, len(trace.ids), TINY), name


def test_hugging_face_sees_the_same(either):
    torch = pytest.importorskip("torch", reason="pip install torch transformers")
    transformers = pytest.importorskip("transformers", reason="pip install torch transformers")
    theirs = their_model(torch, transformers, either)
    seen = {}
    for name, module in theirs.transformer.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    trace = either.trace(TEXT)
    with torch.no_grad():
        out = theirs(torch.tensor([trace.ids]), output_attentions=True, output_hidden_states=True)
    close(trace.patterns, np.stack([pattern[0] for pattern in out.attentions]))
    streams = [trace["h0.resid_pre"], *trace.stack("resid_post")[:-1], trace["ln_f"]]  # theirs ends with ln_f
    for ours, their in zip(streams, out.hidden_states, strict=True):
        close(ours, their[0])
    close(trace["logits"], out.logits[0])
    for layer in range(either.hparams["n_layer"]):
        for name in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
            close(trace[f"h{layer}.{name}"], seen[f"h.{layer}.{name}"][0])
        close(trace[f"h{layer}.mlp.gelu"], seen[f"h.{layer}.mlp.act"][0])


def their_model(torch, transformers, model):
    h = model.hparams
    config = transformers.GPT2Config(
        vocab_size=h["n_vocab"], n_positions=h["n_ctx"], n_embd=h["n_embd"], n_head=h["n_head"], n_layer=h["n_layer"],
        bos_token_id=0, eos_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    p, state = model.params, {}
    state |= {"transformer.wte.weight": p["wte"], "transformer.wpe.weight": p["wpe"]}
    norms = {"transformer.ln_f": p["ln_f"]}
    for i, block in enumerate(p["blocks"]):
        at = f"transformer.h.{i}"
        norms |= {f"{at}.ln_1": block["ln_1"], f"{at}.ln_2": block["ln_2"]}
        for part in ("attn", "mlp"):
            for name, layer in block[part].items():
                state |= {f"{at}.{part}.{name}.weight": layer["w"], f"{at}.{part}.{name}.bias": layer["b"]}
    for name, norm in norms.items():
        state |= {f"{name}.weight": norm["g"], f"{name}.bias": norm["b"]}
    state = {name: torch.tensor(np.array(tensor)) for name, tensor in state.items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    return theirs


def test_transformer_lens_has_the_same_under_its_names(tiny):
    """Version 4 no longer takes weights of one's own."""
    why = "pip install 'transformer_lens<4' better_abc"
    lens = pytest.importorskip("transformer_lens.HookedTransformer", reason=why, exc_type=ImportError)
    theirs = their_lens(lens, tiny)
    trace = tiny.trace(TEXT, keep="*")
    seen = theirs.run_with_cache(np_to_torch(trace.ids))[1]
    named = {names.in_transformer_lens(name): name for name in trace}
    assert {name for name in seen if "hook_scale" not in name} == {name for name in named if name}
    for theirs, ours in named.items():
        if theirs:
            array = seen[theirs][0].detach().numpy()
            array = np.moveaxis(array, 1, 0) if ours.endswith((".q", ".k", ".v", ".z", ".result")) else array
            close(trace[ours], np.where(np.isinf(array), np.float32(-1e10), array))


def np_to_torch(array):
    import torch

    return torch.tensor(np.array(array))


def their_lens(lens, model):
    h = model.hparams
    from transformer_lens.HookedTransformerConfig import HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=h["n_layer"], d_model=h["n_embd"], n_ctx=h["n_ctx"], n_heads=h["n_head"], d_vocab=h["n_vocab"],
        d_head=h["n_embd"] // h["n_head"], d_mlp=4 * h["n_embd"], act_fn="gelu_new", normalization_type="LN",
        use_attn_result=True, init_weights=False, device="cpu", default_prepend_bos=False,
    )  # fmt: skip
    p = model.params
    state = {"embed.W_E": p["wte"], "pos_embed.W_pos": p["wpe"], "unembed.W_U": p["wte"].T}
    state |= {"unembed.b_U": np.zeros(h["n_vocab"]), "ln_final.w": p["ln_f"]["g"], "ln_final.b": p["ln_f"]["b"]}
    for i, block in enumerate(p["blocks"]):
        c_attn, c_proj = block["attn"]["c_attn"], block["attn"]["c_proj"]
        for name, w, b in zip("QKV", np.split(c_attn["w"], 3, -1), np.split(c_attn["b"], 3), strict=True):
            w, b = np.split(w, h["n_head"], -1), np.split(b, h["n_head"])
            state |= {f"blocks.{i}.attn.W_{name}": np.stack(w), f"blocks.{i}.attn.b_{name}": np.stack(b)}
        w_o = np.stack(np.split(c_proj["w"], h["n_head"]))
        state |= {f"blocks.{i}.attn.W_O": w_o, f"blocks.{i}.attn.b_O": c_proj["b"]}
        for name, layer in (("in", block["mlp"]["c_fc"]), ("out", block["mlp"]["c_proj"])):
            state |= {f"blocks.{i}.mlp.W_{name}": layer["w"], f"blocks.{i}.mlp.b_{name}": layer["b"]}
        for n in (1, 2):
            norm = block[f"ln_{n}"]
            state |= {f"blocks.{i}.ln{n}.w": norm["g"], f"blocks.{i}.ln{n}.b": norm["b"]}
    theirs = lens.HookedTransformer(config)
    missing, unexpected = theirs.load_state_dict(
        {name: np_to_torch(np.float32(tensor)) for name, tensor in state.items()}, strict=False
    )
    assert unexpected == [] and {name.split(".")[-1] for name in missing} == {"mask", "IGNORE"}
    return theirs


# what is kept


def test_what_is_kept_is_chosen_by_name(tiny):
    assert set(tiny.trace(TEXT)) == {name for name in names.all_names(2) if not name.endswith("result")}
    assert list(tiny.trace(TEXT, keep="logits")) == ["logits"]
    assert list(tiny.trace(TEXT, keep=["attn.result"])) == ["h0.attn.result", "h1.attn.result"]
    assert list(tiny.trace(TEXT, keep=["h1.resid_*", "ln_f"])) == [
        "h1.resid_pre", "h1.resid_mid", "h1.resid_post", "ln_f",
    ]  # fmt: skip
    assert list(tiny.trace(TEXT, keep=[])) == []


def test_keeping_less_changes_no_number(tiny):
    whole = tiny.trace(TEXT)
    for name in whole:
        assert np.array_equal(tiny.trace(TEXT, keep=name)[name], whole[name])


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("h1.atn.z", "did you mean h1.attn.z"),
        ("blocks.1.attn.hook_pattern", "did you mean h1.attn.pattern"),
        ("hook_embed", "did you mean wte"),
        ("h2.attn.z", "the blocks are h0 to h1"),
        ("patern", "did you mean attn.pattern"),
        ("z", "did you mean attn.z"),
        ("x", "names look like h1.attn.z"),
        ("", "names look like h1.attn.z"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(tiny, wanted, hint):
    trace = tiny.trace(TEXT)
    calls = [
        lambda: tiny.trace(TEXT, keep=wanted),
        lambda: tiny.trace(TEXT, keep=["wte", wanted]),
        lambda: tiny.trace(TEXT, edit={wanted: 0}),
        lambda: tiny.generate(TEXT, 2, edit={wanted: 0}),
        lambda: trace[wanted],
    ]
    for call in calls:
        with pytest.raises(UserError, match=hint):
            call()


@quick
@given(st.text() | st.text("h01.*?[]!attnzresidlgmp_", max_size=12))
def test_any_text_is_a_name_or_a_mistake(wanted):
    known = names.all_names(2)
    try:
        found = names.find(wanted, known)
        assert found and set(found) <= set(known)
    except UserError as error:
        assert str(error).startswith("unknown activation")


def test_a_trace_that_is_too_large_is_refused_before_it_is_computed(tiny):
    with pytest.raises(UserError, match=r"at most 1 kB, found 28.7 kB for 7 tokens, most of it logits \(28.7 kB\)"):
        Model(tiny.encoder, TINY, lambda: pytest.fail("opened")).trace([0] * 7, keep="logits", limit=1000)
    tiny.trace([0] * 7, keep="logits", limit=28672)
    for limit in ("2 GB", None):
        with pytest.raises(UserError, match="limit: expected a number of bytes, found"):
            tiny.trace(TEXT, limit=limit)


def test_memory_is_told(tiny):
    trace = tiny.trace([0] * 7, keep=["logits", "h0.resid_post", "h1.resid_pre", "h0.attn.c_attn", "attn.q"])
    shared = 7 * 24 + 7 * 72  # resid_post is the next resid_pre, and q is a part of c_attn
    assert trace.nbytes == 4 * (7 * 1024 + shared + 7 * 72)  # h1.attn.q holds all of its c_attn
    assert repr(trace) == "<Trace: 7 tokens, 6 activations, 33.4 kB>"
    assert trace["h0.resid_post"] is trace["h1.resid_pre"]


def test_a_trace_cannot_be_changed_by_accident(tiny):
    trace = tiny.trace(TEXT, keep="*")
    for name in trace:
        with pytest.raises(ValueError, match="read-only"):
            trace[name][...] = 0


def test_a_trace_reads_like_a_dict(tiny, tmp_path):
    trace = tiny.trace(TEXT)
    assert "h1.attn.z" in trace and "h1.attn.result" not in trace and 3 not in trace
    assert len(trace) == len(list(trace)) == len(dict(trace)) == 36
    assert dict(trace)["wte"] is trace["wte"]
    np.savez(tmp_path / "trace.npz", **trace)
    assert list(np.load(tmp_path / "trace.npz")) == list(trace)
    assert "".join(trace.tokens) == TEXT and trace.ids == tiny.encode(TEXT)
    with pytest.raises(UserError, match=r"found that it was not kept: trace again with keep=\['h1.attn.result'\]"):
        trace["h1.attn.result"]
    with pytest.raises(UserError, match=r"found 'attn.z', which means 2: trace.stack\('attn.z'\) has"):
        trace["attn.z"]
    with pytest.raises(UserError, match=r"which means 17: h1.resid_pre is the first"):
        trace["h1.*"]
    with pytest.raises(UserError, match=r"expected a name without its layer"):
        trace.stack("h1.attn.z")
    with pytest.raises(UserError, match=r"expected the name of an activation, as 'h0.attn.z', found 3"):
        trace[3]


@pytest.mark.parametrize("text", [5, None, b"x", [1024], [-1], [0.5], [[1]], [0] * 33])
def test_a_text_that_is_none_is_refused(tiny, text):
    with pytest.raises(UserError):
        tiny.trace(text)


def test_an_empty_text_is_the_start_of_one(tiny):
    assert tiny.trace("").ids == tiny.encoder.start_of_text()


# what is read off


def test_a_stack_has_all_layers_and_attention_is_one_head(tiny):
    trace = tiny.trace(TEXT)
    assert trace.patterns.shape == (2, 3, 7, 7)
    for layer in range(2):
        assert np.array_equal(trace.stack("mlp.gelu")[layer], trace[f"h{layer}.mlp.gelu"])
        for head in range(3):
            assert np.array_equal(trace.attention(layer, head), trace[f"h{layer}.attn.pattern"][head])
    for wrong in ((2, 0), (0, 3), (-1, 0), (0.5, 0), ("a", 0)):
        with pytest.raises(UserError, match=r"expected a (layer|head) from 0 to [12], found"):
            trace.attention(*wrong)


def test_the_logit_lens_ends_with_the_models_own_logits(either):
    trace = either.trace(TEXT)
    lens, n_layer = trace.logit_lens(), either.hparams["n_layer"]
    assert lens.shape == (n_layer + 1, len(trace.ids), 1024)
    close(lens[-1], trace["logits"])
    wte, ln_f = either.params["wte"], either.params["ln_f"]
    for layer in range(n_layer):
        close(lens[layer], reference.layer_norm(trace[f"h{layer}.resid_pre"], **ln_f) @ wte.T)
    close(trace.logit_lens(-1), lens[:, -1])
    close(trace.logit_lens([0, 2]), lens[:, [0, 2]])
    with pytest.raises(UserError, match="positions: expected some of 7, found 7"):
        trace.logit_lens(7)
    with pytest.raises(UserError, match="positions: expected some of 7, found none in"):
        trace.logit_lens([])


def test_what_is_missing_is_named_with_all_that_is_needed(tiny):
    trace = tiny.trace(TEXT, keep="logits")
    for call, needed in [
        (lambda: trace.patterns, ["attn.pattern"]),
        (lambda: trace.attention(1, 0), ["h1.attn.pattern"]),
        (lambda: trace.logit_lens(-1), ["h0.resid_pre", "resid_post"]),
        (lambda: trace.attribution(3), ["wte", "wpe", "attn.z", "mlp.c_proj", "h1.resid_post", "logits"]),
        (lambda: tiny.trace(TEXT, keep="wte").likeliest(3), ["logits"]),
    ]:
        with pytest.raises(UserError, match=re.escape(f"not kept: trace again with keep={needed}")):
            call()
        tiny.trace(TEXT, keep=needed)
    again = tiny.trace(TEXT, keep=["wte", "wpe", "attn.z", "mlp.c_proj", "h1.resid_post", "logits"])
    assert again.attribution(3).parts() == tiny.trace(TEXT).attribution(3).parts()
    assert tiny.trace(TEXT, keep=["h0.resid_pre", "resid_post"]).logit_lens(-1).shape == (3, 1024)


@quick
@given(st.lists(st.integers(0, 1023), min_size=1, max_size=8), st.integers(0, 1023), st.data())
def test_the_parts_of_a_logit_add_up_to_it(tiny, ids, token, data):
    position = data.draw(st.integers(0, len(ids) - 1))
    trace = tiny.trace(ids)
    added = trace.attribution(token, position=position)
    logit = reference.gpt2(ids, **tiny.params, n_head=3)[position, token]
    assert added.logit == pytest.approx(logit, rel=1e-4, abs=1e-3)
    assert sum(added.parts().values()) == pytest.approx(added.logit, rel=1e-5, abs=1e-4)
    other = trace.attribution(token, minus=0, position=position)
    assert other.logit == pytest.approx(trace["logits"][position, token] - trace["logits"][position, 0], abs=1e-5)
    assert sum(other.parts().values()) == pytest.approx(other.logit, rel=1e-5, abs=1e-4)


def test_each_part_of_a_logit_is_what_would_be_missing_without_it(tiny):
    """The stream without what a part wrote, through ln_f with the scale that it had: an oracle of its own."""
    trace, params = tiny.trace(TEXT, keep="*"), tiny.params
    x = trace["h1.resid_post"][-1].astype(np.float64)
    scale = np.sqrt(x.var() + 1e-5)

    def logit(x):
        return ((x - x.mean()) / scale * params["ln_f"]["g"] + params["ln_f"]["b"]) @ params["wte"][300]

    written = {"wte": trace["wte"][-1], "wpe": trace["wpe"][-1]}
    for layer in range(2):
        h = f"h{layer}"
        written |= {f"{h}.attn.{head}": trace[f"{h}.attn.result"][head, -1] for head in range(3)}
        written |= {f"{h}.attn.c_proj.b": params["blocks"][layer]["attn"]["c_proj"]["b"]}
        written |= {f"{h}.mlp": trace[f"{h}.mlp.c_proj"][-1]}
    parts = trace.attribution(300).parts()
    assert parts.pop("ln_f.b") == pytest.approx(params["ln_f"]["b"] @ params["wte"][300], abs=1e-5)
    assert list(parts) == list(written)
    for name, part in parts.items():
        assert part == pytest.approx(logit(x) - logit(x - written[name]), abs=1e-4), name


def test_the_largest_parts_come_first(model):
    added = model.trace(TEXT).attribution(" lord")
    largest = added.largest(4)
    assert len(largest) == 4
    assert largest == sorted(added.parts().items(), key=lambda part: -abs(part[1]))[:4]
    assert repr(added) == f"<Attribution of ' lord': {added.logit:.3g}>"


def test_likeliest_tokens(model):
    trace = model.trace(TEXT)
    probabilities = reference.softmax(reference.gpt2(trace.ids, **model.params, n_head=6)[2].astype(np.float64))
    found = trace.likeliest(1024, position=2)
    assert [p for _, p in found] == pytest.approx(sorted(probabilities, reverse=True), rel=0.06)
    assert found[0][0] == model.decode([probabilities.argmax()])


@pytest.mark.parametrize("k", [0, -1, 2.5, "a", None])
def test_a_number_of_tokens_that_is_none_is_refused(tiny, k):
    with pytest.raises(UserError, match="k must be a whole number, 1 or more, found"):
        tiny.trace(TEXT).likeliest(k)


@pytest.mark.parametrize("token", ["lord and", "", 1024, -1, None, 0.5])
def test_what_is_not_one_token_is_refused(model, token):
    with pytest.raises(UserError, match=r"expected (one|a) token"):
        model.trace(TEXT).attribution(token)


@pytest.mark.parametrize("position", [7, -8, 0.5, None, "a"])
def test_a_position_that_is_not_there_is_refused(tiny, position):
    for call in (lambda trace: trace.attribution(3, position=position), lambda trace: trace.likeliest(1, position)):
        with pytest.raises(UserError, match="expected a position from 0 to 6, or from -7 to -1, found"):
            call(tiny.trace(TEXT))


# edits


def test_an_edit_that_changes_nothing_changes_nothing(tiny):
    plain = tiny.trace(TEXT, keep="*")
    for name in names.all_names(2):
        same = tiny.trace(TEXT, keep="*", edit={name: lambda x: x})
        for other in names.all_names(2):
            np.testing.assert_allclose(same[other], plain[other], rtol=1e-5, atol=1e-5)


def test_every_activation_matters(tiny):
    """What is changed is what the pass goes on with: each edit changes the logits."""
    plain = tiny.trace(TEXT)["logits"]
    for name in names.all_names(2):
        noise = np.random.default_rng(0).standard_normal(names.shape_of(name, 7, TINY))
        other = tiny.trace(TEXT, edit={name: lambda x, noise=noise: x + noise})["logits"]
        assert np.abs(other - plain)[-1].max() > 1e-3, name


def test_a_patch_from_another_trace_gives_what_that_one_had(tiny):
    """What comes after a patch of the whole stream is what came after it in the other text."""
    other = tiny.trace([5, 6, 7])
    for name in ("h1.resid_pre", "h1.resid_mid", "h1.resid_post", "ln_f", "logits"):
        patched = tiny.trace([1, 2, 3], edit={name: other[name]})
        assert np.array_equal(patched["logits"], other["logits"])
        assert patched.edits == (name,)
        assert not np.array_equal(patched["h0.resid_post"], other["h0.resid_post"])


def test_a_head_that_is_knocked_out_is_a_model_without_its_weights(tiny):
    """An oracle without edits: the rows of c_proj that read head 1 of block 0 are 0."""

    def without_head(z):
        z[1] = 0

    w = tiny.params["blocks"][0]["attn"]["c_proj"]["w"].copy()
    w[8:16] = 0
    blocks = [dict(block) for block in tiny.params["blocks"]]
    blocks[0]["attn"] = blocks[0]["attn"] | {"c_proj": blocks[0]["attn"]["c_proj"] | {"w": w}}
    lesser = Model(tiny.encoder, TINY, tiny.params | {"blocks": blocks})
    close(tiny.trace(TEXT, edit={"h0.attn.z": without_head})["logits"], lesser.logits(tiny.encode(TEXT)))
    close(tiny.trace(TEXT, edit={"h0.attn.result": without_head})["logits"], lesser.logits(tiny.encode(TEXT)))
    for how in ({}, {"temperature": 0.7, "seed": 1}):
        assert tiny.generate(TEXT, 20, edit={"h0.attn.z": without_head}, **how) == lesser.generate(TEXT, 20, **how)
        assert tiny.generate(TEXT, 20, edit={"h0.attn.z": without_head}, **how) != tiny.generate(TEXT, 20, **how)


def test_an_edit_gets_an_array_of_its_own_in_every_block(tiny):
    seen = []

    def zero(x):
        seen.append(x.shape)
        x[:] = 0

    trace = tiny.trace(TEXT, edit={"mlp.gelu": zero})
    assert seen == [(7, 96)] * 2 and trace.edits == ("h0.mlp.gelu", "h1.mlp.gelu")
    assert not trace["h0.mlp.gelu"].any() and trace["h0.mlp.c_fc"].any()
    assert repr(trace).endswith("edited: h0.mlp.gelu, h1.mlp.gelu>")
    close(trace["logits"], tiny.trace(TEXT, edit={"mlp.gelu": 0})["logits"])
    bias = tiny.params["blocks"][0]["mlp"]["c_proj"]["b"]
    close(trace["h0.mlp.c_proj"], np.tile(bias, (7, 1)))


def test_edits_add_up_in_an_attribution(tiny):
    push = np.random.default_rng(1).standard_normal(24).astype(np.float32)
    trace = tiny.trace(TEXT, edit={"h0.resid_post": lambda x: x + push})
    added = trace.attribution(300)
    assert abs(added.edits) > 1e-2
    assert sum(added.parts().values()) == pytest.approx(added.logit, abs=1e-4)
    centred = (push - push.mean()) / np.sqrt(trace["h1.resid_post"][-1].var() + 1e-5)
    assert added.edits == pytest.approx(centred * tiny.params["ln_f"]["g"] @ tiny.params["wte"][300], abs=1e-4)
    assert "edits" not in tiny.trace(TEXT).attribution(300).parts()


def test_generation_without_changes_is_generation(model):
    for how in ({}, {"temperature": 0.7, "top_k": 40, "seed": 1}):
        assert model.generate(TEXT, 20, edit={}, **how) == model.generate(TEXT, 20, **how)
        assert list(model.stream(TEXT, 20, edit={"ln_f": lambda x: x}, **how)) == list(model.stream(TEXT, 20, **how))


def test_an_edit_of_the_logits_is_what_is_said(model):
    def only_a(at):
        at[:] = 0
        at[:, model.encode("a")] = 9

    assert model.generate(TEXT, 3, edit={"logits": only_a}) == "aaa"
    end = np.zeros(1024, np.float32)
    end[model.encoder.end_of_text] = 9
    assert model.generate(TEXT, 3, edit={"logits": end}) == ""


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"wte": lambda x: x[1:]}, r"edit of wte: expected numbers of shape \[7, 24\], found shape \[6, 24\]"),
        ({"wte": np.zeros((3, 3))}, r"edit of wte: expected numbers of shape \[7, 24\], found shape \[3, 3\]"),
        ({"wte": lambda x: "a"}, "edit of wte: .*, found 'a'"),
        ({"wte": {}}, "edit of wte: .*, found {}"),
        ({"wte": lambda x: 0}, r"edit of wte: expected numbers of shape \[7, 24\], found 0"),
        ({"h0.attn.z": lambda z: z[2]}, r"of h0.attn.z: expected numbers of shape \[3, 7, 8\], found shape \[7, 8\]"),
        ({"wte": None}, "edit of wte: expected a function, an array or a number, found None"),
        ("wte", "edit: expected a dict of names and functions, found 'wte'"),
        ({"h0.attn.z": 0, "attn.z": 0}, "expected one edit of h0.attn.z, found two: attn.z stands for it as well"),
        ({3: 0}, "expected the name of an activation"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused(tiny, edit, message):
    with pytest.raises(UserError, match=message):
        tiny.trace(TEXT, edit=edit)
    with pytest.raises(UserError, match=message):
        tiny.generate(TEXT, 3, edit=edit)


def test_an_error_of_the_function_is_the_users_to_see(tiny):
    with pytest.raises(ZeroDivisionError):
        tiny.trace(TEXT, edit={"wte": lambda x: 1 / 0})


def test_weights_that_are_damaged_are_told(tiny):
    with pytest.raises(UserError, match="not finite"):
        tiny.generate(TEXT, 3, edit={"h0.resid_post": np.nan})


def test_guesses_of_a_draft_cannot_be_edited(tiny):
    with pytest.raises(UserError, match="edit"):
        tiny.generate(TEXT, 3, edit={"ln_f": 0}, draft=tiny)


# docs/inside.md

PAGE = (ROOT / "docs" / "inside.md").read_text("utf-8")


def test_the_examples_of_the_page_print_what_it_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(snippets), {}, "inside", "docs/inside.md", 0)
    assert len(test.examples) >= 5 and doctest.DocTestRunner().run(test).failed == 0


def test_the_table_of_the_page_has_every_name():
    rows = re.findall(r"^\| `(.*?)` \| `\[(.*?)\]` \| `?(.*?)`? \| (.*?) \|$", PAGE, re.MULTILINE)
    known = {name: names.activation(name) for name in names.all_names(1)}
    assert rows == [
        (name, kind.shape.replace(" ", ", "), names.in_transformer_lens(name), kind.meaning)
        for name, kind in known.items()
    ]


# induction heads


def induction_by_hand(encoder):
    """A model of two blocks that continues as the text went before: weights that were written, not learned.

    A hidden state has three parts of 32 numbers: the token, its position, and the token before, each as a one among
    zeros. Head 0 of block 0 looks one position back and writes that token into the third part. Head 0 of block 1 looks
    for a position whose third part is the current token, and adds the token there, which came next, to the first part.
    """
    n, eye = 32, np.eye(32, dtype=np.float32)
    hparams = {"n_vocab": n, "n_ctx": n, "n_embd": 3 * n, "n_head": 1, "n_layer": 2}
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.param_shapes(hparams).items()}
    token, position, before = (slice(i * n, (i + 1) * n) for i in range(3))
    q, k, v = (3 * n * i for i in range(3))
    zeros["wte"][:, token], zeros["wpe"][:, position] = eye, eye
    for name, tensor in zeros.items():
        if name.endswith("/g"):
            tensor[:] = 1
    shift = np.roll(eye, 1, axis=0)  # position i looks for position i - 1
    for layer, reads, finds, keys, into in ((0, position, shift, position, before), (1, token, eye, before, token)):
        w = zeros[f"h{layer}/attn/c_attn/w"]
        w[reads, q : q + n], w[keys, k : k + n], w[token, v : v + n] = 30 * finds, eye, eye
        zeros[f"h{layer}/attn/c_proj/w"][:n, into] = eye
    return Model(encoder, hparams, store.nested(zeros))


def test_a_head_that_was_made_for_it_is_found(model):
    made = induction_by_hand(model.encoder)
    scores = induction_scores(made, n_tokens=12)
    assert scores.shape == (2, 1) and scores[1, 0] > 0.95 and scores[0, 0] < 0.1  # the first token has none before it
    text = [7, 3, 14, 15, 9, 26, 5, 3]
    assert list(made.generate_ids(text, 5)) == [14, 15, 9, 26, 5]
    assert list(made.generate_ids(text, 5, edit={"h1.attn.z": 0})) != [14, 15, 9, 26, 5]


def test_the_bundled_model_has_none(model):
    """As docs/inside.md says: no head looks there much more than one that looks everywhere alike."""
    scores = induction_scores(model)
    assert scores.shape == (6, 6) and scores.max() < 0.03
    alike = model.trace([0] * 100, keep="attn.pattern", edit={"attn.scores": later(100)}).patterns
    assert np.diagonal(alike, -49, -2, -1)[..., 1:].mean() == pytest.approx(1 / 75, rel=0.05)


@pytest.mark.parametrize("n_tokens", [1, 129, 0, -5])
def test_a_length_that_does_not_fit_twice_is_refused(model, n_tokens):
    with pytest.raises(UserError, match=f"n_tokens must lie between 2 and 128, found {n_tokens}"):
        induction_scores(model, n_tokens)


def test_generation_without_edits_does_not_load_what_traces_need():
    code = "import sys, picogpt; picogpt.load('shakespeare').generate('ROMEO:', 2); print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "picogpt.gpt2" in done.stdout and "insight" not in done.stdout
