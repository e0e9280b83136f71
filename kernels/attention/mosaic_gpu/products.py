"""Products of tiles on the tensor cores, summed in float32.

JAX's GPU simulator supports neither a factor in registers nor an initialised accumulator; it computes those products by
plain arithmetic on the same tiles.
"""

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp


def product(a, b, issued=None):
    """`a b` of two tiles in shared memory; `issued()` runs while the tensor cores compute."""

    def compute(acc):
        plgpu.wgmma(acc, a, b)
        if issued is not None:
            issued()
        return acc[...]

    return pl.run_scoped(compute, plgpu.ACC((a.shape[0], b.shape[1]), jnp.float32))


def two_products(a, b, c, d, take):
    """(`take(a b)`, `c d`) of tiles in shared memory; the second product is in flight while `take` has the first."""

    def compute(first, second):
        plgpu.wgmma(first, a, b)
        plgpu.wgmma(second, c, d)
        return take(plgpu.wgmma_accumulator_load(first, wait_n=1)), second[...]

    accumulator = lambda a, b: plgpu.ACC((a.shape[0], b.shape[1]), jnp.float32)
    return pl.run_scoped(compute, accumulator(a, b), accumulator(c, d))


def product_and_sum(a, b, total, c, d, take, issued, *, overlap: bool, simulated: bool):
    """(`take(a b)`, `total + c d`) of a factor `c` in registers and tiles in shared memory.

    `issued()` runs when both are in flight. With `overlap` the sum still is while `take` has the product; without it
    `take` has the registers of `c` too.
    """
    if simulated:
        first = product(a, b)
        issued()
        return take(first), _plain_sum(total, c, d)

    def compute(first, second):
        second[...] = total
        plgpu.wgmma(first, a, b)
        plgpu.wgmma(second, c, d)
        issued()
        if overlap:
            return take(plgpu.wgmma_accumulator_load(first, wait_n=1)), second[...]
        summed = second[...]
        return take(first[...]), summed

    return pl.run_scoped(compute, plgpu.ACC((a.shape[0], b.shape[1]), jnp.float32), plgpu.ACC(total.shape, jnp.float32))


def add_products(totals, factors, simulated: bool):
    """`total + a b` for each total and its (a, b), a factor in registers and a tile in shared memory; all are in flight
    at once.
    """
    if simulated:
        return tuple(_plain_sum(total, a, b) for total, (a, b) in zip(totals, factors))

    def compute(*sums):
        for acc, total, (a, b) in zip(sums, totals, factors):
            acc[...] = total
            plgpu.wgmma(acc, a, b)
        return tuple(acc[...] for acc in sums)

    return pl.run_scoped(compute, *(plgpu.ACC(total.shape, jnp.float32) for total in totals))


def _plain_sum(total, a, b):
    factor = b[...]
    # Tensor cores read after the copies; this arithmetic needs a fence for that.
    plgpu.commit_smem()
    return total + jax.lax.dot(a, factor, preferred_element_type=jnp.float32)


def load(ref, layout):
    """A block of memory in the layout of a warpgroup, by plain loads."""
    return plgpu.load(ref, layout=layout, optimized=False)  # pyright: ignore[reportCallIssue]  # jax 0.10 wanted an index


def zeros(shape):
    """Zeros in the layout of an accumulator."""
    return plgpu.layout_cast(jnp.zeros(shape, jnp.float32), plgpu.Layout.WGMMA)


def column(x, shape):
    """One number per row, broadcast over the tile."""
    return jax.lax.broadcast_in_dim(x, shape, (0,))


def row(x, shape):
    """One number per column, broadcast over the tile."""
    return jax.lax.broadcast_in_dim(x, shape, (1,))
