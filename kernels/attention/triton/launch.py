"""The launches of both passes: the pointers and numbers of a call, and the grid and tile of each kernel."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ... import _triton
from ..._blocks import parts
from ..problem import ALiBi, Extras, Setting, row_sums
from . import tiling
from .schedule import schedule_of
from .terms import strides, terms_of
from .tiling import Tile, padded

# The gradient of a bias that many examples share has few blocks: each sum is divided among programs, up to this many.
PROGRAMS = 528

Shape = jax.ShapeDtypeStruct
call = _triton.call


@dataclasses.dataclass(frozen=True)
class Launch(_triton.Launch):
    """A launch with the compile-time arguments `sizes`, by name."""

    sizes: dict[str, Any]
    warps: int
    stages: int
    package: ClassVar[str] = "attention.triton"


class Problem:
    """The pointers and numbers that the kernels of a pass share.

    `sizes` are heads, query heads of a key head, q_seq, kv_seq, head_dim, v_head_dim.
    """

    def __init__(self, q, k, v, extras: Extras, setting: Setting):
        self.batch, q_seq, heads, dim = q.shape
        self.sizes = (heads, heads // k.shape[2], q_seq, k.shape[1], dim, v.shape[3])
        self.dtype, self.extras = q.dtype, extras
        terms = terms_of(extras.mask)
        bias, alibi = jnp.zeros(1, jnp.float32), isinstance(extras.bias, ALiBi)
        slopes, offset, seeds = jnp.zeros(1, jnp.float32), jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32)
        at_bias, at_alibi, drop = (0,) * 5, (0,) * 3, (0,) * 3
        if isinstance(extras.bias, ALiBi):
            slopes, offset = extras.bias.slopes.astype(jnp.float32), extras.bias.offset.astype(jnp.int32)
            slopes = jnp.broadcast_to(slopes, (slopes.shape[0], heads))
            at_alibi = (1, heads if slopes.shape[0] > 1 else 0, int(offset.shape[0] > 1))
        elif extras.bias is not None:
            bias, at_bias = extras.bias, (1, *strides(extras.bias.shape))
        if extras.seeds is not None:
            seeds = extras.seeds
            drop = (1, heads if seeds.shape[0] > 1 else 0, round(setting.dropout_rate * 2**24))
        self.alibi = alibi
        self.pointers = [bias, slopes, offset, seeds, terms.table, terms.dense]
        self._numbers = {
            "SIZES": self.sizes,
            "SCALE": setting.scale,
            "SOFT_CAP": setting.soft_cap or 0.0,
            "BIAS": at_bias,
            "ALIBI": at_alibi,
            "DROPOUT": drop,
            "SURVIVAL": 1.0 / (1.0 - setting.dropout_rate) if drop[0] else 1.0,
            "TERMS": terms.code,
            # Three products of tensor cores come close to one of float32.
            "PRECISION": "tf32x3" if q.dtype == jnp.float32 else "ieee",
            "BLOCK_DIM": padded(dim),
            "BLOCK_V": padded(v.shape[3]),
        }

    def tile(self, kernel: str) -> Tile:
        """The tile of a kernel, by its name in `tiling`."""
        return tiling.tile_of(kernel, max(self.sizes[4:]), self.dtype, tiling.capability())

    def launch(self, module: str, kernel: str, outputs, grid: int, tile: Tile, **more: Any) -> Launch:
        """`grid` programs with the numbers of the problem, the tile and `more`."""
        sizes = self._numbers | {"BLOCK_Q": tile.q, "BLOCK_K": tile.k} | more
        return Launch(module, kernel, tuple(outputs), grid, sizes, tile.warps, tile.stages)


def attend(q, k, v, extras: Extras, setting: Setting):
    """(out, logsumexp) as `reference.attend` gives them, by one kernel."""
    problem = Problem(q, k, v, extras, setting)
    tile = problem.tile("FORWARD")
    schedule = schedule_of(extras.mask, problem.sizes, tile.q, tile.k, by_keys=False)
    heads, _, q_seq, _, _, v_dim = problem.sizes
    outputs = (Shape((problem.batch, q_seq, heads, v_dim), q.dtype), Shape((problem.batch, heads, q_seq), jnp.float32))
    grid = problem.batch * heads * parts(q_seq, tile.q)
    launch = problem.launch("forward", "forward", outputs, grid, tile, PLAN=schedule.plan)
    out, lse = call(launch, q, k, v, *problem.pointers, schedule.entries)
    return out, lse


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
    launch = problem.launch("backward", "backward_q", outputs, grid, tile, PLAN=schedule.plan)
    return call(launch, *inputs, schedule.entries)[0]


def _key_gradients(problem: Problem, inputs):
    heads, repeat, _, kv_seq, *_ = problem.sizes
    tile = problem.tile("BACKWARD_KV")
    schedule = schedule_of(problem.extras.mask, problem.sizes, tile.q, tile.k, by_keys=True)
    outputs = tuple(Shape(x.shape, problem.dtype) for x in inputs[1:3])
    grid = problem.batch * (heads // repeat) * parts(kv_seq, tile.k)
    launch = problem.launch("backward", "backward_kv", outputs, grid, tile, PLAN=schedule.plan)
    return call(launch, *inputs, schedule.entries)


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
    launch = problem.launch("backward", "backward_bias", outputs, math.prod(own) * count, tile, **more)
    dbias = jnp.sum(call(launch, *inputs)[0], 0)
    return dbias.reshape(size[:2]).astype(bias.slopes.dtype) if problem.alibi else dbias.astype(bias.dtype)
