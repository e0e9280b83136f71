"""The norms as Pallas kernels for TPU: one pass over memory forward and one backward. Group norm is in
`mosaic_tpu_groups.py`.

A program holds a block of whole rows in VMEM. With c = h - mean and x_hat = c * rstd,

    forward     h = x + residual,  y = x_hat * factor + term
    backward    g = dy * factor,   dx = rstd * (g - mean(g) - x_hat * mean(g * x_hat)) + dh
                per example: sums of dy * x_hat and of dy over the rows, accumulated in VMEM from block to block

The backward kernel finds the statistics again in the rows it holds anyway: an array of one number for each row would be
padded to 128 lanes.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from . import mosaic_tpu_groups
from .fold import examples
from .spec import Spec

Arrays = tuple[Array, ...]

BLOCK_BYTES = 1 << 19  # of one float32 block: the backward pass has about ten live, and VMEM's default share is 16 MiB
MAX_DIM = 16384  # 16 rows of which are still a block that fits


def supports(x, row_shape: tuple[int, ...], spec: Spec) -> str | None:
    """Why the kernels cannot run on an x of this shape and dtype with parameters of `row_shape`, or `None`."""
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        return f"x must be float32 or bfloat16, got {x.dtype}"
    if 0 in x.shape:
        return f"x is empty: {x.shape}"
    if spec.batch_dims is not None:
        return mosaic_tpu_groups.supports(x, row_shape, spec)
    if x.shape[-1] > MAX_DIM:
        return f"a row may have at most {MAX_DIM} elements, got {x.shape[-1]}"
    if examples(x.shape, row_shape) is None:
        return f"the modulation, of shape {row_shape}, must have the leading axes of x and then 1 on all others, got x.shape={x.shape}"
    return None


def forward(rows: Arrays, params: Arrays, spec: Spec, interpret: bool = False) -> list[Array]:
    """`(x, [residual])` and `(factor, term)` to `(y, [h])`."""
    if spec.batch_dims is not None:
        return [mosaic_tpu_groups.forward(rows[0], params[0], params[1], spec, interpret)]
    kernel = functools.partial(_forward_kernel, spec=spec, dim=rows[0].shape[-1])
    return _call(kernel, rows, params, n_rows=len(rows), n_sums=0, interpret=interpret)


def backward(rows: Arrays, params: Arrays, spec: Spec, interpret: bool = False) -> list[Array]:
    """`(h, dy, [dh])` and `(factor, term)` to `(dh, dfactor, dterm)`."""
    if spec.batch_dims is not None:
        return mosaic_tpu_groups.backward(rows[0], rows[1], params[0], params[1], spec, interpret)
    factor = params[0]
    count = examples(rows[0].shape, factor.shape)
    assert count is not None
    kernel = functools.partial(_backward_kernel, spec=spec, dim=rows[0].shape[-1], total=count[1])
    return _call(kernel, rows, (factor,), n_rows=1, n_sums=2, interpret=interpret)


def _call(kernel, rows: Arrays, params: Arrays, *, n_rows: int, n_sums: int, interpret: bool):
    """Run `kernel` over blocks of rows, once for each example, and give its results their shapes back."""
    x, row_shape = rows[0], params[0].shape
    count = examples(x.shape, row_shape)
    assert count is not None
    dim = x.shape[-1]
    block = _block(count[1], dim)
    row_spec = pl.BlockSpec((None, block, dim), lambda e, i: (e, i, 0))
    example_spec = pl.BlockSpec((None, 1, dim), lambda e, i: (e, 0, 0))

    def result(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=jax.typeof(x).manual_axis_type)

    out = pl.pallas_call(
        kernel,
        grid=(count[0], pl.cdiv(count[1], block)),
        in_specs=[row_spec] * len(rows) + [example_spec] * len(params),
        out_specs=[row_spec] * n_rows + [example_spec] * n_sums,
        out_shape=[result((*count, dim), x.dtype)] * n_rows + [result((count[0], 1, dim), jnp.float32)] * n_sums,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=(8 + 8 * n_sums) * x.size,
            transcendentals=x.size // dim,
            bytes_accessed=(len(rows) + n_rows) * x.size * x.dtype.itemsize
            + 4 * (len(params) + n_sums) * count[0] * dim,
        ),
        interpret=interpret,
    )(*(a.reshape(*count, dim) for a in rows), *(a.reshape(count[0], 1, dim) for a in params))
    return [o.reshape(x.shape if i < n_rows else row_shape) for i, o in enumerate(out)]


def _block(rows: int, dim: int) -> int:
    """How many rows a program takes: all of them, or a multiple of the 16 rows of a bfloat16 tile."""
    fit = max(BLOCK_BYTES // (4 * dim) // 16 * 16, 16)
    return min(rows, fit)


def _forward_kernel(*refs, spec, dim):
    half = len(refs) // 2 - 1
    h = refs[0][...].astype(jnp.float32)
    if half == 2:
        h = h + refs[1][...].astype(jnp.float32)
        refs[-1][...] = h.astype(refs[-1].dtype)
    factor, term, y = refs[half], refs[half + 1], refs[half + 2]
    x_hat, _ = _normalise(h, spec, dim)
    y[...] = (x_hat * factor[...] + term[...]).astype(y.dtype)


def _backward_kernel(*refs, spec, dim, total):
    *inputs, factor, dx, sum_x, sum_1 = refs
    block = inputs[0].shape[0]
    i = pl.program_id(1)
    h, dy, *dh = (ref[...].astype(jnp.float32) for ref in inputs)
    if total % block:
        # The last block reaches past the rows, and what it reads there must not reach the sums.
        inside = i * block + jax.lax.broadcasted_iota(jnp.int32, h.shape, 0) < total
        h, dy = jnp.where(inside, h, 0.0), jnp.where(inside, dy, 0.0)
    x_hat, rstd = _normalise(h, spec, dim)
    g = dy * factor[...]
    d = g - x_hat * _mean(g * x_hat, dim)
    if spec.center:
        d -= _mean(g, dim)
    d *= rstd
    dx[...] = (d + dh[0] if dh else d).astype(dx.dtype)

    @pl.when(i == 0)
    def _():
        sum_x[...] = jnp.zeros_like(sum_x)
        sum_1[...] = jnp.zeros_like(sum_1)

    sum_x[...] += jnp.sum(dy * x_hat, 0, keepdims=True)
    sum_1[...] += jnp.sum(dy, 0, keepdims=True)


def _normalise(h, spec, dim):
    if spec.center:
        h = h - _mean(h, dim)
    rstd = jax.lax.rsqrt(_mean(h * h, dim) + spec.epsilon)
    return h * rstd, rstd


def _mean(x, dim):
    return jnp.sum(x * (1 / dim), -1, keepdims=True)
