"""picogpt --interactive: a conversation with a model that stays loaded.

The answers go to stdout. Everything else goes to stderr, but for what a person types in a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any, Literal

from picogpt import files
from picogpt.commands import arguments, cli
from picogpt.decoding.conversation import Conversation
from picogpt.errors import UserError, near
from picogpt.model import Model
from picogpt.sampling import GREEDY, Sampling

MARK = "> "
WELCOME = "What you type is added to the text, and the model goes on. Ctrl-C stops it, Ctrl-D leaves, /help shows more."
HELP = """\
  a line               is added to the text on a line of its own, and the model goes on from there
  an empty line        lets the model go on
  /retry               writes another answer to the last line
  /new                 starts a new text
  /text                shows the whole text
  /set                 shows the settings
  /set NAME VALUE      changes a setting: /set temperature 0.8
  /set NAME            gives a setting its default again
  /help                shows this
  //...                is a line that begins with a slash
  Ctrl-C               stops the answer; what is there stays in the text
  Ctrl-D               leaves"""


def settable(
    *, n_tokens_to_generate: int = 40, lookahead: bool = True, sliding_window: Literal["crop", "half"] | None = None,
    sampling: Sampling = GREEDY,
) -> None:  # fmt: skip
    """The settings that /set changes are the parameters of this function."""


def talk(model: Model, prompt: str | None, sampling: Sampling, **settings: Any) -> None:
    """Answer a prompt, if there is one, and then each line that is read. Mistakes are told and do not end this."""
    values = vars(sampling) | settings
    if Sampling(**vars(sampling) | {"temperature": None}) == sampling:
        values["temperature"] = None  # so that /set top_k 40 draws, as --top_k 40 does
    session = Session(Conversation(model, **values))
    if prompt is not None:
        session.turn(prompt)
    for line in lines():
        session.turn(line)


def lines() -> Iterator[str]:
    """The lines that a person types, with a mark before each in a terminal, or those of a pipe, until the end."""
    if sys.stdin is None:
        return
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # any bytes are a text
    in_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if in_terminal:
        files.note(WELCOME)
        with suppress(ImportError):  # Windows has none
            import readline  # noqa: F401 gives input() its line editing and its history
    while True:
        try:
            yield input(MARK) if in_terminal else _next_line()
        except KeyboardInterrupt:  # forget this line
            print(file=sys.stderr)
        except EOFError:
            if in_terminal:
                print()
            return


def _next_line() -> str:
    if sys.stdin.isatty():
        print(MARK, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


class Session:
    """What is done with the lines of a conversation."""

    def __init__(self, conversation: Conversation):
        self.conversation = conversation
        self.commands: dict[str, Callable[[str], None]] = {
            "help": self.help, "new": self.new, "retry": self.retry, "set": self.set, "text": self.text,
        }  # fmt: skip

    def turn(self, line: str) -> None:
        """Do what a line says. Ctrl-C and mistakes end only that."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                name, _, rest = line[1:].strip().partition(" ")
                self.command(name)(rest.strip())
            else:
                self.write(self.conversation.say(line[1:] if line.startswith("//") else line))
        except KeyboardInterrupt:
            cli.write([])
        except UserError as error:
            files.note(f"error: {error}")

    def command(self, name: str) -> Callable[[str], None]:
        """The command of this name. Raises UserError, with a hint, if there is none."""
        if name in self.commands:
            return self.commands[name]
        nearest = near(name, self.commands) if name else None
        hint = f"did you mean /{nearest}?" if nearest else "/help shows all"
        raise UserError(f"unknown command {files.quoted('/' + name)}: {hint}")

    def write(self, pieces: Iterator[str]) -> None:
        """Write an answer as it comes, and a newline if it does not end with one."""
        last = "\n"
        for piece in pieces:
            cli.write([piece], end="")
            last = piece or last
        cli.write([], end="" if last.endswith("\n") else "\n")

    def help(self, _: str) -> None:
        """Show what can be typed."""
        print(HELP, file=sys.stderr, flush=True)

    def new(self, _: str) -> None:
        """Start a new text."""
        self.conversation.restart()

    def text(self, _: str) -> None:
        """Show the whole text."""
        cli.write([self.conversation.text])

    def retry(self, _: str) -> None:
        """Write another answer to the last line."""
        if not self.conversation.n_answers:
            raise UserError("expected an answer to write again, found none: type a line first")
        if self.sampling().greedy:
            files.note("the likeliest text is the same each time: /set temperature 0.8 draws others")
        self.write(self.conversation.retry())

    def set(self, words: str) -> None:
        """Change a setting, by default to its default, or show all."""
        flags, (name, _, value) = arguments.flags_of(settable), words.partition(" ")
        if not words:
            known = self.conversation.settings | {"temperature": self.sampling().temperature}
            files.note(", ".join(f"{name} {known.get(name, flags[name].default)}" for name in flags))
            return
        if name not in flags:
            nearest = near(name, flags)
            hint = f"did you mean {nearest}?" if nearest else "/set shows all"
            raise UserError(f"unknown setting {files.quoted(name)}: {hint}")
        given = [f"--{name}={value.strip()}"] if value.strip() else []
        values = cli.through_fire(arguments.named_values(given, flags), flags)
        changed = self.conversation.settings | {name: flags[name].default} | values
        cli.at_least(0, n_tokens_to_generate=changed["n_tokens_to_generate"])
        self.sampling(changed)  # checks them
        self.conversation.settings = changed

    def sampling(self, settings: Mapping[str, Any] | None = None) -> Sampling:
        """The settings for drawing. Raises UserError if one is out of range."""
        known = self.conversation.settings if settings is None else settings
        return Sampling(**{field.name: known[field.name] for field in fields(Sampling) if field.name in known})
