"""Convolutions, pooling, resampling, and blocks of them."""
