"""Command lines: what goes to which stream and when, and how the process exits in every case."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from picogpt.commands import cli
from picogpt.errors import UserError
from tests.helpers import COMMAND, ENVIRONMENT, ROOT, TINY, make_model, run, start
from tests.test_cli import SMALL, assert_refused, continuation

posix = pytest.mark.skipif(os.name == "nt", reason="signals and descriptors are those of POSIX")
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory):
    """A model that takes seconds for a text of a few kB, so that it can be watched and stopped on the way."""
    models_dir = tmp_path_factory.mktemp("models")
    make_model(models_dir, "slow", TINY | {"n_ctx": 2048, "n_layer": 32, "n_embd": 48})
    return ["--models_dir", str(models_dir), "--model_size", "slow", "--n_tokens_to_generate", "1500"]


@pytest.fixture(autouse=True)
def ctrl_c_of_a_terminal():
    """Children of a shell's background job ignore Ctrl-C, as it does; those of a process that handles it do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Recorder(io.StringIO):
    """A stdout that records when it is flushed."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def flush(self):
        self.shown.append(self.getvalue())


# writing


def test_each_piece_is_shown_before_the_next_is_made(monkeypatch):
    monkeypatch.setattr("sys.stdout", out := Recorder())
    seen = []

    def pieces():
        for piece in ("a", "", "b\n", "c"):
            seen.append(out.shown[-1:])
            yield piece

    cli.write(pieces())
    assert seen == [[], ["a"], ["a"], ["ab\n"]]
    assert out.shown[-1] == "ab\nc\n"


def test_samples_stand_under_headings(monkeypatch):
    monkeypatch.setattr("sys.stdout", out := Recorder())
    cli.write_samples(["one", "two\n"])
    line = "=" * 40
    assert out.shown[-1] == f"{line} SAMPLE 1 {line}\none\n{line} SAMPLE 2 {line}\ntwo\n\n"


def test_text_is_printed_as_it_is_generated(slow_model):
    with start("x", *slow_model, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(20)
        assert process.poll() is None  # most tokens are still to come
        process.kill()


def test_a_terminal_that_is_not_utf8_gets_question_marks(tmp_path):
    make_model(tmp_path)
    arguments = ["é", "--models_dir", str(tmp_path), "--model_size", "tiny", "-s", "1"]
    arguments += ["--n_tokens_to_generate", "30", "--temperature", "9"]
    utf8, ascii_only = run(*arguments), run(*arguments, env={"PYTHONIOENCODING": "ascii"})
    assert not utf8.stdout.isascii(), "the random model's text should have some"
    assert ascii_only.stdout == utf8.stdout.decode().encode("ascii", errors="replace")
    assert (ascii_only.stderr, ascii_only.returncode) == (b"", 0)


# streams that are full or closed


def into_full(*words: str, stream: str = "stdout", way: list[str] = COMMAND):
    with Path("/dev/full").open("wb") as full:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        process = subprocess.Popen([*way, *words], stdin=subprocess.DEVNULL, cwd=ROOT, env=ENVIRONMENT, **pipes)
    stdout, stderr = process.communicate()
    return process.returncode, stdout, stderr


@needs_full
@pytest.mark.parametrize("words", [["x", *SMALL], ["--help"], ["--version"], ["x", *SMALL, "--nsamples", "2"]])
def test_a_full_disk_is_reported(words):
    assert into_full(*words) == (2, None, b"gpt2.py: error: cannot write to stdout: No space left on device\n")


@needs_full
def test_a_full_disk_is_reported_when_the_last_flush_fails():
    code = "import sys; sys.argv = ['a']; from picogpt.commands import cli\nwith cli.clean_exit(): print('x')"
    expected = (2, None, b"a: error: cannot write to stdout: No space left on device\n")
    assert into_full(way=[sys.executable, "-c", code]) == expected


@needs_full
@pytest.mark.parametrize("name", ["batch", "verify"])
def test_every_command_reports_a_full_disk(name, tmp_path):
    (tmp_path / "in.txt").write_text("ROMEO:\n")
    words = {"batch": [str(tmp_path / "in.txt"), "-m", "shakespeare", "-n", "1"], "verify": ["shakespeare"]}[name]
    for arguments in (words, ["--help"]):
        status, _, stderr = into_full(*arguments, way=[sys.executable, "-m", f"picogpt.{name}"])
        assert (status, stderr.count(b"\n")) == (2, 1)
        assert re.match(rb"python -m picogpt.\w+: error: .*No space left on device\n$", stderr)


@needs_full
@pytest.mark.parametrize("words", [["--foo"], [], ["x", "-m", "nope"]])
def test_an_error_that_cannot_be_printed_has_status_2(words):
    assert into_full(*words, stream="stderr") == (2, b"", None)


@needs_full
def test_text_needs_no_stderr():
    assert into_full("ROMEO:", *SMALL, stream="stderr") == (0, continuation("ROMEO:"), None)


@posix
@pytest.mark.parametrize(
    ("redirections", "status", "stderr"),
    [
        ("<&-", 0, b""),
        ("2>&-", 0, b""),
        ("<&- 2>&-", 0, b""),
        (">&-", 2, b"gpt2.py: error: cannot write to stdout: Bad file descriptor\n"),
        (">&- 2>&-", 2, b""),
        ("<&- >&- 2>&-", 2, b""),
    ],
)
def test_streams_may_be_closed(redirections, status, stderr):
    process = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *COMMAND, "ROMEO:", *SMALL], capture_output=True, cwd=ROOT
    )
    assert (process.returncode, process.stderr) == (status, stderr)
    assert process.stdout == (b"" if status else continuation("ROMEO:"))


@posix
@pytest.mark.parametrize("words", [[], ["--foo"]])
def test_a_mistake_with_closed_streams_is_status_2(words):
    for redirections in ("<&-", "<&- >&-", "<&- >&- 2>&-"):
        process = subprocess.run(["sh", "-c", f'exec "$@" {redirections}', "sh", *COMMAND, *words], capture_output=True)
        assert (process.stdout, process.returncode) == (b"", 2)
        assert process.stderr.count(b"\n") == ("2>&-" not in redirections)


@posix
def test_a_closed_pipe_ends_quietly(slow_model):
    with start("x", *slow_model, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(20)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


# errors


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("two\nlines"), "two lines"),
        (MemoryError(), "expected enough memory, found too little: use a smaller model"),
        (MemoryError("Unable to\nallocate 3 TiB"), "found too little (Unable to allocate 3 TiB): use"),
        (OSError(errno.EIO, "Input/output error\n", "a\nb"), "Input/output error : 'a\\nb'"),
        (ModuleNotFoundError("No module named 'regex'", name="regex"), "expected the package regex"),
    ],
)
def test_errors_of_users_and_machines_are_one_line(monkeypatch, capsys, error, message):
    monkeypatch.setattr("sys.argv", ["picogpt"])
    with pytest.raises(SystemExit) as end, cli.clean_exit():
        raise error
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("picogpt: error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "error", [ValueError("x"), ModuleNotFoundError("No module named 'picogpt.x'", name="picogpt.x")]
)
def test_a_bug_has_its_traceback(error):
    with pytest.raises(type(error)), cli.clean_exit():
        raise error


def test_the_dependencies_are_those_that_are_declared():
    declared = re.search(r"^dependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)[
        1
    ]
    assert {*re.findall(r'"(\w+)', declared)} == {*cli.DEPENDENCIES}


@pytest.fixture
def importing(tmp_path):
    """Code that a child runs when it imports a module: raises Ctrl-C, say, or that there is no such module."""

    def environment(name: str, code: str) -> dict[str, str]:
        (tmp_path / "sitecustomize.py").write_text(f"""
