"""The grids: blocks of rows, or whole examples."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..fold import examples, sharing
from ..spec import Arrays, Spec
from .tiling import examples_held, row_block


def over_rows(kernel, rows: Arrays, params: Arrays, *, n_rows: int, n_sums: int, interpret: bool) -> list[Array]:
    """Run `kernel` over blocks of rows, once for each example: `n_rows` results like x and `n_sums` like `params`."""
    x, row_shape = rows[0], params[0].shape
    count = examples(x.shape, row_shape)
    assert count is not None
    dim = x.shape[-1]
    block = row_block(count[1], dim)
    row_spec = pl.BlockSpec((None, block, dim), lambda e, i: (e, i, 0))
    example_spec = pl.BlockSpec((None, 1, dim), lambda e, i: (e, 0, 0))
    out = pl.pallas_call(
        kernel,
        name=f"eqxgen_norm_{'backward' if n_sums else 'forward'}",
        grid=(count[0], pl.cdiv(count[1], block)),
        in_specs=[row_spec] * len(rows) + [example_spec] * len(params),
        out_specs=[row_spec] * n_rows + [example_spec] * n_sums,
        out_shape=[_like(x, (*count, dim), x.dtype)] * n_rows + [_like(x, (count[0], 1, dim), jnp.float32)] * n_sums,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary" if n_sums else "parallel")),
        cost_estimate=pl.CostEstimate(
            flops=(8 + 8 * n_sums) * x.size,
            transcendentals=x.size // dim,
            bytes_accessed=(len(rows) + n_rows) * x.size * x.dtype.itemsize
            + 4 * (len(params) + n_sums) * count[0] * dim,
        ),
        interpret=interpret,
    )(*(a.reshape(*count, dim) for a in rows), *(a.reshape(count[0], 1, dim) for a in params))
    return [o.reshape(x.shape if i < n_rows else row_shape) for i, o in enumerate(out)]


def over_examples(kernel, rows: Arrays, params: Arrays, spec: Spec, *, n_sums: int, interpret: bool) -> list[Array]:
    """Run `kernel` over whole examples of group norm: one result like x and `n_sums` like `params`."""
    x, row_shape, channels = rows[0], params[0].shape, rows[0].shape[-1]
    batch, space = math.prod(x.shape[: spec.batch_dims]), math.prod(x.shape[spec.batch_dims : -1])
    count = sharing(x.shape, row_shape, spec)
    assert count is not None
    members, shared = count[1], count[0] == 1
    flat = [p.reshape(-1, 1, channels) for p in params]
    if not shared:
        flat = [jnp.repeat(p, members, 0) for p in flat]
    held = examples_held(x.shape, x.dtype.itemsize, spec)
    # Channels by groups, so that both products with it are matrix products of the hardware.
    group = jnp.arange(channels) // (channels // spec.groups)
    member = (group[:, None] == jnp.arange(spec.groups)[None, :]).astype(jnp.bfloat16)

    whole_spec = pl.BlockSpec((held, space, channels), lambda i: (i, 0, 0))
    own_spec = pl.BlockSpec((held, 1, channels), lambda i: (i, 0, 0))
    param_spec = pl.BlockSpec((1, 1, channels), lambda i: (0, 0, 0)) if shared else own_spec
    member_spec = pl.BlockSpec((channels, spec.groups), lambda i: (0, 0))
    sums = [_like(x, (batch, 1, channels), jnp.float32)] * n_sums
    y, *sums = pl.pallas_call(
        functools.partial(kernel, spec=spec, shared=shared),
        name=f"eqxgen_norm_{'backward' if n_sums else 'forward'}",
        grid=(pl.cdiv(batch, held),),
        in_specs=[whole_spec] * len(rows) + [param_spec] * 2 + [member_spec],
        out_specs=[whole_spec] + [own_spec] * n_sums,
        out_shape=[_like(x, (batch, space, channels), x.dtype), *sums],
        scratch_shapes=[pltpu.VMEM((held, space, channels), jnp.float32)] * bool(n_sums),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        cost_estimate=pl.CostEstimate(
            flops=(12 + 12 * n_sums) * x.size,
            transcendentals=x.size if spec.activation else 0,
            bytes_accessed=(len(rows) + 1) * x.size * x.dtype.itemsize + 4 * (2 + n_sums) * batch * channels,
        ),
        interpret=interpret,
    )(*(a.reshape(batch, space, channels) for a in rows), *flat, member)
    return [y.reshape(x.shape), *(jnp.sum(s.reshape(-1, members, channels), 1).reshape(row_shape) for s in sums)]


def _like(x, shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=jax.typeof(x).manual_axis_type)
