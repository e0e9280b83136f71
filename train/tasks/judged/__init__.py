"""Autoencoders of images judged by a discriminator and a perceptual net: flags, losses, players.

`config` has the flags, `nets` what judges, `losses` what every such recipe shares; `quantised` and `gaussian` are the
programs of tokenizers and of autoencoders with a Gaussian of latents.
"""
