"""The launches of the backward pass: the gradients of query, of key and value, and of a bias."""

import math

import jax
import jax.numpy as jnp

from ..._blocks import parts
from ..problem import Extras, Setting, row_sums
from . import launch as launching
from .launch import Problem
from .schedule import schedule_of

# The gradient of a bias that many examples share has few blocks: each sum is divided among programs, up to this many.
PROGRAMS = 528

Shape = jax.ShapeDtypeStruct


def gradients(q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    problem = Problem(q, k, v, extras, setting)
    statistics = [jnp.where(lse == -jnp.inf, 0.0, x) for x in (lse, row_sums(dout, out) - dlse)]
    inputs = [q, k, v, dout, *statistics, *problem.pointers]
    grads = (_query_gradient(problem, inputs), *_key_gradients(problem, inputs))
    return (*grads, _bias_gradient(problem, inputs)) if with_bias else grads


def _query_gradient(problem: Problem, inputs):
    heads, _, q_seq, *_ = problem.sizes
    tile = problem.tile("BACKWARD_Q")
    schedule = schedule_of(problem.extras.mask, problem.sizes, tile.q, tile.k, by_keys=False)
    outputs, grid = (Shape(inputs[0].shape, problem.dtype),), problem.batch * heads * parts(q_seq, tile.q)
    launch = problem.launch("backward_kernel", "backward_q", outputs, grid, tile, PLAN=schedule.plan)
    return launching.call(launch, *inputs, schedule.entries)[0]


def _key_gradients(problem: Problem, inputs):
    heads, repeat, _, kv_seq, *_ = problem.sizes
    tile = problem.tile("BACKWARD_KV")
    schedule = schedule_of(problem.extras.mask, problem.sizes, tile.q, tile.k, by_keys=True)
    outputs = tuple(Shape(x.shape, problem.dtype) for x in inputs[1:3])
    grid = problem.batch * (heads // repeat) * parts(kv_seq, tile.k)
    launch = problem.launch("backward_kernel", "backward_kv", outputs, grid, tile, PLAN=schedule.plan)
    return launching.call(launch, *inputs, schedule.entries)


def _bias_gradient(problem: Problem, inputs):
    """The gradient of the bias in its own shape, or of ALiBi's slopes."""
    heads, _, q_seq, kv_seq, *_ = problem.sizes
    bias = problem.extras.bias
    size = (*bias.slopes.shape, 1, 1) if problem.alibi else bias.shape
    tile = problem.tile("BACKWARD_BIAS")
    q_blocks, k_blocks = parts(q_seq, tile.q), parts(kv_seq, tile.k)
    has_q, has_k = size[2] > 1, size[3] > 1
    own = (size[0], size[1], q_blocks if has_q else 1, k_blocks if has_k else 1)
    shared = (problem.batch // size[0], heads // size[1], 1 if has_q else q_blocks, 1 if has_k else k_blocks)
    tiles = math.prod(shared)
    part = parts(tiles, min(parts(PROGRAMS, math.prod(own)), tiles))
    count = parts(tiles, part)
    more = {"OWN": (*own, int(has_q), int(has_k)), "SHARED": shared, "PARTS": count, "PART": part}
    outputs = (Shape((count, *size), jnp.float32),)
    launch = problem.launch("backward_kernel", "backward_bias", outputs, math.prod(own) * count, tile, **more)
    dbias = jnp.sum(launching.call(launch, *inputs)[0], 0)
    return dbias.reshape(size[:2]).astype(bias.slopes.dtype) if problem.alibi else dbias.astype(bias.dtype)
