"""Tokenizers of images, and the discriminator of patches that trains them."""
