"""Losses: pure functions of a model and an example, or of what it gives.

tokens         cross-entropy, of next tokens too
masked         masked token models
reconstruction tokenizers of images
elbo           bounds of the likelihood of models with latents
adversarial    non-saturating losses of a generator and a discriminator, R1
"""
