"""Evaluators: numbers of a model, streamed over the devices of its mesh."""
