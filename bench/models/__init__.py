"""Benchmarks: models."""
