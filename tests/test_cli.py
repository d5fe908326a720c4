"""The command line as a process: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from picogpt import gpt2, utils
from tests.helpers import ROOT, SHAKESPEARE, TINY, make_model, run, start

SMALL = ["--model_size", "shakespeare", "--n_tokens_to_generate", "8"]


def continuation(prompt: str, n: int = 8, **settings) -> bytes:
    """What the command should print, by way of the library."""
    encoder, hparams, params = utils.load_encoder_hparams_and_params("shakespeare", SHAKESPEARE.parent)
    ids = encoder.encode(prompt) or [encoder.end_of_text]
    return encoder.decode(gpt2.generate(ids, params, hparams["n_head"], n, **settings)).encode() + b"\n"


def assert_refused(process, *words: str) -> None:
    """One line on stderr with these words, nothing on stdout, status 2."""
    message = process.stderr.decode()
    assert (process.stdout, process.returncode) == (b"", 2), message
    assert message.startswith("gpt2.py: error: ")
    assert message.count("\n") == 1
    for word in words:
        assert word in message


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory):
    """A model that takes seconds for a text of a few kB, so that it can be watched and stopped on the way."""
    models_dir = tmp_path_factory.mktemp("models")
    make_model(models_dir, "slow", TINY | {"n_ctx": 2048, "n_layer": 32, "n_embd": 48})
    return ["--models_dir", str(models_dir), "--model_size", "slow", "--n_tokens_to_generate", "1500"]


# prompts


@pytest.mark.parametrize(
    "prompt",
    [
        "ROMEO:", "[1, 2]", "{'a': 1}", "(1,)", "42", "1e5", "True", "None", "a=b", "foo # bar", "hello, world",
        "'quoted'", "--", "-", "---", "- item", "-1", "-- --help", "\\n",
        "line\nbreak", " ", "é👍", "<|endoftext|>", "x" * 90,
    ],
)  # fmt: skip
def test_the_prompt_is_taken_as_it_is(prompt):
    process = run(prompt, *SMALL)
    assert (process.stdout, process.stderr, process.returncode) == (continuation(prompt), b"", 0)


@pytest.mark.parametrize("prompt", ["--help", "-h", "--seed", "--seed=1", "--no such flag"])
def test_a_prompt_that_looks_like_a_flag_goes_behind_two_dashes(prompt):
    assert run(*SMALL, "--", prompt).stdout == continuation(prompt)


def test_a_prompt_can_be_named():
    assert run("--prompt=ROMEO:", *SMALL).stdout == run("--prompt", "ROMEO:", *SMALL).stdout == continuation("ROMEO:")


def test_an_empty_prompt_starts_a_new_text():
    assert run("", *SMALL).stdout == continuation("")


@pytest.mark.parametrize("piped", [b"ROMEO:", b"ROMEO:\n", b"ROMEO:\r\n"])
def test_a_prompt_from_a_pipe_loses_the_newline_at_its_end(piped):
    assert run(*SMALL, stdin=piped).stdout == continuation("ROMEO:")


def test_a_piped_prompt_keeps_its_other_newlines():
    assert run(*SMALL, stdin=b"\nROMEO:\n\n").stdout == continuation("\nROMEO:\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no bytes in its arguments")
def test_undecodable_bytes_reach_the_model_as_those_bytes():
    expected = continuation("caf\udce9 \udcff")
    assert run(b"caf\xe9 \xff", *SMALL).stdout == expected
    assert run(*SMALL, stdin=b"caf\xe9 \xff").stdout == expected


# flags


def test_flags_take_every_usual_form():
    expected = continuation("ROMEO:", 5, temperature=0.8, top_k=40, top_p=0.9, seed=3)
    forms = [
        "--n_tokens_to_generate 5 --temperature 0.8 --top_k 40 --top_p 0.9 --seed 3",
        "--n-tokens-to-generate=5 --temperature=.8 --top-k=40 --top-p=9e-1 -s 3",
    ]
    for form in forms:
        process = run("ROMEO:", "--model_size", "shakespeare", *form.split())
        assert (process.stdout, process.stderr) == (expected, b"")


def test_top_k_or_top_p_alone_draw_at_temperature_1():
    assert run("ROMEO:", *SMALL, "--top_k", "40", "--seed", "1").stdout == continuation(
        "ROMEO:", temperature=1.0, top_k=40, seed=1
    )
    assert run("ROMEO:", *SMALL, "--top_p", "0.5", "--seed", "1").stdout == continuation(
        "ROMEO:", temperature=1.0, top_p=0.5, seed=1
    )


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
    for how in (["--lookahead=False"], ["--draft_model", "tiny", *here], ["--draft_model", "shakespeare"]):
        process = run("ROMEO:", *SMALL, *how)
        assert (process.stdout, process.stderr) == (continuation("ROMEO:"), b"")


def test_a_draft_model_that_cannot_help_is_refused(tmp_path):
    model_dir = make_model(tmp_path)
    draft = ["--draft_model", "tiny", "--models_dir", str(tmp_path)]
    assert_refused(run("x", "--model_size", "shakespeare", *draft), "the model sees 32 tokens")
    assert_refused(run("x", *SMALL, *draft, "--nsamples", "2"), "one text at a time")
    vocabulary = json.loads((model_dir / "encoder.json").read_text())
    (model_dir / "encoder.json").write_text(json.dumps(vocabulary | {"a": 66, "b": 65}))
    assert_refused(run("x", *SMALL, *draft), "same vocabulary, found tiny")


def test_no_tokens_at_all():
    assert run("x", "--model_size", "shakespeare", "--n_tokens_to_generate", "0").stdout == b"\n"
    two = run("x", "--model_size", "shakespeare", "--n_tokens_to_generate", "0", "--nsamples", "2")
    assert two.stdout.count(b"SAMPLE") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temprature", "1"], ["unknown flag --temprature", "did you mean --temperature?"]),
        (["--ntokens=3"], ["unknown flag --ntokens:", "--n_tokens_to_generate"]),
        (["--xyzzy"], ["unknown flag --xyzzy", "known are --prompt, --n_tokens"]),
        (["-n", "3"], ["unknown flag -n", "--n_tokens_to_generate"]),
        (["--seed"], ["expected a value after --seed"]),
        (["--seed", "1", "--seed", "2"], ["--seed once, found it twice"]),
        (["--seed", "one"], ["--seed: expected a whole number, found 'one'"]),
        (["--seed", "-1"], ["seed must be 0 or more, found -1"]),
        (["--temperature", "hot"], ["--temperature: expected a number, found 'hot'"]),
        (["--temperature", "-1"], ["temperature must be 0 (greedy) or more, found -1"]),
        (["--top_p=3"], ["top_p must lie between 0 and 1", "found 3"]),
        (["--top_k", "-4"], ["top_k must be 0 (all tokens) or more, found -4"]),
        (["--top_k", "1.5"], ["--top_k: expected a whole number"]),
        (["--nsamples", "0"], ["nsamples must be 1 or more, found 0"]),
        (["--n_tokens_to_generate", "-5"], ["n_tokens_to_generate must be 0 or more, found -5"]),
        (["--n_tokens_to_generate", "256"], ["sees 256 tokens", "found 1 in the prompt + 256", "generate 255 or less"]),
        (["world"], ["1 argument without a flag (prompt)", "found 2: 'ROMEO' and 'world'"]),
        (["--model_size", "nope"], ["unknown model 'nope'", "124M", "shakespeare"]),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, words):
    model = [] if "--model_size" in arguments else ["--model_size", "shakespeare"]
    assert_refused(run("ROMEO", *model, *arguments), *words)


def test_a_misspelt_flag_is_refused_before_any_work(tmp_path):
    models_dir = tmp_path / "models"
    assert_refused(run("x", "--models_dir", str(models_dir), "--top_kk", "3"), "did you mean --top_k?")
    assert not models_dir.exists()


def test_help_names_every_flag():
    for flag in ("--help", "-h"):
        process = run(flag)
        assert (process.stderr, process.returncode) == (b"", 0)
        for name in ("prompt", "n_tokens_to_generate", "model_size", "models_dir", "temperature", "top_k", "top_p"):
            assert f"--{name}=" in process.stdout.decode()


# ways in


def test_all_ways_in_are_one(tmp_path):
    ways = [[ROOT / "gpt2.py"], ["-m", "picogpt"]]
    for way in ways:
        process = subprocess.run(
            [sys.executable, *way, "ROMEO:", *SMALL],
            capture_output=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=tmp_path,  # the bundled model is found from anywhere
        )
        assert process.stdout == continuation("ROMEO:")


@pytest.mark.parametrize(
    ("way", "name"),
    [
        (["picogpt/gpt2.py"], "gpt2.py"),  # in a clone that is called picogpt, as clones are
        (["-m", "picogpt"], "python -m picogpt"),
        (["-m", "picogpt.batch"], "python -m picogpt.batch"),
    ],
)
def test_a_mistake_is_told_in_the_name_that_was_called(tmp_path, way, name):
    (tmp_path / "picogpt").symlink_to(ROOT)
    process = subprocess.run(
        [sys.executable, *way, "--nosuch"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path if way[0] != "-m" else ROOT,
    )
    assert process.stderr.startswith(f"{name}: error: unknown flag --nosuch")


def test_the_console_script_is_one_more():
    script = shutil.which("picogpt", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("picogpt is not installed in this environment: make test installs it")
    process = subprocess.run([script, "ROMEO:", *SMALL], capture_output=True)
    assert process.stdout == continuation("ROMEO:")


def test_a_start_imports_nothing_that_it_does_not_need():
    code = f"""
