"""The error that a user can fix."""


class UserError(ValueError):
    """An error that the user can fix. The message says what was expected, what was found and what to do next.

    The command line prints it as one line on stderr and exits with status 2. Messages quote files and arguments, which
    may contain anything, so characters that are not printable are escaped.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    r"""A text in one line: a newline becomes a space, and other characters that are not printable are escaped.

    >>> printable("two\nlines, \x1b[31mred")
    'two lines, \\x1b[31mred'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.replace("\n", " "))
