"""Prompts of different lengths in one batch: each goes on as if it were alone, and a run can be taken up again."""

import json
import subprocess
import sys

import numpy as np
import pytest

from picogpt import gpt2, utils
from picogpt.decoding import batch
from picogpt.weights import store
from tests.helpers import ENVIRONMENT, ROOT, SHAKESPEARE, TINY

HPARAMS = TINY | {"n_ctx": 120}
N_HEAD = HPARAMS["n_head"]
PROMPTS = [np.random.default_rng(n).integers(0, 1024, n).tolist() for n in (3, 1, 40, 7, 7, 2, 100, 5, 1)]
DRAWN = {"temperature": 1.0, "top_k": 50, "seed": 4}


@pytest.fixture(scope="module")
def params():
    return store.nested(dict(store.random_tensors(HPARAMS, seed=0, std=0.2)))


def alone(params, n, **how):
    return [list(gpt2.generate(prompt, params, N_HEAD, n, **how)) for prompt in PROMPTS]


def together(params, n, **how):
    return list(batch.in_order(batch.generate(PROMPTS, params, N_HEAD, n, **how)))


@pytest.mark.parametrize("batch_size", [1, 2, 4, 16])
@pytest.mark.parametrize("how", [{}, DRAWN], ids=["greedy", "drawn"])
def test_each_prompt_goes_on_as_if_it_were_alone(params, batch_size, how):
    assert together(params, 20, batch_size=batch_size, **how) == alone(params, 20, **how)


@pytest.mark.parametrize("n", [1, 2])
def test_short_texts(params, n):
    assert together(params, n) == alone(params, n)


def test_texts_end_at_the_stop_token_and_make_room(params):
    free = alone(params, 20, **DRAWN)
    for stop_id in (free[0][0], free[2][5], free[6][19]):
        assert together(params, 20, batch_size=3, stop_id=stop_id, **DRAWN) == alone(
            params, 20, stop_id=stop_id, **DRAWN
        )


def test_no_position_is_computed_for_padding(params, monkeypatch):
    positions = []
    for module in (batch, gpt2):
        real = gpt2.hidden_states
        monkeypatch.setattr(
            module, "hidden_states", lambda x, real=real, **kw: positions.append(x.size) or real(x, **kw)
        )
    together(params, 20, batch_size=4)
    assert sum(positions) == sum(map(len, PROMPTS)) + len(PROMPTS) * 19


def test_a_tie_is_decided_by_the_row_alone(params, monkeypatch):
    monkeypatch.setattr(batch, "too_close", lambda row: True)
    assert together(params, 20) == alone(params, 20)


# the command


def run(*arguments):
    command = [sys.executable, "-m", "picogpt.batch", *map(str, arguments), "--model_size", "shakespeare"]
    return subprocess.run(command, capture_output=True, cwd=ROOT, env=ENVIRONMENT)


def expected(prompts, n):
    encoder, hparams, params = utils.load_encoder_hparams_and_params("shakespeare", SHAKESPEARE.parent)
    for prompt in prompts:
        ids = encoder.encode(prompt) or encoder.start_of_text()
        text = encoder.decode(gpt2.generate(ids, params, hparams["n_head"], n))
        yield {"prompt": prompt, "text": text}


LINES = ["ROMEO:", "To be, or not to be", "", "JULIET: my lord", "  x", "é"]


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def test_one_line_each_in_order(prompts_file):
    process = run("--input_file", prompts_file, "--n_tokens_to_generate", 12, "--batch_size", 2)
    assert list(map(json.loads, process.stdout.splitlines())) == list(expected(LINES, 12))
    assert (process.stderr, process.returncode) == (b"", 0)


def test_jsonl_takes_strings_and_objects(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('"two\\nlines"\n{"prompt": "ROMEO:", "other": 1}\n')
    process = run(path, "--n_tokens_to_generate", 5)
    assert list(map(json.loads, process.stdout.splitlines())) == list(expected(["two\nlines", "ROMEO:"], 5))


@pytest.mark.parametrize("n_bytes", [0, 1, 40, 60, 150, 10_000])
def test_an_interrupted_run_is_taken_up_where_it_stopped(tmp_path, prompts_file, n_bytes):
    out = tmp_path / "texts.jsonl"
    arguments = (prompts_file, "--output_file", out, "--n_tokens_to_generate", 6)
    assert run(*arguments).stdout == b""
    whole = out.read_bytes()
    assert list(map(json.loads, whole.splitlines())) == list(expected(LINES, 6))
    out.write_bytes(whole[:n_bytes])
    assert run(*arguments).returncode == 0
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "cannot read the prompts: No such file"),
        ("bad.jsonl", '"one"\n{"prompt": ', "bad.jsonl, line 2: expected JSON"),
        ("bad.jsonl", '{"text": "x"}', 'line 1: expected a string or {"prompt": a string}, found {"text": "x"}'),
        ("long.txt", "short\n" + "word " * 300, "long.txt, line 2: the model sees 256 tokens"),
    ],
)
def test_a_bad_file_is_told_with_its_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    process = run(tmp_path / name)
    assert (process.returncode, process.stdout, process.stderr.count(b"\n")) == (2, b"", 1)
    assert message in process.stderr.decode()


def test_the_texts_of_other_prompts_are_not_overwritten(tmp_path, prompts_file):
    out = tmp_path / "texts.jsonl"
    out.write_text('{"prompt": "something else", "text": "dear to me"}\n')
    process = run(prompts_file, "--output_file", out)
    assert process.returncode == 2
    assert b"choose another output_file" in process.stderr
    assert "dear to me" in out.read_text()
