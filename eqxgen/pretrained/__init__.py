"""Published weights: a table of names for each family, safetensors in and out."""
