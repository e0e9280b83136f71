"""Parts that recipes of one kind of data share."""
