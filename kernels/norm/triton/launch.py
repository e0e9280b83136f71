"""The launches of both passes, and the part of group norm that XLA computes."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from ... import _triton
from ..._blocks import parts
from ..fold import sharing
from ..spec import Arrays, Spec
from ..xla.moments import activate, centred, pull_activation, spread
from . import tiling
from .tiling import elements, group_tile, row_tile, split_tile, stages

Shape = jax.ShapeDtypeStruct
call = _triton.call


@dataclasses.dataclass(frozen=True)
class Launch(_triton.Launch):
    """A launch whose programs take `tile` elements each."""

    tile: int
    sizes: dict[str, Any]
    package: ClassVar[str] = "norm.triton"
    stages: ClassVar[int] = 3

    @property
    def warps(self) -> int:
        """Warps of a program: 512 elements of its tile for each."""
        return min(max(self.tile // 512, 1), 16)


def normalise(rows: Arrays, params: Arrays, spec: Spec) -> list[Array]:
    """`(x, [residual])` and `(factor, term)` to `(y, [h], [mean], rstd)`."""
    if spec.batch_dims is not None:
        return _groups_forward(rows[0], params, spec)
    x, residual, dim = rows[0], len(rows) == 2, rows[0].shape[-1]
    count = _counted(x, params[0], spec)
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
    kernel = Launch("forward", name, outputs, grid, elements(tile), sizes | tile)
    y, h, mean, rstd = call(kernel, x, rows[-1], *params)
    return [y, *([h] if residual else []), *([mean] if spec.center else []), rstd]


def _groups_forward(x: Array, params: Arrays, spec: Spec) -> list[Array]:
    batch, sizes = _group_sizes(x, params[0], spec)
    stat = Shape((*x.shape[: spec.batch_dims], spec.groups), jnp.float32)
    if tile := group_tile(sizes["SPACE"], spec.groups, sizes["WIDTH"], x.dtype.itemsize):
        grid, outputs = batch * parts(spec.groups, tile["BLOCK_GROUPS"]), (Shape(x.shape, x.dtype), stat, stat)
        more = {"EPSILON": spec.epsilon, "SILU": spec.activation == "silu"}
        return call(Launch("forward", "groups_forward", outputs, grid, elements(tile), sizes | more | tile), x, *params)
    mean, variance = _moments_of_parts(x, batch, {k: v for k, v in sizes.items() if k != "SHARED"})
    mean, rstd = mean.reshape(stat.shape), jax.lax.rsqrt(variance + spec.epsilon).reshape(stat.shape)
    z = centred(x, mean, spec) * spread(rstd, x, spec) * params[0] + params[1]
    return [activate(z, spec).astype(x.dtype), mean, rstd]


def _moments_of_parts(x: Array, batch: int, sizes: dict[str, int]) -> tuple[Array, Array]:
    grid, tile = split_tile(batch, sizes)
    moment = Shape((batch, tile["PARTS"], sizes["GROUPS"]), jnp.float32)
    kernel = Launch("forward", "group_moments", (moment, moment), grid, tiling.TILE, sizes | tile)
    means, spreads = call(kernel, x)
    seen = [min(tile["PART"], sizes["SPACE"] - i * tile["PART"]) / sizes["SPACE"] for i in range(tile["PARTS"])]
    weight = jnp.array(seen, jnp.float32)[:, None]
    mean = jnp.sum(means * weight, 1, keepdims=True)
    return mean, jnp.sum(spreads + weight * (means - mean) ** 2, 1)


def gradients(rows: Arrays, params: Arrays, mean: Array | None, rstd: Array, spec: Spec) -> list[Array]:
    """`(h, dy, [dh])`, `(factor, term)` and the statistics to `(dh, dfactor, dterm)`."""
    if spec.batch_dims is not None:
        assert mean is not None
        return _groups_backward(rows, params, mean, rstd, spec)
    factor, stats = params[0], (rstd if mean is None else mean, rstd)
    passes = _long_rows_backward if rows[0].shape[-1] > tiling.LONGEST else _rows_backward
    dx, of_x, of_1 = passes(rows, factor, stats, _counted(rows[0], factor, spec), spec)
    return [dx, jnp.sum(of_x, 1).reshape(factor.shape), jnp.sum(of_1, 1).reshape(factor.shape)]


def _rows_backward(rows: Arrays, factor: Array, stats: Arrays, count: tuple[int, int], spec: Spec) -> list[Array]:
    h, dy, *dh = rows
    tile = row_tile(count[1], h.shape[-1])
    programs, partial = _partial_sums(count, tiling.PROGRAMS, tile["BLOCK_ROWS"], h.shape[-1])
    sizes = {"ROWS": count[1], "DIM": h.shape[-1], "CENTER": spec.center, "RESIDUAL": bool(dh), "PROGRAMS": programs}
    sizes |= {"STAGES": stages(elements(tile) * h.dtype.itemsize * len(rows))}
    outputs = Shape(h.shape, h.dtype), *partial
    kernel = Launch("backward", "rows_backward", outputs, count[0] * programs, elements(tile), sizes | tile)
    return call(kernel, h, dy, rows[-1], factor, *stats)


def _long_rows_backward(rows: Arrays, factor: Array, stats: Arrays, count: tuple[int, int], spec: Spec) -> list[Array]:
    h, dy, *dh = rows
    dim, outputs = h.shape[-1], (Shape(h.shape, h.dtype),)
    sizes = {"ROWS": count[1], "DIM": dim, "CENTER": spec.center}
    long = sizes | {"RESIDUAL": bool(dh), "BLOCK_DIM": tiling.TILE}
    kernel = Launch("backward", "long_rows_backward", outputs, math.prod(count), tiling.TILE, long)
    (dx,) = call(kernel, h, dy, rows[-1], factor, *stats)
    tile = {"BLOCK_ROWS": 8, "BLOCK_DIM": tiling.TILE // 8}
    across = parts(dim, tile["BLOCK_DIM"])
    programs, partial = _partial_sums(count, parts(tiling.PROGRAMS, across), tile["BLOCK_ROWS"], dim)
    grid, sizes = count[0] * programs * across, sizes | tile | {"PROGRAMS": programs}
    kernel = Launch("backward", "column_sums", partial, grid, tiling.TILE, sizes)
    return [dx, *call(kernel, h, dy, *stats)]


def _partial_sums(count: tuple[int, int], most: int, block: int, dim: int) -> tuple[int, tuple[Shape, ...]]:
    """Programs of an example, and the two sums of each."""
    programs = min(parts(most, count[0]), parts(count[1], block))
    return programs, (Shape((count[0], programs, dim), jnp.float32),) * 2


def _groups_backward(rows: Arrays, params: Arrays, mean: Array, rstd: Array, spec: Spec) -> list[Array]:
    (h, dy), factor = rows, params[0]
    batch, sizes = _group_sizes(h, factor, spec)
    channels, given = h.shape[-1], {**sizes, "SILU": spec.activation == "silu"}
    if tile := group_tile(sizes["SPACE"], spec.groups, sizes["WIDTH"], h.dtype.itemsize):
        sums = Shape((batch, channels), jnp.float32)
        grid, outputs = batch * parts(spec.groups, tile["BLOCK_GROUPS"]), (Shape(h.shape, h.dtype), sums, sums)
        kernel = Launch("backward", "groups_backward", outputs, grid, elements(tile), given | tile)
        dx, of_x, of_1 = call(kernel, h, dy, *params, mean, rstd)
    else:
        grid, tile = split_tile(batch, sizes)
        sums = Shape((batch, tile["PARTS"], channels), jnp.float32)
        kernel = Launch("backward", "channel_sums", (sums, sums), grid, tiling.TILE, given | tile)
        of_x, of_1 = (jnp.sum(a, 1) for a in call(kernel, h, dy, *params, mean, rstd))
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


def _group_sizes(x: Array, factor: Array, spec: Spec) -> tuple[int, dict[str, int]]:
    """The number of examples, and the sizes of a kernel; SHARED neighbours have the same parameters."""
    batch, members = math.prod(x.shape[: spec.batch_dims]), _counted(x, factor, spec)[1]
    space = math.prod(x.shape[spec.batch_dims : -1])
    return batch, {"SPACE": space, "GROUPS": spec.groups, "WIDTH": x.shape[-1] // spec.groups, "SHARED": members}


def _counted(x: Array, factor: Array, spec: Spec) -> tuple[int, int]:
    """`sharing` of a call that the kernels support."""
    count = sharing(x.shape, factor.shape, spec)
    assert count is not None
    return count
