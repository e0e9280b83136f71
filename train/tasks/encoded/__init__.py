"""Data that an encoder has made: latents and tokens, their encoders, and their preparation."""
