"""`python -m picogpt.verify`: see commands/verify.py."""

from picogpt.__main__ import main

if __name__ == "__main__":
    main("verify")
