"""Losses: pure functions that can be imported and tested alone."""
