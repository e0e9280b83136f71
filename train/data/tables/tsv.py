"""Rows of a file of values between tabs, a line each, without quoting."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..._errors import DataError
from ..text.text_files import decode


class Table(NamedTuple):
    """Rows of equal length.

    Attributes:
        path: of the file.
        rows: the values of each.
        first: number of the line of the first row, from 1.
    """

    path: Path
    rows: list[list[str]]
    first: int

    def at(self, row: int) -> str:
        """The place of a row, for messages."""
        return f"{self.path}, line {self.first + row}"


def read_table(path: Path, data: bytes, *, header: bool) -> tuple[list[str], Table]:
    """The names of the columns, none without a header, and the rows of a file.

    Raises:
        DataError: it is not UTF-8, has no row, or a row has another number of values than the first line.
    """
    lines = decode(path, data).split("\n")
    while lines and not lines[-1]:
        lines.pop()
    values = [line.split("\t") for line in lines]
    if len(values) < 1 + header:
        raise DataError(path, "rows of values between tabs", "none", "put the table there")
    wide = len(values[0])
    if (odd := next((number for number, row in enumerate(values) if len(row) != wide), None)) is not None:
        got, hint = f"{len(values[odd])} in line {odd + 1}", "take tabs and line ends out of the texts"
        raise DataError(path, f"{wide} values in each line, as in the first", got, hint)
    names = values.pop(0) if header else []
    return names, Table(path, values, 1 + header)


def places_of(columns: Sequence[str], names: Sequence[str], table: Table) -> list[int]:
    """Places of columns, from 0, that are given by their names, or by numbers from 1 where there are no names.

    Raises:
        DataError: there is no such column.
    """
    wide = len(table.rows[0])
    if names:
        titles = [name.strip() for name in names]
        known = {name: place for place, name in enumerate(titles)}
        if twice := [name for name in columns if titles.count(name) > 1]:
            hint = "rename one of them in the file's first line"
            raise DataError(table.path, f"one column {twice[0]!r}", f"{titles.count(twice[0])} of that name", hint)
        if missing := [name for name in columns if name not in known]:
            got, hint = f"columns {', '.join(known)}", "correct --data.columns, or number columns that have no names"
            raise DataError(table.path, f"a column {missing[0]!r}", got, hint)
        return [known[name] for name in columns]
    numbers = [int(name) for name in columns]
    if not all(1 <= number <= wide for number in numbers):
        wrong = next(number for number in numbers if not 1 <= number <= wide)
        raise DataError(table.path, f"a column {wrong}", f"{wide} columns", "correct --data.columns, from 1")
    return [number - 1 for number in numbers]
