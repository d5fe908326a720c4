"""From the words of a command line to the arguments of a function.

A parameter whose type is a dataclass stands for its fields: `sampling: Sampling = GREEDY` gives --temperature, --top_k
and so on, and the function gets one Sampling, which has checked them. A field that no word can stand for, such as a
function, is no flag. A flag whose type is a tuple or a mapping may be given several times.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from picogpt.errors import UserError, near

Flags = Mapping[str, inspect.Parameter]
Spellings = Mapping[str, tuple[str, str | None]]

# the same for all commands; no -p, which could be the prompt as well as top_p
SHORT = {
    "n": "n_tokens_to_generate", "m": "model_size", "d": "models_dir", "t": "temperature", "k": "top_k", "s": "seed",
    "i": "input_file", "o": "output_file", "b": "batch_size",
}  # fmt: skip
FLAG = re.compile(r"(?P<flag>--?[A-Za-z][^\s=]*)(=(?P<value>.*))?", re.DOTALL)
KINDS = {int: "a whole number", float: "a number", bool: "True or False"}
SHOWN = 60  # characters of a word that a message quotes


def parameters(function: Callable[..., Any]) -> Flags:
    """The parameters of a function by name, with types as annotations."""
    return inspect.signature(function, eval_str=True).parameters


def flags_of(function: Callable[..., Any]) -> Flags:
    """The parameters of a function by name, with the fields of a dataclass in place of the dataclass."""
    flags: dict[str, inspect.Parameter] = {}
    for name, parameter in parameters(function).items():
        if has_fields(parameter):
            for field, p in parameters(parameter.annotation).items():
                if is_readable(p):
                    flags[field] = p.replace(kind=p.KEYWORD_ONLY, default=getattr(parameter.default, field))
        else:
            flags[name] = parameter
    return flags


def call(function: Callable[..., None], values: Mapping[str, Any]) -> None:
    """Call a function with the values of its flags. The fields of a dataclass become one object."""
    arguments = dict(values)
    for name, parameter in parameters(function).items():
        if has_fields(parameter):
            fields = parameters(parameter.annotation)
            if given := {field: arguments.pop(field) for field in fields if field in values}:
                arguments[name] = changed(parameter.default, given)
    function(**arguments)


def changed(default: Any, given: Mapping[str, Any]) -> Any:
    """A default, with other values of some fields.

    If it is what its class makes by itself, it is made again, because fields may follow from others: drawing from the
    likeliest tokens alone, --top_k, changes the temperature.
    """
    kind = type(default)
    needed = [f for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]
    return kind(**given) if not needed and default == kind() else dataclasses.replace(default, **given)


def has_fields(parameter: inspect.Parameter) -> bool:
    return is_dataclass(parameter.annotation)


def is_readable(parameter: inspect.Parameter) -> bool:
    """Whether a word can stand for a parameter's value."""
    return type_of(parameter) in (str, *KINDS) or is_repeatable(parameter)


def is_repeatable(parameter: inspect.Parameter) -> bool:
    """Whether a flag may be given several times: the parameter is a tuple or a mapping."""
    return typing.get_origin(type_of(parameter)) in (tuple, Mapping)


