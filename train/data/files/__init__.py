"""Files: safe reading, downloads, prepared sets."""
