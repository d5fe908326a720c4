"""`python -m picogpt.addition`: see picogpt/commands/addition.py."""

from picogpt.__main__ import main

if __name__ == "__main__":
    main("addition")
