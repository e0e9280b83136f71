"""A JSON file of flags, read strictly: what JSON leaves open, or Python's reader lets pass, is an error here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .._errors import UsageError
from .flags import nearest, printable

LARGEST = 2**20
"""Bytes of a config; a run's is under 4 kB."""


def read_config(path: str, recipe: str, names: Sequence[str]) -> dict[str, Any]:
    """The flags that a file gives, nested as in a run's config.json, which is taken as well.

    Args:
        recipe: the command that is to run; a run's config.json must be of the same.
        names: dotted names of the fields there are.

    Raises:
        UsageError: the file cannot be read, is not JSON, or names what there is not.
    """
    values = _parse(path, _read(path))
    if isinstance(values, dict) and {"recipe", "config"} <= values.keys():
        if values["recipe"] != recipe:
            raise UsageError(
                f"--config {printable(path)}: is of a run of train.{values['recipe']}: give one of train.{recipe}"
            )
        values = values["config"]
    if not isinstance(values, dict):
        raise UsageError(f"--config {printable(path)}: must hold an object of flags: got {type(values).__name__}")
    values = {name: value for name, value in values.items() if name != "config"}
    _check(path, values, names)
    return values


def _read(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--config {printable(path)}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    if len(data) > LARGEST:
        raise UsageError(f"--config {printable(path)}: is larger than {LARGEST:,} bytes, so it is no config")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--config {printable(path)}: must be UTF-8: byte {error.start} is not; save it as UTF-8"
        ) from None


def _parse(path: str, text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in pairs:
            if name in values:
                raise UsageError(f"--config {printable(path)}: {printable(name)} is given twice: give it once")
            values[name] = value
        return values

    def refuse(constant: str) -> NoReturn:
        raise UsageError(
            f'--config {printable(path)}: {constant} is not a number of JSON: write a number, or "inf" in quotes'
        )

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise UsageError(f"--config {printable(path)}: must be JSON: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise UsageError(f"--config {printable(path)}: is nested too deep to be a config") from None


def _check(path: str, values: dict[str, Any], names: Sequence[str], prefix: str = "") -> None:
    for name, value in values.items():
        full = prefix + name
        parts = {".".join(field.split(".")[: full.count(".") + 1]) for field in names}
        if full not in parts:
            raise UsageError(f"--config {printable(path)}: {printable(full)}: no such field{nearest(full, names)}")
        if isinstance(value, dict) != (full not in names):
            wanted = "one value" if full in names else "an object of fields"
            raise UsageError(
                f"--config {printable(path)}: {full} must be {wanted}: got {printable(json.dumps(value))[:60]}"
            )
        if isinstance(value, dict):
            _check(path, value, names, f"{full}.")
