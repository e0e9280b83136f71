"""Recipes of BERT: masked words, classes and grades of texts."""
