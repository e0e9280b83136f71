"""A model with the parameters of a file, on its devices."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, DTypeLike, PyTree

from eqxgen.pretrained.formats.copies import copied, fresh
from eqxgen.pretrained.formats.stored import Stored
from eqxgen.pretrained.table.coverage import Coverage
from eqxgen.pretrained.table.matching import match
from eqxgen.pretrained.table.routes import is_array
from eqxgen.pretrained.table.rows import Table


def read(
    table: Table,
    arrays: Mapping[str, Stored],
    shapes: PyTree,
    where: object = "file",
    *,
    dtype: DTypeLike | None = None,
    place: Callable[[str, tuple[int, ...]], Sharding] | None = None,
) -> tuple[PyTree, Coverage]:
    """The model with the parameters of a file; see `match`.

    Args:
        table: of the family.
        arrays: of the file, by published name.
        shapes: the model, or its shapes as `eqx.filter_eval_shape` gives them.
        where: the file or folder, for messages.
        dtype: of floating-point parameters; by default each has the one that it is stored in, such as bfloat16.
        place: the sharding of a parameter by its path and shape, of which each device is given its part.
    """
    matched = match(table, arrays, shapes, where)
    return filled(shapes, matched.leaves, dtype, place), matched.coverage


def filled(
    shapes: PyTree,
    leaves: Mapping[str, Stored],
    dtype: DTypeLike | None = None,
    place: Callable[[str, tuple[int, ...]], Sharding] | None = None,
) -> PyTree:
    """A model with its parameters, which are read one after another; the arguments are those of `read`."""
    found = []
    for path, stored in leaves.items():
        kind = stored.dtype if dtype is None or not jnp.issubdtype(stored.dtype, jnp.floating) else dtype
        found.append(placed(stored, kind, None if place is None else place(path, stored.shape)))
    return _replaced(shapes, found)


def lazy(shapes: PyTree, leaves: Mapping[str, Stored]) -> PyTree:
    """A model with stored arrays in place of its own, for `written`: each is read as it is written."""
    return _replaced(shapes, [Lazy(stored) for stored in leaves.values()])


class Lazy(jax.ShapeDtypeStruct):
    """A stored array in place of a parameter, which is read as it is written."""

    def __init__(self, stored: Stored):
        super().__init__(stored.shape, stored.dtype)
        self.stored = stored

    def __getitem__(self, layer: tuple[int, ...]) -> np.ndarray:
        part = tuple(slice(place, place + 1) for place in layer) + (slice(None),) * (self.ndim - len(layer))
        return np.asarray(self.stored.read(part or ...)).reshape(self.shape[len(layer) :])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.stored.read(...), dtype)


def _replaced(shapes: PyTree, arrays: list[Any]) -> PyTree:
    wanted, rest = eqx.partition(shapes, is_array)
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(wanted), arrays), rest)


def placed(stored: Stored, dtype: DTypeLike, sharding: Sharding | None = None) -> Array:
    """A stored array on its devices, of which each is given its part."""
    if sharding is None:
        return jax.device_put(_own(np.asarray(stored.read(...)), dtype))
    parts: dict[str, np.ndarray] = {}  # devices that have the same part share one reading

    def part(index: Any) -> np.ndarray:
        if repr(index) not in parts:
            parts[repr(index)] = _own(np.asarray(stored.read(index)), dtype)
        return parts[repr(index)]

    return jax.make_array_from_callback(stored.shape, sharding, part)


def _own(array: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """The values in memory of their own: JAX does not copy them again, and the file may change."""
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if array.dtype != dtype:
        return array.astype(dtype)
    return array if array.flags.writeable else copied(fresh(array.shape, array.dtype), array)
