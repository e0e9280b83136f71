"""Recorded sounds: files, sources, and the checks that every source of them shares. NumPy only."""
