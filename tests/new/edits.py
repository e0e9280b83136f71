"""Edits of a checkout that are collected first and written together, so that an error leaves every file as it was."""

import keyword
import re
from collections.abc import Callable
from pathlib import Path


class Checkout:
    """New and changed files of a checkout."""

    def __init__(self, root: Path):
        self.root = root
        self.old: dict[str, str] = {}
        self.new: dict[str, str] = {}

    def has(self, path: str) -> bool:
        """True if the file exists, or is to be written."""
        return path in self.new or (self.root / path).exists()

    def create(self, path: str, text: str) -> None:
        """A new file; `ValueError` if there is one."""
        if self.has(path):
            raise ValueError(f"NAME must be new: {path} exists; choose another name")
        self.new[path] = text

    def text(self, path: str) -> str:
        """The file's text with the edits so far."""
        if path not in self.old and path not in self.new:
            self.old[path] = (self.root / path).read_text(encoding="utf-8")
        return self.new.get(path, self.old.get(path, ""))

    def replace(self, path: str, pattern: str, replacement: Callable[[re.Match[str]], str]) -> None:
        """Replaces the first match of a pattern by what the function makes of it."""
        found, count = re.subn(pattern, replacement, self.text(path), count=1, flags=re.MULTILINE)
        if not count:
            raise ValueError(f"{path} must have a line like {pattern!r}: add the row by hand")
        self.new[path] = found

    def add_import(self, path: str, module: str, names: str, indent: str = "") -> None:
        """Adds `from module import names` among the imports of its package, sorted by module."""
        lines = self.text(path).splitlines()
        line, top = f"{indent}from {module} import {names}", module.partition(".")[0]
        starts = {
            number: found[1]
            for number, text in enumerate(lines)
            if (found := re.match(rf"{indent}from ({top}[\w.]*) import", text))
        }
        later = [number for number, other in starts.items() if other > module]
        at = later[0] if later else max(starts) + 1
        self.new[path] = "\n".join([*lines[:at], line, *lines[at:], ""])

    def add_name(self, path: str, variable: str, name: str) -> None:
        """Adds a name to a list or tuple of names, in ruff's order: constants, classes, functions."""
        kind = lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name)
        found = re.search(rf"^{variable} = ([\[(])(.*?)[\])]$", self.text(path), re.MULTILINE | re.DOTALL)
        if found is None:
            raise ValueError(f"{path} must have the list {variable}: add {name} by hand")
        names = sorted({*re.findall(r'"(\w+)"', found[2]), name}, key=kind)
        opened, closed = ("[", "]") if found[1] == "[" else ("(", ")")
        quoted = [f'"{name}"' for name in names]
        whole = f"{variable} = {opened}{', '.join(quoted)}{closed}"
        if len(whole) > 120 or "\n" in found[0]:
            whole = "\n".join([f"{variable} = {opened}", *(f"    {name}," for name in quoted), closed])
        self.new[path] = self.text(path).replace(found[0], whole)

    def add_table_row(self, path: str, header: str, row: str) -> None:
        """Adds a row at the end of the Markdown table whose header line starts as given."""
        lines = self.text(path).splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith(header)]
        if not starts:
            raise ValueError(f"{path} must have the table {header!r}: add the row by hand")
        end = starts[0]
        while end < len(lines) and lines[end].startswith("|"):
            end += 1
        self.new[path] = "\n".join([*lines[:end], row, *lines[end:], ""])

    def write(self) -> None:
        """Writes all files."""
        for path, text in self.new.items():
            (self.root / path).write_text(text, encoding="utf-8")

    def report(self) -> list[str]:
        """A line for each file."""
        return [f"{'changed' if path in self.old else 'wrote  '} {path}" for path in sorted(self.new)]


def class_name(name: str) -> str:
    """The name, if it is that of a class; `ValueError` otherwise."""
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name):
        raise ValueError(f"NAME must be that of a class, such as ChannelScale: got {name!r}")
    return name


def module_name(name: str) -> str:
    """The name, if it is that of a module or a function; `ValueError` otherwise."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"NAME must be in lower case, such as one_pass: got {name!r}")
    return name


def snake(name: str) -> str:
    """`ChannelScale` as `channel_scale`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
