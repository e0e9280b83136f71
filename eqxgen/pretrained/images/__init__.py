"""Tokenizers of images, as they were published."""
