"""Help and completion of a command, from the docstrings of its module and of its options."""

import ast
import functools
import inspect
import shutil
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from .._errors import UsageError, printable
from .options import Option, default_of, flag_of, options

COLUMN = 30
"""Column of the text of a flag."""

PREFIX = "eqxgen " if __name__.startswith("eqxgen.") else "python -m train."
"""First words of a command, in an installed wheel and in a checkout."""

SCRIPTS = {
    "bash": """_eqxgen() {
  local count=2 found; [[ ${COMP_WORDS[0]} == *eqxgen ]] || count=3
  if ((count == 3)) && [[ "${COMP_WORDS[1]} ${COMP_WORDS[2]}" != "-m train."* ]]; then return 0; fi
  if ((COMP_CWORD < 2)); then found=$("${COMP_WORDS[0]}" --help | awk '/^  /{print $1}')
  else found=$("${COMP_WORDS[@]:0:count}" --print-completion words "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null); fi
  COMPREPLY=($(compgen -W "$found" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _eqxgen python python3 eqxgen
""",
    "zsh": """_eqxgen() {
  local count=2 found; [[ $words[1] == *eqxgen ]] || count=3
  if ((count == 3)) && [[ "$words[2] $words[3]" != "-m train."* ]]; then _default; return; fi
  if ((CURRENT < 3)); then found=$("$words[1]" --help | awk '/^  /{print $1}')
  else found=$("${(@)words[1,count]}" --print-completion words "$words[CURRENT-1]" 2>/dev/null); fi
  if [[ -n $found ]]; then compadd -- ${(f)found}; else _files; fi
}
compdef _eqxgen python python3 eqxgen
""",
}
"""Completion of every command, which is asked itself for the words that may follow."""


class Usage:
    """Answers to `--help`, `--help-all` and `--print-completion`.

    Args:
        name: of the command, as after `python -m train.`.
        doc: its docstring.
        config: the dataclass of its options.
        default: the values that the help shows; by default those of the class.
        presets: a line for each preset, by name.
    """

    def __init__(
        self, name: str, doc: str, config: type, default: Any = None, presets: Mapping[str, str] | None = None
    ):
        self.prog, self.doc, self.config, self.default = PREFIX + name, document(doc), config, default
        self.presets = presets or {}
        self.table = options(config)

    def answer(self, argv: Sequence[str]) -> None:
        """Prints what the words ask for and exits with 0, or returns."""
        if "--print-completion" in argv:
            shell, before, *_ = [*argv[argv.index("--print-completion") + 1 :], "", ""]
            if shell not in (*SCRIPTS, "words"):
                raise UsageError(f"--print-completion must be {' or '.join(SCRIPTS)}: got {printable(shell)!r}")
            print(SCRIPTS.get(shell) or "\n".join(self.candidates(before)))
        elif "--help-all" in argv:
            print(self.text(every=True))
        elif {"--help", "-h"} & set(argv):
            print(self.text(every=not any(option.first for option in self.table.values())))
        else:
            return
        sys.exit(0)

    def text(self, every: bool) -> str:
        """The help; of the first flags, or of every one."""
        places = "".join(f" {option.flag}" for option in self.table.values() if option.positional)
        parts = [f"usage: {self.prog}{places} [FLAG VALUE ...]", self.doc]
        if self.presets:
            column = max(16, min(24, max(map(len, self.presets)) + 4))
            lines = (_entry(name, [text], column) for name, text in self.presets.items())
            parts.append("Presets, by --preset NAME; without it the first:\n" + "\n".join(lines))
        texts = documentation(self.config)
        shown = [option for option in self.table.values() if every or option.first]
        groups: dict[str, list[str]] = {}
        for option in shown:
            group = option.name.rpartition(".")[0] if every else ""
            groups.setdefault(group, []).append(self._line(option, texts))
        for group, lines in groups.items():
            title = f"{flag_of(group)}: {texts.get(group, '')}" if group else "Flags, and [their values]:"
            parts.append(title + "\n" + "\n".join(lines))
        if not every:
            parts.append(f"All {len(self.table)} flags: {self.prog} --help-all")
        return "\n\n".join(parts)

    def candidates(self, before: str) -> list[str]:
        """Words that may follow: the values of the flag before, where they are listed, or every flag."""
        if before.replace("-", "_") == "__preset":
            return list(self.presets)
        for option in self.table.values():
            if option.flag == before and option.kind is not bool:
                return list(map(str, _choices(option.kind)))
        return [option.flag for option in self.table.values() if not option.positional]

    def _line(self, option: Option, texts: Mapping[str, str]) -> str:
        flag = option.flag
        if option.kind is bool:
            head, dot, last = flag.rpartition("." if "." in flag else "--")
            flag = f"{head}{dot}[no-]{last}"
        elif not option.positional:
            flag = f"{flag} {_shape(option.kind)}"
        if option.alias:
            flag = f"--{option.alias}, {flag}"
        value = functools.reduce(getattr, option.name.split("."), self.default) if self.default else option.default
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        nothing = value is None or value is MISSING or value is False or not shown.strip()
        return _entry(flag, [texts.get(option.name, ""), *([] if nothing else [f"[{shown}]"])])


def document(doc: str) -> str:
    """A command's docstring, with its examples as they are typed here."""
    return inspect.cleandoc(doc).replace("python -m train.", PREFIX)


def documentation(config: type, prefix: str = "") -> dict[str, str]:
    """The string after each field of a dataclass and of those nested in it, by dotted name."""
    found = {prefix + name: text for base in reversed(config.__mro__) for name, text in _strings(base)}
    for field in fields(config):
        if is_dataclass(start := default_of(field)):
            found |= documentation(type(start), f"{prefix}{field.name}.")
    return found


def _strings(config: type) -> Iterator[tuple[str, str]]:
    """Field and string after it, of the class's own source; none where the source is not at hand."""
    path = getattr(sys.modules.get(config.__module__), "__file__", None)
    if not is_dataclass(config) or path is None or not Path(path).exists():
        return
    for node in _module(path).body:
        if isinstance(node, ast.ClassDef) and node.name == config.__name__:
            for field, text in zip(node.body, node.body[1:]):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    match text:
                        case ast.Expr(ast.Constant(str() as words)):
                            yield field.target.id, " ".join(words.split())


@functools.cache
def _module(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text(encoding="utf-8"))


def _entry(name: str, texts: Sequence[str], column: int = COLUMN) -> str:
    """A name and its text, in columns."""
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    pad = " " * column
    lines = textwrap.wrap(" ".join(texts), width, initial_indent=pad, subsequent_indent=pad, break_on_hyphens=False)
    start = f"  {name}"
    if lines and len(start) < column - 1:
        return "\n".join([start + lines[0][len(start) :], *lines[1:]])
    return "\n".join([start, *lines])


def _choices(kind: Any) -> list[Any]:
    """The values of a `Literal`, or of one in an `X | None`."""
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    return [choice for part in typing.get_args(kind) for choice in _choices(part)]


def _shape(kind: Any) -> str:
    """Values of a flag: INT, or {a,b}."""
    if choices := _choices(kind):
        return "{" + ",".join(map(str, choices)) + "}"
    names = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
    found = [names[part] for part in _leaves(kind) if part in names]
    return f"{found[-1]} ..." if typing.get_origin(kind) is tuple else found[-1]


def _leaves(kind: Any) -> list[Any]:
    """The plain types of a type: int and float of `tuple[int | float, ...]`."""
    parts = typing.get_args(kind)
    return [leaf for part in parts for leaf in _leaves(part)] if parts else [kind]