import os, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == {name!r}:
            sys.meta_path.remove(Finder)
            {code}
sys.meta_path.insert(0, Finder)
""")
        return {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    return environment


@pytest.mark.parametrize("name", ["numpy", "fire", "regex", "requests", "tqdm"])
def test_a_missing_package_is_reported_in_one_line(importing, tmp_path, name):
    code = f'raise ModuleNotFoundError("No module named {name!r}", name={name!r})'
    model_dir = tmp_path / "models" / "124M"  # what needs the other packages: a download, and text beyond ASCII
    model_dir.mkdir(parents=True)
    words = {"numpy": ["--help"], "fire": ["x", *SMALL], "regex": ["é", *SMALL]}.get(name, ["x", "-d", str(tmp_path)])
    process = run(*words, env=importing(name, code) | {"PICOGPT_WEIGHTS_URL": "https://127.0.0.1:9"})
    assert_refused(process, f"the package {name}, found none in this Python, {sys.executable}", "-m pip install -e .")


def test_an_old_python_is_reported():
    code = "import sys; sys.version_info = (3, 9, 1); from picogpt.__main__ import main; main()"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert (process.stdout, process.returncode) == (b"", 2)
    assert process.stderr.startswith(b"picogpt needs Python 3.10 or later, found ")
    assert process.stderr.endswith(f", {sys.executable}\n".encode())


# Ctrl-C

INTERRUPT = "os.kill(os.getpid(), __import__('_signal').SIGINT)"


@posix
def test_ctrl_c_ends_at_once_with_what_was_printed(slow_model):
    with start("x", *slow_model, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
        assert len(process.stdout.read()) < 1000  # the whole text would be longer
        assert (process.wait(), stderr) == (-signal.SIGINT, b"")


@posix
@pytest.mark.parametrize("way", [COMMAND, [sys.executable, "-m", "picogpt"]])
@pytest.mark.parametrize(
    "module",
    [
        "picogpt.commands", "picogpt.commands.cli", "picogpt.errors", "signal", "typing", "dataclasses",
        "picogpt.commands.generate",
        "numpy", "numpy.linalg", "picogpt.encoder", "picogpt.gpt2", "json", "fire", "fire.core",
        "picogpt.decoding.lookahead",
    ],
)  # fmt: skip
def test_ctrl_c_while_modules_are_imported_ends_quietly(importing, module, way):
    process = subprocess.run([*way, "x", *SMALL], capture_output=True, env=ENVIRONMENT | importing(module, INTERRUPT))
    assert (process.returncode, process.stdout, process.stderr) == (-signal.SIGINT, b"", b"")


@posix
def test_ctrl_c_at_the_very_end_ends_quietly(importing):
    process = run("ROMEO:", *SMALL, env=importing("numpy", f"import atexit; atexit.register(lambda: {INTERRUPT})"))
    assert (process.returncode, process.stdout, process.stderr) == (-signal.SIGINT, continuation("ROMEO:"), b"")


@posix
def test_ctrl_c_closes_what_is_open():
    code = f"""
