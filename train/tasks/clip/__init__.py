"""The recipe of models that match images and texts: texts, towers, search, guidance and ranking of samples."""
