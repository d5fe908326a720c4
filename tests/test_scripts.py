"""The command in scripts: prompts from files and pipes, stdout that is the text alone, exit statuses, completion."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picogpt.commands import arguments, cli, completion, generate, help
from picogpt.errors import UserError
from tests.fuzz import TIMES
from tests.helpers import COMMAND, ENVIRONMENT, ROOT, run

SMALL = ["-m", "shakespeare", "-n", "8"]
PICOGPT = shlex.join(COMMAND)
BATCH = shlex.join([sys.executable, "-m", "picogpt.batch"])
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def bash(script: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture(scope="module")
def text() -> bytes:
    return run("JULIET:", *SMALL).stdout


# prompts


def test_a_prompt_file_is_the_prompt(tmp_path, text):
    (tmp_path / "prompt.txt").write_bytes(b"JULIET:\n")
    process = run("--prompt_file", str(tmp_path / "prompt.txt"), *SMALL, stdin=b"not this")
    assert (process.stdout, process.stderr, process.returncode) == (text, b"", 0)
    assert run("--prompt_file", "-", *SMALL, stdin=b"JULIET:\n").stdout == text


@given(st.binary(max_size=20))
@settings(max_examples=50 * TIMES)
def test_any_bytes_are_a_prompt(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("prompt") / "prompt.txt"
    path.write_bytes(data)
    stripped = data.removesuffix(b"\n").removesuffix(b"\r") if data.endswith(b"\n") else data
    if stripped:
        assert cli.read_prompt(None, str(path)).encode("utf-8", "surrogateescape") == stripped
    else:
        with pytest.raises(UserError, match="expected a prompt, found an empty file"):
            cli.read_prompt(None, str(path))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--prompt_file", "nosuch.txt"],
            "nosuch.txt: cannot read the prompt: No such file or directory: choose another",
        ),
        (["--prompt_file", "."], ".: cannot read the prompt: Is a directory"),
        (["--prompt_file", "x" * 300], "cannot read the prompt: File name too long"),
        (["--prompt_file", os.devnull], "/dev/null: expected a prompt, found an empty file"),
        (["ROMEO:", "--prompt_file", "x.txt"], "expected one prompt, found 'ROMEO:' and --prompt_file: leave one out"),
    ],
)
def test_a_prompt_file_that_is_none_is_refused_before_a_model_is_looked_for(flags, message):
    process = run(*flags, "-m", "nosuch")
    assert (process.stdout, process.returncode) == (b"", 2)
    assert message in process.stderr.decode() and process.stderr.count(b"\n") == 1


def test_an_endless_prompt_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "PROMPT_LIMIT", 1000)
    (tmp_path / "long").write_text("x" * 1001)
    with pytest.raises(UserError, match=r"expected a prompt of at most 0 MB from .*long, found more"):
        cli.read_prompt(None, str(tmp_path / "long"))


# pipes


@needs_bash
def test_the_text_is_all_that_a_script_sees(text):
    process = bash(f'a=$(echo JULIET: | {PICOGPT} {shlex.join(SMALL)}); printf %s "$a"')
    assert (process.stdout.encode() + b"\n", process.stderr, process.returncode) == (text, "", 0)
    process = bash(f'printf "<%s>" "$({PICOGPT} --prompt_file <(echo JULIET:) {shlex.join(SMALL)})"')
    assert process.stdout == f"<{text.decode()[:-1]}>"


@needs_bash
def test_a_batch_reads_stdin(text):
    process = bash(f"printf 'JULIET:\\nROMEO:\\n' | {BATCH} --input_file - {shlex.join(SMALL)}")
    assert (process.stderr, process.returncode) == ("", 0)
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert [line["prompt"] for line in lines] == ["JULIET:", "ROMEO:"]
    assert lines[0]["text"] == text.decode()[:-1]
    process = bash(f"printf 'short\\n%s\\n' '{'long ' * 300}' | {BATCH} - {shlex.join(SMALL)}")
    assert process.returncode == 2
    assert process.stderr.startswith("python -m picogpt.batch: error: stdin, line 2: the model sees 256 tokens")


# exit statuses


def test_exit_statuses():
    assert run("x", *SMALL).returncode == run("--help").returncode == 0
    assert run("--nosuch").returncode == run("x", "-m", "nosuch").returncode == 2
    long = subprocess.Popen([*COMMAND, "", "-m", "shakespeare", "-n", "250", "-t", "1"], stdout=subprocess.PIPE)
    long.stdout.read(1)
    long.send_signal(signal.SIGINT)
    assert long.wait() == -signal.SIGINT  # a shell shows 130
    long.stdout.close()


@needs_bash
@pytest.mark.skipif(os.name == "nt", reason="needs SIGPIPE")
def test_a_reader_that_leaves_ends_the_command():
    process = bash(f"{PICOGPT} '' -m shakespeare -n 200 | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}")
    assert (process.stdout, process.stderr) == ("141\n", "")


# completion


def completed(words: str, cwd: Path) -> list[str]:
    """What the Tab key offers after these words. As bash does it, "--a=b" is three words."""
    split = words.replace("=", " = ").split(" ")
    script = completion.script(generate.main, "bash")
    process = bash(f'{script}\nCOMP_WORDS=({shlex.join(split)}); COMP_CWORD={len(split) - 1}; _picogpt\n'
                   'printf "%s\\n" "${COMPREPLY[@]}"', cwd)  # fmt: skip
    assert (process.stderr, process.returncode) == ("", 0)
    return process.stdout.splitlines() if process.stdout != "\n" else []


@pytest.fixture
def place(tmp_path):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "my dir").mkdir()
    (tmp_path / "prompt.txt").touch()
    return tmp_path


@needs_bash
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("picogpt --top", ["--top_k", "--top_p"]),
        ("picogpt --nol", ["--nolookahead"]),
        ("picogpt --seed 3 --mod", ["--model_size", "--models_dir"]),
        ("picogpt -m s", ["shakespeare"]),
        ("picogpt --model_size=1", ["124M", "1558M"]),
        ("picogpt --model-size mi", ["mine"]),
        ("picogpt --draft_model m", ["models", "my dir", "mine"]),
        ("picogpt -d m", ["models", "my dir"]),
        ("picogpt --prompt_file ", ["models", "my dir", "prompt.txt"]),
        ("picogpt --cache_prompt=p", ["prompt.txt"]),
        ("picogpt --seed ", []),
        ("picogpt RO", []),
        ("picogpt --completion ", ["bash", "zsh"]),
    ],
)
def test_bash_completes(place, words, expected):
    assert sorted(completed(words, place)) == sorted(expected)


@needs_bash
def test_bash_offers_every_flag(place):
    flags = set(completed("picogpt -", place))
    spelled = set(arguments.spellings(arguments.flags_of(generate.main)))
    spelled -= {f"--no_{flag[2:]}" for flag in spelled}  # for a boolean, --noNAME is enough
    assert flags == spelled | {"--help", "--version", "--completion"}


@needs_bash
def test_the_script_can_be_sourced():
    process = bash(f"source <({PICOGPT} --completion bash); complete -p picogpt")
    assert (process.stdout, process.stderr) == ("complete -o filenames -F _picogpt picogpt\n", "")


def zsh_specifications() -> list[str]:
    script = completion.script(generate.main, "zsh")
    return shlex.split(script.partition("_arguments \\\n")[2].partition("\n}")[0].replace("\\\n", ""))


def test_zsh_has_every_flag_with_its_explanation():
    lines = zsh_specifications()
    for flag in arguments.spellings(arguments.flags_of(generate.main)):
        assert flag.startswith("--no_") or any(f"){flag}=[" in line or f"){flag}[" in line for line in lines), flag
    assert "(-s --seed)--seed=[the same seed gives the same text]:seed: " in lines
    assert any(line.endswith(":draft_model:_picogpt_model") for line in lines)
    assert all(line.count("[") == line.count("]") == 1 for line in lines if line.startswith("(-"))


def one_of(how: Literal["crop", "half [x]"] | None = None, *, flag: bool = False) -> None:
    """Do it.

    how: it's done [so]; or not
    flag: x
    """


def test_a_choice_is_completed_checked_and_shown():
    script = completion.script(one_of, "bash")
    assert "__how) COMPREPLY=($(compgen -W $'crop\\nhalf [x]'" in script
    assert "'(--how)--how=[it'\\''s done \\[so\\]]:how:(crop half [x])'" in completion.script(one_of, "zsh")
    assert "--flag[x]" in completion.script(one_of, "zsh") and "--noflag[do not x]" in completion.script(one_of, "zsh")
    parse = arguments.parser_for("how", arguments.flags_of(one_of)["how"])
    assert parse("crop") == "crop"
    with pytest.raises(UserError, match=r"--how: expected crop or half .x., found 'other'"):
        parse("other")
    assert "HOW" in help.page(one_of, "x")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_accepts_the_script(tmp_path):
    (tmp_path / "script").write_text(completion.script(generate.main, "zsh"))
    assert subprocess.run(["zsh", "-n", tmp_path / "script"], capture_output=True).stderr == b""


@pytest.mark.parametrize(
    "words", [["--completion"], ["--completion", "fish"], ["--completion=x"], ["--completion", "zsh", "x"]]
)
def test_another_shell_is_refused(words):
    process = run(*words)
    assert (process.stdout, process.returncode) == (b"", 2)
    assert b"--completion: expected bash or zsh, found '" in process.stderr and process.stderr.count(b"\n") == 1


def test_a_prompt_may_begin_as_the_flag_does():
    assert run(*SMALL, "--", "--completion").returncode == 0
