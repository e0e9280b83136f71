"""Published weights: a table of names for each family, read from and written to safetensors."""
