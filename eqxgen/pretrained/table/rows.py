"""Rows of a table: a parameter and its published arrays, and the arrays that repeat others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from eqxgen.pretrained.transforms import SAME, Transform

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that parallel training and compilation put before every name."""


class Row(NamedTuple):
    """A parameter and its published arrays.

    Attributes:
        path: of the parameter, such as `stack.blocks.{}.mlp.up.weight`: each `{}` is the number of a block, be the
            blocks a list, or one module whose arrays have a leading axis for them.
        names: of the published array, or of several that the transform joins; with the same `{}` in the same order.
        how: the transform.
    """

    path: str
    names: str | tuple[str, ...]
    how: Transform = SAME

    @property
    def all_names(self) -> tuple[str, ...]:
        return (self.names,) if isinstance(self.names, str) else self.names


class Tied(NamedTuple):
    """A published array that repeats another, and may be there in its stead.

    Attributes:
        name: of the copy; `{}` matches any number.
        of: the array that a row names.
        written: the published library needs the copy in the file.
        equal: it must be equal to the other; otherwise the published model does not use it where both are there.
    """

    name: str
    of: str
    written: bool = False
    equal: bool = True


@dataclass(frozen=True)
class Table:
    """A mapping between published names and parameters.

    Args:
        family: its name in messages, such as GPT-2.
        rows: of several rows of one path the first whose arrays are in the file is read, and the first is written.
            Rows of parameters that the model is without, such as biases, are passed over.
        tied: arrays that repeat others.
        ignored: reason by pattern of names (`*` matches any text) that no parameter is for.
        prefixes: of names, which the files of some libraries have and those of others have not.
        renames: newer spelling by ending of a name in older files: `{".gamma": ".weight"}`.
    """

    family: str
    rows: tuple[Row, ...]
    tied: tuple[Tied, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)

    def short(self, name: str) -> str:
        """The name without prefixes, in its newer spelling."""
        while (prefix := next((p for p in (*WRAPPERS, *self.prefixes) if name.startswith(p)), None)) is not None:
            name = name[len(prefix) :]
        old = next((old for old in self.renames if name.endswith(old)), None)
        return name if old is None else name.removesuffix(old) + self.renames[old]
