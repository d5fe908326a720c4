"""What every command line of picogpt shares: arguments for Fire, the prompt, the text on stdout, and polite ends.

stdout holds the answer and nothing else; progress and messages go to stderr.
"""

from __future__ import annotations

import difflib
import gc
import inspect
import os
import re
import signal
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from picogpt.errors import UserError

T = TypeVar("T")
Parameters = Mapping[str, inspect.Parameter]

FLAG = re.compile(r"--?(?P<name>[A-Za-z][\w-]*)(?:=(?P<value>.*))?", re.DOTALL)


@contextmanager
def polite_ends() -> Iterator[None]:
    """Ends the program as its user expects: one line for a mistake, quietly on Ctrl-C and on a closed pipe."""
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character gets "?"
    try:
        yield
        sys.stdout.flush()
        gc.freeze()  # or Python would search all objects for garbage once more, 15 ms of looking in vain
    except UserError as error:
        message = str(error).replace("\n", " ")
        print(f"{program_name()}: error: {message}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _flush_or_forget()
        os.kill(os.getpid(), signal.SIGINT)  # so that a shell sees how the program ended
    except BrokenPipeError:
        _flush_or_forget()
        sys.exit(128 + 13)  # as a program does that SIGPIPE ends


def _nowhere() -> TextIO:
    """For a stream that was closed before the program began."""
    return Path(os.devnull).open("w", encoding="utf-8")


def _flush_or_forget() -> None:
    """Flush stdout; where nobody reads it any more, let it go, or Python complains when it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def program_name() -> str:
    """How the program was called: `gpt2.py`, `picogpt`, or `python -m picogpt.batch`."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return f"python -m {path.parent.name}"
    # the package itself: a clone may be called picogpt as well
    return f"python -m {__package__}.{path.stem}" if path.parent == Path(__file__).parent else path.name


def run(function: Callable[..., None], argv: list[str] | None = None) -> None:
    """Call a function with the command line's arguments, through Fire.

    Fire alone would read a prompt as Python (`[1, 2]`, `1e5`, `True`), take one like `--` for its own, and complain
    of a misspelt flag only after the work is done. So the arguments are checked against the function's parameters
    first and each is handed over as --name=value with a parser made from its annotation (str, int, float or bool).
    """
    parameters = inspect.signature(function, eval_str=True).parameters
    arguments = named_arguments(sys.argv[1:] if argv is None else argv, parameters)
    import fire  # takes a twentieth of a second, so not before the arguments are known to be good

    if arguments is None:
        function.__annotations__ = inspect.get_annotations(function, eval_str=True)  # which the help shows
        trace = fire.trace.FireTrace(function, name=program_name())
        print(fire.helptext.HelpText(function, trace))
        return
    parsers = {name: parser_for(parameter) for name, parameter in parameters.items()}
    fire.Fire(
        fire.decorators.SetParseFns(**parsers)(function), [f"--{name}={value}" for name, value in arguments.items()]
    )


def run_one(functions: Mapping[str, Callable[..., None]], argv: list[str] | None = None) -> None:
    """Call the function that the first argument names with the others: `python -m picogpt.utils verify 124M`."""
    command, *arguments = (sys.argv[1:] if argv is None else argv) or [""]
    if command in ("-h", "--help"):
        for name, function in functions.items():
            print(f"{program_name()} {name}: {(inspect.getdoc(function) or '').splitlines()[0]}")
    elif command in functions:
        run(functions[command], arguments)
    else:
        raise UserError(f"expected one of {', '.join(functions)}, found {command or 'nothing'!r}; --help tells more")


def named_arguments(argv: list[str], parameters: Parameters) -> dict[str, str] | None:
    """The arguments by the names of the parameters they are for; None where help was asked for.

    --name value, --name=value, --na-me and -n (where only one name begins so) are flags; what does not look like a
    flag is positional, and so is what comes behind a "--" at the end. Raises UserError for a flag that is unknown,
    there twice or has no value, and for positional arguments that are missing or too many.
    """
    named: dict[str, str] = {}
    positional: list[str] = []
    names = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        if argument == "--" and 1 <= len(rest) <= len(names) - len(positional):
            positional += rest
            break
        flag = FLAG.fullmatch(argument)
        if flag is None:
            positional.append(argument)
            continue
        if flag["name"] in ("h", "help"):
            return None
        name = flag_name(argument, flag["name"].replace("-", "_"), parameters)
        if name in named:
            raise UserError(f"expected --{name} once, found it twice")
        named[name] = flag["value"] if flag["value"] is not None else flag_value(parameters[name], rest)
    names = [name for name in names if name not in named]
    if len(positional) > len(names):
        expected = f"{len(names)} argument{'s' * (len(names) != 1)} without a flag ({', '.join(names)})"
        found = f"{len(positional)}: {' and '.join(map(repr, positional))}"
        raise UserError(f"expected {expected}, found {found}; put quotes around text that has spaces")
    named |= dict(zip(names, positional, strict=False))
    if missing := [name for name, p in parameters.items() if p.default is p.empty and name not in named]:
        raise UserError(f"expected {' and '.join(missing)}, found nothing; --help tells more")
    return named


def flag_name(argument: str, name: str, parameters: Parameters) -> str:
    """The parameter that a flag names; its first letter alone will do behind one dash. Raises UserError."""
    if argument.startswith("--"):
        if name in parameters:
            return name
    elif len(name) == 1 and len(found := [known for known in parameters if known.startswith(name)]) == 1:
        return found[0]
    nearest = difflib.get_close_matches(name, parameters, n=1, cutoff=0.5)
    nearest += [known for known in parameters if known.startswith(name)]
    hint = f"did you mean --{nearest[0]}?" if nearest else f"known are --{', --'.join(parameters)}"
    raise UserError(
        f"unknown flag {argument.split('=')[0]}: {hint} (text that begins with a dash goes last, behind --)"
    )


def flag_value(parameter: inspect.Parameter, rest: list[str]) -> str:
    if annotated_type(parameter) is bool:
        return "True"
    if not rest:
        raise UserError(f"expected a value after --{parameter.name}, found nothing")
    return rest.pop(0)


def annotated_type(parameter: inspect.Parameter) -> Any:
    """The type in an annotation, `int` for `int | None`."""
    if isinstance(parameter.annotation, types.UnionType):
        return next(t for t in typing.get_args(parameter.annotation) if t is not type(None))
    return parameter.annotation


def parser_for(parameter: inspect.Parameter) -> Callable[[str], Any]:
    expected = annotated_type(parameter)

    def parse(value: str) -> Any:
        try:
            if expected is bool:
                return {"true": True, "false": False}[value.lower()]
            return expected(value)
        except (ValueError, KeyError):
            kind = {int: "a whole number", float: "a number", bool: "True or False"}[expected]
            raise UserError(f"--{parameter.name}: expected {kind}, found {value!r}") from None

    return parse


def read_prompt(prompt: str | None) -> str:
    """The prompt, or what a pipe brings, less its last newline; bytes that are no UTF-8 become surrogate escapes."""
    if prompt is not None:
        return prompt
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError(f'expected a prompt, found none: {program_name()} "Once upon a time"; --help tells more')
    text = sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape")
    return re.sub(r"\r?\n\Z", "", text)


def write(pieces: Iterable[str]) -> None:
    """Write pieces of text to stdout as they come, and a newline at the end. Raises UserError on a full disk."""
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _flush_or_forget()
        raise UserError(f"cannot write the text to stdout: {error.strerror}") from None


def write_samples(texts: Iterable[str]) -> None:
    """Write several texts, each under a heading like that of OpenAI's scripts."""
    for number, text in enumerate(texts, start=1):
        write([f"{'=' * 40} SAMPLE {number} {'=' * 40}\n", text])


def progress(steps: Iterable[T], total: int, unit: str, beside_text: bool = False) -> Iterable[T]:
    """A bar on stderr while text is generated, unless stderr is no terminal or the text is written beside it."""
    if not sys.stderr.isatty() or (beside_text and sys.stdout.isatty()):
        return steps
    from tqdm import tqdm

    return tqdm(steps, "generating", total=total, unit=unit, leave=False)
