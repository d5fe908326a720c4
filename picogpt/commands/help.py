"""The page that --help shows, made from a function's signature and docstring; only --help imports it.

In a docstring, lines "name: text" under a line "Heading:" are a group of flags. One that names a dataclass's parameter
stands for its fields, which the class's docstring explains. Other indented lines, as examples, are shown as they are.
Without docstrings (python -OO) the page has the flags alone.
"""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from picogpt.commands import arguments
from picogpt.commands.arguments import Flags

COLUMN = 26  # where explanations begin
ENTRY = re.compile(r"^( *)(\w+): (.*(?:\n\1 +.*)*)", re.MULTILINE)
PROGRAM = re.compile(r"(?<!\S)picogpt(?= )")  # in an example
VALUES = {int: "N", float: "X", bool: "", tuple[int, ...]: "ID", Mapping[int, float]: "ID=X"}


def page(function: Callable[..., Any], program: str) -> str:
    """The help of `program`, a command line that calls a function."""
    flags = arguments.flags_of(function)
    classes = {name: p.annotation for name, p in arguments.parameters(function).items() if arguments.has_fields(p)}
    fields = {name: list(arguments.parameters(kind)) for name, kind in classes.items()}
    texts = explanations(function, *classes.values())
    width = max(min(shutil.get_terminal_size().columns, 100), 2 * COLUMN)
    program = f"python {program}" if program.endswith(".py") else program
    unseen = list(flags)

    def group(heading: str, names: list[str]) -> str:
        unseen[:] = [name for name in unseen if name not in names]
        entries = (entry(spelling(name, flags), texts.get(name, ""), flags[name].default, width) for name in names)
        return "\n".join([heading, *entries])

    parts = [usage(program, flags)]
    for block in re.split(r"\n\n+(?=\S)", inspect.getdoc(function) or ""):
        heading, _, body = block.partition("\n")
        names = [name for _, key, _ in ENTRY.findall(body) for name in fields.get(key, [key]) if name in unseen]
        if names and heading.endswith(":"):
            parts.append(group(heading, names))
        elif body.startswith(" "):
            lines = textwrap.indent(textwrap.dedent(body), "  ")
            parts.append(f"{heading}\n{re.sub(PROGRAM, lambda _: program, lines)}")
        else:
            parts.append(textwrap.fill(block, width))
    if unseen:
        parts.append(group("Flags:", list(unseen)))
    return "\n\n".join(part for part in parts if part)


def usage(program: str, flags: Flags) -> str:
    """The first line: positional parameters in capitals, in brackets if they are optional."""
    words = [
        name.upper() if flags[name].default is inspect.Parameter.empty else f"[{name.upper()}]"
        for name in arguments.positional(flags)
    ]
    return " ".join(["usage:", program, *words, "[--flag VALUE ...]"])


def explanations(*documented: Any) -> dict[str, str]:
    """The explanation of each name in the docstrings of functions and classes."""
    docs = (inspect.getdoc(thing) or "" for thing in documented)
    return {name: " ".join(text.split()) for doc in docs for _, name, text in ENTRY.findall(doc)}


def spelling(name: str, flags: Flags) -> str:
    """How a parameter is written: `-n, --n_tokens_to_generate N`, or PROMPT if it needs no flag."""
    if name in arguments.positional(flags):
        return name.upper()
    letters = [f"-{letter}, " for letter, long in arguments.SHORT.items() if long == name]
    no = "[no]" * (flags[name].default is True)
    value = "|".join(arguments.choices(flags[name])) or VALUES.get(arguments.type_of(flags[name]), "TEXT")
    return f"{''.join(letters) or '    '}--{no}{name} {value}".rstrip()


def entry(flag: str, text: str, default: Any, width: int) -> str:
    """A flag, its explanation, and its default if there is one to show."""
    if default not in (None, "", False, (), inspect.Parameter.empty):
        text = f"{text} ({'the default' if default is True else f'default: {default}'})".lstrip()
    lines = textwrap.wrap(text, width - COLUMN)
    if len(flag) + 4 > COLUMN:
        lines.insert(0, "")
    first, *others = lines or [""]
    return "\n".join([f"  {flag:{COLUMN - 2}}{first}".rstrip(), *(" " * COLUMN + line for line in others)])
