"""The definition: a gathered matrix for each row."""

import jax.numpy as jnp
from jax import Array


def grouped_matmul(x: Array, weight: Array, groups: Array) -> Array:
    """`y[i] = x[i] @ weight[groups[i]].T`, with sums in float32 at least."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    chosen = weight[groups].astype(x.dtype)
    return jnp.einsum("ni,noi->no", x, chosen, preferred_element_type=wide).astype(x.dtype)
