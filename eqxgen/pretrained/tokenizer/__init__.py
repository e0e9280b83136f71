"""Tokenizers of published models: `open_tokenizer(folder)`."""

from eqxgen.pretrained.tokenizer.published import Encoded, Tokenizer, open_tokenizer

__all__ = ["Encoded", "Tokenizer", "open_tokenizer"]
