"""The norms as Triton kernels for CUDA, through jax-triton: one pass over memory forward and one backward.

Layer norm and RMS norm are in `triton_rows.py`. Group norm is in `triton_groups.py` where a program can hold a group's
share of an example; where it cannot, its sums are, and XLA does the elementwise rest in a second pass. Tile sizes are
chosen in `triton_launch.py`.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from . import xla
from .fold import sharing
from .spec import Spec
from .triton_launch import (
    LONGEST,
    PROGRAMS,
    TILE,
    Launch,
    call,
    elements,
    group_tile,
    part_tile,
    parts,
    row_tile,
    stages,
)

Arrays = tuple[Array, ...]
Shape = jax.ShapeDtypeStruct


def supports(x, row_shape: tuple[int, ...], spec: Spec) -> str | None:
    """Why the kernels cannot run on an x of this shape and dtype with parameters of `row_shape`, or `None`."""
    if x.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
        return f"x must be float32, bfloat16 or float16, got {x.dtype}"
    if 0 in x.shape:
        return f"x is empty: {x.shape}"
    if spec.batch_dims is not None and x.shape[-1] // spec.groups > LONGEST:
        return f"a group may have at most {LONGEST} channels, got {x.shape[-1] // spec.groups}"
    if sharing(x.shape, row_shape, spec) is None:
        where = "x" if spec.batch_dims is None else "x's batch"
        return f"the modulation, of shape {row_shape}, must have the leading axes of {where} and then 1 on all others, got x.shape={x.shape}"
    return None


def forward(rows: Arrays, params: Arrays, spec: Spec) -> list[Array]:
    """`(x, [residual])` and `(factor, term)` to `(y, [h], [mean], rstd)`."""
    if spec.batch_dims is not None:
        return _group_forward(rows[0], params, spec)
    x, residual, dim = rows[0], len(rows) == 2, rows[0].shape[-1]
    count = _counted(x, params[0], spec)
    whole, stat = Shape(x.shape, x.dtype), Shape((*x.shape[:-1], 1), jnp.float32)
    # A pointer that a kernel does not follow must still point somewhere.
    nothing = Shape((1,), x.dtype)
    outputs = (whole, whole if residual else nothing, stat if spec.center else nothing, stat)
    sizes = {"ROWS": count[1], "DIM": dim, "EPSILON": spec.epsilon, "CENTER": spec.center, "RESIDUAL": residual}
    if dim > LONGEST:
        launch = Launch("triton_rows", "forward_long", outputs, math.prod(count), TILE, sizes | {"BLOCK_DIM": TILE})
    else:
        tile = row_tile(count[1], dim)
        launch = Launch(
            "triton_rows",
            "forward",
            outputs,
            count[0] * parts(count[1], tile["BLOCK_ROWS"]),
            elements(tile),
            sizes | tile,
        )
    y, h, mean, rstd = call(launch, x, rows[-1], *params)
    return [y, *([h] if residual else []), *([mean] if spec.center else []), rstd]


def backward(rows: Arrays, params: Arrays, mean: Array | None, rstd: Array, spec: Spec) -> list[Array]:
    """`(h, dy, [dh])`, `(factor, term)` and the statistics to `(dh, dfactor, dterm)`."""
    if spec.batch_dims is not None:
        assert mean is not None
        return _group_backward(rows, params, mean, rstd, spec)
    h, dy, *_ = rows
    factor, dim, residual = params[0], h.shape[-1], len(rows) == 3
    count = _counted(h, factor, spec)
    stats, dx = (rstd if mean is None else mean, rstd), Shape(h.shape, h.dtype)
    sizes = {"ROWS": count[1], "DIM": dim, "CENTER": spec.center}

    def sums(most: int, block: int) -> tuple[int, tuple[jax.ShapeDtypeStruct, ...]]:
        programs = min(parts(most, count[0]), parts(count[1], block))
        return programs, (Shape((count[0], programs, dim), jnp.float32),) * 2

    if dim > LONGEST:
        launch = Launch(
            "triton_rows",
            "backward_long",
            (dx,),
            math.prod(count),
            TILE,
            sizes | {"RESIDUAL": residual, "BLOCK_DIM": TILE},
        )
        (dx,) = call(launch, h, dy, rows[-1], factor, *stats)
        tile = {"BLOCK_ROWS": 8, "BLOCK_DIM": TILE // 8}
        across = parts(dim, tile["BLOCK_DIM"])
        programs, partial = sums(parts(PROGRAMS, across), tile["BLOCK_ROWS"])
        grid = count[0] * programs * across
        of_x, of_1 = call(
            Launch("triton_rows", "column_sums", partial, grid, TILE, sizes | tile | {"PROGRAMS": programs}),
            h,
            dy,
            *stats,
        )
    else:
        tile = row_tile(count[1], dim)
        programs, partial = sums(PROGRAMS, tile["BLOCK_ROWS"])
        sizes |= {
            "RESIDUAL": residual,
            "PROGRAMS": programs,
            "STAGES": stages(elements(tile) * h.dtype.itemsize * len(rows)),
        }
        launch = Launch("triton_rows", "backward", (dx, *partial), count[0] * programs, elements(tile), sizes | tile)
        dx, of_x, of_1 = call(launch, h, dy, rows[-1], factor, *stats)
    return [dx, jnp.sum(of_x, 1).reshape(factor.shape), jnp.sum(of_1, 1).reshape(factor.shape)]


def _group_forward(x: Array, params: Arrays, spec: Spec) -> list[Array]:
    batch, sizes = _group_sizes(x, params[0], spec)
    stat = Shape((*x.shape[: spec.batch_dims], spec.groups), jnp.float32)
    if tile := group_tile(sizes["SPACE"], spec.groups, sizes["WIDTH"], x.dtype.itemsize):
        grid = batch * parts(spec.groups, tile["BLOCK_GROUPS"])
        more = {"EPSILON": spec.epsilon, "SILU": spec.activation == "silu"}
        launch = Launch(
            "triton_groups", "forward", (Shape(x.shape, x.dtype), stat, stat), grid, elements(tile), sizes | more | tile
        )
        return call(launch, x, *params)
    grid, tile = _split(batch, sizes, spec)
    moment = Shape((batch, tile["PARTS"], spec.groups), jnp.float32)
    sizes = {k: v for k, v in sizes.items() if k != "SHARED"}
    means, spreads = call(Launch("triton_groups", "moments", (moment, moment), grid, TILE, sizes | tile), x)
    seen = [min(tile["PART"], sizes["SPACE"] - i * tile["PART"]) / sizes["SPACE"] for i in range(tile["PARTS"])]
    weight = jnp.array(seen, jnp.float32)[:, None]
    mean = jnp.sum(means * weight, 1, keepdims=True)
    variance = jnp.sum(spreads + weight * (means - mean) ** 2, 1)
    mean, rstd = mean.reshape(stat.shape), jax.lax.rsqrt(variance + spec.epsilon).reshape(stat.shape)
    z = xla.centred(x, mean, spec) * xla.spread(rstd, x, spec) * params[0] + params[1]
    return [xla.activate(z, spec).astype(x.dtype), mean, rstd]


def _group_backward(rows: Arrays, params: Arrays, mean: Array, rstd: Array, spec: Spec) -> list[Array]:
    (h, dy), (factor, term) = rows, params
    batch, sizes = _group_sizes(h, factor, spec)
    channels, given = h.shape[-1], {**sizes, "SILU": spec.activation == "silu"}
    if tile := group_tile(sizes["SPACE"], spec.groups, sizes["WIDTH"], h.dtype.itemsize):
        sums = Shape((batch, channels), jnp.float32)
        grid = batch * parts(spec.groups, tile["BLOCK_GROUPS"])
        launch = Launch(
            "triton_groups", "backward", (Shape(h.shape, h.dtype), sums, sums), grid, elements(tile), given | tile
        )
        dx, of_x, of_1 = call(launch, h, dy, *params, mean, rstd)
    else:
        grid, tile = _split(batch, sizes, spec)
        sums = Shape((batch, tile["PARTS"], channels), jnp.float32)
        launch = Launch("triton_groups", "channel_sums", (sums, sums), grid, TILE, given | tile)
        of_x, of_1 = (jnp.sum(a, 1) for a in call(launch, h, dy, *params, mean, rstd))
        rows_of_factor = jnp.repeat(factor.reshape(-1, channels), sizes["SHARED"], 0)
        average = lambda a: (
            jnp.sum((a * rows_of_factor).reshape(*rstd.shape, -1), -1) / (sizes["SPACE"] * sizes["WIDTH"])
        )
        along, total = (xla.spread(average(a), h, spec) for a in (of_x, of_1))
        deviation = xla.spread(rstd, h, spec)
        x_hat = xla.centred(h, mean, spec) * deviation
        dz = xla.pull_activation(dy.astype(jnp.float32), x_hat, factor, term, spec)
        dx = (deviation * (dz * factor - x_hat * along - total)).astype(h.dtype)
    return [dx, *(jnp.sum(a.reshape(-1, sizes["SHARED"], channels), 1).reshape(factor.shape) for a in (of_x, of_1))]


def _split(batch: int, sizes: dict[str, int], spec: Spec) -> tuple[int, dict[str, int]]:
    """Programs and tile of the kernels that take parts of the space, so many that the GPU is filled."""
    tile = part_tile(sizes["SPACE"], spec.groups, sizes["WIDTH"])
    across = parts(spec.groups, tile["BLOCK_GROUPS"])
    part = parts(sizes["SPACE"], parts(PROGRAMS, batch * across))
    part = parts(part, tile["BLOCK_SPACE"]) * tile["BLOCK_SPACE"]
    count = parts(sizes["SPACE"], part)
    return batch * count * across, {**tile, "PARTS": count, "PART": part}


def _group_sizes(x: Array, factor: Array, spec: Spec) -> tuple[int, dict[str, int]]:
    """How many examples, and the sizes by which a kernel knows them; SHARED neighbours have the same parameters."""
    batch, members = math.prod(x.shape[: spec.batch_dims]), _counted(x, factor, spec)[1]
    space = math.prod(x.shape[spec.batch_dims : -1])
    return batch, {"SPACE": space, "GROUPS": spec.groups, "WIDTH": x.shape[-1] // spec.groups, "SHARED": members}


def _counted(x: Array, factor: Array, spec: Spec) -> tuple[int, int]:
    count = sharing(x.shape, factor.shape, spec)
    assert count is not None
    return count
