"""Order of the examples, and batches made ahead of their step."""
