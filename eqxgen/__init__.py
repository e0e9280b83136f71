"""Equinox layers and generative models on fused JAX kernels."""

__version__ = "0.1.0"
