"""Parameters by path: patterns, selection, conventions."""
