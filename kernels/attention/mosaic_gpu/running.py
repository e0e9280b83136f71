"""A computing warpgroup's walk over its keys in the forward pass: a running maximum, sum and output.

A turn's weights meet their values in the next turn, whose exponentials are then taken beside that product (Shah et al.
2024, section 3.2). The two warpgroups take turns: while one has the tensor cores, the other takes exponentials (section
3.1).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp

from .products import add_products, column, product, product_and_sum, zeros
from .ring import Consumer, Step, Work
from .tiling import ROWS, Tile

# Below every logit that is not -inf; subtracting it from -inf gives weight 0, where -inf itself would give NaN.
LOW = -1e30


@dataclasses.dataclass(frozen=True)
class Running:
    """The walk of one warpgroup, whose queries begin at `tile`."""

    at: Consumer
    work: Work
    tile: Tile

    def result(self) -> tuple[Any, Any, Any]:
        """The output before it is divided by the sum, the maximum in powers of two, and the sum; 0 where a query sees
        no key.
        """
        at = self.at
        full = lambda value: plgpu.layout_cast(jnp.full((ROWS,), value, jnp.float32), plgpu.Layout.WGMMA.reduce(1))
        nothing = zeros((ROWS, self.work.shape.v_dim)), full(LOW), full(0.0)
        pl.when(at.wg == 1)(at.switch)
        found = jax.lax.cond(at.count > 0, lambda: self._turns(*nothing), lambda: nothing)
        pl.when(at.wg == 0)(at.switch)
        return found

    def _turns(self, out, top, total):
        """The first turn has no weights to multiply, and behind the last one its own are left."""
        at = self.at
        step = at.step(jnp.int32(0))
        (keys,) = step.slot.wait(0)
        s = product(self._queries, keys.transpose((1, 0)), at.switch)
        step.slot.release(0)
        p, top, total, _ = self._weigh(step, s, top, total)
        at.switch()
        out, p, top, total = jax.lax.fori_loop(1, at.count, self._turn, (out, self._as_factor(step, p), top, total))
        last = at.slot(at.count - 1)
        (values,) = last.wait(1)
        (out,) = add_products([out], [(p, values)], self._simulated)
        last.release(1)
        return out, top, total

    def _turn(self, n, carry):
        out, p, top, total = carry
        step, before = self.at.step(n), self.at.slot(n - 1)
        (keys,), (values,) = step.slot.wait(0), before.wait(1)

        def take(s):
            step.slot.release(0)
            # Without the barrier the compiler moves what it can behind the wait for the sum.
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
            overlap=self.work.prepared.bias is None,  # the last turn's weights would not fit the registers as well
            simulated=self._simulated,
        )
        before.release(1)
        return out * column(shrink, out.shape), self._as_factor(step, p), top, total

    def _weigh(self, step: Step, s, top, total):
        """The weights of a step's keys, the running maximum and sum with them, and what the sums before shrink by."""
        reader, here = self.at.reader, self._tile_of(step)
        x, factor = reader.logits(s, reader.cap(s), here)
        x = reader.where_allowed(x, -math.inf, here, step.flag)
        new = jnp.maximum(top, x.max(1) * factor)
        p = jnp.exp2(x * factor - column(new, x.shape))
        shrink = jnp.exp2(top - new)
        return p, new, total * shrink + p.sum(1), shrink

    def _as_factor(self, step: Step, p):
        """The weights as the tensor cores take them. They must not be made while those work, or each product waits for
        the last.
        """
        kept = self.at.reader.kept(self._tile_of(step), p.shape)
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
