"""Kills, damage, full disks, second writers: each figure by its script, with real processes."""
