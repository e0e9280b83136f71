"""Options: the fields of a frozen dataclass, as a command line and config.json read them. Imports nothing heavy."""

import contextlib
import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from .._errors import UsageError, printable

T = TypeVar("T")


def option(
    default: Any = MISSING,
    *,
    factory: Any = MISSING,
    free: bool = False,
    moves: bool = False,
    first: bool | tuple[str, ...] = False,
    alias: str = "",
    positional: bool = False,
) -> Any:
    """A field of a dataclass, with the facts that the command line needs beside its type, default and docstring.

    Args:
        default: its value where none is given; required without it.
        factory: makes the default, of a nested dataclass.
        free: may differ between a run and its resumption, as it changes no number.
        moves: a path, which may differ too where the SHA-256 of the frozen parts is the same.
        first: is shown by `--help`; of a nested dataclass, the names of its fields that are. `--help-all` shows all.
        alias: a short form of the flag, without dashes.
        positional: is given by its place, without a flag.
    """
    metadata = {"free": free, "moves": moves, "first": first, "alias": alias, "positional": positional}
    given = {"default_factory": factory} if default is MISSING else {"default": default}
    return dataclasses.field(**given, metadata=metadata)


class Option(NamedTuple):
    """One field. `name` is dotted, as in `optim.learning_rate`; `default` is `MISSING` where a value is required."""

    name: str
    kind: Any
    default: Any
    free: bool
    moves: bool
    first: bool
    alias: str
    positional: bool

    @property
    def flag(self) -> str:
        return self.name.upper() if self.positional else flag_of(self.name)


def options(config: type, prefix: str = "", first: Collection[str] = ()) -> dict[str, Option]:
    """The options of a dataclass and of those nested in it, by dotted name."""
    found: dict[str, Option] = {}
    kinds = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        name, facts, start = prefix + field.name, field.metadata, default_of(field)
        if dataclasses.is_dataclass(start):
            found |= options(type(start), f"{name}.", facts.get("first") or ())
        else:
            shown = bool(facts.get("first")) or field.name in first
            may = facts.get("free", False), facts.get("moves", False)
            more = shown, facts.get("alias", ""), facts.get("positional", False)
            found[name] = Option(name, kinds[field.name], start, *may, *more)
    return found


def free(config: type) -> frozenset[str]:
    """Dotted names of the fields that may differ between a run and its resumption."""
    return frozenset(name for name, option in options(config).items() if option.free or option.moves)


def moving(config: type) -> frozenset[str]:
    """Names of the paths that may differ where the frozen parts are the same."""
    return frozenset(name for name, option in options(config).items() if option.moves)


def build(config: type[T], values: Mapping[str, Any], default: T | None = None, prefix: str = "") -> T:
    """The dataclass of these values by dotted name; the others are those of `default`, or of the class.

    Raises:
        UsageError: a value is out of its range.
    """
    given: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # pyright: ignore[reportArgumentType]
        name = prefix + field.name
        start = default_of(field) if default is None else getattr(default, field.name)
        if dataclasses.is_dataclass(start) and not isinstance(start, type):
            given[field.name] = build(type(start), values, start, f"{name}.")
        elif (value := values.get(name, start)) is not MISSING:
            given[field.name] = value
    try:
        return config(**given)
    except ValueError as error:
        raise UsageError(_named(str(error), prefix)) from None


def _named(message: str, prefix: str) -> str:
    """The message of a nested config, whose fields are called `model.x` or by its own name, with the flags' names."""
    last = prefix.rstrip(".").rpartition(".")[2]
    return re.sub(rf"(?<![\w.])(model|{last})\.(?=[a-z_])", prefix, message) if prefix else message


def convert(label: str, kind: Any, value: Any) -> Any:
    """A word of the command line, a list of them, or a value of JSON, as a value of that type.

    Raises:
        UsageError: it is none of that type; the message begins with `label`.
    """
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        *others, last = _some(kind)
        if (value is None or value == "None") and type(None) in typing.get_args(kind):
            return None
        for other in others:
            with contextlib.suppress(UsageError):
                return convert(label, other, value)
        return convert(label, last, value)
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{label} must be a list: got {printable(str(value))[:60]!r}")
        return tuple(convert(label, parts[0], item) for item in value)
    try:
        return _choice(parts, value) if parts else READERS[kind](value)
    except (KeyError, ValueError, TypeError, OverflowError, AttributeError):
        near = difflib.get_close_matches(str(value), map(str, parts), 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{label} must be {meaning(kind)}: got {value!r:.60}{hint}") from None


def _choice(parts: tuple[Any, ...], value: Any) -> Any:
    """The value of that name; words of a name may be joined as in a flag's, and as in runs of older versions."""
    names = {str(part): part for part in parts}
    return names[value] if value in names else names[value.replace("-", "_")]


def meaning(kind: Any) -> str:
    """The values of a type, in words: `a whole number`."""
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if typing.get_origin(kind) is tuple:
        return f"{meaning(typing.get_args(kind)[0])}, or several"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind) or (
        "a path" if kind is Path else meaning(_some(kind)[-1])
    )


def nearest(name: str, names: Collection[str], prefix: str = "") -> str:
    """`: did you mean ...?` of the name that is most similar, or nothing."""
    name = name.replace("-", "_")
    last = {full.rpartition(".")[2]: full for full in sorted(names, key=lambda full: -full.count("."))}
    near = difflib.get_close_matches(name, names, 1, 0.6) or difflib.get_close_matches(name, last, 1, 0.6)
    found = last.get(near[0], near[0]) if near else ""
    return f": did you mean {flag_of(found) if prefix else found}?" if found else ""


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def default_of(field: dataclasses.Field) -> Any:
    """The default of a field, `MISSING` where it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def _some(kind: Any) -> list[Any]:
    """The types of a union but None, in the order in which a value is tried."""
    return [part for part in typing.get_args(kind) if part is not types.NoneType]


def _whole(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+(_[0-9]+)*", value):
        return int(value)
    return _same(int, value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or str(value) != str(value).strip():
        raise TypeError
    return float(value)


def _truth(value: Any) -> bool:
    return _same(bool, {"true": True, "false": False}[value.lower()] if isinstance(value, str) else value)


def _same(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


READERS: dict[Any, Callable[[Any], Any]] = {
    int: _whole,
    float: _number,
    bool: _truth,
    str: lambda value: _same(str, value),
    Path: lambda value: Path(_same(str, value)),
}
"""From a word or a value of JSON to each type of field."""
