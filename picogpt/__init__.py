"""picogpt: GPT-2 in pure NumPy, to read, to trust and to run."""

__version__ = "0.1.0"


class UserError(ValueError):
    """Something a person can put right: says what was expected, what was found and what to do next.

    The command line prints it as one line on stderr and exits with status 2.
    """
