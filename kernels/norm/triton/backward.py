"""The backward pass: the launches of its kernels, and the part that XLA computes."""

import math

import jax.numpy as jnp
from jax import Array

from ..spec import Arrays, Spec
from ..xla.moments import centred, pull_activation, spread
from . import launch, tiling
from .launch import Launch, Shape, counted, group_sizes
from .tiling import elements, group_tile, parts, row_tile, split_tile, stages


def backward(rows: Arrays, params: Arrays, mean: Array | None, rstd: Array, spec: Spec) -> list[Array]:
    """`(h, dy, [dh])`, `(factor, term)` and the statistics to `(dh, dfactor, dterm)`."""
    if spec.batch_dims is not None:
        assert mean is not None
        return _groups_backward(rows, params, mean, rstd, spec)
    factor, stats = params[0], (rstd if mean is None else mean, rstd)
    passes = _long_rows_backward if rows[0].shape[-1] > tiling.LONGEST else _rows_backward
    dx, of_x, of_1 = passes(rows, factor, stats, counted(rows[0], factor, spec), spec)
    return [dx, jnp.sum(of_x, 1).reshape(factor.shape), jnp.sum(of_1, 1).reshape(factor.shape)]


def _rows_backward(rows: Arrays, factor: Array, stats: Arrays, count: tuple[int, int], spec: Spec) -> list[Array]:
    h, dy, *dh = rows
    tile = row_tile(count[1], h.shape[-1])
    programs, partial = _partial_sums(count, tiling.PROGRAMS, tile["BLOCK_ROWS"], h.shape[-1])
    sizes = {"ROWS": count[1], "DIM": h.shape[-1], "CENTER": spec.center, "RESIDUAL": bool(dh), "PROGRAMS": programs}
    sizes |= {"STAGES": stages(elements(tile) * h.dtype.itemsize * len(rows))}
    outputs = Shape(h.shape, h.dtype), *partial
    kernel = Launch("backward_kernel", "rows_backward", outputs, count[0] * programs, elements(tile), sizes | tile)
    return launch.call(kernel, h, dy, rows[-1], factor, *stats)


def _long_rows_backward(rows: Arrays, factor: Array, stats: Arrays, count: tuple[int, int], spec: Spec) -> list[Array]:
    h, dy, *dh = rows
    dim, outputs = h.shape[-1], (Shape(h.shape, h.dtype),)
    sizes = {"ROWS": count[1], "DIM": dim, "CENTER": spec.center}
    long = sizes | {"RESIDUAL": bool(dh), "BLOCK_DIM": tiling.TILE}
    kernel = Launch("backward_kernel", "long_rows_backward", outputs, math.prod(count), tiling.TILE, long)
    (dx,) = launch.call(kernel, h, dy, rows[-1], factor, *stats)
    tile = {"BLOCK_ROWS": 8, "BLOCK_DIM": tiling.TILE // 8}
    across = parts(dim, tile["BLOCK_DIM"])
    programs, partial = _partial_sums(count, parts(tiling.PROGRAMS, across), tile["BLOCK_ROWS"], dim)
    grid, sizes = count[0] * programs * across, sizes | tile | {"PROGRAMS": programs}
    kernel = Launch("backward_kernel", "column_sums", partial, grid, tiling.TILE, sizes)
    return [dx, *launch.call(kernel, h, dy, *stats)]


def _partial_sums(count: tuple[int, int], most: int, block: int, dim: int) -> tuple[int, tuple[Shape, ...]]:
    """Programs of an example, and the two sums of each."""
    programs = min(parts(most, count[0]), parts(count[1], block))
    return programs, (Shape((count[0], programs, dim), jnp.float32),) * 2


def _groups_backward(rows: Arrays, params: Arrays, mean: Array, rstd: Array, spec: Spec) -> list[Array]:
    (h, dy), factor = rows, params[0]
    batch, sizes = group_sizes(h, factor, spec)
    channels, given = h.shape[-1], {**sizes, "SILU": spec.activation == "silu"}
    if tile := group_tile(sizes["SPACE"], spec.groups, sizes["WIDTH"], h.dtype.itemsize):
        sums = Shape((batch, channels), jnp.float32)
        grid, outputs = batch * parts(spec.groups, tile["BLOCK_GROUPS"]), (Shape(h.shape, h.dtype), sums, sums)
        kernel = Launch("backward_kernel", "groups_backward", outputs, grid, elements(tile), given | tile)
        dx, of_x, of_1 = launch.call(kernel, h, dy, *params, mean, rstd)
    else:
        grid, tile = split_tile(batch, sizes)
        sums = Shape((batch, tile["PARTS"], channels), jnp.float32)
        kernel = Launch("backward_kernel", "channel_sums", (sums, sums), grid, tiling.TILE, given | tile)
        of_x, of_1 = (jnp.sum(a, 1) for a in launch.call(kernel, h, dy, *params, mean, rstd))
        dx = _from_sums(rows, params, mean, rstd, (of_x, of_1), sizes, spec)
    return [dx, *(jnp.sum(a.reshape(-1, sizes["SHARED"], channels), 1).reshape(factor.shape) for a in (of_x, of_1))]


def _from_sums(rows: Arrays, params: Arrays, mean: Array, rstd: Array, sums: Arrays, sizes, spec: Spec) -> Array:
    """The gradient of x from the sums of its channels, in XLA."""
    (h, dy), (factor, term) = rows, params
    rows_of_factor = jnp.repeat(factor.reshape(-1, h.shape[-1]), sizes["SHARED"], 0)
    count = sizes["SPACE"] * sizes["WIDTH"]
    average = lambda a: jnp.sum((a * rows_of_factor).reshape(*rstd.shape, -1), -1) / count
    along, total = (spread(average(a), h, spec) for a in sums)
    deviation = spread(rstd, h, spec)
    x_hat = centred(h, mean, spec) * deviation
    dz = pull_activation(dy.astype(jnp.float32), x_hat, factor, term, spec)
    return (deviation * (dz * factor - x_hat * along - total)).astype(h.dtype)
