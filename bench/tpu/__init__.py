"""Benchmarks: tpu."""
