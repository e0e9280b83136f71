"""Skeletons for a contributor: `python -m tests.new layer|model|recipe|sampler NAME`."""
