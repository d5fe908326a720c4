"""Shared by all commands: calling their functions, reading the prompt, writing text, and exiting.

Only the answer goes to stdout. Progress and messages go to stderr.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, TypeVar

from picogpt.commands import arguments
from picogpt.errors import UserError, printable

T = TypeVar("T")

DEPENDENCIES = ("numpy", "fire", "platformdirs", "regex", "requests", "threadpoolctl", "tqdm")
PACKAGE = Path(__file__).parent.parent
PRESETS = {"recipe", "resume", "settings_file"}  # flags that name more flags
PROMPT_LIMIT = 1 << 24  # bytes; far more than any model sees


def run(function: Callable[..., None], argv: list[str] | None = None) -> None:
    """Call a function with the arguments of a command line. All of them are checked before the work begins."""
    words = sys.argv[1:] if argv is None else argv
    flags = arguments.flags_of(function)
    if page := page_asked_for(function, words, flags):
        write([page])
        return
    named = arguments.named_values(words, flags)
    if PRESETS & named.keys():
        from picogpt.commands import presets

        named = presets.with_files(named, flags)
    values = through_fire(named, flags)
    with ctrl_c_raises():
        arguments.call(function, values)


def page_asked_for(function: Callable[..., None], words: list[str], flags: arguments.Flags) -> str | None:
    """The help page if -h is among the flags, the version if --version is, or a shell's completion; else None."""
    before_dashes, _ = arguments.split_at_dashes(words, flags)
    if before_dashes and before_dashes[0].partition("=")[0] == "--completion":
        from picogpt.commands import completion

        return completion.script(function, " ".join(before_dashes).partition("--completion")[2][1:])
    if {"-h", "--help"} & {*before_dashes}:
        from picogpt.commands import help

        return help.page(function, program_name())
    if "--version" in before_dashes:
        from picogpt import __version__

        return f"picogpt {__version__}"
    return None


def through_fire(named: Mapping[str, str], flags: arguments.Flags) -> dict[str, Any]:
    """Parse the values of flags with Fire.

    On its own, Fire would evaluate a prompt as Python (`[1, 2]`, `1e5`, `True`), treat the prompt `--` as a separator,
    read --seed without a value as True, and report a misspelt flag only after the work is done. So the words are
    checked before, each name has a parser for its type, and the function that Fire calls only records the values.
    """
    fire = imported_fire()  # takes a while, so only after the words are checked
    values: dict[str, Any] = {}

    def record(**parsed: Any) -> None:
        values.update(parsed)

    parsers = {name: arguments.parser_for(name, flags[name]) for name in named}
    fire.Fire(fire.decorators.SetParseFns(**parsers)(record), [f"--{name}={text}" for name, text in named.items()])
    return values


def imported_fire() -> Any:
    """Fire, without asyncio, which takes three times as long to import as all the rest of Fire.

    Fire asks it one thing alone: whether a function is a coroutine function. For anything else, asyncio is imported.
    """
    stand_in = ModuleType("asyncio")

    def withdraw() -> None:
        if sys.modules.get("asyncio") is stand_in:
            del sys.modules["asyncio"]

    def from_asyncio(name: str) -> Any:
        withdraw()
        return getattr(import_module("asyncio"), name)

    vars(stand_in).update(iscoroutinefunction=iscoroutinefunction, __getattr__=from_asyncio)
    sys.modules.setdefault("asyncio", stand_in)
    try:
        return import_module("fire")
    finally:
        withdraw()


@contextmanager
def clean_exit() -> Iterator[None]:
    """Exit as users expect: with one line for a mistake, and quietly on Ctrl-C or a closed pipe."""
    sys.stdout = sys.stdout or _closed_stream()
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character gets "?"
    warnings.formatwarning = lambda message, *_, **__: f"{program_name()}: warning: {printable(str(message))}\n"
    try:
        yield
        write([], end="")
        gc.freeze()  # skip Python's last garbage collection, which takes 15 ms
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _flush_or_forget(sys.stdout)
        os.kill(os.getpid(), signal.SIGINT)  # so that a shell sees how the program ended
    except BrokenPipeError:
        _flush_or_forget(sys.stdout)
        sys.exit(128 + 13)  # the status of a program ended by SIGPIPE
    except Exception as error:
        if (message := in_one_line(error)) is None:
            raise
        _flush_or_forget(sys.stdout)
        _tell(f"{program_name()}: error: {message}\n")
        sys.exit(2)


