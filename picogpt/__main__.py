"""The command line: `python -m picogpt`, `picogpt` and `python gpt2.py` all come here."""

from picogpt.commands import cli


def main() -> None:
    with cli.polite_ends():
        from picogpt import gpt2  # within, so that Ctrl-C ends politely while NumPy is still being imported

        cli.run(gpt2.main)


if __name__ == "__main__":
    main()
