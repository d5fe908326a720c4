"""`python -m picogpt.explain`: the table of a text, the merges of the tokenizer, and the page."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import picogpt
from picogpt.encoder import SYMBOL_OF, get_encoder, split_into_words
from picogpt.insight import merges, surprise
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
        (["To be", "--tokens", "To be"], "expected a prompt or --tokens, found both"),
        (["To be", "--n_others", "-1"], "n_others must be 0 or more, found -1"),
        ([], "expected a prompt, found none"),
        (["To be " * 200], "the model sees 256 tokens"),
    ],
)
def test_mistakes_are_named(words, message):
    assert message in refusal(*words, *SMALL)
