"""The folder of a run: lock, metadata, weights, signals."""