import os, signal
from picogpt import __main__
from picogpt.commands import cli, generate
def main():
    try:
        {INTERRUPT}
    finally:
        cli.write(["closed"])
generate.main = main
__main__.main()
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert (process.returncode, process.stdout, process.stderr) == (-signal.SIGINT, b"closed\n", b"")


@posix
def test_ctrl_c_stays_ignored_in_a_background_job(importing):
    script = 'trap "" INT; exec "$@"'
    process = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, "ROMEO:", *SMALL],
        capture_output=True,
        env=ENVIRONMENT | importing("picogpt.decoding.lookahead", INTERRUPT),
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, continuation("ROMEO:"), b"")


# stderr


def test_a_warning_is_one_line():
    code = """
import sys
import numpy
sys.argv = ["picogpt"]
from picogpt.commands import cli
with cli.clean_exit():
    numpy.float32(1e38) * numpy.float32(10)
    __import__("warnings").warn("two\\nlines")
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    expected = b"picogpt: warning: overflow encountered in scalar multiply\npicogpt: warning: two lines\n"
    assert (process.returncode, process.stderr) == (0, expected)


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
    assert b"/8 " in shown
    assert b"token" in shown
    assert stdout == continuation("ROMEO:")
    shown, _ = in_terminal(["ROMEO:", *SMALL], stdout_too=True)
    assert shown.replace(b"\r\n", b"\n") == continuation("ROMEO:")
    shown, _ = in_terminal(["ROMEO:", *SMALL, "--nsamples", "2"], stdout_too=True)
    assert b"generating" in shown  # samples are written at the end


def test_a_prompt_is_not_read_from_a_terminal():
    shown, stdout = in_terminal(SMALL, stdout_too=False)
    assert shown.startswith(b"gpt2.py: error: expected a prompt, found none")
    assert stdout == b""
