"""The forward pass: each warpgroup runs an online softmax over the keys of its queries.

The weights of a step are multiplied with their values in the next step, whose exponentials are computed beside that
product (Shah et al. 2024, section 3.2). The two warpgroups alternate: while one has the tensor cores, the other
computes exponentials (section 3.1).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp

from ..problem import Extras, Setting, quarantine
from ..schedule import block_bounds, schedule
from . import pattern, tiling
from .launch import Consumer, Load, Pass, Step, launch, store
from .products import add_products, column, product, product_and_sum, zeros
from .schedule import over_keys
from .scores import ScoreOperands
from .tiling import CONSUMERS, ROWS, SIDE, Tile

# Below every logit that is not -inf; -inf minus it has weight 0, -inf minus -inf would be NaN.
LOW = -1e30


def attend(q, k, v, extras: Extras, setting: Setting, *, simulated: Any = None):
    """(out, logsumexp) as `reference.attend` gives them, by one kernel."""
    shape = tiling.padded_shape(q, k, v)
    dims = q.shape[3], v.shape[3]
    q, k, v = quarantine(q, k, v, extras)
    size = q.dtype.itemsize
    held = SIDE * size * (shape.dim + (shape.v_dim if shape.v_dim != shape.dim else 0))
    prepared = ScoreOperands(extras, flip=False)
    # The rows of a pattern and 128 keys do not fit the registers together.
    wide = max(shape.dim, shape.v_dim) <= 128 and not pattern.holds_pattern(prepared.mask) and tiling.shares_registers()
    plan = tiling.plan((128, 64) if wide else (64,), held, (shape.dim + shape.v_dim) * size)
    table = schedule(*block_bounds(extras.mask, shape.q_seq, shape.kv_seq, SIDE, plan.block))
    operands = [tiling.operand(q, shape.dim), tiling.operand(k, shape.dim), tiling.operand(v, shape.v_dim)]
    work = Pass(shape, setting, prepared, operands, False, simulated)

    def consume(at: Consumer):
        tile = dataclasses.replace(at.tile, i=at.tile.i + at.wg * ROWS)
        out, top, total = OnlineSoftmax(at, work, tile).result()
        empty = total == 0.0
        out = out * column(1.0 / jnp.where(empty, 1.0, total), out.shape)
        lse = jnp.where(empty, -math.inf, (top + jnp.log2(total)) * math.log(2.0))
        place = pl.ds(tile.i, ROWS)
        buffer = at.fixed[0] if shape.v_dim == shape.dim else at.scratch[1]
        store(out, at.own(buffer), at.outs[0].at[tile.b, place, tile.h])
        store(lse, at.scratch[0].at[at.wg], at.outs[1].at[tile.b, tile.h, place])

    held = [((CONSUMERS, ROWS), jnp.float32)]
    if shape.v_dim != shape.dim:
        held.append(((SIDE, shape.v_dim), q.dtype))
    keys = lambda tile: (tile.b, pl.ds(tile.j, plan.block), tile.g)
    out, lse = launch(
        work,
        "forward",
        consume,
        over_keys(shape, table, plan.block),
        fixed=[Load(0, (SIDE, shape.dim), lambda tile: (tile.b, pl.ds(tile.i, SIDE), tile.h))],
        groups=[[Load(1, (plan.block, shape.dim), keys)], [Load(2, (plan.block, shape.v_dim), keys)]],
        stages=plan.stages,
        outs=[
            ((*operands[0].shape[:3], shape.v_dim), q.dtype),
            ((shape.batch, shape.heads, operands[0].shape[1]), jnp.float32),
        ],
        scratch=held,
    )
    return tiling.result(out, shape.q_seq, dims[1]), lse[:, :, : shape.q_seq]


@dataclasses.dataclass(frozen=True)
class OnlineSoftmax:
    """The running maximum, sum and output of one warpgroup, whose queries begin at `tile`."""

    at: Consumer
    work: Pass
    tile: Tile

    def result(self) -> tuple[Any, Any, Any]:
        """The output before it is divided by the sum, the maximum in powers of two, and the sum; 0 where a query sees
        no key.
        """
        at = self.at
        full = lambda value: plgpu.layout_cast(jnp.full((ROWS,), value, jnp.float32), plgpu.Layout.WGMMA.reduce(1))
        start = zeros((ROWS, self.work.shape.v_dim)), full(LOW), full(0.0)
        pl.when(at.wg == 1)(at.switch)
        found = jax.lax.cond(at.count > 0, lambda: self._steps(*start), lambda: start)
        pl.when(at.wg == 0)(at.switch)
        return found

    def _steps(self, out, top, total):
        """The first step has no weights to multiply, and after the last one its own are left."""
        at = self.at
        step = at.step(jnp.int32(0))
        (keys,) = step.stage.wait(0)
        s = product(self._queries, keys.transpose((1, 0)), at.switch)
        step.stage.release(0)
        p, top, total, _ = self._weigh(step, s, top, total)
        at.switch()
        out, p, top, total = jax.lax.fori_loop(1, at.count, self._step, (out, self._as_factor(step, p), top, total))
        last = at.stage(at.count - 1)
        (values,) = last.wait(1)
        (out,) = add_products([out], [(p, values)], self._simulated)
        last.release(1)
        return out, top, total

    def _step(self, n, carry):
        out, p, top, total = carry
        step, before = self.at.step(n), self.at.stage(n - 1)
        (keys,), (values,) = step.stage.wait(0), before.wait(1)

        def take(s):
            step.stage.release(0)
            # Without the barrier the compiler moves code after the wait for the sum.
            found = jax.lax.optimization_barrier(self._weigh(step, s, top, total))
            self.at.switch()
            return found

        (p, top, total, shrink), out = product_and_sum(
            self._queries,
            keys.transpose((1, 0)),
            out,
            p,
            values,
            take,
            self.at.switch,
            overlap=self.work.prepared.bias is None,  # the last step's weights would not fit the registers as well
            simulated=self._simulated,
        )
        before.release(1)
        return out * column(shrink, out.shape), self._as_factor(step, p), top, total

    def _weigh(self, step: Step, s, top, total):
        """The weights of a step's keys, the new maximum and sum, and the factor that rescales the sums before."""
        scores, here = self.at.scores, self._tile_of(step)
        x, factor = scores.logits(s, scores.cap(s), here)
        x = scores.where_allowed(x, -math.inf, here, step.flag)
        new = jnp.maximum(top, x.max(1) * factor)
        p = jnp.exp2(x * factor - column(new, x.shape))
        shrink = jnp.exp2(top - new)
        return p, new, total * shrink + p.sum(1), shrink

    def _as_factor(self, step: Step, p):
        """The weights as a factor of the tensor cores. Computed while those run, it would serialise the products."""
        kept = self.at.scores.kept(self._tile_of(step), p.shape)
        if kept is not None:
            p = jnp.where(kept, p * (1.0 / (1.0 - self.work.setting.dropout_rate)), 0.0)
        return p.astype(self.work.operands[0].dtype)

    def _tile_of(self, step: Step) -> Tile:
        return dataclasses.replace(self.tile, j=step.tile.j)

    @property
    def _queries(self):
        return self.at.own(self.at.fixed[0])

    @property
    def _simulated(self) -> bool:
        return self.work.simulated is not None
