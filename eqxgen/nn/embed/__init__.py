"""Positions, time steps and patches as features."""
