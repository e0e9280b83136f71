"""Parameters of a model by path, each with the rows that name it."""

import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import PyTree

from eqxgen.pretrained.table.rows import Row, Table
from eqxgen.pretrained.transforms import Transform


class Parts(NamedTuple):
    """A row at one parameter.

    Attributes:
        row: with its names shortened.
        numbers: of the blocks; None where the parameter has a leading axis for them.
        sizes: of the leading axes.
    """

    row: Row
    numbers: tuple[int | None, ...]
    sizes: tuple[int, ...]

    @property
    def stacked(self) -> int:
        return len(self.sizes)

    @property
    def names(self) -> list[str]:
        return [name.format(*numbers) for _, numbers in self.layers() for name in self.row.all_names]

    def layers(self, index: tuple[slice, ...] = ()) -> Iterator[tuple[tuple[int, ...], list[int]]]:
        """Position in the leading axes and numbers of the blocks, of each layer that a part of the axes holds."""
        ranges = [range(size)[cut] for size, cut in zip(self.sizes, index or (slice(None),) * self.stacked)]
        for layer in itertools.product(*ranges):
            places = iter(layer)
            yield layer, [next(places) if number is None else number for number in self.numbers]


def routed(table: Table, shapes: PyTree, *, short: bool = True) -> Iterator[tuple[str, Any, list[Parts]]]:
    """Each parameter with the rows that name it."""
    rows = [(row._replace(names=tuple(map(table.short, row.all_names))) if short else row) for row in table.rows]
    patterns = [(row, _pattern(row.path)) for row in rows]
    for path, leaf in _arrays(shapes):
        found = []
        for row, pattern in patterns:
            if (hit := pattern.fullmatch(path)) is not None:
                numbers = tuple(None if number is None else int(number) for number in hit.groups())
                found.append(Parts(row, numbers, leaf.shape[: numbers.count(None)]))
        if not found:
            raise ValueError(
                f"model must be of {table.family}'s architecture, in which there is no parameter {path}: got another"
            )
        yield path, leaf, found


def paths(model: PyTree) -> list[str]:
    """The paths of a model's arrays, in its order."""
    return [path for path, _ in _arrays(model)]


def names_path(pattern: str, path: str) -> bool:
    """True where the path of a row names this one."""
    return _pattern(pattern).fullmatch(path) is not None


@functools.cache
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\{\}\.", r"(?:(\d+)\.)?").replace(r"\.\{\}", r"(?:\.(\d+))?"))


@functools.cache
def pieces_of(how: Transform, shape: tuple[int, ...], dtype: str) -> list[tuple[int, ...]]:
    """Shapes of the published arrays of a parameter."""
    return [piece.shape for piece in jax.eval_shape(how.write, jax.ShapeDtypeStruct(shape, dtype))]


def _arrays(tree: PyTree) -> list[tuple[str, Any]]:
    flat = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, is_array))[0]
    return [(jax.tree_util.keystr(key, simple=True, separator="."), leaf) for key, leaf in flat]


def is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
