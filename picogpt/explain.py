"""`python -m picogpt.explain`: see commands/explain.py."""

from picogpt.__main__ import main

if __name__ == "__main__":
    main("explain")
