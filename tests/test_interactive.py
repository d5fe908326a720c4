"""A conversation with a model: what is kept between turns, what lines mean, and the terminal, driven as by a person."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import picogpt
from picogpt import gpt2
from picogpt.commands import interactive
from picogpt.decoding.conversation import Conversation, Kept
from picogpt.errors import UserError
from picogpt.model import open_model
from tests.fuzz import TIMES
from tests.helpers import COMMAND, ENVIRONMENT, SHAKESPEARE, make_model, passes_counted, run

DRAWN = {"temperature": 0.8, "top_k": 40, "seed": 3}


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


@pytest.fixture
def passes(monkeypatch):
    """The numbers of positions that go through the model."""
    return passes_counted(monkeypatch)


# what is kept


@pytest.mark.parametrize("how", [{}, DRAWN, {"lookahead": False}], ids=["greedy", "drawn", "no lookahead"])
def test_turns_are_the_text_that_one_prompt_would_give(model, how):
    talk = Conversation(model, n_tokens_to_generate=20, **how)
    first = "".join(talk.say("ROMEO:"))
    assert first == model.generate("ROMEO:", 20, **how)
    ids = model.encode("ROMEO:") + list(model.generate_ids("ROMEO:", 20, **how))
    assert talk.ids == ids and talk.text == "ROMEO:" + first
    apart = "" if first.endswith("\n") else "\n"
    second = "".join(talk.say("JULIET:"))
    ids += model.encode(apart + "JULIET:")
    how = how | ({"seed": 4} if "seed" in how else {})
    assert second == model.generate(ids, 20, **how)
    assert talk.text == f"ROMEO:{first}{apart}JULIET:{second}"


def test_a_turn_costs_only_its_new_tokens(model, passes):
    talk = Conversation(model, n_tokens_to_generate=10, lookahead=False)
    list(talk.say("ROMEO:\nBut soft, what light through yonder window breaks?"))
    passes.clear()
    n_before = len(talk.ids)
    list(talk.say("JULIET:"))
    new = len(talk.ids) - n_before - 10
    assert passes == [1 + new] + [1] * 9  # the last token of the answer has not been through the model
    passes.clear()
    list(talk.say(""))
    assert passes == [1] * 10
    passes.clear()
    list(talk.retry())
    assert passes == [1] * 10


def test_another_answer_is_drawn(model):
    talk = Conversation(model, n_tokens_to_generate=12, **DRAWN)
    first = "".join(talk.say("ROMEO:"))
    second = "".join(talk.retry())
    assert first != second and talk.text == "ROMEO:" + second
    again = Conversation(model, n_tokens_to_generate=12, **DRAWN)
    assert ["".join(again.say("ROMEO:")), "".join(again.retry())] == [first, second]


def test_a_new_text_starts_from_nothing(model):
    talk = Conversation(model, n_tokens_to_generate=12)
    list(talk.say("ROMEO:"))
    talk.restart()
    assert "".join(talk.say("JULIET:")) == model.generate("JULIET:", 12)
    talk.restart()
    assert "".join(talk.say("")) == model.generate("", 12)


def test_a_text_that_is_full_is_refused_and_stays(model):
    talk = Conversation(model, n_tokens_to_generate=250)
    list(talk.say("ROMEO: But soft"))  # fewer tokens than asked for: no more fit
    assert len(talk.ids) == 256
    text = talk.text
    for line in ("", "more"):
        with pytest.raises(UserError, match=r"found 25\d in the text: start a new one, with /new"):
            talk.say(line)
    assert talk.text == text


def test_with_a_window_a_text_is_never_full(model, passes):
    talk = Conversation(model, n_tokens_to_generate=250, sliding_window="half", lookahead=False)
    list(talk.say("ROMEO:"))
    ids = list(talk.ids)
    passes.clear()
    answer = "".join(talk.say("JULIET:"))
    assert passes[0] == 4 and passes.count(128) == 2  # twice, the window moves
    ids += model.encode("\nJULIET:" if talk.ids[: len(ids) + 1] != [*ids, model.encode("J")[0]] else "JULIET:")
    assert answer == model.generate(ids, 250, sliding_window="half")


@given(
    turns=st.lists(st.tuples(st.text("ab \n", max_size=5), st.integers(0, 9), st.booleans()), max_size=6),
    lookahead=st.booleans(),
)
@settings(max_examples=20 * TIMES)
def test_answers_that_were_stopped_anywhere_leave_a_cache_that_is_right(model, turns, lookahead):
    talk = Conversation(model, n_tokens_to_generate=9, lookahead=lookahead)
    for text, n_pieces, retry in turns:
        answer = talk.retry() if retry and talk.n_answers else talk.say(text)
        for _ in zip(range(n_pieces), answer, strict=False):
            pass
        answer.close()
    before, apart = list(talk.ids), "\n" if talk.text and not talk.text.endswith("\n") else ""
    assert "".join(talk.say("x")) == model.generate(before + model.encode(apart + "x"), 9)


def test_a_wrong_guess_at_the_end_of_an_answer_is_forgotten(model):
    kept, how = Kept(), (model.params, 6, 60)
    kv_cache, _ = kept.start([1, 2, 3], *how)
    gpt2.next_logits([9, 9], model.params, 6, kv_cache)  # guesses, and no more tokens were asked for
    kept.ids.append(4)  # the answer
    kv_cache, at = kept.start([1, 2, 3, 4, 5], *how)
    np.testing.assert_allclose(at, gpt2.start([1, 2, 3, 4, 5], *how)[1], atol=1e-4)
    assert kv_cache.length == 5


def test_an_interrupt_within_a_pass_leaves_a_cache_that_is_right(model, monkeypatch):
    kept, how = Kept(), (model.params, 6, 60)
    kept.start([1, 2, 3, 4, 5], *how)
    real = gpt2.transformer_block

    def interrupted(*args, layer=0, **kw):
        if layer == 3:
            raise KeyboardInterrupt
        return real(*args, layer=layer, **kw)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gpt2, "transformer_block", interrupted)
        kept.start([1, 2, 9, 9, 9], *how)
    _, at = kept.start([1, 2, 3, 4, 5], *how)
    np.testing.assert_allclose(at, gpt2.start([1, 2, 3, 4, 5], *how)[1], atol=1e-4)


# lines from a pipe


def conversation(lines: str, *flags: str) -> subprocess.CompletedProcess:
    process = run("--interactive", "-m", "shakespeare", *flags, stdin=lines.encode())
    assert process.returncode == 0
    process.stdout, process.stderr = process.stdout.decode(), process.stderr.decode()
    return process


def test_answers_go_to_stdout_and_all_else_to_stderr(model):
    process = conversation("ROMEO:\n/help\n/set\n/text\n", "-n", "8")
    answer = model.generate("ROMEO:", 8)
    assert process.stdout == f"{answer}\nROMEO:{answer}\n"
    assert process.stderr.startswith(interactive.HELP)
    assert (
        "n_tokens_to_generate 8, lookahead True, sliding_window None, temperature 0.0, top_k 0, top_p 1.0,"
        in process.stderr
    )


def test_a_prompt_is_the_first_line(model):
    answer = model.generate("ROMEO:", 8)
    assert conversation("", "-n", "8", "ROMEO:").stdout == answer + "\n"
    assert conversation("/text", "-n", "8", "ROMEO:").stdout == f"{answer}\nROMEO:{answer}\n"


def test_settings_change_what_follows(model):
    process = conversation(
        "/set temperature 0.8\n/set seed 3\n/set top_k 40\n/set n_tokens_to_generate 12\nROMEO:\n/set"
    )
    assert process.stdout.rstrip("\n") == model.generate("ROMEO:", 12, **DRAWN).rstrip("\n")
    assert "temperature 0.8, top_k 40, top_p 1.0, seed 3" in process.stderr


def test_a_setting_gets_its_default_again(model):
    lines = [
        "/set sliding_window half",
        "/set banned 199",
        "/set banned",
        "/set sliding_window",
        "/set seed",
        "/set temperature",
    ]
    process = conversation("\n".join([*lines, "/set", "ROMEO:"]), "-n", "8", "-s", "1", "-t", "1")
    assert process.stdout == model.generate("ROMEO:", 8) + "\n"
    assert "sliding_window None, temperature 0.0," in process.stderr and "banned ()" in process.stderr


def test_a_filter_alone_draws_as_its_flag_does(model):
    expected = model.generate("ROMEO:", 12, top_k=3, seed=1)
    process = conversation("/set top_k 3\n/set seed 1\nROMEO:\n", "-n", "12")
    assert process.stdout.rstrip("\n") == expected.rstrip("\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/nosuch", "error: unknown command '/nosuch': /help shows all"),
        ("/hepl", "error: unknown command '/hepl': did you mean /help?"),
        ("/", "error: unknown command '/': /help shows all"),
        ("/retry", "error: expected an answer to write again, found none: type a line first"),
        ("/set temprature 1", "error: unknown setting 'temprature': did you mean temperature?"),
        ("/set xyzzy", "error: unknown setting 'xyzzy': /set shows all"),
        ("/set top_k x", "error: --top_k: expected a whole number, found 'x'"),
        ("/set top_p 3", "error: top_p must lie between 0 and 1 (all tokens), found 3.0: try 0.9"),
        ("/set n_tokens_to_generate -1", "error: n_tokens_to_generate must be 0 or more, found -1"),
    ],
)
def test_a_mistake_is_one_line_and_the_conversation_goes_on(model, line, message):
    session = interactive.Session(Conversation(model, n_tokens_to_generate=5))
    errors, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):
        session.turn(line)
        session.turn("ROMEO:")
    assert errors.getvalue() == message + "\n"
    assert out.getvalue() == model.generate("ROMEO:", 5) + "\n"


def test_greedy_text_cannot_be_retried_otherwise(model):
    process = conversation("ROMEO:\n/retry\n", "-n", "5")
    assert process.stderr == "the likeliest text is the same each time: /set temperature 0.8 draws others\n"
    assert process.stdout == 2 * (model.generate("ROMEO:", 5) + "\n")


def test_two_slashes_are_one_in_the_text(model):
    assert conversation("//help\n", "-n", "5").stdout == model.generate("/help", 5) + "\n"


LINES = st.one_of(
    st.text(max_size=12),
    st.builds("/{} {}".format, st.sampled_from(["set", "retry", "new", "text", "help", "se", ""]), st.text(max_size=9)),
    st.builds(
        "/set {} {}".format, st.sampled_from(["seed", "top_k", "top_p", "temperature", "n_tokens_to_generate"]),
        st.integers(-2, 50).map(str) | st.floats().map(str) | st.sampled_from(["True", "x", "", "1 2"]),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return open_model(make_model(tmp_path_factory.mktemp("models")))


@given(st.lists(LINES, max_size=8))
@settings(max_examples=60 * TIMES)
def test_any_lines_are_answered_or_refused_in_a_line(tiny, lines):
    session = interactive.Session(Conversation(tiny, n_tokens_to_generate=4))
    for line in lines:
        errors, out = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):
            session.turn(line)
        assert line.strip().startswith("/help") or errors.getvalue().count("\n") <= 1


@pytest.mark.parametrize("flags", [["--nsamples", "2"], ["--draft_model", "shakespeare"], ["--cache_prompt", "x"]])
def test_flags_that_do_not_go_with_it_are_refused(flags):
    process = run("--interactive", "-m", "nosuch", *flags, stdin=b"")
    assert (process.stdout, process.returncode) == (b"", 2)
    assert f"--interactive: expected no {flags[0]}, found one".encode() in process.stderr


# a terminal

needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


class Terminal:
    """`gpt2.py --interactive` in a pseudo-terminal of its own."""

    def __init__(self, *flags: str):
        import fcntl
        import pty
        import termios

        self.fd, theirs = pty.openpty()
        self.seen = ""
        environment = ENVIRONMENT | {"TERM": "dumb", "INPUTRC": os.devnull}

        def own_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [*COMMAND, "--interactive", "-m", "shakespeare", *flags],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment, preexec_fn=own_terminal,
        )  # fmt: skip
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, text: str) -> str:
        """What is shown, up to a text. It is removed."""
        end = time.monotonic() + 60
        while text not in self.seen and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    data = os.read(self.fd, 4096)
                except OSError:  # the process has ended
                    break
                self.seen += re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|\r", "", data.decode(errors="replace"))
        before, found, self.seen = self.seen.partition(text)
        assert found, f"expected {text!r}, found {before!r}"
        return before

    def ends(self) -> int:
        return self.process.wait(60)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


@pytest.fixture
def terminal():
    open_ones = []

    def start(*flags: str) -> Terminal:
        open_ones.append(Terminal(*flags))
        return open_ones[-1]

    yield start
    for one in open_ones:
        one.close()


@needs_terminal
def test_a_conversation_in_a_terminal(model, terminal):
    t = terminal("-n", "8")
    assert interactive.WELCOME in t.until("> ")
    t.type("ROMEX\x7fO:\n")  # a mistake, and backspace
    first = model.generate("ROMEO:", 8)
    assert t.until("\n> ").endswith(f"O:\n{first}")
    t.type("\x1b[A\n")  # the last line again
    apart = "" if first.endswith("\n") else "\n"
    ids = model.encode("ROMEO:") + list(model.generate_ids("ROMEO:", 8)) + model.encode(f"{apart}ROMEO:")
    assert t.until("\n> ").endswith(f"ROMEO:\n{model.generate(ids, 8)}")
    t.type("/set temperatur 1\n")
    assert "error: unknown setting 'temperatur': did you mean temperature?" in t.until("> ")
    t.type("\x04")
    assert t.ends() == 0


@needs_terminal
def test_ctrl_c_stops_an_answer_and_the_next_line_is_answered(terminal):
    t = terminal("-n", "250", "-t", "1", "--nolookahead")
    t.until("> ")
    t.type("ROMEO:\n")
    t.until("ROMEO:\n")
    t.until("\n")  # the answer has begun
    t.type("\x03")
    t.until("> ")
    t.type("/set n_tokens_to_generate 3\n")
    t.until("> ")
    t.type("/set\n")
    assert "n_tokens_to_generate 3," in t.until("> ")
    t.type("/text\n")
    text = t.until("> ").removeprefix("/text\n")
    assert text.startswith("ROMEO:\n") and 7 < len(text) < 700
    t.type("a line that is forgotten\x03")
    t.until("> ")
    t.type("\x04")
    assert t.ends() == 0


@needs_terminal
def test_a_terminal_whose_output_goes_elsewhere_gets_the_mark_alone(tmp_path, model):
    import pty

    ours, theirs = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, "--interactive", "-m", "shakespeare", "-n", "8"],
            stdin=theirs, stdout=out, stderr=subprocess.PIPE, env=ENVIRONMENT,
        )  # fmt: skip
    os.write(ours, b"ROMEO:\n\x04")
    assert process.wait(60) == 0
    assert (tmp_path / "out").read_text() == model.generate("ROMEO:", 8) + "\n"
    assert process.stderr.read() == b"> > "
    process.stderr.close()
    os.close(ours), os.close(theirs)


@needs_terminal
def test_a_signal_ends_it(terminal):
    t = terminal("-n", "8")
    t.until("> ")
    t.process.send_signal(signal.SIGTERM)
    assert t.ends() == -signal.SIGTERM
