"""Texts with labels in three parts, of a known task or of a .tsv; and texts alone."""

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from ..._errors import DataError
from ...config.tasks import TASKS, MaskedTextConfig, TaskConfig, TextTask
from ..files.broken import Say
from ..files.contents import read_bytes
from ..files.known_files import KnownFiles
from ..text.corpus import cut
from ..text.text_files import decode, read_text
from .parts import Parts, Row, Text, apart, divided, key_of
from .tsv import places_of, read_table


class Part(NamedTuple):
    """Texts of a part, and a label or a grade of each."""

    texts: list[Text]
    labels: Int32[np.ndarray, " n"] | Float32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.texts)


class LabelledTexts(NamedTuple):
    """A task.

    Attributes:
        name: as it was asked for.
        train, dev, test: no text is in two of them.
        classes: names by label; none of grades.
    """

    name: str
    train: Part
    dev: Part
    test: Part
    classes: tuple[str, ...]


def load_task(config: TaskConfig, files: KnownFiles | None = None, say: Say = print) -> LabelledTexts:
    """The task that a config names.

    Args:
        config: a name of `train.config.tasks.TASKS`, or the path of a .tsv.
        files: where known files are searched; by default in `config.root`, `$EQXGEN_DATA` and the cache folder.
        say: takes a line about rows that are left out.

    Raises:
        DataError: a file is missing or damaged, a column is not there, a text is empty, a label is none, a class has no
            training text, or there is one class or one grade alone.
    """
    parts = _parts(config, files, say)
    classes = _classes(config, parts)
    made = {name: _labelled(rows, classes) for name, rows in parts.items()}
    if empty := next((name for name, part in made.items() if not len(part)), None):
        raise DataError(config.name, f"rows of the part {empty}", "none", "add rows, or take another --data.fold")
    for name, part in () if classes else made.items():
        if np.all(part.labels == part.labels[0]):
            expected = f"two or more grades in the part {name}{_column(config)}"
            hint = "correct --data.columns, add rows of other grades, or take another --data.fold"
            raise DataError(config.name, expected, f"{part.labels[0]:g} alone", hint)
    return LabelledTexts(config.name, made["train"], made["dev"], made["test"], classes)


def load_texts(
    config: MaskedTextConfig, files: KnownFiles | None = None, say: Say = print
) -> tuple[list[Text], list[Text]]:
    """Texts to train on and those held out: of a task the training and the development part, of a text its lines.

    Raises:
        DataError: a file is missing or damaged, or a part has no text.
    """
    if config.name in TASKS or config.name.lower().endswith(".tsv"):
        parts = _parts(config, files, say)
        found = [row.text for row in parts["train"]], [row.text for row in parts["dev"]]
    else:
        path, whole = _text(config, files, say)
        first, last = cut(path, whole, config.held_out)
        found = [(line,) for line in first.split("\n")], [(line,) for line in last.split("\n")]
    train, dev = ([text for text in part if key_of(text).strip("|")] for part in found)
    if not (train and dev):
        raise DataError(config.name, "texts to train on and to hold out", "none", "take a longer one")
    return train, dev


def _text(config: MaskedTextConfig, files: KnownFiles | None, say: Say) -> tuple[Path, str]:
    if config.is_path:
        path = Path(config.name).expanduser()
        return path, "\n".join(read_text(path, skip_broken=config.skip_broken, say=say).values())
    path, data = (files or KnownFiles.of(config)).read("tiny_shakespeare/input.txt")
    return path, decode(path, data)


def _parts(config: TaskConfig, files: KnownFiles | None, say: Say) -> Parts:
    found = _of_path(config, say) if config.is_path else _known(TASKS[config.name], files or KnownFiles.of(config))
    parts, lost = apart(divided(found, config.fold))
    for name, count in lost.items():
        if count:
            say(f"{config.name}: {count:,} rows of the part {name} are left out, whose texts are in a tested part too")
    return parts


