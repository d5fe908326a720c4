"""`python -m picogpt.train TEXT_FILE`: see picogpt/commands/train.py."""

from picogpt.__main__ import main

if __name__ == "__main__":
    main("train")
