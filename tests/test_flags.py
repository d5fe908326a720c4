"""Ways to generate, from the command line: what they print, and that no flags together end in a traceback."""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import picogpt
from picogpt import utils
from picogpt.commands import cli, generate
from picogpt.errors import UserError
from tests.fuzz import TIMES
from tests.helpers import COMMAND, ENVIRONMENT, ROOT, SHAKESPEARE, run


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


def out(*flags: str) -> str:
    process = run(*flags, "-m", "shakespeare")
    assert (process.stderr, process.returncode) == (b"", 0)
    return process.stdout.decode()


def test_beams(model):
    found = model.beam_search("JULIET:", 8, num_beams=4, nsamples=2)
    flags = ["JULIET:", "-n", "8", "--num_beams", "4"]
    assert out(*flags) == found[0].text + "\n"
    line = "=" * 40
    assert out(*flags, "--nsamples", "2") == "".join(
        f"{line} SAMPLE {i} SCORE {text.score:.4f} {line}\n{text.text}\n".replace(f"SAMPLE {i}", f"SAMPLE {i},")
        for i, text in enumerate(found, start=1)
    )
    lines = [json.loads(text) for text in out(*flags, "--nsamples", "2", "--json").splitlines()]
    assert lines == [{"text": t.text, "ids": t.ids, "score": t.score, "finish_reason": "length"} for t in found]
    [short] = model.beam_search("JULIET:", 8, num_beams=4, length_penalty=-2, repetition_penalty=1.5)
    assert out(*flags, "--length_penalty", "-2", "--repetition_penalty", "1.5") == short.text + "\n"


def test_a_sliding_window(model):
    flags = ["LEONTES:", "-n", "260", "--sliding_window", "half"]
    text = model.generate("LEONTES:", 260, sliding_window="half")
    assert out(*flags) == text + "\n"
    assert json.loads(out(*flags, "--json"))["text"] == text
    process = run(*flags[:3], "-m", "shakespeare")
    assert process.returncode == 2 and b"or go on past them with --sliding_window half" in process.stderr


MISTAKES = [
    ("--num_beams 0", "num_beams must be a whole number, 1 or more, found 0: try 4"),
    ("--num_beams 3 --nsamples 4", "nsamples must be a whole number from 1 to num_beams, 3, found 4"),
    ("--num_beams 3 -t 1", "num_beams: expected greedy text, found settings for a draw"),
    ("--num_beams 600", "num_beams: expected at most half the vocabulary, 512, found 600"),
    ("--length_penalty 2", "length_penalty: expected --num_beams"),
    ("--num_beams 2 --length_penalty 99", "length_penalty must lie between -10 and 10, found 99.0"),
    ("--num_beams 2 --stop x", "--num_beams: expected no --stop, found one: leave one of the two out"),
    ("--num_beams 2 --json --logprobs 2", "--num_beams: expected no --logprobs, found one"),
    ("--num_beams 2 --draft_model shakespeare", "--num_beams: expected no --draft_model, found one"),
    ("--num_beams 2 --sliding_window crop", "--num_beams: expected no --sliding_window, found one"),
    ("--sliding_window full", "--sliding_window: expected crop or half, found 'full'"),
    ("--sliding_window half --draft_model shakespeare", "--sliding_window: expected no --draft_model, found one"),
    ("--interactive --num_beams 2", "--interactive: expected no --num_beams, found one"),
    ("--interactive --json", "--interactive: expected no --json, found one"),
    ("--cache_prompt /nosuch/x", "expected a directory /nosuch, found none"),
]


