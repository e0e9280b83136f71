"""The published arrays of a model, each made when it is read."""

import functools
from typing import Any

import numpy as np
from jaxtyping import PyTree

from eqxgen.pretrained.formats.stored import Stored
from eqxgen.pretrained.table.routes import pieces_of, routed
from eqxgen.pretrained.table.rows import Table
from eqxgen.pretrained.transforms import Transform


def written(table: Table, model: PyTree) -> dict[str, Stored]:
    """The published arrays of a model by name, each made when it is read.

    Raises:
        ValueError: a parameter is none of the published architecture.
    """
    found: dict[str, Stored] = {}
    shares: dict[str, dict[int, Stored]] = {}
    for path, leaf, rows in routed(table, model, short=False):
        parts = rows[0]
        for layer, numbers in parts.layers():
            names = [name.format(*numbers) for name in parts.row.all_names]
            pieces = pieces_of(parts.row.how, leaf.shape[parts.stacked :], str(leaf.dtype))
            if not pieces:  # a constant, which is checked
                _checked_constant(path, parts.row.how, np.asarray(leaf))
            for which, (name, shape) in enumerate(zip(names, pieces)):
                dtype = np.dtype(parts.row.how.dtype or leaf.dtype)
                piece = Stored(shape, dtype, functools.partial(_piece, leaf, layer, parts.row.how, which, dtype))
                number, count = parts.row.how.share
                if count == 1:
                    found[name] = piece
                else:
                    shares.setdefault(name, {})[number] = piece
    found |= {name: _joined([part for _, part in sorted(given.items())]) for name, given in shares.items()}
    for tied in table.tied:
        if tied.written and tied.of in found:
            found[tied.name] = found[tied.of]
    return found


def _piece(leaf: Any, layer: tuple[int, ...], how: Transform, which: int, dtype: np.dtype, index: Any) -> np.ndarray:
    return np.asarray(how.write(np.asarray(leaf[layer]))[which])[index].astype(dtype, copy=False)


def _joined(parts: list[Stored]) -> Stored:
    """Arrays one after another along their first axis."""
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return Stored(shape, parts[0].dtype, lambda index: np.concatenate([part.read(...) for part in parts])[index])


def _checked_constant(path: str, how: Transform, array: np.ndarray) -> None:
    try:
        how.write(array)
    except ValueError as error:
        raise ValueError(f"model.{path} {error}") from None
