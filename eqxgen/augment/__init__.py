"""Augmentation inside a compiled step.

non_leaking  EDM's geometric augmentations, with the labels by which a network is told of them
"""
