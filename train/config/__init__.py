"""Configuration: dataclasses, the command line, files. Imports neither jax nor numpy."""
