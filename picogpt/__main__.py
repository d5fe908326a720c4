"""The command line: `python -m picogpt`, `picogpt` and `python gpt2.py` all come here, other commands too."""

import _signal as signal  # type: ignore[import-not-found]  # there at once; the module signal takes a while
import sys


def main(command: str = "generate") -> None:
    """Run picogpt/commands/COMMAND.py."""
    if sys.version_info < (3, 10):  # noqa: UP036
        print(f"picogpt needs Python 3.10 or later, found {sys.version.split()[0]}, {sys.executable}", file=sys.stderr)
        sys.exit(2)
    # Ctrl-C ends the process at once, without a traceback out of imports; cli.run changes that while there is work
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from importlib import import_module

    from picogpt.commands import cli

    with cli.clean_exit():
        cli.run(import_module(f"picogpt.commands.{command}").main)


if __name__ == "__main__":
    main()
