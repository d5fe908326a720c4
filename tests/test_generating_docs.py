"""docs/generating.md: what it shows is what is printed."""

from __future__ import annotations

import doctest
import re
import shlex

import pytest

from picogpt.commands import cli, generate
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "generating.md").read_text(encoding="utf-8")
SECTIONS = ("From logits to a token", "Where a text ends", "All that is known of a text")
TEXT = "".join(part for part in PAGE.split("\n## ") if part.startswith(SECTIONS))
COMMANDS = [block.split("\n", 1) for block in re.findall(r"(?ms)^\$ (picogpt .*?\n(?:.*?))(?=^\$ |^```)", TEXT)]


def test_the_examples_in_python(monkeypatch):
    monkeypatch.chdir(ROOT)
    snippets = re.findall(r"(?s)```python\n(.*?)```", TEXT)
    test = doctest.DocTestParser().get_doctest("\n".join(snippets), {}, "generating", "docs/generating.md", 0)
    assert len(test.examples) > 8
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize(("command", "printed"), COMMANDS)
def test_the_examples_of_the_shell(command, printed, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    cli.run(generate.main, shlex.split(command.replace(r"$'\n\n'", "'\n\n'"))[1:])
    found = capsys.readouterr().out
    if "--json" in command:
        found, printed = (comparable(text) for text in (found, printed))
    assert found == printed


def comparable(text):
    """Without timings, which are never the same, and with numbers as exact as every processor gives them."""
    rounded = re.sub(r"-?\d+\.\d{4,}", lambda number: f"{float(number[0]):.4f}", text)
    return re.sub(r'"timings": .*', "", rounded)


def test_there_are_examples():
    assert len(COMMANDS) > 10
