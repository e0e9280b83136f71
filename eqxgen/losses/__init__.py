"""Losses: pure functions of a model and an example, or of what it gives.

tokens         cross-entropy, of next tokens too
masked         masked token models
mage           MAGE, masked tokens of which the encoder sees some
contrastive    InfoNCE of two views, and of images and texts; SigLIP's sigmoid loss
likelihood     absolute and squared error, logit-Laplace
perceptual     distance by the features of a network
reconstruction tokenizers of images: quantisation and entropy terms
adversarial    losses of a generator and a discriminator
penalties      of the slopes and logits of a discriminator, and of path lengths
adaptive       weight of the adversarial term by the last layer's gradients
elbo           bounds of the likelihood of models with latents
waves          samples of sound: two softmaxes, a mixture of discretised logistics
"""
