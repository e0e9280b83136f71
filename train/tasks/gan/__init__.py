"""Recipes of a generator and a discriminator.

recipe  pictures at fixed latents, evaluation, samples
losses  losses of both players, augmentation, penalties, model state
"""
