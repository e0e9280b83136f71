"""Tasks on texts: the known ones, and the options of the data of one. Imports nothing heavy."""

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from .._errors import require
from .data import SourceConfig
from .known import TEXTS
from .options import option

FOLDS = 10
"""Parts of equal chance that a set without a published split is cut into."""
PIECES = re.compile(r"(cased-)?(words|wordpiece)-([1-9][0-9]*)")
"""Names of vocabularies that are learnt from the training texts."""


class TextTask(NamedTuple):
    """A known task: sentences, or pairs of them, with classes or grades.

    Attributes:
        files: by part, train, dev or test, the tables that are joined. A part without any is cut out of `train`.
        label, text: places of the columns, from 0.
        classes: names by label; none for grades, which are numbers.
        group: column whose part before "_" names rows that belong together.
        flawed: values of the first column of rows whose grades are wrong, which are trained on and not tested on.
    """

    files: Mapping[str, tuple[str, ...]]
    label: int
    text: tuple[int, ...]
    classes: tuple[str, ...] = ()
    group: int | None = None
    flawed: frozenset[str] = frozenset()

    @property
    def folder(self) -> str:
        """Folder of the files, a key of `train.config.known.KNOWN`."""
        return self.files["train"][0].partition("/")[0]


def _sentences(name: str, *classes: str, parts: tuple[str, ...] = ()) -> TextTask:
    files = {part: (f"text_classification/{name}.{part}.tsv",) for part in parts}
    return TextTask(files or {"train": (f"text_classification/{name}.tsv",)}, 0, (1,), classes)


def _grades(name: str, group: int | None = None, flawed: str = "") -> TextTask:
    spans = [span.split("-") for span in flawed.split()]
    rows = frozenset(str(row) for span in spans for row in range(int(span[0]), int(span[-1]) + 1))
    return TextTask({"train": (f"glue/vader.{name}.tsv",)}, 1, (2,), group=group, flawed=rows)


_GLUE = ("train", "dev", "test")
_TWEETS = (
    "2 7 9 11 15 20 30 35 58 60 73 89 100-101 114 119 124 136 169 175 203 215 220 239 242 252-253 273 288 298 "
    "1424-1483 1485-1486 1818-1876 2215-2226 2849-2855 3201-3212 3550-3554 3855-3866"
)
_COLA = ("glue/cola.dev_in_domain.tsv", "glue/cola.dev_out_of_domain.tsv")

TASKS: Mapping[str, TextTask] = MappingProxyType(
    {
        "trec": _sentences(
            *("trec", "description", "entity", "abbreviation", "human", "location", "number"), parts=("train", "test")
        ),
        "sst2": _sentences("sst2", "negative", "positive", parts=_GLUE),
        "sst5": _sentences(*("sst5", "very negative", "negative", "neutral", "positive", "very positive"), parts=_GLUE),
        "mr": _sentences("mr", "negative", "positive"),
        "subj": _sentences("subj", "subjective", "objective"),
        "cr": _sentences("cr", "negative", "positive"),
        "mpqa": _sentences("mpqa", "negative", "positive"),
        "cola": TextTask({"train": ("glue/cola.train.tsv",), "test": _COLA}, 1, (3,), ("unacceptable", "acceptable")),
        "mrpc": TextTask({part: (f"glue/mrpc.{part}.tsv",) for part in _GLUE}, 0, (3, 4), ("different", "paraphrase")),
        "vader_movie": _grades("movie"),
        "vader_tweets": _grades("tweets", flawed=_TWEETS),
        "vader_amazon": _grades("amazon", group=0),
        "vader_nyt": _grades("nyt", group=0),
    }
)
"""By the name that --data.name takes."""


@dataclasses.dataclass(frozen=True)
class TaskConfig(SourceConfig):
    """Texts with labels, and their tokens.

    Raises:
        ValueError: as `SourceConfig`; or `columns`, `fold` or `tokenizer` cannot be.
    """

    KNOWN: ClassVar[tuple[str, ...]] = tuple(TASKS)
    SUFFIXES: ClassVar[tuple[str, ...]] = (".tsv",)

    name: str = option("trec", first=True)
    """trec, sst2, sst5, mr, subj, cr, mpqa, cola, mrpc (pairs), vader_movie, vader_tweets, vader_amazon, vader_nyt
    (grades); or a path of a .tsv, whose --data.columns are given."""

    columns: tuple[str, ...] = option((), first=True)
    """Columns of a .tsv: that of the labels and that of the texts, or the two of pairs; names of its first line, or
    numbers from 1 of a file whose first line is data."""

    grades: bool = option(False, first=True)
    """Labels of a .tsv are numbers to predict, in place of classes."""

    fold: int = option(0, first=True)
    """Tenth of a set without a published test part that is the test, from 0 to 9. The next one is the development part,
    where none is published."""

    tokenizer: str = option("words-8000", first=True)
    """words-8000: as many words of the training texts, of those that occur twice; wordpiece-8000: as many pieces of
    words learnt from them; in lower case, or cased-words-8000; or a path: vocab.txt or tokenizer.json of a published
    model, a folder with one of them, or a vocabulary.json of another run. With --from, its own."""

    allow_overlap: bool = False
    """Start --from a model although it was trained on texts of the parts that are tested on."""

    def __post_init__(self):
        super().__post_init__()
        tables = self.name.lower().endswith(".tsv")
        require(not self.columns or tables, f"data.columns goes with a .tsv: got data.name={self.name!r}")
        require(not self.grades or tables, f"data.grades goes with a .tsv: got data.name={self.name!r}")
        require(
            not tables or len(set(self.columns)) == len(self.columns) in (2, 3),
            f"data.columns must name the label's and the text's column of {self.name}, or two of texts: got "
            f"{' '.join(self.columns) or 'none'}",
        )
        require(0 <= self.fold < FOLDS, f"data.fold must be from 0 to {FOLDS - 1}: got {self.fold}")
        named = PIECES.fullmatch(self.tokenizer)
        require(
            named is not None or (bool(self.tokenizer.strip()) and "\0" not in self.tokenizer),
            f"data.tokenizer must be words-SIZE, wordpiece-SIZE or a path: got {self.tokenizer!r}",
        )
        require(
            named is None or int(named[3]) >= 16,
            f"data.tokenizer must have a size of at least 16: got {self.tokenizer!r}",
        )


@dataclasses.dataclass(frozen=True)
class MaskedTextConfig(TaskConfig):
    """Texts without labels, and their tokens.

    Raises:
        ValueError: as `TaskConfig`; or `held_out` is out of its range.
    """

    KNOWN: ClassVar[tuple[str, ...]] = (*TASKS, *TEXTS)
    SUFFIXES: ClassVar[tuple[str, ...]] = (".tsv", ".txt", ".text", ".md")

    name: str = option("trec", first=True)
    """A task of train.glue, of which the training texts are taken; tiny_shakespeare; or a path: a text file, a folder
    of them (./books), or a .tsv, whose --data.columns are given."""

    packed: bool = option(False, first=True)
    """Rows of full length that go across lines, in place of a row for each line, sentence or pair."""

    held_out: float = 0.1
    """Fraction of a text, at its end, held out from training; of a task, its development part is."""

    def __post_init__(self):
        super().__post_init__()
        require(0 < self.held_out < 1, f"data.held_out must be between 0 and 1: got {self.held_out}")