def in_one_line(error: Exception) -> str | None:
    """The message for an error that the user can fix, or that the machine causes; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name in DEPENDENCIES:
        return (
            f"expected the package {error.name}, found none in this Python, {sys.executable}: install picogpt with "
            f"{sys.executable} -m pip install -e . in its clone, or use another Python that has it"
        )
    if isinstance(error, MemoryError):
        found = f"too little{f' ({error})' if str(error) else ''}"
        return printable(f"expected enough memory, found {found}: use a smaller model, or fewer texts at a time")
    if isinstance(error, OSError):
        return printable(str(error))
    return None


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, so that files are closed. Before and after, Ctrl-C ends the process.

    This changes nothing unless __main__.py has made Ctrl-C end the process, to avoid tracebacks from imports.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def program_name() -> str:
    """How the program was called: `gpt2.py`, `picogpt`, or `python -m picogpt.batch`."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return f"python -m {path.parent.name}"
    if PACKAGE not in path.absolute().parents:
        return path.name
    module = path.absolute().relative_to(PACKAGE.parent).with_suffix("")
    return f"python -m {'.'.join(module.parts)}"


def read_prompt(prompt: str | None, prompt_file: str | None = None) -> str:
    """The prompt, or the text of a file or a pipe without its last newline. Other bytes become surrogate escapes.

    Raises UserError if there is none, or two, or if a file or pipe is empty: only "" as an argument starts a new text.
    """
    if prompt is not None and prompt_file is not None:
        raise UserError(f"expected one prompt, found {prompt[:40]!r} and --prompt_file: leave one out")
    if prompt is not None:
        return prompt
    if prompt_file is not None:
        where, data = prompt_file, read_input(prompt_file)
    else:
        where, data = "the pipe", b"" if sys.stdin is None or sys.stdin.isatty() else read_input("-")
    if len(data) > PROMPT_LIMIT:
        raise UserError(f"expected a prompt of at most {PROMPT_LIMIT >> 20} MB from {where}, found more")
    text = re.sub(r"\r?\n\Z", "", data.decode("utf-8", errors="surrogateescape"))
    if not text and prompt_file is not None:
        raise UserError(f'{prompt_file}: expected a prompt, found an empty file: give the prompt "" for a new text')
    if not text:
        raise UserError(f'expected a prompt, found none: {program_name()} "Once upon a time", or "" for a new text')
    return text


def read_input(path: str | Path, limit: int = PROMPT_LIMIT, what: str = "prompt", flag: str = "prompt_file") -> bytes:
    """The first limit + 1 bytes of a file, a pipe or a device, or of stdin if the path is "-". Raises UserError."""
    if str(path) == "-":
        return b"" if sys.stdin is None else sys.stdin.buffer.read(limit + 1)
    try:
        with Path(path).open("rb") as file:
            return file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot read the {what}: {reason}: choose another --{flag}") from None


def at_least(least: int, **values: int) -> None:
    """Raise UserError, naming the flag, for a number that is too small."""
    for name, value in values.items():
        if value < least:
            raise UserError(f"{name} must be {least} or more, found {value}")


def write(pieces: Iterable[str], end: str = "\n") -> None:
    """Write pieces of text to stdout as they come. Raises UserError if that fails, as on a full disk."""
    texts = iter(pieces)
    while (piece := next(texts, None)) is not None:
        _write(piece)
    _write(end)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write to stdout: {error.strerror}") from None


def _flush_or_forget(stream: TextIO) -> None:
    """Flush a stream. If that fails, discard its contents, or Python would fail again at exit."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tell(line: str) -> None:
    with suppress(OSError):
        sys.stderr.write(line)
    _flush_or_forget(sys.stderr)


def _closed_stream() -> TextIO:
    """A stream that cannot be written to, for a stdout that was closed before the program started."""
    return os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")


def write_samples(texts: Iterable[str], notes: Sequence[str] = ()) -> None:
    """Write several texts, each under a heading like that of OpenAI's scripts, with its note if it has one."""
    for number, text in enumerate(texts, start=1):
        note = notes[number - 1] if notes else ""
        write([f"{'=' * 40} SAMPLE {number}{note} {'=' * 40}\n", text])


def progress(
    steps: Iterable[T], total: int, unit: str, beside_text: bool = False, doing: str = "generating"
) -> Iterator[T]:
    """Show a progress bar on stderr, unless stderr is not a terminal or the text is written to the same terminal."""
    if not sys.stderr.isatty() or (beside_text and sys.stdout.isatty()):
        return iter(steps)
    from tqdm import tqdm

    return iter(tqdm(steps, doing, total=total, unit=unit, leave=False))
