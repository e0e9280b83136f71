"""The words of a command line: checked before they are parsed, and what is wrong said in one line. Imports no jax."""

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from .._errors import UsageError

T = TypeVar("T")


def parse(config: type[T], prog: str, description: str, argv: Sequence[str], default: T | None = None) -> T:
    """The words as a config; `--help` prints and exits with 0.

    Raises:
        UsageError: a flag that is unknown, without its value, or with a value that cannot be.
    """
    import tyro

    said = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(config, prog=prog, args=list(argv), description=description, **given)
    except SystemExit as stop:
        if not stop.code:
            raise
    raise UsageError(f"{_message(said.getvalue())}; see {prog} --help")


def names_of(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the fields of a config, or of its class: `optim.learning_rate`."""
    for field in dataclasses.fields(config):
        value: Any = field.type if isinstance(config, type) else getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from names_of(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def check(argv: Sequence[str], names: Sequence[str]) -> None:
    """Raises `UsageError` where a flag is of no field, or was given twice, of which a parser would silently take the
    last.
    """
    seen: dict[str, str] = {}
    for word in argv:
        if not word.startswith("--") or word == "--help":
            continue
        flag = word.partition("=")[0]
        name = _name(flag, names)
        if name is None:
            raise UsageError(f"{printable(flag)}: no such flag{nearest(flag.removeprefix('--'), names, '--')}")
        if name in seen:
            raise UsageError(f"{flag_of(name)}: given twice, as {seen[name]} and again as {word}: give it once")
        seen[name] = word


def value_of(flag: str, argv: Sequence[str]) -> str | None:
    """The value of a flag before all are parsed."""
    for word, after in zip(argv, [*argv[1:], None]):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == flag:
            return value if equals else after
    return None


def nearest(name: str, names: Sequence[str], prefix: str = "") -> str:
    """`: did you mean ...?` of the name that looks most like it, or nothing."""
    name = name.replace("-", "_")
    last = {
        full.rpartition(".")[2]: full for full in sorted(names, key=lambda full: -full.count("."))
    }  # the shortest stands last, and stays
    near = difflib.get_close_matches(name, names, 1, 0.6) or difflib.get_close_matches(name, last, 1, 0.6)
    if not near:
        return ""
    found = last.get(near[0], near[0])
    return f": did you mean {flag_of(found) if prefix else found}?"


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def printable(text: str) -> str:
    """The text with control characters escaped, so that a hostile name cannot draw on the terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )


def flags_of(values: Mapping[str, Any], prefix: str = "--") -> list[str]:
    """Nested values as the words that would have given them."""
    words: list[str] = []
    for name, value in values.items():
        flag = prefix + name.replace("_", "-")
        if isinstance(value, dict):
            words += flags_of(value, flag + ".")
        elif isinstance(value, bool):
            words.append(flag if value else f"{prefix}no-{name.replace('_', '-')}")
        elif isinstance(value, list):
            words += [flag, *map(str, value)]
        else:
            words.append(f"{flag}={value}")
    return words


def _name(flag: str, names: Sequence[str]) -> str | None:
    name = flag.removeprefix("--").replace("-", "_")
    if name in names:
        return name
    head, _, last = name.rpartition(".")
    positive = f"{head}.{last.removeprefix('no_')}".lstrip(".")
    return positive if last.startswith("no_") and positive in names else None


def _message(box: str) -> str:
    """The first part of what tyro says below its title, as one line. It draws a frame, or rules alone where the stream
    knows only ASCII.
    """
    lines = [line.strip("│ ") for line in box.splitlines() if not re.search("[╭╰]", line)]
    parts = re.split(r"\n[─-]+\n", "\n".join(lines))
    text = parts[0] if "╭" in box else parts[min(1, len(parts) - 1)]
    message = " ".join(text.split()).rstrip(".") or "the command line cannot be read"
    return re.sub(r"^Error parsing ([A-Za-z_.]+: (?=\S+ must ))?", "", message)
