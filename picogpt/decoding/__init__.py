"""More ways from logits to text, on the loop of gpt2.py."""
