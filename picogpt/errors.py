"""The one kind of error that a person can put right."""


class UserError(ValueError):
    """Something a person can put right: says what was expected, what was found and what to do next.

    The command line prints it as one line on stderr and exits with status 2. What a message quotes may come from
    anywhere, so characters that would move a terminal's cursor, or that cannot be written, are escaped.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    r"""A text in one line: a newline becomes a space, and what is not printable is escaped.

    >>> printable("two\nlines, \x1b[31mred")
    'two lines, \\x1b[31mred'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.replace("\n", " "))