def _known(task: TextTask, files: KnownFiles) -> Parts:
    found: Parts = {}
    for part, names in task.files.items():
        found[part] = []
        for name in names:
            _, table = read_table(*files.read(name), header=False)
            for number, row in enumerate(table.rows):
                text = tuple(row[place] for place in task.text)
                group = key_of(text) if task.group is None else row[task.group].partition("_")[0]
                tested = row[0] not in task.flawed
                found[part].append(Row(text, row[task.label], group, tested, table.at(number)))
    return found


def _of_path(config: TaskConfig, say: Say) -> Parts:
    path = Path(config.name).expanduser()
    header = not all(name.isdecimal() for name in config.columns)
    names, table = read_table(path, read_bytes(path), header=header)
    label, *texts = places_of(config.columns, names, table)
    rows, broken = [], []
    for number, row in enumerate(table.rows):
        text = tuple(row[place] for place in texts)
        if all(part.strip() for part in text) and row[label].strip():
            rows.append(Row(text, row[label].strip(), key_of(text), True, table.at(number)))
        else:
            broken.append(number)
    if broken and not config.skip_broken:
        raise DataError(table.at(broken[0]), "a label and a text", "an empty one", _hint(broken))
    if broken:
        say(f"{path}: {len(broken):,} rows without a label or a text are left out, as {table.at(broken[0])}")
    return {"train": rows}


def _hint(broken: Sequence[int]) -> str:
    return f"write it, or leave out the {len(broken):,} such rows with --data.skip-broken"


def _column(config: TaskConfig) -> str:
    """Words for the column of a table that has the labels."""
    return f", by the column {config.columns[0]}" if config.columns else ""


def _classes(config: TaskConfig, parts: Parts) -> tuple[str, ...]:
    """Names of the classes; none of grades."""
    if config.grades or (config.name in TASKS and not TASKS[config.name].classes):
        return ()
    if config.name in TASKS:
        return TASKS[config.name].classes
    found = {row.label for rows in parts.values() for row in rows}
    if all(label.isdecimal() for label in found):
        numbers = {int(label) for label in found}
        if gap := list(islice((str(number) for number in range(max(numbers)) if number not in numbers), 4)):
            hint = "number the labels from 0 without gaps, or give --data.grades for numbers to predict"
            expected = f"labels from 0 to {max(numbers)}{_column(config)}"
            many = f"{', '.join(gap[:3])}{', ...' if len(gap) > 3 else ''}"
            raise DataError(config.name, expected, f"no row of class {many}", hint)
        names = tuple(map(str, sorted(numbers)))
    else:
        names = tuple(sorted(found))
    if len(names) < 2:
        expected, hint = f"at least 2 classes{_column(config)}", "correct --data.columns, or add rows of another label"
        raise DataError(config.name, expected, f"1, {next(iter(names))!r}", hint)
    given = set(_numbers(parts["train"], names))
    if missing := [name for number, name in enumerate(names) if number not in given]:
        hint = "add rows, or take another --data.fold"
        raise DataError(config.name, "training rows of every class", f"none of class {missing[0]!r}", hint)
    return names


def _labelled(rows: Sequence[Row], classes: tuple[str, ...]) -> Part:
    texts = [row.text for row in rows]
    if not classes:
        return Part(texts, np.asarray([_grade(row) for row in rows], np.float32))
    return Part(texts, np.asarray(_numbers(rows, classes), np.int32))


def _numbers(rows: Sequence[Row], classes: tuple[str, ...]) -> list[int]:
    """Numbers of the classes of rows: by name, or as the files of a task whose classes have names number them."""
    known = {name: number for number, name in enumerate(classes)}
    return [known[row.label] if row.label in known else int(row.label) for row in rows]


def _grade(row: Row) -> float:
    try:
        grade = float(row.label)
    except ValueError:
        grade = math.nan
    if not abs(grade) <= float(np.finfo(np.float32).max):
        raise DataError(row.where, "a finite number as the grade", repr(row.label)[:40], "correct it")
    return grade
