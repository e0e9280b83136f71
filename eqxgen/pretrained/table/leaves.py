"""A parameter as a stored array, which is put together of the published ones as it is read."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from eqxgen.pretrained.formats.copies import copied, fresh
from eqxgen.pretrained.formats.stored import Stored, printable
from eqxgen.pretrained.table.routes import Parts, pieces_of
from eqxgen.pretrained.transforms import SAME


def leaf_of(
    path: str, leaf: Any, parts: Parts, given: Mapping[str, Stored], where: object, cropped: dict[str, int]
) -> Stored:
    """The parameter as a stored array that is put together when it is read."""
    pieces = pieces_of(parts.row.how, leaf.shape[parts.stacked :], str(leaf.dtype))
    crop, kinds = parts.row.how.crop, []
    for _, numbers in parts.layers():
        for name, shape in zip((name.format(*numbers) for name in parts.row.all_names), pieces, strict=True):
            stored = given[name]
            if parts.row.how.share[1] > 1:
                shape = (shape[0] * parts.row.how.share[1], *shape[1:])
            _check(where, name, stored, shape, leaf.dtype, crop)
            if stored.shape != shape:
                cropped[name] = stored.shape[0] - shape[0]
            kinds.append(stored.dtype)
    stay = not kinds or parts.row.how.dtype is not None
    dtype = np.dtype(leaf.dtype if stay else functools.reduce(jnp.promote_types, kinds))
    return Stored(leaf.shape, dtype, functools.partial(_assembled, parts, leaf.shape, dtype, given))


def _check(where: object, name: str, stored: Stored, shape: tuple[int, ...], dtype: Any, crop: bool) -> None:
    kind, word = (jnp.floating, "floating-point") if jnp.issubdtype(dtype, jnp.inexact) else (jnp.integer, "integers")
    fits = stored.shape == shape
    if crop and stored.shape[1:] == shape[1:] and len(stored.shape) == len(shape):
        fits = stored.shape[0] >= shape[0]
    if not (fits and jnp.issubdtype(stored.dtype, kind)):
        raise ValueError(
            printable(
                f"{where}: array {name} must be {word}{list(shape)}, as the config says: got "
                f"{stored.dtype}{list(stored.shape)}"
            )
        )


def _assembled(
    parts: Parts, shape: tuple[int, ...], dtype: np.dtype, given: Mapping[str, Stored], index: Any
) -> np.ndarray:
    """A part of a parameter, made in memory of its own."""
    index = (slice(None),) * len(shape) if index is ... else tuple(index)
    index = tuple(slice(*cut.indices(size)) for cut, size in zip(index, shape, strict=True))
    leading, rest, inner = index[: parts.stacked], index[parts.stacked :], shape[parts.stacked :]
    sizes = [len(range(size)[cut]) for size, cut in zip(shape, index)]
    layers = [numbers for _, numbers in parts.layers(leading)]
    made = fresh((len(layers), *sizes[parts.stacked :]), dtype)
    for place, numbers in enumerate(layers):
        into = made[place, ...]
        stored = [_share(given[name.format(*numbers)], *parts.row.how.share) for name in parts.row.all_names]
        if parts.row.how.read is SAME.read:
            copied(into, stored[0].read(rest or ...))
            continue
        layer = np.asarray(parts.row.how.read(tuple(one.read(...) for one in stored)))
        if layer.size != math.prod(inner):  # a constant
            layer = np.broadcast_to(layer, inner)
        if into.shape == inner:  # the axes of a view may be merged as they are copied
            copied(into.reshape(layer.shape), layer)
        else:
            copied(into, layer.reshape(inner)[rest])
    return made.reshape(sizes)


def _share(stored: Stored, number: int, count: int) -> Stored:
    """One of the equal parts of an array along its first axis."""
    if count == 1:
        return stored
    size = stored.shape[0] // count
    part = lambda index: stored.read((slice(number * size, (number + 1) * size),))[index]
    return Stored((size, *stored.shape[1:]), stored.dtype, part)