def attempt(words: list[str], opened: list[str]) -> tuple[str, str]:
    """What a command line prints, and its error."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        real = utils.load_params
        patch.setattr(utils, "load_params", lambda *how: opened.append("weights") or real(*how))
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a line\n/retry\n")))
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                cli.run(generate.main, [*words, "-m", "shakespeare", "-d", str(SHAKESPEARE.parent)])
            except UserError as error:
                return printed.getvalue(), str(error)
    return printed.getvalue(), ""


@pytest.mark.parametrize(("flags", "message"), MISTAKES)
def test_a_mistake_is_refused_before_the_weights_are_opened(flags, message):
    opened: list[str] = []
    printed, error = attempt(["ROMEO:", *flags.split()], opened)
    assert (printed, opened) == ("", []) and message in error


FLAGS = {
    "-n": ["0", "3", "300", "-1"],
    "-t": ["0", "0.7", "-1", "1e39"],
    "-k": ["0", "5"],
    "--top_p": ["0.5", "2"],
    "--min_p": ["0.1"],
    "--typical_p": ["0.5"],
    "-s": ["1"],
    "--nsamples": ["1", "2", "0"],
    "--stop": ["\n", ""],
    "--repetition_penalty": ["1.3", "0"],
    "--no_repeat_ngram_size": ["1", "2"],
    "--banned": ["199", "5000"],
    "--logit_bias": ["199=-5", "x"],
    "--logprobs": ["2"],
    "--num_beams": ["1", "2", "700"],
    "--length_penalty": ["0.5"],
    "--sliding_window": ["crop", "half", "x"],
    "--draft_model": ["shakespeare"],
    "--prompt_file": ["/nosuch"],
    "--json": [], "--interactive": [], "--nolookahead": [],
}  # fmt: skip


@given(st.data(), st.sampled_from(["ROMEO:", "", "é\udce9 <|endoftext|>", "word " * 300]))
@settings(max_examples=150 * TIMES)
def test_any_flags_together_give_text_or_one_line(data, prompt):
    names = data.draw(st.lists(st.sampled_from(sorted(FLAGS)), max_size=4, unique=True))
    words = [
        word for name in names for word in (name, *([data.draw(st.sampled_from(FLAGS[name]))] if FLAGS[name] else []))
    ]
    opened: list[str] = []
    printed, error = attempt([*words, *([] if "-n" in names else ["-n", "4"]), "--", prompt], opened)
    if error:
        assert error.isprintable() and (printed, opened) == ("", [])
    else:
        assert opened == ["weights"] * (2 if "--draft_model" in names else 1) or "-n" in names


# docs/generating.md: tests/test_generating_docs.py runs the sections before these

SECTIONS = ("Beam search", "Longer than the context", "A conversation", "A prompt kept on disk", "In scripts")
PAGE = (ROOT / "docs" / "generating.md").read_text(encoding="utf-8").split("\n## ")


def test_every_section_is_there():
    assert [part.partition("\n")[0] for part in PAGE[-len(SECTIONS) :]] == [*SECTIONS]


def test_the_examples_in_python(model, monkeypatch):
    monkeypatch.chdir(ROOT)
    snippets = [snippet for part in PAGE[-len(SECTIONS) :] for snippet in re.findall(r"(?s)```python\n(.*?)```", part)]
    test = doctest.DocTestParser().get_doctest("\n".join(snippets), {"model": model}, "generating", None, 0)
    assert len(test.examples) >= 6
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("part", PAGE[-len(SECTIONS) :], ids=SECTIONS)
def test_the_examples_of_the_shell(part, tmp_path):
    start = shlex.join(COMMAND)
    shown = [block for block in re.findall(r"(?ms)^```\n(\$ .*?)^```", part) if "--interactive" not in block]
    assert shown or part.startswith("A conversation")
    for command, printed in (
        found for block in shown for found in re.findall(r"(?ms)^\$ (.*?)\n(.*?)(?=^\$ |\Z)", block)
    ):
        if "tail" in command:
            continue  # tests/test_window.py generates a thousand tokens
        script = f'picogpt() {{ {start} "$@"; }}\npython() {{ {shlex.quote(sys.executable)} "$@"; }}\n{command}'
        environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
        process = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert process.stdout + process.stderr.replace("gpt2.py: error", "picogpt: error") == printed
