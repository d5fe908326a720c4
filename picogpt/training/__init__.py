"""Training in NumPy: gradients, the optimizer, data and the loop."""
