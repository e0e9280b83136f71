"""Images: sources, decoding, augmentation."""
