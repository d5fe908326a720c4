"""`python -m picogpt.addition`: sums as data, and a model that learns to add them."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import picogpt
from picogpt.commands import addition as command
from picogpt.commands import cli
from picogpt.errors import UserError
from picogpt.training import addition, picture
from picogpt.training.data import IGNORED
from tests.helpers import ENVIRONMENT, ROOT

TINY = ["--n_layer", "1", "--n_head", "1", "--n_embd", "8", "--steps", "4", "--evaluate_every", "2"]


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(picture, "draw", lambda run: None)
    return tmp_path


def run(*words: str) -> None:
    cli.run(command.main, list(words))


@pytest.mark.parametrize(("n_digits", "part"), [(1, 0.1), (1, 0.5), (2, 0.1)])
def test_each_sum_is_trained_on_or_held_out_and_its_mirror_with_it(n_digits, part):
    train, test = (set(map(tuple, pairs.tolist())) for pairs in addition.split(n_digits, part, seed=3))
    assert not train & test
    assert train | test == set(product(range(10**n_digits), repeat=2))
    assert {(b, a) for a, b in test} == test
    assert len(test) == pytest.approx(100**n_digits * part, rel=0.2)
    assert test != set(map(tuple, addition.split(n_digits, part, seed=4)[1].tolist()))


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1), st.booleans())
def test_the_result_and_its_end_are_what_counts(pairs, reverse):
    data, encoder = addition.examples(np.array(pairs), 2, reverse), addition.encoder()
    assert data.inputs.shape == data.targets.shape == (len(pairs), len("99+99=198"))
    for (a, b), inputs, targets in zip(pairs, data.inputs, data.targets, strict=True):
        result = str(a + b)[::-1] if reverse else str(a + b)
        text = f"{a}+{b}={result}<|endoftext|>"
        assert encoder.decode(inputs).startswith(text[: len("99+99=198")].split("<")[0])
        assert encoder.decode(targets[targets != IGNORED]) == f"{result}<|endoftext|>"
        first = int(np.flatnonzero(targets != IGNORED)[0])
        assert encoder.decode(inputs[: first + 1]) == f"{a}+{b}="


def test_a_sum_is_right_if_generation_gives_it(directory, capsys):
    run(
        "--output_dir",
        "out",
        "--digits",
        "1",
        "--held_out",
        "0.5",
        *TINY[:6],
        "--steps",
        "60",
        "--batch_size",
        "32",
        "--n_threads",
        "1",
    )
    model = picogpt.load("./out")
    _, pairs = addition.split(1, 0.5, seed=0)
    right = addition.right(addition.examples(pairs, 1), model.params, 1)
    generated = [model.generate(f"{a}+{b}=", 4) == str(a + b) for a, b in pairs.tolist()]
    assert right.tolist() == generated and 0 < sum(generated) < len(generated)


def test_it_learns_to_add(directory, capsys):
    run("--output_dir", "out", "--reverse", "--steps", "800", "--n_threads", "2")
    summary = capsys.readouterr().out.splitlines()
    right, _, total = next(line for line in summary if "sums that it has not seen" in line).split()[:3]
    assert int(total) == len(addition.split(2, 0.1, seed=0)[1])
    assert int(right) >= 0.97 * int(total)
    model = picogpt.load("./out")
    unseen = addition.split(2, 0.1, seed=0)[1][::50].tolist()
    answers = [model.generate(f"{a}+{b}=")[::-1] for a, b in unseen]
    assert sum(int(answer) == a + b for answer, (a, b) in zip(answers, unseen, strict=True)) >= len(unseen) - 2


def test_a_stopped_run_goes_on(directory, capsys):
    run("--output_dir", "out", "--digits", "1", *TINY)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["step 2", "step 4"]
    run("--output_dir", "out", "--resume")
    assert "sums that it has not seen" in capsys.readouterr().out
    with pytest.raises(UserError, match="--digits: expected 1, with which the run"):
        run("--output_dir", "out", "--resume", "--digits", "2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --output_dir, found none"),
        (["--output_dir", "out", "--digits", "4"], "digits must be 1 to 3, found 4"),
        (["--output_dir", "out", "--digits", "0"], "digits must be 1 to 3, found 0"),
        (["--output_dir", "out", "--held_out", "0"], "held_out must lie between 0 and 1"),
        (["--output_dir", "out", "--held_out", "0.0000001"], "held_out must lie between 0 and 1"),
        (["--output_dir", "out", "--n_ctx", "8"], "n_ctx must be 9 or more for a sum of 2 digits, found 8"),
        (["--output_dir", "out", "--n_head", "3"], "n_head to divide"),
    ],
)
def test_mistakes_cost_one_line_and_write_nothing(directory, words, message):
    with pytest.raises(UserError, match=message) as caught:
        run(*words)
    assert "\n" not in str(caught.value) and not list(directory.iterdir())


def test_help_shows_its_own_defaults():
    words = [sys.executable, "-m", "picogpt.addition", "--help"]
    page = subprocess.run(words, capture_output=True, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, timeout=60).stdout
    assert b"(default: 256)" in page and b"(default: 0.004)" in page and b"--seed N" in page
