"""The one kind of error that a person can put right."""


class UserError(ValueError):
    """Something a person can put right: says what was expected, what was found and what to do next.

    The command line prints it as one line on stderr and exits with status 2.
    """
