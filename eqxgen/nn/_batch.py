"""Sums over a batch that is spread over mapped axes and mesh axes, and the layers that take them."""

import copy
import functools
from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jaxtyping import Array, PyTree

Tree = TypeVar("Tree", bound=PyTree)


class OverBatch:
    """Base of layers whose statistics are sums over the batch: `axis_name` has the axes."""

    axis_name: tuple[str, ...]

    def over(self: Tree, axes: Sequence[str]) -> Tree:
        """The same layer with more axes."""
        layer = copy.copy(self)
        object.__setattr__(layer, "axis_name", tuple(dict.fromkeys((*self.axis_name, *axes))))
        return layer


def synchronised(model: Tree, axes: Sequence[str]) -> Tree:
    """The model whose batch norms and moving-average codebooks take their statistics over mesh axes too.

    Args:
        axes: mesh axes over which the batch is split, such as a training step's `context.axes`.
    """
    is_leaf = lambda node: isinstance(node, OverBatch)
    return jax.tree.map(lambda node: node.over(axes) if is_leaf(node) else node, model, is_leaf=is_leaf)


def batch_sum(parts: Sequence[Array], axes: Sequence[str]) -> tuple[Array, ...]:
    """Sums of some arrays over mapped and mesh axes, the mesh axes in one exchange of one vector.

    Args:
        axes: of `jax.vmap` and, inside `jax.shard_map`, of the mesh.

    Raises:
        ValueError: under shard_map, or on explicit mesh axes, a mapped axis is not that of the innermost `jax.vmap`.
    """
    manual = jax.sharding.get_abstract_mesh().manual_axes
    vector = jnp.concatenate([x.reshape(-1) for x in parts])
    mapped = tuple(name for name in axes if name not in manual)
    explicit = AxisType.Explicit in jax.typeof(vector).sharding.mesh.axis_types  # JAX 0.12 does not lower this psum
    if not manual and not explicit:
        vector = jax.lax.psum(vector, mapped) if mapped else vector
    else:
        for name in mapped:
            vector = _mapped_sum(jax.lax.axis_size(name))(vector)
        mesh_axes = tuple(name for name in axes if name in manual)
        vector = jax.lax.psum(vector, mesh_axes) if mesh_axes else vector
    ends = [0]
    for x in parts:
        ends.append(ends[-1] + x.size)
    return tuple(vector[start:end].reshape(x.shape) for x, start, end in zip(parts, ends, ends[1:]))


@functools.cache
def _mapped_sum(size: int):
    """Sum over the innermost mapped axis. JAX has no collective over a mapped axis where shard_map checks which values
    vary (`check_vma=True`), so the sum is the rule of a function that does nothing to one example.
    """

    @jax.custom_batching.custom_vmap
    def total(x: Array) -> Array:
        return x

    @total.def_vmap
    def rule(axis_size: int, in_batched: Sequence[bool], x: Array):
        if axis_size != size:
            raise ValueError(
                f"inside shard_map, or on explicit mesh axes, the axis of the batch, of size {size}, must be that of "
                f"the innermost jax.vmap: got one of size {axis_size}; map the layer itself over the batch"
            )
        return (jnp.sum(x, axis=0) if in_batched[0] else size * x), False

    return total