def positional(flags: Flags) -> list[str]:
    """The names of the parameters that need no flag."""
    return [name for name, parameter in flags.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


def spellings(flags: Flags) -> dict[str, tuple[str, str | None]]:
    """Every way to write a flag: the name of its parameter, and the value that a boolean's flag stands for."""
    known: dict[str, tuple[str, str | None]] = {}
    for name, parameter in flags.items():
        known[f"--{name}"] = name, "True" if type_of(parameter) is bool else None
        if type_of(parameter) is bool:
            known[f"--no{name}"] = known[f"--no_{name}"] = name, "False"
    return known | {f"-{letter}": (name, None) for letter, name in SHORT.items() if name in flags}


def split_at_dashes(words: list[str], flags: Flags) -> tuple[list[str], list[str]]:
    """The words before a "--", and those after it, which are never flags.

    Only a "--" near the end counts, with no more words after it than positional parameters; any other is a text.
    """
    for n in range(1, min(len(positional(flags)), len(words) - 1) + 1):
        if words[-n - 1] == "--":
            return words[: -n - 1], words[-n:]
    return list(words), []


def named_values(words: list[str], flags: Flags) -> dict[str, str]:
    """The values of a command line, as text, by the names of the parameters.

    --name value, --name=value, --na-me, --noname for a boolean, and the letters of SHORT are flags. A word that does
    not look like a flag is positional, and so is one that follows a "--" at the end. Raises UserError for a flag that
    is unknown, given twice or has no value, and for positional words that are missing or too many. The values of a flag
    that may be given several times are a list in JSON.
    """
    before, after = split_at_dashes(words, flags)
    named: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    texts: list[str] = []
    known = spellings(flags)
    while before:
        word = before.pop(0)
        if (flag := FLAG.fullmatch(word)) is None:
            texts.append(word)
            continue
        name, implied = find(flag["flag"], known)
        if name in named:
            raise UserError(f"expected --{name} once, found it twice")
        value = value_of(flag, implied, before, known)
        if is_repeatable(flags[name]):
            several.setdefault(name, []).append(value)
        else:
            named[name] = value
    named |= {name: json.dumps(values) for name, values in several.items()}
    named |= placed(texts + after, [name for name in positional(flags) if name not in named])
    if missing := [name for name, p in flags.items() if p.default is p.empty and name not in named]:
        raise UserError(f"expected {' and '.join(missing)}, found nothing; see --help")
    return named


def find(flag: str, known: Spellings) -> tuple[str, str | None]:
    """The parameter of a flag, and the value that it implies. Raises UserError, with a hint, for an unknown flag."""
    if spelled(flag) in known:
        return known[spelled(flag)]
    nearest = near(spelled(flag).lstrip("-").lower(), {name: None for name, _ in known.values()})
    hint = f"did you mean --{nearest}?" if nearest else "--help shows all flags"
    raise UserError(f"unknown flag {flag[:SHOWN]}: {hint} (text that begins with a dash goes last, after --)")


def value_of(flag: re.Match[str], implied: str | None, rest: list[str], known: Spellings) -> str:
    """The value of a flag: the text after its =, the value that it implies, or the next word. Raises UserError."""
    written, value = flag["flag"], flag["value"]
    following = rest[0] if rest and value is None else None
    if implied is None:
        if value is None and following is None:
            raise UserError(f"expected a value after {written}, found nothing")
        if following is not None and spelled(following.partition("=")[0]) in known:
            raise UserError(f"expected a value after {written}, found {following}: {written}={following} is one")
        return rest.pop(0) if value is None else value
    if value is not None and implied == "False":
        raise UserError(f"expected {written} without a value, found {flag[0][:SHOWN]}")
    if following in ("True", "False", "true", "false") and implied == "True":
        raise UserError(f"expected {written}=True or {written}=False, found {written} {following}, which is ambiguous")
    return implied if value is None else value


def spelled(flag: str) -> str:
    """A flag with underscores: --top-k as --top_k."""
    return flag[:2] + flag[2:].replace("-", "_")


def placed(texts: list[str], names: list[str]) -> dict[str, str]:
    """Positional words by the names that are left for them. Raises UserError if there are too many."""
    if len(texts) > len(names):
        plural = "s" * (len(names) != 1)
        expected = f"{len(names) or 'no more'} argument{plural} without a flag" + f" ({', '.join(names)})" * bool(names)
        found = f"{len(texts)}: {' and '.join(repr(text[:SHOWN]) for text in texts)}"
        raise UserError(f"expected {expected}, found {found}; put quotes around text that has spaces")
    return dict(zip(names, texts, strict=False))


def type_of(parameter: inspect.Parameter) -> Any:
    """The type of a parameter, `int` for `int | None`."""
    if typing.get_origin(parameter.annotation) in (types.UnionType, typing.Union):
        return next(t for t in typing.get_args(parameter.annotation) if t is not type(None))
    return parameter.annotation


def choices(parameter: inspect.Parameter) -> list[str]:
    """All values of a parameter whose type is a Literal of texts; none for any other.

    >>> from typing import Literal
    >>> choices(inspect.Parameter("how", inspect.Parameter.KEYWORD_ONLY, annotation=Literal["crop", "half"] | None))
    ['crop', 'half']
    """
    expected = type_of(parameter)
    return list(typing.get_args(expected)) if typing.get_origin(expected) is typing.Literal else []


def parser_for(name: str, parameter: inspect.Parameter) -> Callable[[str], Any]:
    """A function that reads the text of a parameter's value. It raises UserError."""
    expected = type_of(parameter)
    if among := choices(parameter):
        return lambda text: one_of(name, among, text)

    def parse(text: str, kind: Any = expected) -> Any:
        try:
            return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError):
            raise UserError(f"--{name}: expected {KINDS[kind]}, found {text[:SHOWN]!r}") from None

    def pair(text: str) -> tuple[Any, Any]:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--{name}: expected {pairs_of(expected)}, found {text[:SHOWN]!r}")
        key_kind, value_kind = typing.get_args(expected)
        return parse(key, key_kind), parse(value, value_kind)

    def parse_all(text: str) -> Any:
        if typing.get_origin(expected) is tuple:
            return tuple(parse(word, typing.get_args(expected)[0]) for word in json.loads(text))
        return dict(map(pair, json.loads(text)))

    return parse_all if is_repeatable(parameter) else parse


def pairs_of(kind: Any) -> str:
    """How a pair of a mapping is written: ID=X."""
    return "ID=X" if typing.get_args(kind) == (int, float) else "NAME=VALUE"


def one_of(name: str, among: Sequence[str], text: str) -> str:
    """A text that is one of several. Raises UserError for another."""
    if text not in among:
        raise UserError(f"--{name}: expected {' or '.join(among)}, found {text[:SHOWN]!r}")
    return text
