"""Looking inside a model while it runs: what it computes, and what it thinks of a text."""
