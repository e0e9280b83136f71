"""Samplers of discrete tokens: masked decoding, autoregressive decoding, beam search; and of samples of sound."""
