"""Measurements, each with the command that made it: `python -m bench`."""
