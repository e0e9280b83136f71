"""Samplers of discrete tokens: masked decoding, autoregressive decoding, beam search."""
