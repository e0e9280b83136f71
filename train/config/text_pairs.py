"""Options of pairs of texts, and of texts whose spans are to be restored. Imports nothing heavy."""

import dataclasses
from typing import ClassVar, Literal

from .data import SourceConfig
from .known import TEXT_PAIRS, TEXTS
from .options import option


@dataclasses.dataclass(frozen=True)
class TextPairConfig(SourceConfig):
    """Training pairs and their tokens, or a text of which spans are hidden.

    Raises:
        ValueError: as `SourceConfig`; or one of two files is given, or a number is out of its range.
    """

    KNOWN: ClassVar[tuple[str, ...]] = (*TEXT_PAIRS, *TEXTS)
    SUFFIXES: ClassVar[tuple[str, ...]] = (".tsv", ".txt", ".text", ".md")

    name: str = option("cmudict", first=True)
    """cmudict: spelling to phonemes; a .tsv file of two columns, source and target; or, for spans: tiny_shakespeare, a
    text file, or a folder of them (./books)."""

    source: str | None = option(None, first=True)
    """In place of --data.name: a file with a source on each line, such as ./train.de."""

    target: str | None = option(None, first=True)
    """With --data.source: the file with the target of each line."""

    tokenizer: str = option("chars", first=True)
    """Tokens of a source: chars, words (separated by spaces), bytes, bpe-4096: as many byte pairs, learnt from the
    text; or a path: a vocabulary.json of another run, or the folder of a published T5 with its tokenizer."""

    target_tokenizer: str | None = option(None, first=True)
    """Tokens of a target, where they are others: chars, words, bytes, or bpe-SIZE."""

    vocab: int | None = None
    """Rows of the table of tokens; by default one for each token. Published T5 have more: 32128."""

    source_length: int = option(64, first=True)
    """Tokens of a source in training, its end included."""

    target_length: int = option(64, first=True)
    """Tokens of a target in training, its end included. Of spans it follows from --data.source-length."""

    long: Literal["refuse", "cut", "drop"] = "refuse"
    """Training texts that are longer: an error, cut at the length, or left out with their pairs; a line says how many.
    """

    held_out: float = 0.1
    """Fraction of the distinct sources, or the end of a text, that is held out from training; cmudict has its own."""

    keep_newlines: bool = option(False, free=True)
    """Leave line ends CR LF and CR of a text as they are, where spans are hidden."""

    noise: float = 0.15
    """Of spans: the share of the tokens that is hidden."""

    span: float = 3.0
    """Of spans: their mean number of tokens."""

    sentinels: int = 100
    """Sentinels of spans, at least as many as the spans of a source."""

    def __post_init__(self):
        if (self.source is None) != (self.target is None):
            raise ValueError("data.source and data.target go together: got one of them")
        if self.source is not None:
            if self.name not in ("cmudict", self.source):
                raise ValueError(f"data.name goes without data.source: got {self.name!r} and {self.source!r}")
            object.__setattr__(self, "name", self.source)
        super().__post_init__()
        if self.target is not None and (not self.target.strip() or "\0" in self.target):
            raise ValueError(f"data.target must be a file: got {self.target!r}")
        for name in ("tokenizer", "target_tokenizer"):
            value = getattr(self, name)
            if value is not None and (not value.strip() or "\0" in value):
                raise ValueError(f"data.{name} must be chars, words, bytes, bpe-SIZE, or a path: got {value!r}")
        for name in ("source_length", "target_length"):
            if getattr(self, name) < 2:
                raise ValueError(f"data.{name} must be at least 2, a token and the end: got {getattr(self, name)}")
        for name in ("held_out", "noise"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be between 0 and 1: got {getattr(self, name)}")
        if not 1 <= self.span < float("inf"):
            raise ValueError(f"data.span must be at least 1 and finite: got {self.span}")
        if not 0 <= self.sentinels <= 10_000:
            raise ValueError(f"data.sentinels must be between 0 and 10000: got {self.sentinels}")
        if self.vocab is not None and not 4 <= self.vocab <= 2**31:
            raise ValueError(f"data.vocab must be from 4 to 2**31: got {self.vocab}")

    @property
    def is_path(self) -> bool:
        """True where `name` is a path and not the name of a known set."""
        return self.source is not None or super().is_path

    @property
    def spans(self) -> bool:
        """True where the data are a text, of which spans are hidden."""
        return self.source is None and self.name not in TEXT_PAIRS and not self.name.lower().endswith(".tsv")
