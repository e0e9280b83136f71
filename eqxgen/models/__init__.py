"""Models, one file each: what it is, its paper, where we differ."""
