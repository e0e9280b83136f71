"""Texts of images: captions of the data, or templates filled with the names of classes."""

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from ..._errors import UserError
from ...data import Dataset
from ...data.captioned.scenes import WORDS
from ...evaluators.captions import SCENES, scene_codes
from ..captions import encoded, padded, vocabulary_of
from .published import PublishedTexts, is_published

FLAG = "--text.context"


class Texts(NamedTuple):
    """Texts of a data set.

    Attributes:
        vocabulary: encodes them.
        texts: all that are different; of classes, those of each.
        ids: of each, filled up with the end.
        groups: number of what each says: texts of one number are no negatives of each other.
        rows: by key, the texts that an image of it has, of which training draws one.
        train, test: key of each example.
    """

    vocabulary: Any
    texts: tuple[str, ...]
    ids: Int[np.ndarray, "texts length"]
    groups: Int[np.ndarray, " texts"]
    rows: Int[np.ndarray, "keys wordings"]
    train: Int[np.ndarray, " n"]
    test: Int[np.ndarray, " m"]

    @property
    def test_groups(self) -> Int[np.ndarray, " m"]:
        """What each held-out image shows."""
        return self.groups[self.rows[self.test, 0]]


def read_texts(config: Any, dataset: Dataset) -> Texts:
    """The texts of a data set as `train.clip` reads them.

    Raises:
        UserError: a text has too many tokens, or characters that the vocabulary lacks.
        DataError: the data have neither captions nor classes, as `--captions` asks.
    """
    if config.captions == "data":
        texts, groups, rows, train, test = _of_captions(dataset)
    else:
        texts, groups, rows = _of_classes(config.templates, dataset.labelled().class_names)
        train, test = dataset.train_labels, dataset.test_labels
    vocabulary = open_texts(config, texts)
    ids = encode_all(vocabulary, texts, config.text.context, dataset.name)
    return Texts(vocabulary, texts, ids, _joined(groups, ids), rows, train, test)


def _joined(groups: Int[np.ndarray, " texts"], ids: Int[np.ndarray, "texts length"]) -> Int[np.ndarray, " texts"]:
    """Numbers of what each text says, of which those that have a text of the same ids are one, such as two classes with
    a common caption.
    """
    first: dict[bytes, int] = {}
    one = np.arange(groups.max() + 1, dtype=groups.dtype)
    for group, row in zip(groups.tolist(), ids):
        if (low := one[first.setdefault(row.tobytes(), group)]) != (high := one[group]):
            one[one == max(low, high)] = min(low, high)
    return one[groups]


def open_texts(config: Any, texts: tuple[str, ...]) -> Any:
    """What encodes the texts: the tokenizer of a published model, or a vocabulary of the data."""
    name = config.text_tokenizer
    if is_published(name):
        return PublishedTexts.open(Path(name).expanduser())
    return vocabulary_of(name, texts)


def end_of(vocabulary: Any) -> int:
    """Id of the end that texts are filled up with."""
    return vocabulary.end if isinstance(vocabulary, PublishedTexts) else vocabulary.size


def encode_all(vocabulary: Any, texts: tuple[str, ...], context: int, name: str) -> Int[np.ndarray, "texts length"]:
    """Ids of texts, filled up with the end.

    Raises:
        UserError: one has as many tokens as `context`, or more, or characters that the vocabulary lacks.
    """
    return padded((encoded(vocabulary, text, context, name, FLAG) for text in texts), context, end_of(vocabulary))


def encode_query(vocabulary: Any, text: str, context: int, flag: str = "--text") -> Int[np.ndarray, " length"]:
    """Ids of one text that a user gave, filled up with the end.

    Raises:
        UserError: it is empty, too long, or has characters that the vocabulary lacks.
    """
    from ..texts import encode_prompt

    if not text.strip():
        raise UserError(f"{flag} must be one or more words: got {text!r}")
    ids = encode_prompt(vocabulary, " ".join(text.split()), flag, context - 1)
    return padded([ids], context, end_of(vocabulary))[0]


def filled(template: str, name: str) -> str:
    """A template with a name in place of {}; "a" before it becomes "an" where the name's first sound asks for it."""
    before, _, after = template.partition("{}")
    sound = re.match(r"[aeio8]|11|18", name) and not re.match(r"one\b|once\b|eu", name)
    return (re.sub(r"\b([aA])(?= $)", r"\1n", before) if sound else before) + name + after


def names_of(name: str) -> tuple[str, ...]:
    """Words for a class: its name in lower case; of a digit, the word and the figure."""
    if re.fullmatch(r"\d", name):
        return WORDS[int(name)], name
    return (name.replace("_", " ").lower(),)


def captions_of(templates: tuple[str, ...], name: str) -> tuple[str, ...]:
    """All texts of a class, each once."""
    return tuple(dict.fromkeys(filled(template, word) for word in names_of(name) for template in templates))


def _of_classes(
    templates: tuple[str, ...], names: tuple[str, ...]
) -> tuple[tuple[str, ...], Int[np.ndarray, " texts"], Int[np.ndarray, "keys wordings"]]:
    own = [captions_of(templates, name) for name in names]
    starts = np.cumsum([0, *map(len, own)])
    groups = np.repeat(np.arange(len(own), dtype=np.int32), np.diff(starts))
    most = max(map(len, own))
    rows = np.stack([start + np.resize(np.arange(len(texts)), most) for start, texts in zip(starts, own)])
    return tuple(text for texts in own for text in texts), groups, rows


def _of_captions(dataset: Dataset) -> tuple[Any, ...]:
    captions = dataset.captioned()
    texts = tuple(dict.fromkeys((*captions.train, *captions.test)))
    numbers = {text: number for number, text in enumerate(texts)}
    train, test = (np.asarray([numbers[text] for text in part], np.int32) for part in captions)
    says = (lambda text: tuple(scene_codes(text).tolist())) if dataset.name == SCENES else (lambda text: text)
    meanings: dict[Any, int] = {}
    groups = np.asarray([meanings.setdefault(says(text), len(meanings)) for text in texts], np.int32)
    return texts, groups, np.arange(len(texts))[:, None], train, test


@functools.cache
def grammar() -> tuple[str, ...]:
    """A caption of every scene of digits, its numbers in words."""
    from ...data.captioned.scenes import scenes

    return tuple(dict.fromkeys(scene.caption(0) for scene in scenes()))
