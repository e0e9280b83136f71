"""What stands beside the product of a tile: soft cap, bias, mask and dropout."""

from typing import Any

import jax
import jax.numpy as jnp

from ... import _dropout
from ..bias import ALiBi
from ..problem import Extras, Setting, unsqueeze
from .operands import corner, pad
from .plan import Plan


class Tiles:
    """The bias, mask and dropout of a problem, cut to a tile with axes (heads of the group, queries, keys)."""

    def __init__(self, extras: Extras, setting: Setting, plan: Plan):
        self.extras, self.setting, self.plan = extras, setting, plan
        sizes = {"q": (plan.q_seq, plan.q_block), "k": (plan.kv_seq, plan.kv_block)}

        def prepare(x, axes):
            if isinstance(x, int):
                return x
            x = unsqueeze(x, axes)
            for axis, name in ((2, "q"), (3, "k")):
                if name in axes and x.shape[axis] > 1:
                    x = pad(x, axis, sizes[name][1])
            return x

        mask, bias = extras.mask, extras.bias
        self.masks = [prepare(x, axes) for axes, x in zip(mask.axes, mask.arrays())] if mask is not None else []
        self.bias: Any = prepare(bias, "bhqk") if bias is not None and not isinstance(bias, ALiBi) else None
        if isinstance(bias, ALiBi):
            self.slopes, self.offset = unsqueeze(bias.slopes, "bh"), unsqueeze(bias.offset, "b")

    def cut(self, x, at) -> Any:
        """(heads or 1, queries or 1, keys or 1) of a prepared array for the tile `at` = (example, group, first query,
        first key).
        """
        if isinstance(x, int):
            return x
        b, g, i0, j0 = at
        plan = self.plan
        start = corner(
            b if x.shape[0] > 1 else 0,
            g * plan.repeat if x.shape[1] > 1 else 0,
            i0 if x.shape[2] > 1 else 0,
            j0 if x.shape[3] > 1 else 0,
        )
        size = (1, min(plan.repeat, x.shape[1]), min(plan.q_block, x.shape[2]), min(plan.kv_block, x.shape[3]))
        return jax.lax.dynamic_slice(x, start, size)[0]

    def positions(self, at):
        i = at[2] + jnp.arange(self.plan.q_block, dtype=jnp.int32).reshape(1, -1, 1)
        j = at[3] + jnp.arange(self.plan.kv_block, dtype=jnp.int32).reshape(1, 1, -1)
        return i, j

    def distance(self, at):
        i, j = self.positions(at)
        return jnp.abs(i + self.cut(self.offset, at) - j)

    def logits(self, s, at, masked: bool, turn):
        """Soft cap, bias and mask of a product: (logits, capped product, allowed or None). `turn` brings a cut into the
        tile's axes.
        """
        if self.setting.soft_cap is not None:
            s = self.setting.soft_cap * jnp.tanh(s / self.setting.soft_cap)
        capped = s
        if isinstance(self.extras.bias, ALiBi):
            s = s - turn(self.cut(self.slopes, at).astype(s.dtype) * self.distance(at).astype(s.dtype))
        elif self.bias is not None:
            s = s + turn(self.cut(self.bias, at)).astype(s.dtype)
        if not masked:
            return s, capped, None
        i, j = self.positions(at)
        allowed = j < self.plan.kv_seq
        if self.extras.mask is not None:
            allowed = allowed & self.extras.mask.allowed(i, j, *(self.cut(x, at) for x in self.masks))
        allowed = turn(allowed)
        return jnp.where(allowed, s, jnp.finfo(s.dtype).min), capped, allowed

    def kept(self, at, turn):
        """Where dropout keeps a weight, or None."""
        if self.extras.seeds is None:
            return None
        i, j = self.positions(at)
        seed = self.seeds(at)
        return turn(_dropout.keep(seed[..., 0], seed[..., 1], i, j, self.setting.dropout_rate))

    def seeds(self, at):
        """The seeds of dropout, with axes (heads of the group, 1, 1, 2)."""
        seeds = self.extras.seeds
        start = corner(at[0] if seeds.shape[0] > 1 else 0, at[1] * self.plan.repeat, 0)
        return jax.lax.dynamic_slice(seeds, start, (1, self.plan.repeat, 2))[0][:, None, None]
