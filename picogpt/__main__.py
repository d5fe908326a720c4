"""The entry point of every command: `picogpt`, `python -m picogpt`, `python gpt2.py`, `python -m picogpt.batch`, ..."""

import _signal as signal  # type: ignore[import-not-found]  # built in; signal takes a while to import
import gc
import sys


def main(command: str = "generate") -> None:
    """Run picogpt/commands/COMMAND.py."""
    if sys.version_info < (3, 10):  # noqa: UP036
        print(f"picogpt needs Python 3.10 or later, found {sys.version.split()[0]}, {sys.executable}", file=sys.stderr)
        sys.exit(2)
    # Ctrl-C ends the process without a traceback from an import; cli.run changes this while the command works
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.set_threshold(1 << 16)  # imports make objects by the thousand; looking for garbage among them takes 10 ms

    from importlib import import_module

    from picogpt.commands import cli

    with cli.clean_exit():
        cli.run(import_module(f"picogpt.commands.{command}").main)


if __name__ == "__main__":
    main()
