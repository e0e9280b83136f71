"""Group norm as Pallas kernels for TPU: one pass over memory forward and one backward, for examples that fit in VMEM.

A program holds some whole examples, `(space, channels)` each. Sums over a group are sums over space, one for each
channel, times the matrix that says which channel is in which group, and back by its transpose. An example that does not
fit must be read twice in each pass, which is what XLA's own operations do.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from . import xla
from .fold import sharing
from .spec import Spec

BLOCK_BYTES = (
    1 << 20
)  # of one example in float32: the backward pass has about ten live, and VMEM's default share is 16 MiB
MAX_EXAMPLES = 8  # that a program holds; its code is repeated for each
MAX_CHANNELS = 2048
HUGE = 1e37  # a variance near the largest float


def supports(x, row_shape: tuple[int, ...], spec: Spec) -> str | None:
    """Why the kernels cannot run group norm on an x of this shape with parameters of `row_shape`, or `None`."""
    assert spec.batch_dims is not None
    if x.shape[-1] > MAX_CHANNELS:
        return f"group norm may have at most {MAX_CHANNELS} channels, got {x.shape[-1]}"
    if _example_bytes(x.shape, spec) > BLOCK_BYTES:
        return f"an example of group norm must fit in {BLOCK_BYTES >> 20} MiB of float32 on chip, got {x.shape[spec.batch_dims :]}"
    if sharing(x.shape, row_shape, spec) is None:
        return f"the modulation, of shape {row_shape}, must have the leading axes of x's batch and then 1 on all others, got {x.shape}"
    return None


def forward(x: Array, factor: Array, term: Array, spec: Spec, interpret: bool = False) -> Array:
    """y, of x."""
    return _call(_forward_kernel, (x,), (factor, term), spec, n_sums=0, interpret=interpret)[0]


def backward(h: Array, dy: Array, factor: Array, term: Array, spec: Spec, interpret: bool = False) -> list[Array]:
    """`(dh, dfactor, dterm)`."""
    return _call(_backward_kernel, (h, dy), (factor, term), spec, n_sums=2, interpret=interpret)


def _call(kernel, rows, params, spec: Spec, *, n_sums: int, interpret: bool):
    x, row_shape = rows[0], params[0].shape
    batch, space, channels = (
        math.prod(x.shape[: spec.batch_dims]),
        math.prod(x.shape[spec.batch_dims : -1]),
        x.shape[-1],
    )
    count = sharing(x.shape, row_shape, spec)
    assert count is not None
    members, shared = count[1], count[0] == 1
    params = [p.reshape(-1, 1, channels) for p in params]
    if not shared:
        params = [jnp.repeat(p, members, 0) for p in params]
    held = min(max(BLOCK_BYTES // 2 // _example_bytes(x.shape, spec), 1), MAX_EXAMPLES, batch)
    # Channels by groups, so that both products with it are matrix products that the hardware has.
    group = jnp.arange(channels) // (channels // spec.groups)
    member = (group[:, None] == jnp.arange(spec.groups)[None, :]).astype(jnp.float32)

    whole_spec = pl.BlockSpec((held, space, channels), lambda i: (i, 0, 0))
    own_spec = pl.BlockSpec((held, 1, channels), lambda i: (i, 0, 0))
    param_spec = pl.BlockSpec((1, 1, channels), lambda i: (0, 0, 0)) if shared else own_spec
    member_spec = pl.BlockSpec((channels, spec.groups), lambda i: (0, 0))

    def result(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=jax.typeof(x).manual_axis_type)

    y, *sums = pl.pallas_call(
        functools.partial(kernel, spec=spec, shared=shared),
        grid=(pl.cdiv(batch, held),),
        in_specs=[whole_spec] * len(rows) + [param_spec] * 2 + [member_spec],
        out_specs=[whole_spec] + [own_spec] * n_sums,
        out_shape=[result((batch, space, channels), x.dtype)] + [result((batch, 1, channels), jnp.float32)] * n_sums,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        cost_estimate=pl.CostEstimate(
            flops=(12 + 12 * n_sums) * x.size,
            transcendentals=x.size if spec.activation else 0,
            bytes_accessed=(len(rows) + 1) * x.size * x.dtype.itemsize + 4 * (2 + n_sums) * batch * channels,
        ),
        interpret=interpret,
    )(*(a.reshape(batch, space, channels) for a in rows), *params, member)
    return [y.reshape(x.shape), *(jnp.sum(s.reshape(-1, members, channels), 1).reshape(row_shape) for s in sums)]


def _forward_kernel(x, factor, term, member, y, *, spec, shared):
    for e in range(x.shape[0]):
        p = 0 if shared else e
        x_hat, _ = _normalise(x[e].astype(jnp.float32), member[...], spec)
        y[e] = xla.activate(x_hat * factor[p] + term[p], spec).astype(y.dtype)


def _backward_kernel(h, dy, factor, term, member, dx, sum_x, sum_1, *, spec, shared):
    for e in range(h.shape[0]):
        p = 0 if shared else e
        x_hat, rstd = _normalise(h[e].astype(jnp.float32), member[...], spec)
        a = factor[p]
        dz = xla.pull_activation(dy[e].astype(jnp.float32), x_hat, a, term[p], spec)
        of_x, of_1 = jnp.sum(dz * x_hat, 0, keepdims=True), jnp.sum(dz, 0, keepdims=True)
        along, total = (_group_sum(s * a * (1 / _count(dz, member)), member[...]) for s in (of_x, of_1))
        dx[e] = (rstd * (dz * a - x_hat * along - total)).astype(dx.dtype)
        sum_x[e], sum_1[e] = of_x, of_1


def _normalise(x, member, spec):
    share = 1 / _count(x, member)
    x = x - _group_sum(jnp.sum(x * share, 0, keepdims=True), member)
    # An infinity times the zeros of `member` is not a number; a variance as large gives x_hat = 0.
    variance = _group_sum(jnp.minimum(jnp.sum(x * x * share, 0, keepdims=True), HUGE), member)
    rstd = jnp.where(variance < HUGE / 2, jax.lax.rsqrt(variance + spec.epsilon), 0.0)
    return x * rstd, rstd


def _group_sum(channels, member):
    """The group's sum at each of its channels, `(1, channels)`."""
    dot = functools.partial(
        jax.lax.dot_general, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    return dot(dot(channels, member, (((1,), (0,)), ((), ()))), member, (((1,), (1,)), ((), ())))


def _count(x, member):
    return x.shape[0] * member.shape[0] // member.shape[1]


def _example_bytes(shape: tuple[int, ...], spec: Spec) -> int:
    space, channels = math.prod(shape[spec.batch_dims : -1]), shape[-1]
    return 4 * (-(-space // 16) * 16) * (-(-channels // 128) * 128)
