"""Text: reading, vocabularies, token ids."""
