"""The backward pass: kernels for the gradients of query, of key and value, and of a bias."""

import dataclasses
import math
from typing import Any

import jax
import jax.experimental.pallas as pl
import jax.numpy as jnp

from ... import masks
from ..._blocks import div, parts, rem
from ..problem import ALiBi, Extras, Setting, row_sums
from ..schedule import block_bounds, flags, schedule
from . import tiling
from .launch import Consumer, Load, Pass, Step, launch, store
from .products import add_products, column, load, product, row, two_products, zeros
from .schedule import Scheduler, by_keys, over_keys, over_queries
from .scores import LAYOUT, LOG2E, ScoreOperands, finite, score_gradients, weights
from .tiling import ROWS, SIDE, Tile

# Wider head_dims take a kernel for each of the two sums, which together do not fit the registers: those that warpgroups
# share, and those of one by itself.
WIDEST_SUMS, WIDEST_OWN_SUMS = 320, 192


def gradients(
    q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool, simulated: Any = None
):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    shape = tiling.padded_shape(q, k, v)
    delta = row_sums(dout, out) - dlse
    if extras.mask is not None:
        # The logsumexp is NaN for the queries that see a number that is not finite. Their delta must not be NaN too, as
        # it is multiplied by 0 for the keys that they do not see.
        delta = jnp.where(jnp.isnan(lse), 0.0, delta)
    if _may_see_nothing(extras):
        empty = lse == -jnp.inf
        lse, delta, dout = (
            jnp.where(empty, 0.0, lse),
            jnp.where(empty, 0.0, delta),
            jnp.where(jnp.swapaxes(empty, 1, 2)[..., None], 0, dout),
        )
    operands = [
        tiling.operand(finite(q, extras), shape.dim),
        tiling.operand(finite(k, extras), shape.dim),
        tiling.operand(finite(v, extras), shape.v_dim),
        tiling.operand(dout, shape.v_dim),
        tiling.rows(lse * LOG2E),
        tiling.rows(delta),
    ]
    upright = Pass(shape, setting, ScoreOperands(extras, flip=False), operands, False, simulated)
    transposed = dataclasses.replace(upright, prepared=ScoreOperands(extras, flip=True), flip=True)
    bounds = lambda q_block, kv_block: block_bounds(extras.mask, shape.q_seq, shape.kv_seq, q_block, kv_block)
    dq = tiling.result(_query_gradient(upright, bounds), shape.q_seq, q.shape[3])
    dk, dv = _key_gradients(transposed, bounds)
    dk, dv = tiling.result(dk, shape.kv_seq, k.shape[3]), tiling.result(dv, shape.kv_seq, v.shape[3])
    return (dq, dk, dv, _bias_gradient(upright, extras.bias, bounds)) if with_bias else (dq, dk, dv)


def _may_see_nothing(extras: Extras) -> bool:
    """True if a query may see no key."""
    if isinstance(extras.mask, masks.Causal) and isinstance(extras.mask.offset, int) and extras.mask.offset >= 0:
        return extras.bias is not None
    return extras.mask is not None or extras.bias is not None


def _query_gradient(work: Pass, bounds):
    """dq in the layout of `tiling.operand`; `bounds(q_block, kv_block)` as `schedule.block_bounds`."""
    shape, q = work.shape, work.operands[0]
    both = (shape.dim + shape.v_dim) * q.dtype.itemsize
    # Two products of 128 keys leave few registers.
    light = not (work.prepared.heavy or work.prepared.seeds or work.setting.soft_cap)
    wide = light and max(shape.dim, shape.v_dim) <= 64 and tiling.shares_registers()
    plan = tiling.plan((128, 64) if wide else (64, 32), SIDE * both, both)
    table = schedule(*bounds(SIDE, plan.block))

    def consume(at: Consumer):
        tile = dataclasses.replace(at.tile, i=at.tile.i + at.wg * ROWS)
        q_rows, dout_rows = (at.own(ref) for ref in at.fixed)
        place = pl.ds(tile.i, ROWS)
        numbers = lambda ref: load(ref.at[tile.b, tile.h, place], LAYOUT.reduce(1))
        lse, delta = (column(numbers(ref), (ROWS, plan.block)) for ref in at.operands[4:6])

        def add(step: Step, dq):
            here = dataclasses.replace(tile, j=step.tile.j)
            keys, values = step.stage.wait(0)
            take = lambda s: weights(at.scores, here, step.flag, s, lse)
            (p, share), dp = two_products(q_rows, keys.transpose((1, 0)), dout_rows, values.transpose((1, 0)), take)
            _, _, ds = score_gradients(at.scores, here, p, share, dp, delta)
            (dq,) = add_products([dq], [(ds.astype(q.dtype), keys)], work.simulated is not None)
            step.stage.release(0)
            return dq

        dq = at.loop(add, zeros((ROWS, shape.dim)))
        store(dq * work.setting.scale, q_rows, at.outs[0].at[tile.b, place, tile.h])

    queries = lambda tile: (tile.b, pl.ds(tile.i, SIDE), tile.h)
    keys = lambda tile: (tile.b, pl.ds(tile.j, plan.block), tile.g)
    return launch(
        work,
        "backward_q",
        consume,
        over_keys(shape, table, plan.block),
        fixed=[Load(0, (SIDE, shape.dim), queries), Load(3, (SIDE, shape.v_dim), queries)],
        groups=[[Load(1, (plan.block, shape.dim), keys), Load(2, (plan.block, shape.v_dim), keys)]],
        stages=plan.stages,
        outs=[(q.shape, q.dtype)],
    )[0]


