"""`python -m picogpt.evaluate`: see commands/evaluate.py."""

from picogpt.__main__ import main

if __name__ == "__main__":
    main("evaluate")
