"""Convolutions, pooling, resampling, and blocks of convolutions."""