def _key_gradients(work: Pass, bounds):
    """(dk, dv) in the layout of `tiling.operand`; `bounds` as in `_query_gradient`."""
    if work.shape.dim + work.shape.v_dim <= (WIDEST_SUMS if tiling.shares_registers() else WIDEST_OWN_SUMS):
        return _key_kernel(work, bounds, keys=True, values=True)
    return *_key_kernel(work, bounds, keys=True, values=False), *_key_kernel(work, bounds, keys=False, values=True)


def _key_kernel(work: Pass, bounds, *, keys: bool, values: bool):
    shape, operands = work.shape, work.operands
    dtype = operands[0].dtype
    simulated = work.simulated is not None
    both = (shape.dim + shape.v_dim) * dtype.itemsize
    # Dropout's random numbers take registers, and more time than a smaller product costs.
    wide = shape.dim + shape.v_dim <= (256 if work.prepared.seeds is None else 128)
    plan = tiling.plan((64, 32) if wide and tiling.shares_registers() else (32,), SIDE * both, both, per_step=512)
    active, full = bounds(plan.block, SIDE)
    table = schedule(*by_keys(active, full, shape.repeat))

    def consume(at: Consumer):
        own = at.tile.j + at.wg * ROWS
        key_rows, value_rows = (at.own(ref) for ref in at.fixed)
        size = (ROWS, plan.block)

        def add(step: Step, sums):
            here = dataclasses.replace(step.tile, j=own)
            queries, dout, *numbers = step.stage.wait(0)
            lse, delta = (row(load(ref, LAYOUT.reduce(0)), size) for ref in numbers)
            take = lambda s: weights(at.scores, here, step.flag, s, lse)
            if keys:
                (p, share), dp = two_products(
                    key_rows, queries.transpose((1, 0)), value_rows, dout.transpose((1, 0)), take
                )
            else:
                p, share = take(product(key_rows, queries.transpose((1, 0))))
                dp = p
            p, _, ds = score_gradients(at.scores, here, p, share, dp, delta)
            factors = ([(ds, queries)] if keys else []) + ([(p, dout)] if values else [])
            sums = add_products(sums, [(x.astype(dtype), y) for x, y in factors], simulated)
            step.stage.release(0)
            return sums

        dims = ([shape.dim] if keys else []) + ([shape.v_dim] if values else [])
        sums = list(at.loop(add, tuple(zeros((ROWS, dim)) for dim in dims)))
        if keys:
            sums[0] = sums[0] * work.setting.scale
        buffers = ([key_rows] if keys else []) + ([value_rows] if values else [])
        for value, buffer, out in zip(sums, buffers, at.outs):
            store(value, buffer, out.at[at.tile.b, pl.ds(own, ROWS), at.tile.g])

    queries = lambda tile: (tile.b, pl.ds(tile.i, plan.block), tile.h)
    numbers = lambda tile: (tile.b, tile.h, pl.ds(tile.i, plan.block))
    place = lambda tile: (tile.b, pl.ds(tile.j, SIDE), tile.g)
    step_loads = [Load(0, (plan.block, shape.dim), queries), Load(3, (plan.block, shape.v_dim), queries)]
    return launch(
        work,
        "backward_kv",
        consume,
        over_queries(shape, table, plan.block),
        fixed=[Load(1, (SIDE, shape.dim), place), Load(2, (SIDE, shape.v_dim), place)],
        groups=[[*step_loads, Load(4, (plan.block,), numbers), Load(5, (plan.block,), numbers)]],
        stages=plan.stages,
        outs=[(operands[n].shape, dtype) for n, wanted in ((1, keys), (2, values)) if wanted],
    )


