"""Ops on arrays that are sharded over explicit mesh axes: computed as on automatic axes, between typed ends, or mapped
over the axes that divide their independent parts.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ._fused import Places


def on_auto_axes(function: Callable[..., Any], arrays: tuple, results: Any) -> Any:
    """`function(*arrays)`. On explicit mesh axes it is traced as on automatic ones, so that XLA partitions it, and its
    results are sharded by `results`, a tree of specs.
    """
    leaves, tree = jax.tree.flatten(arrays)
    typed = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array) and _explicit(leaf)]
    if not typed:
        return function(*arrays)

    def of_typed(*moved):
        every = dict(enumerate(leaves)) | dict(zip(typed, moved))
        return function(*jax.tree.unflatten(tree, every.values()))

    first = leaves[typed[0]]
    out = jax.tree.map(lambda spec: NamedSharding(jax.typeof(first).sharding.mesh, spec), results)
    wrapped = jax.sharding.auto_axes(of_typed, axes=_explicit(first), out_sharding=out)
    return wrapped(*(leaves[i] for i in typed))


def places_of(arrays: Sequence[jax.Array], parts: Any, whole: Sequence[int], lead: int = 1) -> Places | None:
    """The places over which `jax.shard_map` may divide an op on arrays that are sharded over explicit mesh axes.

    None without explicit axes, and for a call that is not independent along the sharded ones, which XLA partitions.

    Args:
        arrays: the operands of the op.
        parts: for each axis of the first operand, the mesh axes over which the op is to be divided.
        whole: the axes along which no operand may be sharded.
        lead: the number of leading axes that the op folds into one.
    """
    typed = [x for x in arrays if _explicit(x)]
    if not typed or any(jax.typeof(x).sharding.spec[axis] is not None for x in typed for axis in whole):
        return None
    sizes = jax.typeof(typed[0]).sharding.mesh.shape
    used = [tuple(name for name in _names(part) if sizes[name] > 1) for part in parts]
    front = _folded(used[:lead], arrays[0].shape, sizes)
    return None if front is None else Places((front, *used[lead:]), _explicit(typed[0]))


def _folded(parts: Sequence[tuple[str, ...]], shape: Sequence[int], sizes: Any) -> tuple[str, ...] | None:
    """The mesh axes of axes that are folded into one, if each device's part of it is one stretch."""
    names, single = (), True  # single: a device has one index of the axes before
    for part, size in zip(parts, shape):
        if part and not single:
            return None
        names += part
        single = single and math.prod(sizes[name] for name in part) == size
    return names


def _explicit(x: jax.Array) -> tuple[str, ...]:
    """The explicit axes of the mesh of an array's type."""
    mesh = jax.typeof(x).sharding.mesh
    return tuple(name for name, kind in zip(mesh.axis_names, mesh.axis_types) if kind == AxisType.Explicit)


def spec_like(first: jax.Array, *others: jax.Array, axes: int) -> PartitionSpec:
    """The spec of the first array, with that of the next one that has any along those of its first `axes` axes that are
    not sharded. No mesh axis comes twice.
    """
    own, *rest = (jax.typeof(x).sharding.spec for x in (first, *others))
    taken, parts = set(), []
    for n in range(first.ndim):
        choices = [own[n], *(spec[n] for spec in rest if n < axes)]
        names = next((x for x in choices if x is not None and taken.isdisjoint(_names(x))), None)
        taken |= set(_names(names))
        parts.append(names)
    return PartitionSpec(*parts)


def _names(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
