"""Other ways to generate text, built on gpt2.py."""
