"""Benchmarks: startup."""
