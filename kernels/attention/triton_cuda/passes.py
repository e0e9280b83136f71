"""The forward and the backward pass as launches."""

import jax
import jax.numpy as jnp

from ..problem import Extras, Setting
from . import launch as launching
from . import tiles
from .launch import Problem, elements, parts
from .rows import rows_of

# A bias' gradient has few blocks where many examples share it: their sum is divided among at least so many programs.
PROGRAMS = 528

Shape = jax.ShapeDtypeStruct


def forward(q, k, v, extras: Extras, setting: Setting):
    """`reference.attend` as one kernel."""
    problem = Problem(q, k, v, extras, setting)
    tile = tiles.tile_of("FORWARD", max(q.shape[3], v.shape[3]), q.dtype, tiles.capability())
    rows = rows_of(extras.mask, problem.sizes, tile.q, tile.k, turned=False)
    heads, _, q_seq, _, _, v_dim = problem.sizes
    outputs = (Shape((problem.batch, q_seq, heads, v_dim), q.dtype), Shape((problem.batch, heads, q_seq), jnp.float32))
    grid = problem.batch * heads * parts(q_seq, tile.q)
    launch = problem.launch("forward_kernel", "forward", outputs, grid, tile, PLAN=rows.plan)
    out, lse = launching.call(launch, q, k, v, *problem.pointers, rows.entries)
    return out, lse


def backward(q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    problem = Problem(q, k, v, extras, setting)
    empty = lse == -jnp.inf
    delta = jnp.swapaxes(jnp.sum(dout.astype(jnp.float32) * out.astype(jnp.float32), -1), 1, 2) - dlse
    statistics = [jnp.where(empty, 0.0, x) for x in (lse, delta)]
    inputs = [q, k, v, dout, *statistics, *problem.pointers]
    grads = [_query_gradient(problem, inputs), *_key_gradients(problem, inputs)]
    return (*grads, _bias_gradient(problem, inputs)) if with_bias else tuple(grads)


def _query_gradient(problem: Problem, inputs):
    heads, _, q_seq, _, dim, v_dim = problem.sizes
    tile = tiles.tile_of("BACKWARD_Q", max(dim, v_dim), problem.dtype, tiles.capability())
    rows = rows_of(problem.extras.mask, problem.sizes, tile.q, tile.k, turned=False)
    outputs, grid = (Shape(inputs[0].shape, problem.dtype),), problem.batch * heads * parts(q_seq, tile.q)
    launch = problem.launch("backward_kernel", "backward_q", outputs, grid, tile, PLAN=rows.plan)
    return launching.call(launch, *inputs, rows.entries)[0]


def _key_gradients(problem: Problem, inputs):
    heads, repeat, _, kv_seq, dim, v_dim = problem.sizes
    tile = tiles.tile_of("BACKWARD_KV", max(dim, v_dim), problem.dtype, tiles.capability())
    rows = rows_of(problem.extras.mask, problem.sizes, tile.q, tile.k, turned=True)
    outputs = tuple(Shape(x.shape, problem.dtype) for x in inputs[1:3])
    grid = problem.batch * (heads // repeat) * parts(kv_seq, tile.k)
    launch = problem.launch("backward_kernel", "backward_kv", outputs, grid, tile, PLAN=rows.plan)
    return launching.call(launch, *inputs, rows.entries)


def _bias_gradient(problem: Problem, inputs):
    """Of the bias in its own shape, or of ALiBi's slopes."""
    heads, _, q_seq, kv_seq, dim, v_dim = problem.sizes
    bias = problem.extras.bias
    size = (*bias.slopes.shape, 1, 1) if problem.alibi else bias.shape
    tile = tiles.tile_of("BACKWARD_BIAS", max(dim, v_dim), problem.dtype, tiles.capability())
    q_blocks, k_blocks = parts(q_seq, tile.q), parts(kv_seq, tile.k)
    has_q, has_k = size[2] > 1, size[3] > 1
    own = (size[0], size[1], q_blocks if has_q else 1, k_blocks if has_k else 1)
    shared = (problem.batch // size[0], heads // size[1], 1 if has_q else q_blocks, 1 if has_k else k_blocks)
    part = parts(elements(shared), min(parts(PROGRAMS, elements(own)), elements(shared)))
    count = parts(elements(shared), part)
    more = {"OWN": (*own, int(has_q), int(has_k)), "SHARED": shared, "PARTS": count, "PART": part}
    outputs = (Shape((count, *size), jnp.float32),)
    launch = problem.launch("backward_kernel", "backward_bias", outputs, elements(own) * count, tile, **more)
    dbias = jnp.sum(launching.call(launch, *inputs)[0], 0)
    return dbias.reshape(size[:2]).astype(bias.slopes.dtype) if problem.alibi else dbias.astype(bias.dtype)
