"""Products of tiles on the tensor cores, summed in float32.

JAX's simulator of a GPU knows neither a factor in registers nor an accumulator with a first value; there those products are computed by
plain arithmetic on the same tiles.
"""

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp


def product(a, b, issued=None):
    """`a b` of two tiles in shared memory; `issued()` runs while the tensor cores do."""

    def compute(acc):
        plgpu.wgmma(acc, a, b)
        if issued is not None:
            issued()
        return acc[...]

    return pl.run_scoped(compute, plgpu.ACC((a.shape[0], b.shape[1]), jnp.float32))


def two_products(a, b, c, d):
    """`a b` and `c d` of tiles in shared memory, both under way at once."""

    def compute(first, second):
        plgpu.wgmma(first, a, b)
        plgpu.wgmma(second, c, d)
        return first[...], second[...]

    accumulator = lambda a, b: plgpu.ACC((a.shape[0], b.shape[1]), jnp.float32)
    return pl.run_scoped(compute, accumulator(a, b), accumulator(c, d))


def add_product(total, a, b, simulated: bool):
    """`total + a b` of a factor in registers and a tile in shared memory."""
    if simulated:
        factor = b[...]
        # Tensor cores read in the order of the copies, this arithmetic must be put into it.
        plgpu.commit_smem()
        return total + jax.lax.dot(a, factor, preferred_element_type=jnp.float32)

    def compute(acc):
        acc[...] = total
        plgpu.wgmma(acc, a, b)
        return acc[...]

    return pl.run_scoped(compute, plgpu.ACC(total.shape, jnp.float32))


def load(ref, layout):
    """What stands in memory, laid out for a warpgroup, by plain loads."""
    return plgpu.load(ref, layout=layout, optimized=False)  # pyright: ignore[reportCallIssue]  # jax 0.10 wanted an index


def zeros(shape):
    """Zeros laid out as an accumulator."""
    return plgpu.layout_cast(jnp.zeros(shape, jnp.float32), plgpu.Layout.WGMMA)


def column(x, shape):
    """A number per row, over the tile."""
    return jax.lax.broadcast_in_dim(x, shape, (0,))


def row(x, shape):
    """A number per column, over the tile."""
    return jax.lax.broadcast_in_dim(x, shape, (1,))
