"""`python -m picogpt.explain`: the table of a text, the merges of the tokenizer, and the page."""

from __future__ import annotations

import base64
import json
import math
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import picogpt
from picogpt.encoder import SYMBOL_OF, get_encoder, split_into_words
from picogpt.gpt2 import softmax
from picogpt.insight import merges, page, surprise
from picogpt.insight.names import all_names, shape_of, without_layer
from picogpt.insight.trace import Trace
from picogpt.model import Model
from picogpt.sampling import top_k_logits, top_p_logits
from tests import chromium
from tests.helpers import ENVIRONMENT, ROOT, SHAKESPEARE

SMALL = ["--model_size", str(SHAKESPEARE)]
ENCODER = get_encoder("shakespeare", SHAKESPEARE.parent)
EXPLAIN = [sys.executable, "-m", "picogpt.explain"]


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


def explain(*words: str, stdin: bytes | None = None, env: dict[str, str] | None = None):
    source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    env = {"PYTHONUTF8": "1"} | (env or {})
    return subprocess.run([*EXPLAIN, *words], capture_output=True, cwd=ROOT, env=ENVIRONMENT | env, **source)


def answer(*words: str, **how) -> str:
    process = explain(*words, **how)
    assert (process.stderr, process.returncode) == (b"", 0)
    return process.stdout.decode()


def refusal(*words: str) -> str:
    process = explain(*words)
    assert (process.stdout, process.returncode) == (b"", 2)
    assert process.stderr.count(b"\n") == 1
    return process.stderr.decode()


# the tokenizer


def test_the_merges_of_a_text_are_shown_one_after_the_other():
    assert answer("--tokens", "Hello newest newest\n", *SMALL).splitlines() == [
        "4 words, 20 bytes, 8 tokens",
        "",
        "  H e l l o",
        "  H e ll o    l + l, merge 18",
        "  H ell o     e + ll, merge 159",
        "  = H 40  ell 415  o 79",
        "",
        "  · n e w e s t",
        "  · n e w es t    e + s, merge 23",
        "  ·n e w es t     · + n, merge 26",
        "  ·n e w est      es + t, merge 122",
        "  ·ne w est       ·n + e, merge 173",
        "  ·new est        ·ne + w, merge 535",
        "  = ·new 791  est 378",
        "",
        "  = ·new 791  est 378",
        "",
        "  \\n",
        "  = \\n 199",
    ]


@given(st.text(st.characters(codec="utf-8")) | st.text("aehnrst "))
@example("aaaaaaa aaa")
def test_merges_end_in_the_tokens_of_the_encoder(text):
    tokens: list[str] = []
    for word in split_into_words(text):
        symbols = word.encode().decode("latin-1").translate(SYMBOL_OF)
        steps = list(merges.merges(symbols, ENCODER.bpe_ranks))
        assert all("".join(step.symbols) == symbols for step in steps)
        assert [step.rank for step in steps] == sorted(step.rank for step in steps)  # true of any list that was learned
        assert all(f"{step.left} {step.right}" in ENCODER.bpe_ranks for step in steps)
        tokens += steps[-1].symbols if steps else symbols
    assert [ENCODER.encoder[token] for token in tokens] == ENCODER.encode(text)


def test_a_long_word_shows_its_tokens_alone():
    lines = answer("--tokens", "a" * 65, *SMALL).splitlines()
    assert lines[2].startswith("  a word of 65 bytes: its ") and lines[3].startswith("  = ") and len(lines) == 4
    assert " + " in answer("--tokens", "an" * 32, *SMALL)


def test_no_byte_of_a_text_reaches_the_terminal_as_it_is():
    shown = answer("--tokens", "\x1b[31m\x07\u202e\u2028\x9b", *SMALL)
    assert shown.replace("\n", "").isprintable()
    assert "  = \\x1b " in shown


# the table