import sys
sys.argv = ["gpt2.py", "ROMEO:", *{SMALL}]
from picogpt.__main__ import main
main()
needless = {{"tensorflow", "requests", "regex", "filelock", "tqdm", "torch", "numpy.testing"}}
print(needless & set(sys.modules), file=sys.stderr)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert process.stderr.decode().strip() == "set()"


# streams and ends


def test_text_is_printed_as_it_is_generated(slow_model):
    with start("x", *slow_model, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(20)
        assert process.poll() is None  # most tokens are still to come
        process.kill()


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_ctrl_c_ends_at_once_with_what_was_printed(slow_model):
    with start("x", *slow_model, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
        assert len(process.stdout.read()) < 1000  # the whole text would be longer
        assert (process.wait(), stderr) == (-signal.SIGINT, b"")


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_a_closed_pipe_ends_quietly(slow_model):
    with start("x", *slow_model, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(20)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told():
    with Path("/dev/full").open("wb") as full:
        process = start("x", *SMALL, stdout=full, stderr=subprocess.PIPE)
    _, stderr = process.communicate()
    assert process.returncode == 2
    assert stderr == b"gpt2.py: error: cannot write the text to stdout: No space left on device\n"


def test_a_terminal_that_is_not_utf8_gets_question_marks(tmp_path):
    make_model(tmp_path)
    arguments = ["é", "--models_dir", str(tmp_path), "--model_size", "tiny", "-s", "1"]
    arguments += ["--n_tokens_to_generate", "30", "--temperature", "9"]
    utf8, ascii_only = run(*arguments), run(*arguments, env={"PYTHONIOENCODING": "ascii"})
    assert not utf8.stdout.isascii(), "the random model's text should have some"
    assert ascii_only.stdout == utf8.stdout.decode().encode("ascii", errors="replace")
    assert (ascii_only.stderr, ascii_only.returncode) == (b"", 0)


def in_terminal(arguments, stdout_too: bool) -> tuple[bytes, bytes]:
    """Run with stderr (and stdout) as a terminal: what it showed, and what went to stdout otherwise."""
    pty, fcntl, termios = (
        pytest.importorskip(name, reason="pseudo-terminals are those of POSIX") for name in ("pty", "fcntl", "termios")
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    stdout = theirs if stdout_too else subprocess.PIPE
    with start(*arguments, stdin=theirs, stdout=stdout, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # Linux's way to say that the other side has closed
            pass
        os.close(ours)
        return shown, b"" if stdout_too else process.stdout.read()


def test_a_bar_is_drawn_on_a_terminal_but_not_through_the_text():
    shown, stdout = in_terminal(["ROMEO:", *SMALL], stdout_too=False)
    assert b"generating" in shown
    assert stdout == continuation("ROMEO:")
    shown, _ = in_terminal(["ROMEO:", *SMALL], stdout_too=True)
    assert shown.replace(b"\r\n", b"\n") == continuation("ROMEO:")


def test_a_terminal_is_not_waited_for():
    shown, stdout = in_terminal(SMALL, stdout_too=False)
    assert shown.startswith(b"gpt2.py: error: expected a prompt, found none")
    assert stdout == b""
