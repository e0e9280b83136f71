"""Normalisation of activations and weights."""