def test_the_table_of_a_text(model):
    text = "To be, or not to be"
    heading, *rows, empty, mean = answer(text, *SMALL).splitlines()
    assert heading == "token   probability  likeliest others"
    assert [row.split()[0] for row in rows] == ["To", "·be", ",", "·or", "·not", "·to", "·be", "(next)"]
    ids = model.encode(text)
    logits = model.logits(ids).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert f" {100 * p[1, ids[2]]:.1f}%  " in rows[2]
    best = p[-1].argmax()
    assert rows[-1].split()[1:3] == [f"·{model.decode([best]).strip()}", f"{100 * p[-1, best]:.1f}%"]
    bits = -np.log2(p[np.arange(len(ids) - 1), ids[1:]]).mean()
    assert (empty, mean) == ("", f"mean surprise of 6 tokens: {bits:.2f} bits")


def test_others_are_the_likeliest_without_the_token_itself():
    logits = np.array([[0.0, 3, 2, 1], [4, 3, 2, 1]])
    _, first, last = surprise.places([3, 1], logits, n_others=2)
    assert [token for token, _ in first.others] == [2, 3]
    assert [token for token, _ in last.others] == [0, 1]
    assert sum(p for _, p in first.others) + 2**-first.surprise < 1


def test_the_surprise_of_an_impossible_token_is_finite():
    assert surprise.surprise(np.float32([0, 1000]), 0) == pytest.approx(1000 / math.log(2))
    assert surprise.surprise(np.float32([0, 1000]), 1) == 0


def test_a_prompt_comes_from_a_pipe_and_may_be_empty():
    assert answer(*SMALL, stdin=b"To be\n") == answer("To be", *SMALL)
    assert answer("", *SMALL).startswith("token          probability  likeliest others\n<|endoftext|>\n(next)")


def test_n_others_sets_how_many_are_shown():
    assert [row.count("%") for row in answer("To be", *SMALL, "--n_others", "2").splitlines()[1:-2]] == [0, 3, 2]
    assert [row.count("%") for row in answer("To be", *SMALL, "--n_others", "0").splitlines()[1:-2]] == [0, 1, 0]


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)])
def test_a_terminal_gets_colours_unless_it_wants_none(env, coloured):
    import pty

    ours, theirs = pty.openpty()
    env = ENVIRONMENT | {"TERM": "xterm-256color", "PYTHONUTF8": "1"} | env
    words = [*EXPLAIN, "To be\x1b[31m\nor <b>", *SMALL]
    process = subprocess.Popen(words, stdout=theirs, stdin=subprocess.DEVNULL, cwd=ROOT, env=env)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:  # how the end shows on Linux
        pass
    os.close(ours)
    assert process.wait() == 0
    assert (b"\x1b[38;5;16;48;5;" in shown) == coloured
    assert b"\x1b[31m" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["To be", "--tokens", "To be"], "or --tokens alone, found both"),
        (["To be", "--n_others", "-1"], "n_others must be 0 or more, found -1"),
        ([], "expected a prompt, found none"),
        (["To be " * 200], "the model sees 256 tokens"),
    ],
)
def test_mistakes_are_named(words, message):
    assert message in refusal(*words, *SMALL)


# the page


