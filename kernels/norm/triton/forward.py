"""The forward pass: the launches of its kernels, and the part that XLA computes."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from ..spec import Arrays, Spec
from ..xla.moments import activate, centred, spread
from . import launch, tiling
from .launch import Launch, Shape, counted, group_sizes
from .tiling import elements, group_tile, parts, row_tile, split_tile


def forward(rows: Arrays, params: Arrays, spec: Spec) -> list[Array]:
    """`(x, [residual])` and `(factor, term)` to `(y, [h], [mean], rstd)`."""
    if spec.batch_dims is not None:
        return _groups_forward(rows[0], params, spec)
    x, residual, dim = rows[0], len(rows) == 2, rows[0].shape[-1]
    count = counted(x, params[0], spec)
    whole, stat = Shape(x.shape, x.dtype), Shape((*x.shape[:-1], 1), jnp.float32)
    # A kernel needs a valid pointer for an array that it does not use.
    nothing = Shape((1,), x.dtype)
    outputs = (whole, whole if residual else nothing, stat if spec.center else nothing, stat)
    sizes = {"ROWS": count[1], "DIM": dim, "EPSILON": spec.epsilon, "CENTER": spec.center, "RESIDUAL": residual}
    if dim > tiling.LONGEST:
        name, grid, tile = "long_rows_forward", math.prod(count), {"BLOCK_DIM": tiling.TILE}
    else:
        tile = row_tile(count[1], dim)
        name, grid = "rows_forward", count[0] * parts(count[1], tile["BLOCK_ROWS"])
    kernel = Launch("forward_kernel", name, outputs, grid, elements(tile), sizes | tile)
    y, h, mean, rstd = launch.call(kernel, x, rows[-1], *params)
    return [y, *([h] if residual else []), *([mean] if spec.center else []), rstd]


def _groups_forward(x: Array, params: Arrays, spec: Spec) -> list[Array]:
    batch, sizes = group_sizes(x, params[0], spec)
    stat = Shape((*x.shape[: spec.batch_dims], spec.groups), jnp.float32)
    if tile := group_tile(sizes["SPACE"], spec.groups, sizes["WIDTH"], x.dtype.itemsize):
        grid, outputs = batch * parts(spec.groups, tile["BLOCK_GROUPS"]), (Shape(x.shape, x.dtype), stat, stat)
        more = {"EPSILON": spec.epsilon, "SILU": spec.activation == "silu"}
        return launch.call(
            Launch("forward_kernel", "groups_forward", outputs, grid, elements(tile), sizes | more | tile), x, *params
        )
    mean, variance = _moments_of_parts(x, batch, {k: v for k, v in sizes.items() if k != "SHARED"})
    mean, rstd = mean.reshape(stat.shape), jax.lax.rsqrt(variance + spec.epsilon).reshape(stat.shape)
    z = centred(x, mean, spec) * spread(rstd, x, spec) * params[0] + params[1]
    return [activate(z, spec).astype(x.dtype), mean, rstd]


def _moments_of_parts(x: Array, batch: int, sizes: dict[str, int]) -> tuple[Array, Array]:
    grid, tile = split_tile(batch, sizes)
    moment = Shape((batch, tile["PARTS"], sizes["GROUPS"]), jnp.float32)
    kernel = Launch("forward_kernel", "group_moments", (moment, moment), grid, tiling.TILE, sizes | tile)
    means, spreads = launch.call(kernel, x)
    seen = [min(tile["PART"], sizes["SPACE"] - i * tile["PART"]) / sizes["SPACE"] for i in range(tile["PARTS"])]
    weight = jnp.array(seen, jnp.float32)[:, None]
    mean = jnp.sum(means * weight, 1, keepdims=True)
    return mean, jnp.sum(spreads + weight * (means - mean) ** 2, 1)
