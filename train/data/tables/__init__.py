"""Tables of texts with labels: reading, parts without shared texts, rows of tokens."""