PROMPT = "ROMEO:\nBut, soft! <b>what</b> light </script><script>alert(1)</script> {{data}} <!-- 日 \x1b[0m\u202e"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page, as the command writes it."""
    path = tmp_path_factory.mktemp("page") / "out.html"
    process = explain(PROMPT, *SMALL, "--html", str(path))
    assert (process.stdout, process.returncode) == (b"", 0)
    assert re.fullmatch(rb".*out\.html: [\d.]+ MB: open it in a browser\n|.*: [\d.]+ kB: open it .*\n", process.stderr)
    assert [p.name for p in path.parent.iterdir()] == ["out.html"]
    return path


def test_a_page_is_one_file_that_loads_nothing(written):
    html = written.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>") and html.count("</script>") == 2 and html.count("<script") == 2
    assert not re.search(r"(?:src|href)=(?!\"(?:data:|#))|url\(|@import|fetch\(|https?:", html)
    assert "{{title}}" not in html and "default-src 'none'" in html


def test_no_token_ends_the_script_that_has_the_data():
    token = {"name": "</script><!--<script>{{style}}"}
    html = page.filled({"tokens": [token]})
    assert html.count("</script>") == 2 and html.count("<script") == 2 and html.count("<!--") == 0
    values = re.search(r'<script type="application/json" id="data">(.*?)</script>', html)[1]
    assert json.loads(values) == {"tokens": [token]}


def test_the_numbers_of_a_page_are_those_of_the_trace(model):
    ids = model.encode("To be, or not to be")
    trace = model.trace(ids)
    numbers = page.data(trace)
    attention = (unpacked(numbers["patterns"]) / 255.0) ** 2
    rows, columns = np.tril_indices(len(ids))
    assert np.abs(attention - trace.patterns[..., rows, columns]).max() < 0.004
    best = np.array(numbers["ids"])[unpacked(numbers["next"]["which"])]
    assert np.array_equal(best[:, :5], np.argsort(-trace["logits"], axis=-1)[:, :5])
    assert np.array_equal(unpacked(numbers["next"]["logits"]), -np.sort(-trace["logits"], axis=-1)[:, :256])
    of_lens = np.array(numbers["ids"])[unpacked(numbers["lens"]["which"])]
    assert np.array_equal(of_lens[..., 0], trace.logit_lens().argmax(axis=-1))
    strip = numbers["strips"]["mlp.gelu"]
    values = unpacked(strip["values"]) * unpacked(strip["largest"])[..., None] / 127
    shown = trace.stack("mlp.gelu")[..., :32]
    assert np.abs(values - shown).max() <= np.abs(shown).max() / 127
    assert [token["bits"] for token in numbers["tokens"]][1:] == [
        surprise.surprise(trace["logits"][i], ids[i + 1]) for i in range(len(ids) - 1)
    ]


def unpacked(packed: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["base64"]), packed["type"]).reshape(packed["shape"])


def test_the_tail_of_the_logits_sums_to_what_it_stands_for():
    logits = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32) * 3
    means, counts = page.tail(logits, 100)
    rest = -np.sort(-logits, axis=-1)[:, 100:]
    assert np.array_equal(counts.sum(axis=-1), [900] * 3)
    assert np.allclose((counts * np.exp(means)).sum(axis=-1), np.exp(rest).sum(axis=-1), rtol=1e-5)
    assert np.allclose((counts * np.exp(means / 2)).sum(axis=-1), np.exp(rest / 2).sum(axis=-1), rtol=1e-3)
    assert page.tail(logits[:, :50], 100)[1].sum() == 0


def test_a_page_of_124ms_shape_and_50_tokens_is_small():
    hparams = {"n_vocab": 3000, "n_ctx": 64, "n_embd": 768, "n_head": 12, "n_layer": 12}
    rng = np.random.default_rng(0)
    names = [name for name in all_names(12) if without_layer(name) in page.KEPT]
    made = {name: rng.standard_normal(shape_of(name, 50, hparams), np.float32) for name in names}
    made |= {name: softmax(x) for name, x in made.items() if name.endswith("pattern")}
    ones = np.ones(768, np.float32)
    params = {"wte": rng.standard_normal((3000, 768), np.float32), "ln_f": {"g": ones, "b": ones}}
    trace = Trace(Model(ENCODER, hparams, params), list(range(50)), made)
    assert len(page.filled(page.data(trace))) < 1_900_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["To be", "--html", "/nosuch/out.html"], "expected the directory /nosuch, found none"),
        (["To be", "--html", "."], "expected the name of a file, found the directory"),
        (["To be", "--html", os.devnull], "found the device or pipe"),
        (["To be", "--html", "x" * 300], "File name too long"),
        (["--tokens", "To be", "--html", "out.html"], "found both"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths and messages of POSIX")
def test_a_page_that_cannot_be_written_is_refused(words, message):
    assert message in refusal(*words, *SMALL)


def test_a_text_that_is_too_long_for_a_page_is_refused(model):
    with pytest.raises(picogpt.UserError, match="at most 256 tokens for a page, found 257"):
        page.page(model, [0] * 257)


def test_a_page_replaces_an_older_one_and_leaves_nothing_beside_it(tmp_path):
    (tmp_path / "out.html").write_text("old")
    (tmp_path / "link.html").symlink_to("out.html")
    explain("To be", *SMALL, "--html", str(tmp_path / "link.html"))
    assert "Inside GPT-2: To be" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.html", "out.html"]


@pytest.mark.skipif(os.name == "nt", reason="there is no ulimit")
def test_a_page_is_written_completely_or_not_at_all(tmp_path):
    (tmp_path / "out.html").write_text("old")
    words = [*EXPLAIN, "To be", *SMALL, "--html", str(tmp_path / "out.html")]
    env = ENVIRONMENT | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    limited = ["sh", "-c", f"ulimit -f 10; exec {shlex.join(words)}"]  # blocks of 512 or 1024 bytes
    process = subprocess.run(limited, capture_output=True, cwd=tmp_path, env=env, text=True)
    assert (process.stdout, process.returncode) == ("", 2)
    assert "out.html: File too large: choose another --html" in process.stderr
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"out.html": "old"}


def test_damaged_weights_make_no_page(model):
    params = {**model.params, "ln_f": {"g": np.float32(np.nan), "b": np.float32(0)}}
    with pytest.raises(picogpt.UserError, match="not finite"):
        page.page(Model(model.encoder, model.hparams, params), [1, 2])


# the page in a browser


@pytest.fixture(scope="module")
def browser():
    if (path := chromium.find()) is None or os.name == "nt":
        pytest.skip("there is no Chromium: install it, or set PICOGPT_CHROMIUM")
    browser = chromium.Chromium(path)
    yield browser
    assert browser.problems == []
    browser.close()


@pytest.fixture
def shown(browser, written):
    browser.open(written)
    yield browser
    assert browser.problems == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}


def chosen(shown) -> dict:
    return shown.js("({...chosen, ...pointed})")


def test_a_prompt_stays_text(shown, model):
    assert shown.js("document.querySelectorAll('main b, main script, #text b').length") == shown.js(
        "document.querySelectorAll('#token-facts b, #next-after b, figcaption b').length"
    )
    assert shown.js("tokens.map(({id}) => id)") == model.encode(PROMPT)
    text = shown.js("[...document.querySelectorAll('#text .token')].map(e => e.textContent).join('')")
    assert "<b>what</b> light </script><script>alert(1)</script> {{data}} <!-- \\xe6\\x97\\xa5 \\x1b[0m" in text
    assert shown.js("document.title").startswith("Inside GPT-2: ROMEO:\\nBut, soft! <b>what</b>")


def test_pointing_at_a_token_changes_the_map_and_what_may_come_next(shown):
    before = shown.pixels("#map-canvas"), shown.text("#bars"), shown.text("#map-readout")
    shown.hover("#text .token:nth-of-type(4)")
    assert chosen(shown)["token"] == 3
    after = shown.pixels("#map-canvas"), shown.text("#bars"), shown.text("#map-readout")
    assert all(old != new for old, new in zip(before, after, strict=True))
    shown.hover("h1")
    assert (shown.pixels("#map-canvas"), shown.text("#bars"), shown.text("#map-readout")) == before
    shown.click("#text .token:nth-of-type(4)")
    shown.hover("h1")
    assert (shown.pixels("#map-canvas"), shown.text("#bars"), shown.text("#map-readout")) == after


def test_what_is_drawn_is_what_the_trace_has(shown, model):
    trace = model.trace(model.encode(PROMPT))
    assert shown.js("weight(2, 1, 5, 3)") == pytest.approx(trace.patterns[2, 1, 5, 3], abs=0.004)
    assert shown.js("weight(2, 1, 3, 5)") == 0
    for strip, x in {
        "wte": trace["wte"][5], "x": trace["h0.resid_pre"][5], "attn.q": trace["h2.attn.q"][1, 5],
        "attn.z": trace["h2.attn.z"][1, 5], "mlp.gelu": trace["h2.mlp.gelu"][5], "ln_f": trace["ln_f"][5],
    }.items():  # fmt: skip
        drawn = shown.js(f"numbersOf('{strip}', {{token: 5, layer: 2, head: 1}})")
        x = x[: len(drawn["values"])]
        assert len(x) in (16, 32)
        assert np.allclose(drawn["values"], x / np.abs(x).max(), atol=0.005)
        first = float(drawn["text"].split(",")[0].replace("−", "-"))
        assert np.allclose(first, x[0], atol=np.abs(x).max() / 100)
    of_pattern = shown.js("numbersOf('attn.pattern', {token: 5, layer: 2, head: 1})")["values"]
    assert np.allclose(np.square(of_pattern), trace.patterns[2, 1, 5], atol=0.004)
    shapes = shown.js("[...document.querySelectorAll('.shape')].map(shape => shape.innerText)")
    n_seq = len(trace.ids)
    assert shapes[0] == f"{n_seq} × 192" and shapes[-1] == f"{n_seq} × 1024" and f"6 × {n_seq} × 32" in shapes


def test_the_map_follows_the_pointer(shown):
    shown.centre("#map-canvas")
    left, top = shown.js("(({x, y}) => [x, y])(document.querySelector('#map-canvas').getClientRects()[0])")
    cell = shown.js("cellOf(document.querySelector('#map-canvas').clientWidth)")
    shown.mouse("mouseMoved", left + 2.5 * cell, top + 5.5 * cell)
    now = chosen(shown)
    assert (now["token"], now["key"]) == (5, 2)
    weight = shown.js(f"weight({now['layer']}, {now['head']}, 5, 2)")
    assert f"token 2: {100 * weight:.1f}%" in shown.text("#map-readout") or weight < 0.001 or weight > 0.0995
    shown.mouse("mouseMoved", left + 8.5 * cell, top + 5.5 * cell)  # a token cannot look ahead
    assert chosen(shown)["key"] is None


def test_pointing_at_a_head_shows_it_large(shown):
    before = shown.pixels("#map-canvas")
    shown.hover("[aria-label='block 1, head 3']")
    assert shown.text("#map-name") == "Block 1, head 3."
    assert shown.pixels("#map-canvas") != before
    shown.hover("h1")
    assert shown.pixels("#map-canvas") == before


def test_the_keyboard_does_what_the_pointer_does(shown):
    shown.js("document.querySelector('#text [tabindex=\"0\"]').focus()")
    shown.press("Home", "ArrowRight", "ArrowRight")
    assert chosen(shown)["token"] == 2
    assert shown.js("document.activeElement.getAttribute('aria-selected')") == "true"
    shown.js("document.querySelector('#heads [tabindex=\"0\"]').focus()")
    shown.press("Home", "ArrowDown", "ArrowRight")
    assert (chosen(shown)["layer"], chosen(shown)["head"]) == (1, 1)
    shown.js("document.querySelector('#map').focus()")
    shown.press("ArrowDown", "ArrowLeft", "ArrowLeft")
    assert (chosen(shown)["token"], chosen(shown)["key"]) == (3, 0)
    shown.js("document.querySelector('#lens [tabindex=\"0\"]').focus()")
    shown.press("ArrowUp", "ArrowRight")
    assert (chosen(shown)["token"], chosen(shown)["lens"]) == (4, 5)
    shown.js("document.querySelector('#temperature').focus()")
    shown.press("Home")
    assert shown.text("#kept").startswith("1 of 1,024")


def test_everything_can_be_reached_with_the_tab_key_and_has_a_name(shown):
    reached = []
    shown.js("document.body.focus()")
    for _ in range(25):
        shown.press("Tab")
        reached.append(
            shown.js("document.activeElement.id || document.activeElement.parentElement.closest('[id]')?.id")
        )
    order = [*dict.fromkeys(filter(None, reached))]
    assert order[:4] == ["theme", "before", "line", "after"]
    assert order[4:13] == ["text", "temperature", "top-k", "top-p", "settings", "layer", "heads", "map", "looks"]
    tree = shown.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "option", "gridcell", "listbox", "grid", "application", "columnheader", "rowheader"}
    nameless = [
        node for node in tree
        if not node["ignored"] and node["role"]["value"] in roles and not node.get("name", {}).get("value")
    ]  # fmt: skip
    assert nameless == []


SETTINGS = [  # temperature, top-k, top-p; the last one keeps a part of the tail
    (1, 0, 1), (0.7, 0, 1), (2, 0, 1), (1, 3, 1), (1, 0, 0.9), (1, 0, 0.3), (1, 0, 0), (0.5, 40, 0.8), (0, 0, 1),
    (2, 0, 0.97),
]  # fmt: skip


def test_sliders_change_the_distribution_as_sampling_does(shown, model):
    steps = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 250, 0]
    logits = model.logits(model.encode(PROMPT))[-1]
    for temperature, k, p in SETTINGS:
        move(shown, "temperature", temperature)
        move(shown, "top-k", steps.index(k))
        move(shown, "top-p", p)
        expected = softmax(top_p_logits(top_k_logits(logits / max(temperature, 1e-6), k), p))
        n_kept = np.count_nonzero(expected) if temperature else 1
        assert abs(int(shown.text("#kept").split()[0].replace(",", "")) - n_kept) <= n_kept / 300
        texts = shown.js("[...document.querySelectorAll('.bars .value')].map(value => value.innerText)")
        assert np.allclose(list(map(percent_of, texts)), -np.sort(-expected)[:12], atol=0.006)


def move(shown, slider: str, value: float) -> None:
    shown.js(f"{{ const e = document.getElementById('{slider}'); e.value = {value};"
             "e.dispatchEvent(new Event('input', {bubbles: true})); }")  # fmt: skip
    shown.drawn()


def percent_of(text: str) -> float:
    return 0.0005 if text.startswith("<") else float(text.removesuffix("%")) / 100


@given(
    st.lists(st.integers(-160, 160).map(lambda n: n / 8), min_size=1, max_size=30),
    st.floats(0.0625, 4, width=16), st.integers(0, 31), st.floats(0, 1, width=16),
)  # fmt: skip
@example([1.0, 1.0, 0.0], 1.0, 1, 1.0)
@example([1.0, 1.0, 0.0], 1.0, 0, 0.0)
@example([0.0, 0.0, 0.0, 0.0], 1.0, 0, 0.5)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_page_draws_from_what_openais_code_keeps(browser, logits, temperature, k, p):
    logits = np.float64(sorted(logits, reverse=True))
    scaled = logits / temperature
    kept = top_p_logits(top_k_logits(scaled, k), p)
    sums = np.cumsum(softmax(top_k_logits(scaled, k)))
    assume(p == 1 or np.abs(sums - p).min() > 1e-6 or np.all(logits == logits[0]))  # rounding would decide
    result = browser.js(
        f"(() => {{ {page.part('sampling.js')}; return distribution({logits.tolist()}, [],"
        f"{{temperature: {temperature}, k: {k}, p: {p}}}); }})()"
    )
    assert np.allclose(result["probabilities"], softmax(kept), atol=1e-9)
    assert result["kept"] == np.isfinite(kept).sum()


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_fits_the_window_in_light_and_dark(browser, written, width, dark):
    browser.open(written, width=width, dark=dark)
    assert browser.js("document.documentElement.scrollWidth") <= width
    r, g, b = map(int, re.findall(r"\d+", browser.js("getComputedStyle(document.body).backgroundColor"))[:3])
    assert (r + g + b < 150) == dark
    before = browser.pixels("#map-canvas")
    browser.click("#theme")
    assert browser.pixels("#map-canvas") != before
    assert browser.js("getComputedStyle(document.body).backgroundColor") != f"rgb({r}, {g}, {b})"


def test_a_page_of_one_token(browser, tmp_path, model):
    (tmp_path / "one.html").write_text(page.page(model, model.encoder.start_of_text()), encoding="utf-8")
    browser.open(tmp_path / "one.html")
    assert browser.text("#token-facts").startswith("“<|endoftext|>” is token 0 of 1")
    browser.click("#after")
    assert chosen(browser)["token"] == 0


# the documentation


@pytest.mark.skipif(os.name == "nt", reason="the examples are for a POSIX shell")
def test_the_examples_of_the_documentation_print_what_it_shows(tmp_path):
    text = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```\n\$ (.*picogpt\.explain.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    assert len(examples) == 3
    for command, printed in examples:
        command = command.replace("python", shlex.quote(sys.executable))
        env = ENVIRONMENT | {"PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)}
        process = subprocess.run(command, shell=True, capture_output=True, cwd=tmp_path, env=env)
        assert (process.stdout.decode(), process.returncode) == (printed, 0)
