"""Augmentation inside a compiled step.

non_leaking     EDM's geometric augmentations, with the labels by which a network is told of them
differentiable  DiffAugment: the same augmentation of real and generated images, differentiated through
adaptive        StyleGAN2-ADA's, whose probability is an array
mixing          mixup and CutMix of a whole batch with its targets
geometry        homogeneous maps, and images moved by them
"""
