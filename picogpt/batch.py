"""`python -m picogpt.batch`: see commands/batch.py."""

from picogpt.__main__ import main

if __name__ == "__main__":
    main("batch")
