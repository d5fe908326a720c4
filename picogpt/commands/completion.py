"""Completion of flags and their values with the Tab key, in bash and zsh; only --completion imports it.

    source <(picogpt --completion bash)        in ~/.bashrc
    source <(picogpt --completion zsh)         in ~/.zshrc, after compinit

A script is made from a function's signature, as the help page is, and the explanations come from the same docstrings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from picogpt.commands import arguments, help
from picogpt.commands.arguments import Flags
from picogpt.errors import UserError
from picogpt.weights.find import MODEL_SIZES, bundled_models_dir

SHELLS = ("bash", "zsh")

BASH = """\
_picogpt() {
    local word=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD - 1]} IFS=$'\\n'
    [[ $flag == '=' ]] && flag=${COMP_WORDS[COMP_CWORD - 2]}
    [[ $word == '=' ]] && word=''
    COMPREPLY=()
    case ${flag//-/_} in
%(cases)s
        *) [[ $word == -* ]] && COMPREPLY=($(compgen -W $'%(flags)s' -- "$word")) ;;
    esac
}
complete -o filenames -F _picogpt picogpt
"""
BASH_VALUES = {
    "file": 'compgen -f -- "$word"',
    "directory": 'compgen -d -- "$word"',
    "model": 'compgen -d -- "$word"; cd -- "${PICOGPT_MODELS_DIR:-models}" 2> /dev/null && compgen -d -- "$word"',
}

ZSH = """\
_picogpt_model() {
    local -a there=(${PICOGPT_MODELS_DIR:-models}/*(N/:t))
    compadd -- %(models)s $there
    _files -/
}
_picogpt() {
    _arguments \\
        %(specifications)s
}
compdef _picogpt picogpt
"""
ZSH_VALUES = {"file": "_files", "directory": "_files -/", "model": "_picogpt_model"}


def script(function: Callable[..., Any], shell: str) -> str:
    """The completion of the command `picogpt`, which calls a function. Raises UserError for another shell."""
    flags = arguments.flags_of(function)
    if shell == "bash":
        return bash(flags)
    if shell == "zsh":
        classes = [p.annotation for p in arguments.parameters(function).values() if arguments.has_fields(p)]
        return zsh(flags, help.explanations(function, *classes))
    raise UserError(f"--completion: expected {' or '.join(SHELLS)}, found {shell[: arguments.SHOWN]!r}")


def models() -> list[str]:
    """The names that need no directory."""
    return [*MODEL_SIZES, *sorted(path.name for path in bundled_models_dir().iterdir() if path.is_dir())]


def words_of(name: str, flags: Flags) -> list[str]:
    """How a flag is written: `-t`, `--temperature`; for a boolean also `--noNAME`."""
    letters = [f"-{letter}" for letter, long in arguments.SHORT.items() if long == name]
    return [*letters, f"--{name}", *([f"--no{name}"] if takes_no_value(name, flags) else [])]


def takes_no_value(name: str, flags: Flags) -> bool:
    """Whether a flag is a boolean."""
    return arguments.type_of(flags[name]) is bool


def kind_of(name: str) -> str:
    """What the value of a flag is, by the flag's name: "model", "directory", "file", or "" for anything else."""
    if name in ("model_size", "draft_model"):
        return "model"
    return "directory" if name.endswith("_dir") else "file" if name.endswith("_file") or name == "cache_prompt" else ""


def fixed_values(name: str, flags: Flags) -> list[str]:
    """All values that a flag may have, if they can be listed, or those of them that have a name."""
    return models() if kind_of(name) == "model" else arguments.choices(flags[name])


def bash(flags: Flags) -> str:
    """A function for `complete`. Dashes in flags are read as underscores."""
    values = [name for name in flags if not takes_no_value(name, flags)]
    cases = [(words_of(name, flags), kind_of(name), fixed_values(name, flags)) for name in values]
    cases.append((["--completion"], "", list(SHELLS)))
    lines = (f"        {'|'.join(w).replace('-', '_')}) COMPREPLY=({bash_values(kind, v)}) ;;" for w, kind, v in cases)
    words = [word for name in flags for word in words_of(name, flags)] + ["--help", "--version", "--completion"]
    return BASH % {"cases": "\n".join(lines), "flags": r"\n".join(words)}


def bash_values(kind: str, fixed: list[str]) -> str:
    """What prints the values of a flag that begin with $word, a line each."""
    listed = r"\n".join(fixed)
    commands = [f"compgen -W $'{listed}' -- \"$word\""] if fixed else []
    commands += [BASH_VALUES[kind]] if kind else []
    return f"$({'; '.join(commands)})" if commands else ""


def zsh(flags: Flags, texts: dict[str, str]) -> str:
    """A function for `compdef`, with the beginning of each flag's explanation."""
    lines = [f"':{name}:{zsh_values(name, flags)}'" for name in arguments.positional(flags)]
    for name in flags:
        words, (text, *_) = words_of(name, flags), re.split("[:;]", texts.get(name, ""), maxsplit=1)
        value = "" if takes_no_value(name, flags) else f":{name}:{zsh_values(name, flags)}"
        for word in words:
            equals = "=" if value and word.startswith("--") else ""
            explained = bracketed("do not " * word.startswith("--no") + text if not value else text)
            lines.append(quoted(f"({' '.join(words)}){word}{equals}[{explained}]{value}"))
    lines.append(f"'--completion=[completion for a shell]:shell:({' '.join(SHELLS)})'")
    lines += ["'(- *)'{-h,--help}'[all flags, explained]'", "'(- *)--version[the version]'"]
    return ZSH % {"models": " ".join(models()), "specifications": " \\\n        ".join(lines)}


def zsh_values(name: str, flags: Flags) -> str:
    """What _arguments does for the value of a flag."""
    fixed = arguments.choices(flags[name])
    return ZSH_VALUES.get(kind_of(name), f"({' '.join(fixed)})" if fixed else " ")


def bracketed(text: str) -> str:
    """A text as it stands within brackets."""
    return re.sub(r"([\\\[\]])", r"\\\1", text)


def quoted(text: str) -> str:
    """A text as one word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"
