"""Pairs of texts: files, the known sets, and rows of ids."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from ..._errors import DataError
from ...config.text_pairs import TextPairConfig
from ..files.contents import read_bytes
from ..files.known_files import KnownFiles
from .pair_vocabulary import PAD
from .text_files import decode

Pair = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A held-out source.

    Attributes:
        source: the text.
        references: its targets, each of which is right.
        near: a training source differs by an ending alone.
    """

    source: str
    references: tuple[str, ...]
    near: bool = False


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of texts.

    Attributes:
        where: the file, for errors.
        train: source and target of each line.
        held_out: distinct sources that are not in training.
    """

    where: Path
    train: tuple[Pair, ...]
    held_out: tuple[Asked, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all texts."""
        total = hashlib.sha256()
        for source, target in self.train:
            total.update(f"{source}\t{target}\n".encode())
        for asked in self.held_out:
            total.update("\t".join((asked.source, *asked.references, "\n")).encode())
        return total.hexdigest()


def load_pairs(config: TextPairConfig, files: KnownFiles | None = None) -> Pairs:
    """The pairs that a config names, with a part of the distinct sources held out by their hash.

    Raises:
        DataError: a file is missing, empty, not UTF-8, or not of pairs; two files differ in lines; or too few pairs are
            left to train on or to hold out.
    """
    if not config.is_path:
        return _cmudict(files or KnownFiles.of(config))
    path = Path(config.name).expanduser()
    found = _columns(path) if config.target is None else _two(path, Path(config.target).expanduser())
    share = config.held_out
    train = tuple(pair for pair in found if _place(pair[0]) >= share)
    held = tuple(pair for pair in found if _place(pair[0]) < share)
    if not train or not held:
        got = f"{len(train)} and {len(held)} of {len(found)} pairs"
        raise DataError(path, "pairs to train on and to hold out", got, "give more pairs, or another --data.held-out")
    return Pairs(path, train, _asked(held, lambda source: False))


def rows_of(
    texts: Sequence[np.ndarray], length: int, long: str, where: Path, side: str
) -> tuple[Int32[np.ndarray, "n length"], np.ndarray]:
    """Ids, each with its end, as rows that padding fills up; and true for the rows that are kept.

    Args:
        texts: ids of each text.
        length: of a row.
        long: refuse, cut (the end of a text stays its last token) or drop.
        where: the file, for errors.
        side: source or target.

    Raises:
        DataError: a text is longer, and `long` is refuse; its line among the training pairs is named.
    """
    counts = np.asarray([len(ids) for ids in texts])
    kept = counts <= length
    if long == "refuse" and not kept.all():
        line = int(np.argmin(kept))
        raise DataError(
            where,
            f"{side}s of at most {length} tokens with their end (--data.{side}-length)",
            f"{counts[line]} of training pair {line + 1}",
            "give a longer one, or --data.long cut, or drop",
        )
    rows = np.full((len(texts), length), PAD, np.int32)
    for row, ids in zip(rows, texts):
        cut = ids if len(ids) <= length else np.append(ids[: length - 1], ids[-1])
        row[: len(cut)] = cut
    return rows, kept if long == "drop" else np.ones(len(texts), bool)


def _columns(path: Path) -> tuple[Pair, ...]:
    lines = _lines(path)
    for number, line in enumerate(lines, 1):
        if line.count("\t") != 1 or not all(part.strip() for part in line.split("\t")):
            got = f"line {number} of {line.count(chr(9)) + 1}: {line[:40]!r}"
            raise DataError(path, "two columns with text, separated by a tab", got, "correct the line")
    return tuple((source, target) for source, target in (line.split("\t") for line in lines))


def _two(path: Path, other: Path) -> tuple[Pair, ...]:
    sources, targets = _lines(path), _lines(other)
    if len(sources) != len(targets):
        hint = f"each line of {other.name} must be the target of that line of {path.name}"
        raise DataError(other, f"{len(sources):,} lines, as {path.name} has", f"{len(targets):,}", hint)
    for where, lines in ((path, sources), (other, targets)):
        if empty := next((number for number, line in enumerate(lines, 1) if not line.strip()), 0):
            raise DataError(where, "text on every line", f"none on line {empty}", "take the line out of both files")
    return tuple(zip(sources, targets))


def _lines(path: Path) -> list[str]:
    return decode(path, read_bytes(path)).removesuffix("\n").split("\n")


def _place(text: str) -> float:
    """A number in [0, 1) of a text, by which equal sources are in one part."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def _asked(pairs: Sequence[Pair], near: Callable[[str], bool]) -> tuple[Asked, ...]:
    targets: dict[str, list[str]] = {}
    for source, target in pairs:
        targets.setdefault(source, []).append(target)
    return tuple(Asked(source, tuple(found), near(source)) for source, found in targets.items())


def _cmudict(files: KnownFiles) -> Pairs:
    """CMUdict with stress digits, as it is split by words; the dev part is in neither."""
    parts = {}
    for part in ("train", "test"):
        path, data = files.read(f"cmudict/cmudict.{part}.tsv")
        lines = decode(path, data).removesuffix("\n").split("\n")
        parts[part] = path, tuple((word, phonemes) for word, phonemes in (line.split("\t") for line in lines))
    path, train = parts["train"]
    stems = {stem(word) for word, _ in train}
    return Pairs(path, train, _asked(parts["test"][1], lambda word: stem(word) in stems))


def stem(word: str) -> str:
    """A word without s, 's or s' at its end, by which near-copies are equal."""
    return re.sub("('s|s'|s|')$", "", word)
