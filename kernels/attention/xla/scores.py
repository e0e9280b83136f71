"""Score modification of a tile: soft cap, bias, mask and dropout."""

from typing import Any

import jax
import jax.numpy as jnp

from ... import _dropout
from ..._blocks import pad
from ..problem import ALiBi, Blocked, Extras, Setting, unsqueeze
from .operands import corner


class Scores:
    """Score modification on tiles with axes (heads of the group, queries, keys).

    A tile is `at` = (example, group, first query, first key).
    """

    def __init__(self, extras: Extras, setting: Setting, shape: Blocked):
        self.extras, self.setting, self.shape = extras, setting, shape
        blocks = {"q": shape.q_block, "k": shape.kv_block}

        def prepare(x, axes):
            if isinstance(x, int):
                return x
            x = unsqueeze(x, axes)
            for axis, name in ((2, "q"), (3, "k")):
                if name in axes and x.shape[axis] != 1:
                    x = pad(x, axis, blocks[name])
            return x

        mask, bias = extras.mask, extras.bias
        self.masks = [prepare(x, axes) for axes, x in zip(mask.axes, mask.arrays())] if mask is not None else []
        self.bias: Any = prepare(bias, "bhqk") if bias is not None and not isinstance(bias, ALiBi) else None
        if isinstance(bias, ALiBi):
            self.slopes, self.offset = unsqueeze(bias.slopes, "bh"), unsqueeze(bias.offset, "b")

    def cut(self, x, at) -> Any:
        """(heads or 1, queries or 1, keys or 1) of a prepared array for a tile."""
        if isinstance(x, int):
            return x
        b, g, i0, j0 = at
        shape = self.shape
        start = corner(
            b if x.shape[0] != 1 else 0,
            g * shape.repeat if x.shape[1] != 1 else 0,
            i0 if x.shape[2] != 1 else 0,
            j0 if x.shape[3] != 1 else 0,
        )
        size = (1, min(shape.repeat, x.shape[1]), min(shape.q_block, x.shape[2]), min(shape.kv_block, x.shape[3]))
        return jax.lax.dynamic_slice(x, start, size)[0]

    def positions(self, at):
        """The positions of a tile's queries and keys."""
        i = at[2] + jnp.arange(self.shape.q_block, dtype=jnp.int32).reshape(1, -1, 1)
        j = at[3] + jnp.arange(self.shape.kv_block, dtype=jnp.int32).reshape(1, 1, -1)
        return i, j

    def distance(self, at):
        """ALiBi's distance of each query from each key."""
        i, j = self.positions(at)
        return jnp.abs(i + self.cut(self.offset, at) - j)

    def logits(self, s, at, masked: bool, transpose):
        """Soft cap, bias and mask of a product: (logits, capped product, allowed or None).

        `transpose` brings a cut into the axes of `s`.
        """
        if self.setting.soft_cap is not None:
            s = self.setting.soft_cap * jnp.tanh(s / self.setting.soft_cap)
        capped = s
        if isinstance(self.extras.bias, ALiBi):
            s = s - transpose(self.cut(self.slopes, at).astype(s.dtype) * self.distance(at).astype(s.dtype))
        elif self.bias is not None:
            s = s + transpose(self.cut(self.bias, at)).astype(s.dtype)
        if not masked:
            return s, capped, None
        i, j = self.positions(at)
        allowed = j < self.shape.kv_seq
        if self.shape.q_seq % self.shape.q_block:
            allowed = allowed & (i < self.shape.q_seq)  # padding may equal an id
        if self.extras.mask is not None:
            allowed = allowed & self.extras.mask.allowed(i, j, *(self.cut(x, at) for x in self.masks))
        allowed = transpose(allowed)
        return jnp.where(allowed, s, jnp.finfo(s.dtype).min), capped, allowed

    def kept(self, at, transpose):
        """The weights that dropout keeps, or None."""
        if self.extras.seeds is None:
            return None
        i, j = self.positions(at)
        seed = self.seeds(at)
        return transpose(_dropout.keep(seed[..., 0], seed[..., 1], i, j, self.setting.dropout_rate))

    def seeds(self, at):
        """The seeds of dropout, with axes (heads of the group, 1, 1, 2)."""
        seeds = self.extras.seeds
        start = corner(at[0] if seeds.shape[0] != 1 else 0, at[1] * self.shape.repeat, 0)
        return jax.lax.dynamic_slice(seeds, start, (1, self.shape.repeat, 2))[0][:, None, None]
