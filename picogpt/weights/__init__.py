"""The wing of files: where weights come from, how they are fetched, and the form in which they are kept."""
