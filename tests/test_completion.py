"""What is known of a text: its tokens, their log-probabilities, why it ended, its seed, how long it took."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import picogpt
from picogpt import gpt2
from picogpt.commands import batch, cli, generate
from picogpt.decoding.completion import MOST_ALTERNATIVES, log_softmax
from picogpt.errors import UserError
from tests.fuzz import TIMES
from tests.helpers import SHAKESPEARE, run
from tests.test_front_door import ends

DRAWN = {"temperature": 0.9, "top_k": 40, "seed": 3}


@pytest.fixture(scope="module")
def model():
    return picogpt.load("shakespeare", SHAKESPEARE.parent)


def same(one, other):
    """Equal but for how long they took, and for the last digits."""
    assert (one.text, one.ids, one.finish_reason, one.seed) == (other.text, other.ids, other.finish_reason, other.seed)
    assert np.allclose(one.logprobs, other.logprobs, atol=1e-4)
    return True


@pytest.mark.parametrize("how", [{}, DRAWN], ids=["greedy", "drawn"])
def test_a_completion_is_the_text_that_is_generated_with_its_ids(model, how):
    done = model.complete("ROMEO:", 20, **how)
    assert done.text == model.generate("ROMEO:", 20, **how) == model.decode(done.ids)
    assert done.ids == list(model.generate_ids("ROMEO:", 20, **how))
    assert (done.finish_reason, done.seed, done.top_logprobs) == ("length", how.get("seed"), None)


@pytest.mark.parametrize("how", [{}, DRAWN | {"repetition_penalty": 1.5}], ids=["greedy", "drawn"])
def test_log_probabilities_are_those_of_the_model_whatever_the_settings(model, how):
    done = model.complete("ROMEO:", 15, logprobs=3, **how)
    prompt = model.encode("ROMEO:")
    expected = log_softmax(model.logits(prompt + done.ids).astype(np.float64))[len(prompt) - 1 : -1]
    assert np.allclose(done.logprobs, expected[range(15), done.ids], atol=1e-4)
    for at, found in zip(expected, done.top_logprobs, strict=True):
        assert [token.id for token in found] == np.argsort(-at)[:3].tolist()
        assert np.allclose([token.logprob for token in found], np.sort(at)[::-1][:3], atol=1e-4)
        assert [token.text for token in found] == [model.decode([token.id]) for token in found]


def test_a_stop_string_ends_the_ids_with_the_token_it_begins_in(model):
    free = model.complete("ROMEO:", 20)
    for start, end in ((7, 13), (8, 11), (9, 13), (14, 17), (15, 20), (1, 2)):
        stop = free.text[start:end]
        done = model.complete("ROMEO:", 20, stop=stop, logprobs=1)
        assert done.finish_reason == "stop"
        assert done.text == free.text[: free.text.index(stop)]
        assert model.decode(done.ids).startswith(done.text)
        assert len(model.decode(done.ids[:-1])) < len(done.text) or not done.ids
        assert done.ids == free.ids[: len(done.ids)]
        assert len(done.ids) == len(done.logprobs) == len(done.top_logprobs)


def test_a_text_that_the_model_ends(model):
    ending = ends(model)
    found = [ending.complete("x", 5), *ending.complete_samples("x", 2, 5), *ending.complete_many(["x", "y"], 5)]
    assert {(text.text, text.finish_reason, tuple(text.ids)) for text in found} == {("", "end_of_text", ())}


def test_no_tokens(model):
    found = [model.complete("x", 0), *model.complete_samples("x", 2, 0), *model.complete_many(["x", "y"], 0)]
    assert {(text.text, text.finish_reason, tuple(text.ids)) for text in found} == {("", "length", ())}


@pytest.mark.parametrize("how", [{}, DRAWN], ids=["greedy", "drawn"])
def test_samples_and_rows_of_a_batch_are_completed_as_each_alone(model, how):
    how = how | {"stop": [".", "\n\n"]}
    prompts = ["ROMEO:", "JULIET:", "To be", "What"]
    alone = [model.complete(prompt, 12, **how) for prompt in prompts]
    assert {text.finish_reason for text in alone} == {"stop", "length"}
    together = list(model.complete_many(prompts, 12, batch_size=2, **how))
    assert all(same(one, other) for one, other in zip(together, alone, strict=True))
    samples = model.complete_samples("ROMEO:", 3, 12, **how)
    assert same(samples[0], alone[0])


def test_a_seed_is_chosen_and_reported_so_that_the_text_can_be_had_again(model):
    one, other = (model.complete("ROMEO:", 10, temperature=1.0) for _ in range(2))
    assert one.seed != other.seed
    assert same(model.complete("ROMEO:", 10, temperature=1.0, seed=one.seed), one)
    rows = list(model.complete_many(["ROMEO:"] * 4, 10, temperature=1.0))
    assert len({row.text for row in rows}) > 1, "the same prompt four times"
    for row in rows:
        assert same(model.complete("ROMEO:", 10, temperature=1.0, seed=row.seed), row)
    samples = model.complete_samples("ROMEO:", 3, 10, temperature=1.0)
    again = model.complete_samples("ROMEO:", 3, 10, temperature=1.0, seed=samples[0].seed)
    assert [text.text for text in again] == [text.text for text in samples]
    assert model.complete("x", 1).seed is None


def test_pieces_come_as_they_are_known(model, monkeypatch):
    passes = []
    real = gpt2.hidden_states
    monkeypatch.setattr(gpt2, "hidden_states", lambda x, **kw: passes.append(1) or real(x, **kw))
    free = [model.decode([token_id]) for token_id in model.complete("ROMEO:", 8).ids]
    assert list(model.complete_stream("ROMEO:", 8)) == free
    running = model.complete_stream("ROMEO:", 8, stop="".join(free[1:]) + " x")
    with pytest.raises(UserError, match="expected a text that is complete"):
        running.completion  # noqa: B018
    passes.clear()
    assert (next(running), len(passes)) == (free[0], 1)
    pieces = [free[0], *running]
    assert pieces == [free[0], "".join(free[1:])], "held back while it may be the stop string"
    assert running.completion.text == "".join(pieces)
    assert same(running.completion, model.complete("ROMEO:", 8))


def test_timings_are_in_order(model):
    times = model.complete("ROMEO:", 5).timings
    assert 0 < times.first_token < times.total and times.tokens_per_second > 0
    assert model.complete("ROMEO:", 1).timings.tokens_per_second is None


def test_a_completion_cannot_be_changed(model):
    with pytest.raises(AttributeError):
        model.complete("ROMEO:", 1).text = ""


@pytest.mark.parametrize("wrong", [-1, 1.5, "2", MOST_ALTERNATIVES + 1])
def test_a_wrong_number_of_alternatives_is_refused(model, wrong):
    calls = (
        lambda: model.complete("x", logprobs=wrong),
        lambda: model.complete_samples("x", 2, logprobs=wrong),
        lambda: model.complete_many(["x"], logprobs=wrong),
    )
    for call in calls:
        with pytest.raises(UserError, match="logprobs must be a whole number from 0 to"):
            call()


def test_more_alternatives_than_tokens_are_all_tokens(model):
    small = picogpt.Model(model.encoder, model.hparams, model.params)
    assert [len(at) for at in small.complete("ROMEO:", 2, logprobs=1000).top_logprobs] == [1000, 1000]


FIELDS = ["text", "ids", "logprobs", "finish_reason", "seed", "timings"]


def test_the_command_prints_an_object_for_each_text(model):
    command = ["ROMEO:", "-m", "shakespeare", "-n", "12", "--json"]
    process = run(*command, "--logprobs", "2")
    [found] = map(json.loads, process.stdout.decode("ascii").splitlines())
    expected = model.complete("ROMEO:", 12, logprobs=2).as_dict()
    assert process.stderr == b"" and list(found) == list(expected)
    assert found["top_logprobs"][0][0].keys() == {"id", "text", "logprob"}
    assert {**found, "timings": 0} == {**json.loads(json.dumps(expected)), "timings": 0}
    drawn = ["--nsamples", "3", "-t", "1", "-s", "3", "--stop", "e"]
    found = [json.loads(line) for line in run(*command, *drawn).stdout.decode("ascii").splitlines()]
    expected = model.complete_samples("ROMEO:", 3, 12, temperature=1.0, seed=3, stop="e")
    assert [list(line) for line in found] == [FIELDS] * 3
    assert [(line["text"], line["ids"], line["finish_reason"], line["seed"]) for line in found] == [
        (text.text, text.ids, text.finish_reason, 3) for text in expected
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--logprobs", "2"], "logprobs: expected --json, which shows them, found none: add it"),
        (["--json", "--logprobs", "-1"], "logprobs must be 0 or more, found -1"),
        (["--json", "--logprobs", "1001"], "logprobs must be a whole number from 0 to 1000, found 1001"),
        (["--interactive", "--json"], "--interactive: expected no --json, found one"),
    ],
)
def test_a_mistake_costs_one_line(words, message):
    process = run("x", "-m", "nowhere", *words, stdin=b"")
    assert (process.returncode, process.stdout, process.stderr.count(b"\n")) == (2, b"", 1)
    assert message in process.stderr.decode()


# a batch


def batch_lines(path, *words):
    cli.run(batch.main, [str(path), "-m", str(SHAKESPEARE), "-n", "12", *words])


def test_lines_of_a_batch_have_the_same_fields(model, tmp_path, capsys):
    path = tmp_path / "prompts.txt"
    path.write_text("ROMEO:\nJULIET:\nROMEO:\n")
    batch_lines(path, "--json", "--logprobs", "1", "--stop", ",")
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, prompt in zip(found, ["ROMEO:", "JULIET:", "ROMEO:"], strict=True):
        expected = model.complete(prompt, 12, stop=",", logprobs=1)
        assert list(line) == ["prompt", *expected.as_dict()]
        assert (line["prompt"], line["text"], line["ids"]) == (prompt, expected.text, expected.ids)
        assert line["finish_reason"] == expected.finish_reason
        assert np.allclose(line["logprobs"], expected.logprobs, atol=1e-4)


def test_a_batch_that_is_resumed_keeps_the_fields(tmp_path, capsys):
    path, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    path.write_text("ROMEO:\nJULIET:\nROMEO:\n")
    how = {"-o": str(out), "-t": "1", "-s": "1", "--stop": "e", "--json": "True"}

    def go(**changed):
        flags = how | {f"--{name}": value for name, value in changed.items()}
        batch_lines(path, *(f"{name}={value}" for name, value in flags.items()))

    go()
    whole = [json.loads(line)["ids"] for line in out.read_bytes().splitlines()]
    journal = tmp_path / "out.jsonl.run"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]))  # as if it had been stopped after one text
    out.write_bytes(b"")
    go()
    assert [json.loads(line)["ids"] for line in out.read_bytes().splitlines()] == whole
    for changed in ({"stop": "x"}, {"logprobs": "2"}, {"json": "False"}, {"top_k": "3"}):
        with pytest.raises(UserError, match=f"expected --{next(iter(changed))} .* as in the earlier run"):
            go(**changed)


# any flags

number = st.integers(-2, 60).map(str) | st.floats(-0.5, 2).map("{:.3f}".format)
FLAGS = [
    "temperature", "top_k", "top_p", "seed", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size",
    "banned", "logprobs", "nsamples", "n_tokens_to_generate", "num_beams", "length_penalty",
]  # fmt: skip
words = st.one_of(
    st.builds("--{}={}".format, st.sampled_from(FLAGS), number),
    st.builds("--logit_bias={}={}".format, number, number),
    st.builds("--stop={}".format, st.text("eo I\n", max_size=3)),
    st.sampled_from(["--json", "--nolookahead", "--sliding_window=half", "--draft_model=shakespeare"]),
)


@settings(max_examples=40 * TIMES)
@given(st.sets(words, max_size=5))
def test_any_flags_give_a_text_or_one_line(flags):
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        try:
            cli.run(generate.main, ["ROMEO:", "-m", "shakespeare", *flags])
        except UserError as error:
            assert str(error).isprintable() and out.getvalue() == ""
        else:
            assert out.getvalue().endswith("\n")
            assert "--json" not in flags or all(map(json.loads, out.getvalue().splitlines()))


def test_a_text_with_edits_is_completed_as_well(model):
    how = {"repetition_penalty": 1.4, "stop": "the", "edit": {"h0.attn.z": lambda x: x}}
    plain = {name: value for name, value in how.items() if name != "edit"}
    assert same(model.complete("ROMEO:", 12, **how), model.complete("ROMEO:", 12, **plain))
