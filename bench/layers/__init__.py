"""Benchmarks: layers."""
