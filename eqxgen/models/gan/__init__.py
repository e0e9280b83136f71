"""Generators and discriminators, and the layers that they share.

dcgan, r3gan, stylegan2, stylegan2_discriminator   the nets
equalised                                          layers with equalised learning rates
modulated                                          modulated convolution
deviation                                          minibatch deviation

Every generator has `batch(latents, labels, state, ...) -> (images, state)` and `sample(latent, label, state, ...)`;
every discriminator has `batch(images, labels, state, ...) -> (logits, state)`: what a recipe trains by.
"""
