"""The public grouped product: argument checks and the call of the fused op."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from .._explicit import on_auto_axes, places_of
from .._fused import vary_alike
from .primitives import PRIMITIVES, Grouped


def grouped_matmul(
    x: Float[Array, "rows in_dim"], weight: Float[Array, "groups out_dim in_dim"], groups: Int[Array, " rows"]
) -> Float[Array, "rows out_dim"]:
    """Product of each row with the matrix of its group: `y[i] = x[i] @ weight[groups[i]].T`.

    The rows are sorted by group and multiplied by `jax.lax.ragged_dot`, so that the work is that of one matrix for each
    row, with no row padded or left out. Under `jax.vmap` over x and `groups` it is one product over the rows of all
    examples. Differentiable in x and `weight`, in reverse and forward mode and to any order.

    On a CPU, XLA computes a ragged product as one of every row with every matrix.

    Args:
        x: rows in any order.
        weight: a matrix for each group, cast to x's dtype.
        groups: group of each row, in [0, groups). Where values are known only at run time, a row of a group out of
            range has an undefined result.

    Raises:
        ValueError: a shape or dtype violates its constraint.
    """
    if x.ndim != 2 or weight.ndim != 3 or x.shape[1] != weight.shape[2]:
        raise ValueError(
            "grouped_matmul: x must be (rows, in_dim) and weight (groups, out_dim, in_dim) of one in_dim: got shapes "
            f"{x.shape} and {weight.shape}"
        )
    if groups.shape != x.shape[:1]:
        raise ValueError(
            f"grouped_matmul: groups must be (rows,), a group for each row of x: got shape {groups.shape} for x of "
            f"{x.shape}"
        )
    for name, array in ("x", x), ("weight", weight):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"grouped_matmul: {name} must be floating point: got {array.dtype}")
    if not jnp.issubdtype(groups.dtype, jnp.integer):
        raise ValueError(f"grouped_matmul: groups must be integers: got {groups.dtype}")
    spec = jax.typeof(x).sharding.spec
    places = places_of((x[None], groups[None]), (None, None, None), whole=(1,))

    def product(*arrays: Array) -> Array:
        return PRIMITIVES.bind(Grouped(places), *(array[None] for array in vary_alike(*arrays)))[0][0]

    return on_auto_axes(product, (x, weight, groups), PartitionSpec(spec[0], None))
