"""The command line: words to the values of options, each checked, and every mistake in one line. Imports no jax."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from typing import Any, TypeVar

from .._errors import UsageError, printable
from .options import Option, build, convert, meaning, nearest, options
from .usage import Usage

T = TypeVar("T")


def parse(config: type[T], name: str, doc: str, argv: Sequence[str], default: T | None = None) -> T:
    """The words of a command as its dataclass; `--help` prints and exits with 0.

    Args:
        name: of the command, such as `doctor` for `python -m train.doctor`.
        doc: its docstring, for the help.
        default: the values that are not given; by default those of the class.

    Raises:
        UsageError: a flag that is unknown, is missing, has no value, or a value that cannot be.
    """
    table = options(config)
    Usage(name, doc, config, default).answer(argv)
    values = read(argv, table)
    missing = [option.flag for name, option in table.items() if option.default is MISSING and name not in values]
    if missing and default is None:
        raise UsageError(f"{' and '.join(missing)} must be given")
    return build(config, values, default)


def read(argv: Sequence[str], table: Mapping[str, Option]) -> dict[str, Any]:
    """The values that the words give, by dotted name.

    Raises:
        UsageError: as `parse`.
    """
    spelled = {name: option for option in table.values() for name in (option.name, option.alias) if name}
    places = [option for option in table.values() if option.positional]
    values: dict[str, Any] = {}
    seen: dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            if not places:
                hint = nearest(word.partition("=")[0], [*spelled], "--")
                raise UsageError(f"{printable(word)}: is no flag and the value of none: flags begin with --{hint}")
            option = places.pop(0)
            values[option.name] = convert(option.flag, option.kind, word)
            continue
        flag, equals, text = word.partition("=")
        option, positive = _option(flag, spelled)
        if option.name in seen:
            raise UsageError(f"{option.flag}: given twice, as {seen[option.name]} and again as {word}: give it once")
        seen[option.name] = word
        if option.kind is bool and not equals:
            values[option.name] = positive
        elif equals:
            values[option.name] = convert(option.flag, option.kind, [text] if _several(option) else text)
        else:
            count = next((i for i, after in enumerate(words) if after.startswith("--")), len(words))
            taken = words[: count if _several(option) else min(count, 1)]
            del words[: len(taken)]
            if not taken and not _several(option):
                raise UsageError(f"{option.flag} must be {meaning(option.kind)}: got no value")
            values[option.name] = convert(option.flag, option.kind, taken if _several(option) else taken[0])
    return values


def value_of(flag: str, argv: Sequence[str]) -> str | None:
    """The value of a flag before all are read."""
    for word, after in zip(argv, [*argv[1:], None]):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == flag:
            return value if equals else after
    return None


def _several(option: Option) -> bool:
    return tuple in (typing.get_origin(kind) for kind in (option.kind, *typing.get_args(option.kind)))


def _option(flag: str, spelled: Mapping[str, Option]) -> tuple[Option, bool]:
    """The option of a flag, and False where it is that of `--no-`."""
    name = flag.removeprefix("--").replace("-", "_")
    if name in spelled and not spelled[name].positional:
        return spelled[name], True
    head, dot, last = name.rpartition(".")
    option = spelled.get(head + dot + last.removeprefix("no_"))
    if option is None or option.kind is not bool:
        flags = [name for name, option in spelled.items() if not option.positional]
        raise UsageError(f"{printable(flag)}: no such flag{nearest(flag.removeprefix('--'), flags, '--')}")
    return option, False
