"""Parts of a table that share no text: folds by hashes, and rows that are left out."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from ...config.tasks import FOLDS

Text = tuple[str, ...]
"""A text, or a pair of them."""
T = TypeVar("T")


class Row(NamedTuple):
    """A text with its label.

    Attributes:
        text: one or two.
        label: as it is written in the table.
        group: of rows that belong together.
        tested: may be in a part that is tested on.
        where: place in the file, for messages.
    """

    text: Text
    label: str
    group: str
    tested: bool = True
    where: str = ""


Parts = dict[str, list[Row]]
"""Rows of train, dev and test."""


def key_of(text: Text) -> str:
    """Letters and digits of a text in lower case, by which texts are held to be equal; those of a pair apart."""
    return "|".join("".join(filter(str.isalnum, part.lower())) for part in text)


def keys_of(texts: Iterable[Text]) -> set[str]:
    """Keys of the texts that have a letter or a digit."""
    return {key for key in map(key_of, texts) if key.strip("|")}


def fold_of(group: str) -> int:
    """Fold of a group of rows, from 0 to 9: a hash of the group alone, so that other rows do not move it."""
    return int(hashlib.sha256(group.encode()).hexdigest(), 16) % FOLDS


def divided(found: Parts, fold: int) -> Parts:
    """The three parts, of which those that are not published are cut out of the training part.

    Args:
        fold: of the test; the development part has the next one.
    """
    rest = found["train"]
    parts = {name: rows for name, rows in found.items() if name != "train"}
    for name, number in (("test", fold), ("dev", (fold + 1) % FOLDS)):
        if name not in parts:
            chosen = [fold_of(row.group) == number for row in rest]
            parts[name] = [row for row, here in zip(rest, chosen) if here and row.tested]
            rest = [row for row, here in zip(rest, chosen) if not here]
    return {"train": rest, "dev": parts["dev"], "test": parts["test"]}


def apart(parts: Parts) -> tuple[Parts, dict[str, int]]:
    """The parts without the training rows whose text is in the development or the test part, and without the
    development rows whose text is in the test part; with the numbers of those that were left out.
    """
    test = keys_of(row.text for row in parts["test"])
    dev, lost_dev = _without(parts["dev"], test)
    train, lost = _without(parts["train"], test | keys_of(row.text for row in dev))
    return {"train": train, "dev": dev, "test": parts["test"]}, {"train": lost, "dev": lost_dev}


def _without(rows: Sequence[Row], keys: set[str]) -> tuple[list[Row], int]:
    kept = [row for row in rows if key_of(row.text) not in keys]
    return kept, len(rows) - len(kept)
