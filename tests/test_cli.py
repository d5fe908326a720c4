"""Command lines: how words are parsed, which are refused and how, and the help page."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import picogpt
from picogpt import gpt2, utils
from picogpt.commands import arguments, cli, generate, help
from picogpt.errors import UserError
from picogpt.sampling import Sampling
from tests.fuzz import TIMES
from tests.helpers import (
    ENVIRONMENT,
    ROOT,
    SHAKESPEARE,
    TINY,
    make_model,
    make_scripted_model,
    run,
    vocabulary_dir,
    write_small_files,
)

SMALL = ["--model_size", "shakespeare", "--n_tokens_to_generate", "8"]
FLAGS = arguments.flags_of(generate.main)
DEFAULTS = {name: p.default for name, p in inspect.signature(generate.main).parameters.items()}


def parsed(*words: str, like=generate.main) -> dict:
    """The arguments that a function like `main` gets for a command line."""
    seen: list[dict] = []

    def record(**values):
        seen.append(values)

    record.__signature__ = inspect.signature(like, eval_str=True)
    cli.run(record, list(words))
    [values] = seen
    return values


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as error:
        parsed(*words)
    return str(error.value)


def continuation(prompt: str, n: int = 8, **settings) -> bytes:
    """What the command should print, computed by the library."""
    encoder, hparams, params = utils.load_encoder_hparams_and_params("shakespeare", SHAKESPEARE.parent)
    ids = encoder.encode(prompt) or [encoder.end_of_text]
    ids = gpt2.generate(ids, params, hparams["n_head"], n, sampling=Sampling(**settings))
    return encoder.decode(ids).encode() + b"\n"


def assert_refused(process, *words: str, name: str = "gpt2.py") -> None:
    """One line on stderr with these words, nothing on stdout, status 2."""
    message = process.stderr.decode()
    assert (process.stdout, process.returncode) == (b"", 2), message
    assert message.startswith(f"{name}: error: ")
    assert message.count("\n") == 1
    for word in words:
        assert word in message


# prompts

TEXTS = [
    "ROMEO:", "", "[1, 2]", "{'a': 1}", "(1,)", "42", "1e5", "1_000", "True", "None", "a=b", "foo # bar",
    "hello, world", "'quoted'", '"', "--", "-", "---", "- item", "-1", "-1.5e3", "-.5", "--no such flag", "-- --help",
    "--é", "—seed", "\\n", "line\nbreak", "\n", " ", "é👍", "\x00", "\ud800", "caf\udce9 \udcff", "<|endoftext|>",
    "x" * 1000,
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_is_taken_literally(text):
    assert parsed(text) == parsed("--prompt", text) == parsed(f"--prompt={text}") == {"prompt": text}
    assert parsed(text, "-n", "3") == parsed("-n", "3", text) == {"prompt": text, "n_tokens_to_generate": 3}


@pytest.mark.parametrize(
    "text", [*TEXTS, "--help", "-h", "--help me", "--seed", "--seed=1", "-x", "--nolookahead", "-ab"]
)
def test_whatever_follows_two_dashes_at_the_end_is_a_text(text):
    assert parsed("--", text) == {"prompt": text}
    assert parsed("-s", "3", "--", text) == {"prompt": text, "sampling": Sampling(seed=3)}


@pytest.mark.parametrize("text", ["[1, 2]", "--", "-- --help", "foo # bar", "é👍 '\"$x\n"])
def test_a_prompt_reaches_the_model_unchanged(text):
    process = run(text, *SMALL)
    assert (process.stdout, process.stderr, process.returncode) == (continuation(text), b"", 0)


def test_an_empty_text_starts_a_new_one():
    assert run("", *SMALL).stdout == continuation("")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no bytes in its arguments")
def test_undecodable_bytes_reach_the_model_as_those_bytes(tmp_path):
    model = picogpt.load(make_model(tmp_path))  # random weights: a trained model has not learnt what the bytes mean
    texts = [model.generate(start + "x", 8) for start in ("\udce9", "\ufffd", "é", "\udcff")]
    assert texts[0] not in texts[1:]
    small = ["-m", str(tmp_path / "tiny"), "-n", "8"]
    assert run(b"\xe9x", *small).stdout == run(*small, stdin=b"\xe9x").stdout == texts[0].encode() + b"\n"


def piped(monkeypatch, data: bytes) -> str:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
    return cli.read_prompt(None)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"ROMEO:", "ROMEO:"), (b"ROMEO:\n", "ROMEO:"), (b"ROMEO:\r\n", "ROMEO:"), (b"ROMEO:\r", "ROMEO:\r"),
        (b"\nROMEO:\n\n", "\nROMEO:\n"), (b"\n\n", "\n"), (b" ", " "), ("é👍".encode(), "é👍"),
        (b"caf\xe9 \xff", "caf\udce9 \udcff"), (b"\xed\xa0\x80", "\udced\udca0\udc80"), (b"\0", "\0"),
    ],
)  # fmt: skip
def test_a_prompt_from_a_pipe_loses_its_last_newline(monkeypatch, data, text):
    assert piped(monkeypatch, data) == text


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n"])
def test_an_empty_pipe_is_refused(monkeypatch, data):
    with pytest.raises(UserError, match=r'expected a prompt, found none: .* "Once upon a time", or "" for a new text'):
        piped(monkeypatch, data)


def test_an_endless_pipe_is_refused(monkeypatch):
    monkeypatch.setattr(cli, "PROMPT_LIMIT", 1000)
    assert piped(monkeypatch, b"x" * 1000) == "x" * 1000
    with pytest.raises(UserError, match="expected a prompt of"):
        piped(monkeypatch, b"x" * 1001)


def test_a_prompt_that_is_given_wins_over_a_pipe():
    assert run("ROMEO:", *SMALL, stdin=b"JULIET:").stdout == continuation("ROMEO:")


def test_nothing_is_fetched_for_an_empty_pipe(tmp_path):
    process = run("--models_dir", str(tmp_path / "models"), stdin=b"", env={"PICOGPT_WEIGHTS_URL": "http://[::1"})
    assert_refused(process, "expected a prompt, found none")
    assert not (tmp_path / "models").exists()


# flags


def test_flags_take_every_usual_form():
    expected = {
        "prompt": "x", "n_tokens_to_generate": 5, "model_size": "a", "models_dir": "b", "lookahead": False,
        "sampling": Sampling(temperature=0.8, top_k=40, top_p=0.9, seed=3),
    }  # fmt: skip
    forms = [
        "x --n_tokens_to_generate 5 --model_size a --models_dir b --temperature 0.8 --top_k 40 --top_p 0.9 --seed 3 "
        "--lookahead=False",
        "--n-tokens-to-generate=5 x --model-size=a --models-dir=b --temperature=.8 --top-k=40 --top-p=9e-1 --seed=3 "
        "--nolookahead",
        "-n 5 -m a -d b -t 0.8 -k 40 --top_p 0.9 -s 3 --no-lookahead x",
        "-n=5 -m=a -d=b -t=0.8 -k=40 --top_p 0.9 -s=3 --no_lookahead -- x",
    ]
    for form in forms:
        assert parsed(*form.split()) == expected


def test_defaults_are_left_to_the_function():
    assert parsed() == {}
    assert parsed("--lookahead") == parsed("--lookahead=true") == {"lookahead": True}
    assert parsed("--delete_checkpoint", "x") == {"delete_checkpoint": True, "prompt": "x"}
    assert parsed("--nodelete_checkpoint") == {"delete_checkpoint": False}
    assert parsed("--nolookahead", "True") == {"lookahead": False, "prompt": "True"}
    assert parsed("--models_dir=") == {"models_dir": ""}


def test_settings_are_one_checked_object_for_every_command():
    assert parsed("--top_k", "40") == {"sampling": Sampling(top_k=40)}  # which draws, although the default is greedy
    assert refusal("--top_p", "3").startswith("top_p must lie between 0 and 1")
    for command in Path(arguments.__file__).parent.glob("*.py"):
        main = getattr(import_module(f"picogpt.commands.{command.stem}"), "main", None)
        assert main is None or not {"temperature", "top_k", "top_p", "seed"} & inspect.signature(main).parameters.keys()


def test_short_flags_are_those_of_all_commands():
    assert {letter: name for letter, name in arguments.SHORT.items() if name in FLAGS} == {
        "n": "n_tokens_to_generate", "m": "model_size", "d": "models_dir", "t": "temperature", "k": "top_k",
        "s": "seed",
    }  # fmt: skip


def convert(input_file: str, model_size: str, *, batch_size: int = 16, output_file: str | None = None) -> None:
    """A command that needs two words."""


def test_words_without_a_flag_go_to_parameters_not_named():
    both = {"input_file": "a", "model_size": "b"}
    for words in ("a b", "a -m b", "-i a b", "-m b a", "-- a b", "a -- b", "-m b -- a", "--input_file=a -m=b"):
        assert parsed(*words.split(), like=convert) == both
    assert parsed("-b", "3", "-o", "c", "a", "--", "b", like=convert) == both | {"batch_size": 3, "output_file": "c"}
    for words, message in [
        ("a", "expected model_size, found nothing"),
        ("", "expected input_file and model_size, found nothing"),
        ("a b c", "expected 2 arguments without a flag (input_file, model_size), found 3: 'a' and 'b' and 'c'"),
        ("a -m b c", "expected 1 argument without a flag (input_file), found 2: 'a' and 'c'"),
        ("-i a -m b c", "expected no more arguments without a flag, found 1: 'c'"),
        (
            "-- a b c",
            "expected 2 arguments without a flag (input_file, model_size), found 4: '--' and 'a' and 'b' and 'c'",
        ),
    ]:
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            parsed(*words.split(), like=convert)


MISTAKES = [
    ("--temprature 1", "unknown flag --temprature: did you mean --temperature?"),
    ("--model 124M", "unknown flag --model: did you mean --model_size?"),
    ("-model 124M", "unknown flag -model: did you mean --model_size?"),
    ("--ntokens=3", "unknown flag --ntokens: did you mean --n_tokens_to_generate?"),
    ("--max-tokens=3", "unknown flag --max-tokens: did you mean --n_tokens_to_generate?"),
    ("--modle=3", "unknown flag --modle: did you mean --model_size?"),
    ("--topk 3", "unknown flag --topk: did you mean --top_k?"),
    ("--Seed 1", "unknown flag --Seed: did you mean --seed?"),
    ("--samples 3", "unknown flag --samples: did you mean --nsamples?"),
    ("-p x", "unknown flag -p: did you mean --prompt?"),
    ("-n3", "unknown flag -n3"),
    ("--draw_sample 1", "unknown flag --draw_sample: did you mean --nsamples?"),
    ("--lookahed", "unknown flag --lookahed: did you mean --lookahead?"),
    ("--end_top 1", "unknown flag --end_top: --help shows all flags"),
    ("--lookahead false", "expected --lookahead=True or --lookahead=False, found --lookahead false, which is"),
    ("--lookahead True", "expected --lookahead=True or --lookahead=False, found --lookahead True, which is ambiguous"),
    ("--top 3", "unknown flag --top: did you mean --top_"),
    ("--noseed", "unknown flag --noseed: did you mean --seed?"),
    ("--xyzzy", "unknown flag --xyzzy: --help shows all flags (text that begins with a dash goes last, after --)"),
    ("--seed:1", "unknown flag --seed:1: did you mean --seed?"),
    (f"--{'x' * 5000}", f"unknown flag --{'x' * 58}: "),
    ("--seed", "expected a value after --seed, found nothing"),
    ("-s", "expected a value after -s, found nothing"),
    ("--models_dir --seed 1", "expected a value after --models_dir, found --seed: --models_dir=--seed is one"),
    ("--models_dir --top-k=1", "expected a value after --models_dir, found --top-k=1"),
    ("--seed 1 --seed 2", "expected --seed once, found it twice"),
    ("--seed 1 -s 1", "expected --seed once, found it twice"),
    ("--lookahead --nolookahead", "expected --lookahead once, found it twice"),
    ("--lookahead False", "expected --lookahead=True or --lookahead=False, found --lookahead False"),
    ("--delete_checkpoint true", "expected --delete_checkpoint=True or --delete_checkpoint=False, found"),
    ("--nolookahead=False", "expected --nolookahead without a value, found --nolookahead=False"),
    ("--lookahead=maybe", "--lookahead: expected True or False, found 'maybe'"),
    ("--seed one", "--seed: expected a whole number, found 'one'"),
    ("--seed=", "--seed: expected a whole number, found ''"),
    ("--seed 1.5", "--seed: expected a whole number, found '1.5'"),
    (f"--seed {'9' * 5000}", f"--seed: expected a whole number, found '{'9' * 60}'"),
    ("--seed -1", "seed must be a whole number, 0 or more, found -1"),
    ("--temperature hot", "--temperature: expected a number, found 'hot'"),
    ("--temperature -1", "temperature must be 0 (greedy) or more, found -1"),
    ("--temperature nan", "temperature must be 0 (greedy) or more, found nan"),
    ("--temperature 1e999", "temperature must be 0 (greedy) or more, found inf"),
    ("--top_p=3", "top_p must lie between 0 and 1"),
    ("--top_k -4", "top_k must be a whole number, 0 (all tokens) or more, found -4"),
    ("--nsamples x", "--nsamples: expected a whole number, found 'x'"),
    ("x world", "expected 1 argument without a flag (prompt), found 2: 'x' and 'world'; put quotes around text"),
    ("x -- --help", "found 2: 'x' and '--help'"),
    ("--prompt x y", "expected no more arguments without a flag, found 1: 'y'"),
    (f"x {'y' * 5000}", f"found 2: 'x' and '{'y' * 60}'"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_a_mistake_is_refused_with_a_hint(words, message):
    found = refusal(*words.split())
    assert found.startswith(message) or (
        "expected 1 arg" in found and message.startswith("found ") and message in found
    )
    assert len(found) < 300


WORDS = st.one_of(
    st.sampled_from([*TEXTS, *(word for words, _ in MISTAKES for word in words.split())]),
    st.sampled_from([f"--{name}" for name in FLAGS]),
    st.builds(
        "{}{}{}".format, st.sampled_from(["-", "--", "--no"]), st.text(max_size=4), st.text("=-_é1 ", max_size=3)
    ),
    st.builds("{}={}".format, st.sampled_from([f"--{name}" for name in FLAGS]), st.text(max_size=5)),
    st.text(max_size=8),
)


@given(st.lists(WORDS, max_size=6))
@settings(max_examples=500 * TIMES)
@example(["--", "--", "--"])
@example(["-=", "--=x", "-"])
@example(["--prompt=--help", "-h"])
def test_any_words_are_parsed_or_refused_in_one_line(words):
    out = io.StringIO()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdout", out)
            values = parsed(*words)
    except UserError as error:
        assert error.args[0]
        assert str(error).isprintable()
    except ValueError:  # `[values] = seen`, as help was shown instead
        assert {"-h", "--help", "--version"} & {*words}
        assert out.getvalue()
    else:
        assert values.keys() <= DEFAULTS.keys()
        assert all(isinstance(values.get(name, ""), str) for name in ("prompt", "model_size", "models_dir"))
        assert "prompt" not in values or any(word.endswith(values["prompt"]) for word in words)


ARGUMENTS = WORDS.filter(lambda word: "\0" not in word and word.isprintable() and not word.startswith("--mod"))


@given(st.lists(ARGUMENTS, max_size=4))
@settings(max_examples=15 * TIMES)
def test_any_command_line_ends_with_text_or_one_line(words):
    process = run(*words, env={"PICOGPT_MODELS_DIR": "/dev/null", "PICOGPT_WEIGHTS_URL": "http://no.https"})
    if process.returncode:
        assert_refused(process)
    else:
        assert process.stdout.startswith((b"usage: python gpt2.py ", b"picogpt "))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--temprature 1", "did you mean --temperature?"),
        ("--nsamples 0", "nsamples must be 1 or more, found 0"),
        ("--n_tokens_to_generate -5", "n_tokens_to_generate must be 0 or more, found -5"),
        ("-n 256", "sees 256 tokens, found 1 in the prompt + 256 to generate"),
        ("--nsamples 2 --draft_model shakespeare", "a draft model guesses for one text at a time, found nsamples 2"),
        ("--top_k=-4 --seed 1", "top_k must be a whole number, 0 (all tokens) or more, found -4"),
        ("--model_size nope", "unknown model 'nope'"),
        ("--draft_model nope", "unknown model 'nope'"),
        ("--model_size a\x1b[31mb\n", "a\\x1b[31mb"),
        ("--prompt \udcff --seed \udcff", "found '\\udcff'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words, message):
    words = words.split(" ")
    if "--prompt" not in words:
        words.append("ROMEO")
    if "--model_size" not in words:
        words += ["-m", "shakespeare"]
    assert_refused(run(*words), message)


def test_defaults_are_those_that_are_documented():
    assert {
        "prompt": None, "prompt_file": None, "n_tokens_to_generate": 40, "model_size": "124M", "models_dir": None,
        "sampling": Sampling(), "nsamples": 1, "lookahead": True, "draft_model": None, "cache_prompt": None,
        "delete_checkpoint": False, "interactive": False, "stop": (), "json": False, "logprobs": 0, "num_beams": 1,
        "length_penalty": 1.0, "sliding_window": None,
    } == DEFAULTS  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"nsamples": 0}, "nsamples must be 1 or more, found 0"),
        ({"nsamples": -1}, "nsamples must be 1 or more, found -1"),
        ({"n_tokens_to_generate": -1}, "n_tokens_to_generate must be 0 or more, found -1"),
        ({"nsamples": 2, "draft_model": "124M"}, "a draft model guesses for one text at a time, found nsamples 2"),
        ({"prompt": None}, "expected a prompt, found none"),
        ({"nsamples": 1, "n_tokens_to_generate": 0, "draft_model": "124M"}, None),
        ({"nsamples": 2}, None),
    ],
)
def test_a_mistake_is_refused_before_a_model_is_looked_for(monkeypatch, words, message):
    class LookedForError(Exception):
        """A model has been looked for."""

    def look(*arguments, **keywords):
        raise LookedForError

    monkeypatch.setattr(generate, "open_model", look)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError if message else LookedForError, match=f"^{re.escape(message or '')}"):
        generate.main(**{"prompt": "x"} | words)


def test_a_misspelt_flag_is_refused_before_any_work(tmp_path):
    models_dir = tmp_path / "models"
    assert_refused(run("x", "-d", str(models_dir), "--top_kk", "3"), "did you mean --top_k?")
    assert not models_dir.exists()


@pytest.mark.parametrize("draft", [[], ["--draft_model", "shakespeare"]])
def test_a_prompt_that_is_too_long_is_refused_before_weights_are_opened_or_fetched(tmp_path, draft):
    write_small_files(tmp_path / "tiny")  # without weights
    process = run("x" * 40, "-m", "tiny", "-d", str(tmp_path), "-n", "1", *draft)
    assert_refused(process, "the model sees 32 tokens, found 40 in the prompt + 1 to generate")
    model_dir = tmp_path / "124M"
    model_dir.mkdir()
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(vocabulary_dir() / name, model_dir)
    hparams = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}
    (model_dir / "hparams.json").write_text(str(hparams).replace("'", '"'))
    process = run("x" * 40, "-d", str(tmp_path), "-n", "1020", env={"PICOGPT_WEIGHTS_URL": "http://[::1"})
    assert_refused(process, "the model sees 1024 tokens")
    assert len(list(model_dir.iterdir())) == 3


# what is generated


def test_settings_reach_the_model():
    drawn = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 3}
    words = ["-n", "5", "-m", "shakespeare", *(f"--{name}={value}" for name, value in drawn.items())]
    assert run("ROMEO:", *words).stdout == continuation("ROMEO:", 5, **drawn)
    assert run("ROMEO:", *SMALL, "--top_k", "40", "-s", "1").stdout == continuation("ROMEO:", top_k=40, seed=1)
    assert run("ROMEO:", *SMALL, "--top_p", "0.5", "-s", "1").stdout == continuation("ROMEO:", top_p=0.5, seed=1)


def test_several_samples_are_numbered():
    process = run("ROMEO:", *SMALL, "--nsamples", "3", "--temperature", "1", "--seed", "5")
    texts = process.stdout.decode().split("=" * 40)
    assert texts[1::2] == [" SAMPLE 1 ", " SAMPLE 2 ", " SAMPLE 3 "]
    assert texts[2].encode() == b"\n" + continuation("ROMEO:", temperature=1.0, seed=5)
    assert len(set(texts[2::2])) == 3
    assert process.stderr == b""


def test_look_ahead_and_a_draft_model_change_nothing(tmp_path):
    make_model(tmp_path)  # of the same vocabulary
    here = ["--models_dir", str(tmp_path)]
    for how in (["--nolookahead"], ["--draft_model", "tiny", *here], ["--draft_model", "shakespeare"]):
        process = run("ROMEO:", *SMALL, *how)
        assert (process.stdout, process.stderr) == (continuation("ROMEO:"), b"")


@pytest.mark.parametrize("words", [{}, {"lookahead": False}, {"draft_model": "tiny"}])
def test_look_ahead_and_a_draft_model_are_used_if_asked_for(tmp_path, monkeypatch, capsys, words):
    """The text is always the same, so check what the model is called with."""
    make_model(tmp_path)
    asked = []
    real = picogpt.Model.generate_ids
    monkeypatch.setattr(picogpt.Model, "generate_ids", lambda *a, **kw: asked.append(kw) or real(*a, **kw))
    generate.main("ROMEO:", n_tokens_to_generate=2, model_size="shakespeare", models_dir=str(tmp_path), **words)
    [how] = asked
    assert how["lookahead"] is words.get("lookahead", True)
    assert (how["draft"].hparams if how["draft"] else None) == (TINY if "draft_model" in words else None)


def test_an_unsuitable_draft_model_is_refused(tmp_path):
    model_dir = make_model(tmp_path)
    draft = ["--draft_model", "tiny", "--models_dir", str(tmp_path)]
    assert_refused(run("x", "--model_size", "shakespeare", *draft), "the model sees 32 tokens")
    vocabulary = json.loads((model_dir / "encoder.json").read_text())
    (model_dir / "encoder.json").write_text(json.dumps(vocabulary | {"a": vocabulary["b"], "b": vocabulary["a"]}))
    assert_refused(run("x", *SMALL, *draft), "same vocabulary")


def test_zero_tokens():
    assert run("x", "-m", "shakespeare", "-n", "0").stdout == b"\n"
    assert run("x", "-m", "shakespeare", "-n", "0", "--nsamples", "2").stdout.count(b"SAMPLE") == 2


def test_a_text_ends_where_the_model_ends_it(tmp_path):
    model = picogpt.load("shakespeare")
    end, ids = model.encoder.end_of_text, model.encode("Hello there, my friend")
    words = ["x", "-d", str(tmp_path), "-n", "12"]
    make_scripted_model(tmp_path, [[token_id] for token_id in [*ids, end, end, *ids]], "told")
    for how in ([], ["--nolookahead"], ["--draft_model", "told"], ["-t", "1"]):
        process = run(*words, "-m", "told", *how)
        assert (process.stdout, process.stderr) == (b"Hello there, my friend\n", b"")
    make_scripted_model(tmp_path, [[token_id, end] for token_id in [*ids, *ids]], "coin")
    text = run(*words, "-m", "coin", "-t", "1", "-s", "5", "--nsamples", "9").stdout.decode()
    samples = [sample.strip("\n") for sample in re.split("=+ SAMPLE . =+\n", text)[1:]]
    assert len(samples) == 9
    assert len({*samples}) > 2  # they end at different steps
    assert all("Hello there, my friendHello there, my friend".startswith(sample) for sample in samples)


def test_a_checkpoint_is_deleted_after_the_weights_were_opened(monkeypatch, capsys):
    done = []
    monkeypatch.setattr(utils, "params_read_ahead", lambda *a: None)  # as if they were not there yet
    monkeypatch.setattr(utils, "load_params", lambda *a, real=utils.load_params: done.append("opened") or real(*a))
    monkeypatch.setattr(utils, "delete_checkpoint", lambda *a: done.append(("deleted", *a)), raising=False)
    main = {"n_tokens_to_generate": 1, "model_size": "shakespeare", "models_dir": "somewhere"}
    generate.main("x", **main, delete_checkpoint=True)
    assert done == ["opened", ("deleted", "shakespeare", "somewhere")]
    generate.main("x", **main)
    assert done[2:] == ["opened"]
    with pytest.raises(UserError):
        generate.main("x", **main | {"n_tokens_to_generate": 1000}, delete_checkpoint=True)
    assert done[3:] == []


# help


def page(monkeypatch, columns: int = 80, function=generate.main) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    return help.page(function, "gpt2.py")


def test_help_shows_every_flag_once(monkeypatch):
    text = page(monkeypatch)
    for name in FLAGS:
        spelled = "PROMPT" if name == "prompt" else f"--{'[no]' if name == 'lookahead' else ''}{name}"
        assert len(re.findall(rf"^  (?:-\w, |    )?{re.escape(spelled)}\b", text, re.MULTILINE)) == 1
    assert text.startswith("usage: python gpt2.py [PROMPT] [--flag VALUE ...]\n\nContinue a prompt with GPT-2: ")
    for line in (
        "\nText:\n  PROMPT                  the text to continue",
        "\n  -n, --n_tokens_to_generate N\n                          the number of tokens",
        "\n  -t, --temperature X     0 takes the likeliest token each time",
        "\n  -k, --top_k N           draw only from the k likeliest tokens; 0 from all\n",
        "\n      --nsamples N        the number of texts, generated as one batch (default:\n",
        "\n\nModel:\n  -m, --model_size TEXT   124M, 355M",
        "\n\nAdvanced:\n      --[no]lookahead     guess",
        "the same text, faster (the default)\n",
        '\n\nExamples:\n  python gpt2.py "ROMEO:"',
        '\n  echo "JULIET:" | python gpt2.py ',
        "\n  python -m picogpt.batch ",
        "\n  python -m picogpt.explain ",
        "\n  python -m picogpt.verify ",
    ):
        assert line in text
    assert "Flags:" not in text
    assert "None" not in text
    assert text.index("--n_tokens") < text.index("--temperature") < text.index("--nsamples") < text.index("\nModel:")


def test_help_is_as_wide_as_the_terminal(monkeypatch):
    assert max(map(len, page(monkeypatch, 80).splitlines())) <= 80
    assert 80 < max(map(len, page(monkeypatch, 200).splitlines())) <= 100
    words = [page(monkeypatch, columns).split() for columns in (1, 60, 80, 200)]
    assert words[0] == words[1] == words[2] == words[3]  # nothing is cut


def test_a_long_flag_has_a_line_of_its_own():
    assert help.entry("x" * 22, "does it", None, 80) == f"  {'x' * 22}  does it"
    assert help.entry("x" * 23, "does it", None, 80) == f"  {'x' * 23}\n{' ' * 26}does it"


def test_help_needs_no_docstrings(monkeypatch):
    def main(prompt: str, *, batch_size: int = 3, draw: bool = True, sampling: Sampling = Sampling()) -> None:  # noqa: B008
        pass

    monkeypatch.setattr(Sampling, "__doc__", None)
    assert page(monkeypatch, function=main).splitlines() == [
        "usage: python gpt2.py PROMPT [--flag VALUE ...]", "", "Flags:", "  PROMPT",
        "  -b, --batch_size N      (default: 3)",
        "      --[no]draw          (the default)", "  -t, --temperature X", "  -k, --top_k N",
        "      --top_p X           (default: 1.0)", "  -s, --seed N", "      --min_p X",
        "      --typical_p X       (default: 1.0)", "      --repetition_penalty X", " " * 26 + "(default: 1.0)",
        "      --no_repeat_ngram_size N", "      --logit_bias ID=X", "      --banned ID",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words", ["--help", "-h", "x --help", "-h --nosuch", "--seed --help", "--version -h", "x y -h", "--help -- x"]
)
def test_help_is_asked_for_anywhere(words, capsys):
    cli.run(generate.main, words.split())
    assert capsys.readouterr().out.startswith("usage: ")


def test_the_version_is_printed(capsys):
    for words in (["--version"], ["x", "--version"]):
        cli.run(generate.main, words)
        assert capsys.readouterr().out == f"picogpt {picogpt.__version__}\n"


@pytest.mark.parametrize("flags", [[], ["-OO"]])
@pytest.mark.parametrize(
    "way", [["gpt2.py"], *(["-m", f"picogpt{name}"] for name in ("", ".batch", ".explain", ".verify"))]
)
def test_every_command_has_help(flags, way):
    process = subprocess.run([sys.executable, *flags, *way, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert (process.stderr, process.returncode) == ("", 0)
    assert process.stdout.startswith(f"usage: python {' '.join(way)} ")
    assert "--models_dir" in process.stdout
    assert max(map(len, process.stdout.splitlines())) <= 80


@pytest.mark.skipif(os.name == "nt", reason="the examples are for a POSIX shell")
def test_the_examples_of_the_help_run(tmp_path):
    text = run("--help").stdout.decode()
    examples = re.search(r"^Examples:\n((?:  .*\n)+)", text, re.MULTILINE)[1].splitlines()
    assert len(examples) >= 4
    for command in examples:
        command = command.replace("python gpt2.py", shlex.join([sys.executable, str(ROOT / "gpt2.py")]))
        process = subprocess.run(command, shell=True, capture_output=True, cwd=tmp_path, env=ENVIRONMENT)
        assert (process.stderr, process.returncode) == (b"", 0), command
        assert len(process.stdout) > 20


# entry points


@pytest.mark.parametrize("way", [[ROOT / "gpt2.py"], ["-m", "picogpt"]])
def test_all_entry_points_run_the_same_command(tmp_path, way):
    process = subprocess.run(
        [sys.executable, *way, "ROMEO:", *SMALL],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,  # the bundled model is found from anywhere
    )
    assert (process.stdout, process.stderr) == (continuation("ROMEO:"), b"")


@pytest.mark.parametrize(
    ("way", "name"),
    [
        (["picogpt/gpt2.py"], "gpt2.py"),  # in a clone that is called picogpt, as clones are
        (["-m", "picogpt"], "python -m picogpt"),
        (["-m", "picogpt.batch"], "python -m picogpt.batch"),
        (["-m", "picogpt.verify"], "python -m picogpt.verify"),
    ],
)
def test_an_error_names_the_program_that_was_called(tmp_path, way, name):
    (tmp_path / "picogpt").symlink_to(ROOT)
    process = subprocess.run(
        [sys.executable, *way, "--nosuch"],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path if way[0] != "-m" else ROOT,
    )
    assert_refused(process, "unknown flag --nosuch", name=name)


def test_the_console_script_runs_the_same_command():
    script = shutil.which("picogpt", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("picogpt is not installed in this environment: make test installs it")
    process = subprocess.run([script, "ROMEO:", *SMALL], capture_output=True)
    assert process.stdout == continuation("ROMEO:")
    assert_refused(subprocess.run([script, "--nosuch"], capture_output=True), name="picogpt")


def test_gpt2_py_has_the_names_of_the_tutorial():
    code = "from gpt2 import gelu, softmax, gpt2, generate, main; import gpt2; assert gpt2.gelu is gelu; gpt2.nosuch"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.stderr.endswith("AttributeError: module 'gpt2' has no attribute 'nosuch'\n")


def test_a_start_imports_nothing_that_it_does_not_need():
    code = f"""
import sys
sys.argv = ["gpt2.py", "ROMEO:", *{SMALL}]
from picogpt.__main__ import main
main()
needless = {{"tensorflow", "requests", "regex", "platformdirs", "tqdm", "torch", "numpy.testing", "asyncio"}}
needless |= {{"picogpt.commands.help", "picogpt.decoding.batch", "picogpt.reference"}}
print(needless & set(sys.modules), file=sys.stderr)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert process.stderr.decode().strip() == "set()"


@pytest.mark.parametrize("before", ["", "import asyncio"])
def test_fire_finds_asyncio_if_it_needs_it(before):
    code = f"""
import sys
{before}
from picogpt.commands import cli
fire = cli.imported_fire()
print("asyncio" in sys.modules, fire.core.inspectutils.IsCoroutineFunction(print))
run = fire.core.asyncio.run
import asyncio, asyncio.events
print(asyncio is sys.modules["asyncio"], run is asyncio.run, hasattr(fire.core.asyncio, "nosuch"))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.stdout.split() == [str(bool(before)), "False", "True", "True", "False"], process.stderr
