"""python gpt2.py "prompt": see picogpt/gpt2.py."""

from picogpt.__main__ import main

if __name__ == "__main__":
    main()
