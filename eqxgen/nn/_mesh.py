"""Operations that work on arrays sharded over explicit and manual mesh axes too."""

import contextlib
import functools
import re
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Shaped


def take_rows(table: Float[Array, "rows dim"], ids: Int[Array, "*leading"]) -> Float[Array, "*leading dim"]:
    """`table[ids]`, NaN for ids out of range. On explicit mesh axes the result is sharded as the ids are."""
    out = _rows_sharding(table, ids)
    return table.at[ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False, out_sharding=out)


def explicit_axes(x: Array) -> bool:
    """True where the array is on a mesh with explicit axes."""
    return AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types


def _rows_sharding(table: Array, ids: Array) -> NamedSharding | None:
    of_table, of_ids = jax.typeof(table).sharding, jax.typeof(ids).sharding
    for mesh in (of_ids.mesh, of_table.mesh):
        if AxisType.Explicit in mesh.axis_types:
            columns = None if set(_names(of_table.spec[-1:])) & set(_names(of_ids.spec)) else of_table.spec[-1]
            return NamedSharding(mesh, PartitionSpec(*of_ids.spec, columns))
    return None


def summed(x: Float[Array, "*leading in_dim"], weight: Float[Array, "out_dim in_dim"]) -> NamedSharding | None:
    """The sharding of `x @ weight.T` where both are sharded along the sum, for which JAX requires one on explicit mesh
    axes: that of tensor parallelism, the sum over devices.
    """
    of_x, of_weight = jax.typeof(x).sharding, jax.typeof(weight).sharding
    if AxisType.Explicit not in of_x.mesh.axis_types or None in (of_x.spec[-1], of_weight.spec[1]):
        return None
    return NamedSharding(of_x.mesh, PartitionSpec(*of_x.spec[:-1], of_weight.spec[0]))


def _names(spec: tuple) -> list[str]:
    return [name for part in spec if part is not None for name in (part if isinstance(part, tuple) else (part,))]


def in_steps(x: Array, *patterns: str, **sizes: int) -> Array:
    """`einops.rearrange` by one pattern after another. On explicit mesh axes, JAX reshapes a sharded array where one
    axis is split or merged at a time.
    """
    for pattern in patterns:
        x = rearrange(x, pattern, **{name: sizes[name] for name in sizes.keys() & set(re.findall(r"\w+", pattern))})
    return x


def varying(x: Shaped[Array, "*shape"], *others: Array) -> Shaped[Array, "*shape"]:
    """x, marked as varying wherever any of the others does: over manual mesh axes, and over axes of `jax.vmap` on an
    explicit mesh. The initial state of a scan must be marked so.
    """
    is_zero = functools.reduce(jnp.logical_or, (other.ravel()[:1].sum() == 0 for other in others))
    return x + (is_zero.astype(jnp.int32) * 0).astype(x.dtype)


def on_mesh_of(*arrays: Array) -> AbstractContextManager[Any]:
    """Code inside knows the explicit mesh of the arrays, as under `jax.set_mesh`. JAX otherwise has no type for
    selections and joins of mapped arrays with constants, and 0.11 and 0.12 none for gradients of gathers and of weights
    that a scan reads.
    """
    meshes = [jax.typeof(x).sharding.mesh for x in arrays]
    explicit = next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)
    if explicit is None or not jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(explicit)


def sharded_as(mask: Array, x: Array) -> Array:
    """The mask, sharded as x of the same shape, as a selection on explicit mesh axes requires."""
    sharding = jax.typeof(x).sharding
    return jax.sharding.reshard(mask, sharding) if AxisType.Explicit in sharding.mesh.axis_types else mask
