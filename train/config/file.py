"""A config in JSON, read strictly: what JSON leaves open, or Python's reader lets pass, is an error here."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from .._errors import UsageError, printable
from .options import Option, convert, nearest

LARGEST = 2**20
"""Bytes of a config; a run's is under 4 kB."""


def read_config(path: str, recipe: str, table: Mapping[str, Option]) -> dict[str, Any]:
    """The values of a file of flags, by dotted name; a run's config.json is one.

    Args:
        recipe: the command that is to run; a run's config.json must be of the same.
        table: the options that there are.

    Raises:
        UsageError: the file cannot be read, is not JSON, or has a field or a value that cannot be.
    """
    try:
        values = _parse(_read(path))
        if isinstance(values, dict) and {"recipe", "config"} <= values.keys():
            if values["recipe"] != recipe:
                raise UsageError(f"is of a run of train.{values['recipe']}: give one of train.{recipe}")
            values = values["config"]
        if not isinstance(values, dict):
            raise UsageError(f"must hold an object of flags: got {type(values).__name__}")
        return decode({name: value for name, value in values.items() if name != "config"}, table)
    except UsageError as error:
        raise UsageError(f"--config {printable(path)}: {error}") from None


def decode(values: Mapping[str, Any], table: Mapping[str, Option]) -> dict[str, Any]:
    """Nested values of JSON as those of the options, by dotted name.

    Raises:
        UsageError: a field is unknown, or a value is of another type.
    """
    groups = {name[:end] for name in table for end, letter in enumerate(name) if letter == "."}
    return {name: convert(name, table[name].kind, value) for name, value in _fields(values, table, groups)}


def _fields(
    values: Mapping[str, Any], table: Mapping[str, Option], groups: Collection[str], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    for last, value in values.items():
        name = prefix + last
        group = name in groups
        if not group and name not in table:
            raise UsageError(f"{printable(name)}: no such field{nearest(name, table)}")
        if isinstance(value, dict) != group:
            wanted = "an object of fields" if group else "one value"
            raise UsageError(f"{name} must be {wanted}: got {printable(json.dumps(value))[:60]}")
        if group:
            yield from _fields(value, table, groups, f"{name}.")
        else:
            yield name, value


def _read(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > LARGEST:
        raise UsageError(f"is larger than {LARGEST:,} bytes, so it is no config")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"must be UTF-8: byte {error.start} is not; save it as UTF-8") from None


def _parse(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in pairs:
            if name in values:
                raise UsageError(f"{printable(name)} is given twice: give it once")
            values[name] = value
        return values

    def refuse(constant: str) -> NoReturn:
        raise UsageError(f'{constant} is not a number of JSON: write a number, or "inf" in quotes')

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise UsageError(f"must be JSON: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise UsageError("is nested too deep to be a config") from None
