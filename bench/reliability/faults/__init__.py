"""Faults of the version before: the right behaviour of each as a short check that runs on any checkout."""
