"""Outputs of our models beside those of the published libraries on the same inputs, for reports of parity."""
