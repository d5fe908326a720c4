"""Weights: where they come from, how they are downloaded, and the format in which they are stored."""
