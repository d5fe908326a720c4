"""The error that a user can fix."""

from collections.abc import Collection, Iterable


class UserError(ValueError):
    """An error that the user can fix. The message says what was expected, what was found and what to do next.

    The command line prints it as one line on stderr and exits with status 2. Messages quote files and arguments, which
    may contain anything, so characters that are not printable are escaped.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class UnknownSettingError(UserError, TypeError):
    """A setting that there is not. Python's own error for an argument that a function does not have is a TypeError."""


def check_known(given: Iterable[str], known: Collection[str]) -> None:
    """Raise UnknownSettingError, with a hint, for a name that is not known.

    >>> check_known(["temprature"], ["temperature", "top_k"])
    Traceback (most recent call last):
    picogpt.errors.UnknownSettingError: unknown setting temprature: did you mean temperature?
    """
    for name in given:
        if name not in known:
            nearest = near(name, known)
            hint = f"did you mean {nearest}?" if nearest else f"the settings are {', '.join(known)}"
            raise UnknownSettingError(f"unknown setting {name[:60]}: {hint}")


def near(name: str, names: Iterable[str]) -> str | None:
    """The name closest to one that is misspelt or cut short, or that has a word of it, as --tokens has."""
    import difflib  # only for a name that is not known

    found = [other for other in names if other.replace("_", "").startswith(name.replace("_", ""))]
    found += difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    found += [other for other in names for word in name.split("_") if len(word) > 3 and word in other]
    words = {word: other for other in reversed([*names]) for word in other.split("_") if len(word) > 3}
    found += [words[word] for word in difflib.get_close_matches(name, words, n=1, cutoff=0.75)]
    return next(iter(found), None)


def printable(text: str) -> str:
    r"""A text in one line: a newline becomes a space, and other characters that are not printable are escaped.

    >>> printable("two\nlines, \x1b[31mred")
    'two lines, \\x1b[31mred'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.replace("\n", " "))
