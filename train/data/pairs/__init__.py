"""Images with masks: a class of each pixel."""
