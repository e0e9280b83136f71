"""Benchmarks: ops."""