def _bias_gradient(work: Pass, bias, bounds):
    """The gradient of the bias in its own shape, or of ALiBi's slopes. Each block sums all tiles that read it, in
    order.
    """
    shape = work.shape
    alibi = isinstance(bias, ALiBi)
    size = (*bias.slopes.shape, 1, 1) if alibi else bias.shape
    b, h, t, s = (n > 1 for n in size)
    both = (shape.dim + shape.v_dim) * work.operands[0].dtype.itemsize
    plan = tiling.plan((64,), SIDE * 64 * 4 - SIDE * both, both, per_step=2 * SIDE * both)
    plan = dataclasses.replace(plan, stages=min(plan.stages, 2))
    table = flags(*bounds(SIDE, plan.block))
    rows, columns = parts(shape.q_seq, SIDE), parts(shape.kv_seq, plan.block)
    # The examples, heads, rows and columns of tiles that share one tile of the bias.
    shared = (shape.batch // size[0], shape.heads // size[1], 1 if t else rows, 1 if s else columns)
    own = (size[0], size[1], rows if t else 1, columns if s else 1)

    def base(index):
        j, rest = rem(index, own[3]), div(index, own[3])
        i, rest = rem(rest, own[2]), div(rest, own[2])
        head = rem(rest, own[1])
        return Tile(div(rest, own[1]), head, jnp.int32(0), i * SIDE, j * plan.block)

    def step(ref, tile, n):
        column, n = rem(n, shared[3]), div(n, shared[3])
        row, n = rem(n, shared[2]), div(n, shared[2])
        head, example = rem(n, shared[1]), div(n, shared[1])
        head, example = (tile.h if h else head), (tile.b if b else example)
        row, column = div(tile.i, SIDE) + row, div(tile.j, plan.block) + column
        b_many, h_many = table.shape[0] > 1, table.shape[1] > 1
        at = ((example if b_many else 0) * table.shape[1] + (head if h_many else 0)) * rows + row
        here = Tile(example, head, div(head, shape.repeat), row * SIDE, column * plan.block)
        return here, ref[at * columns + column]

    def consume(at: Consumer):
        def add_tile(step: Step, total):
            here = dataclasses.replace(step.tile, i=step.tile.i + at.wg * ROWS)
            queries, dout, lse, delta, keys, values = step.stage.wait(0)

            def add(total):
                numbers = lambda ref: load(at.own(ref), LAYOUT.reduce(1))
                turn = lambda ref: ref.transpose((1, 0))
                sums, deltas = (column(numbers(ref), total.shape) for ref in (lse, delta))
                take = lambda s: weights(at.scores, here, step.flag, s, sums)
                (p, share), dp = two_products(at.own(queries), turn(keys), at.own(dout), turn(values), take)
                _, ds, _ = score_gradients(at.scores, here, p, share, dp, deltas)
                return total + (ds * -at.scores.distance(here, ds.shape) if alibi else ds)

            total = jax.lax.cond(step.flag > 0, add, lambda total: total, total)
            step.stage.release(0)
            return total

        total = at.loop(add_tile, zeros((ROWS, plan.block)))
        out = at.outs[0].at[at.tile.b, at.tile.h, pl.ds(at.tile.i + at.wg * ROWS, ROWS), pl.ds(at.tile.j, plan.block)]
        store(total, at.own(at.scratch[0]), out)

    queries = lambda tile: (tile.b, pl.ds(tile.i, SIDE), tile.h)
    numbers = lambda tile: (tile.b, tile.h, pl.ds(tile.i, SIDE))
    keys = lambda tile: (tile.b, pl.ds(tile.j, plan.block), tile.g)
    loads = [
        Load(0, (SIDE, shape.dim), queries),
        Load(3, (SIDE, shape.v_dim), queries),
        Load(4, (SIDE,), numbers),
        Load(5, (SIDE,), numbers),
        Load(1, (plan.block, shape.dim), keys),
        Load(2, (plan.block, shape.v_dim), keys),
    ]
    whole = (*own[:2], own[2] * SIDE, own[3] * plan.block)
    (dbias,) = launch(
        work,
        "backward_bias",
        consume,
        Scheduler(jnp.asarray(table).reshape(-1), math.prod(own), base, lambda ref, tile: math.prod(shared), step),
        fixed=[],
        groups=[loads],
        stages=plan.stages,
        outs=[(whole, jnp.float32)],
        scratch=[((SIDE, plan.block), jnp.float32)],
    )
    dbias = dbias[:, :, : size[2]] if t else dbias.sum(2, keepdims=True)
    dbias = dbias[:, :, :, : size[3]] if s else dbias.sum(3, keepdims=True)
    return dbias.reshape(size[:2]).astype(bias.slopes.dtype) if alibi else dbias.astype(bias.dtype)
