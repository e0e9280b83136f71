"""Sizes of the nets of diffusion and flow models."""
