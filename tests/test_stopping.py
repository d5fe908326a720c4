"""Stop strings: found across the borders of tokens, never shown, and held back no longer than needed."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import picogpt
from picogpt.decoding.stopping import Stopper, stop_bytes, stopped
from picogpt.errors import UserError
from tests.helpers import SHAKESPEARE, run

SMALL = ["-m", "shakespeare", "-n", "12"]

chunks = st.lists(st.text("ab", max_size=4).map(str.encode), max_size=8)
stops = st.lists(st.text("ab", min_size=1, max_size=4).map(str.encode), max_size=3)


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


def byte_by_byte(data, stops):
    """The text before the first stop string that is complete, and whether there is one."""
    for end in range(1, len(data) + 1):
        ending = [stop for stop in stops if data[:end].endswith(stop)]
        if ending:
            return data[: end - max(map(len, ending))], True
    return data, False


@given(chunks, stops)
@example([b"ab"], [b"b", b"ab"])
@example([b"a", b"b", b"a", b"a"], [b"abab", b"aa"])
def test_the_text_ends_before_the_first_stop_string_that_is_complete(chunks, stops):
    stopper = Stopper(stops)
    found = b""
    for chunk in chunks:
        found += stopper.feed(chunk)
        if stopper.found:
            break
    assert (found + stopper.rest(), stopper.found) == byte_by_byte(b"".join(chunks), stops)


@given(chunks, stops)
def test_bytes_are_held_back_only_while_they_may_begin_a_stop_string(chunks, stops):
    stopper = Stopper(stops)
    seen = shown = b""
    for chunk in chunks:
        seen += chunk
        shown += stopper.feed(chunk)
        if stopper.found:
            return
        held = seen[len(shown) :]
        assert seen.startswith(shown)
        assert not held or any(stop.startswith(held) for stop in stops)
        longer = [seen[-n:] for n in range(len(held) + 1, len(seen) + 1)]
        assert not any(stop.startswith(end) for stop in stops for end in longer)


@pytest.mark.parametrize("wrong", ["", [""], ["a", ""], [3], 3, None, b"x", [b"x"], {"a": 1}])
def test_what_is_no_stop_string_is_refused(wrong, model):
    with pytest.raises(UserError, match="stop: expected a text, or a list of texts, none of them empty, found"):
        stop_bytes(wrong)
    with pytest.raises(UserError, match="stop: expected"):
        model.complete("x", stop=wrong)


def test_characters_of_several_bytes(model):
    ids = model.encode("é👍é—x")
    for stop, text in (("👍", "é"), ("—", "é👍é"), ("x", "é👍é—"), ("éx", "é👍é—x")):
        assert "".join(stopped(ids, model.encoder, stop_bytes(stop))) == text
    pieces = list(stopped(ids, model.encoder, stop_bytes("👎")))  # it begins with the same bytes
    assert "".join(pieces) == "é👍é—x"
    assert "é" in pieces


def test_no_token_is_asked_for_after_the_stop_string(model):
    ids = iter(model.encode("one two three four"))
    assert "".join(stopped(ids, model.encoder, [b"tw"])) == "one "
    assert model.decode(list(ids)).endswith("three four")


def test_bytes_that_are_not_utf_8_can_stop_a_text(model):
    ids = model.encode("ab\udcffcd")
    assert "".join(stopped(ids, model.encoder, stop_bytes("\udcff"))) == "ab"
    with pytest.raises(UserError, match="lone surrogate"):
        stop_bytes("\ud800")


@pytest.mark.parametrize(("start", "end"), [(7, 13), (7, 9), (12, 18), (15, 16), (0, 1), (1, 40)])
@pytest.mark.parametrize("others", [[], ["zzz"]])
def test_every_way_of_generating_ends_at_the_same_place(model, start, end, others):
    whole = model.generate("ROMEO:", 30)
    expected = whole[: whole.index(whole[start:end])]
    stop = [whole[start:end], *others] if others else whole[start:end]
    assert model.generate("ROMEO:", 30, stop=stop) == expected
    assert model.generate("ROMEO:", 30, stop=stop, lookahead=False) == expected
    assert "".join(model.stream("ROMEO:", 30, stop=stop)) == expected
    assert model.samples("ROMEO:", 2, 30, stop=stop) == [expected] * 2
    assert next(model.generate_many(["ROMEO:", "x"], 30, stop=stop)) == expected
    assert model.complete("ROMEO:", 30, stop=stop).text == expected


def test_rows_end_at_different_steps(model):
    how = {"temperature": 1.0, "seed": 5}
    free = model.samples("ROMEO:", 4, 40, **how)
    assert model.samples("ROMEO:", 4, 40, stop=".", **how) == [text.split(".")[0] for text in free]
    prompts = ["ROMEO:", "JULIET:", "To be", "O", ""]
    free = list(model.generate_many(prompts, 40, **how))
    stopped = list(model.generate_many(prompts, 40, stop=".", batch_size=2, **how))
    assert stopped == [text.split(".")[0] for text in free]


def test_the_command(model, tmp_path):
    whole = model.generate("ROMEO:", 12)
    stop = whole[6:11]
    before = whole[: whole.index(stop)]
    assert run("ROMEO:", *SMALL, "--stop", stop).stdout.decode() == before + "\n"
    assert run("ROMEO:", *SMALL, "--stop", "zzz", f"--stop={stop}").stdout.decode() == before + "\n"
    process = run("ROMEO:", *SMALL, "--nsamples", "2", "--stop", stop)
    assert process.stdout.decode().count(f"=\n{before}\n") == 2
    (tmp_path / "prompts.txt").write_text("ROMEO:\n")
    for words in ([], ["--json"]):
        process = run_batch(str(tmp_path / "prompts.txt"), *SMALL, "--stop", stop, *words)
        assert json.loads(process.stdout)["text"] == before


def run_batch(*words):
    import subprocess
    import sys

    from tests.helpers import ENVIRONMENT, ROOT

    return subprocess.run(
        [sys.executable, "-m", "picogpt.batch", *words], capture_output=True, env=ENVIRONMENT, cwd=ROOT, timeout=120
    )


def test_a_mistake_costs_one_line():
    process = run("x", "-m", "nowhere", "--stop", "")
    assert (process.returncode, process.stdout) == (2, b"")
    assert (
        process.stderr
        == b"gpt2.py: error: stop: expected a text, or a list of texts, none of them empty, found ('',)\n"
    )
    assert b"expected no --stop" in run("x", "--interactive", "--stop", "x", stdin=b"").stderr
