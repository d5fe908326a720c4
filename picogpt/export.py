"""`python -m picogpt.export`: see commands/export.py."""

from picogpt.__main__ import main

if __name__ == "__main__":
    main("export")
