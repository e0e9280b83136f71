"""What a kernel does to the logits of one tile."""

import math
from typing import Any

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp

from ... import _dropout
from ..problem import Setting
from .extras import Prepared, Slot
from .products import column, load, row
from .tiling import Shape, Tile

LOG2E = math.log2(math.e)
LAYOUT = plgpu.Layout.WGMMA


class Reader:
    """Reads a kernel's extra operands for one tile and applies them. With `flip` a tile is (keys, queries), else
    (queries, keys).
    """

    def __init__(self, prepared: Prepared, setting: Setting, shape: Shape, flip: bool, operands):
        self.prepared, self.setting, self.shape, self.flip, self.operands = prepared, setting, shape, flip, operands

    def positions(self, tile: Tile, size):
        """The queries' and the keys' numbers over a tile of this size."""
        i, j = (
            plgpu.broadcasted_iota(jnp.int32, size, axis, layout=LAYOUT) for axis in ((1, 0) if self.flip else (0, 1))
        )
        return i + tile.i, j + tile.j

    def view(self, slot: Slot, tile: Tile, size) -> Any:
        """What a slot holds for this tile: a number, or an array of the tile's size."""
        if slot.kind == "int":
            return slot.at
        ref = self.operands[slot.at]
        if slot.kind == "pattern":
            return ref, tile, self
        b, h, q, k = slot.has
        n_i, n_j = size[::-1] if self.flip else size
        lead = (tile.b if b else 0, tile.h if h else 0)
        if not (q or k):
            return ref[(*lead, 0, 0)]
        if q and k:
            places = (pl.ds(tile.i, n_i), pl.ds(tile.j, n_j))
            return load(ref.at[(*lead, *(places[::-1] if self.flip else places))], LAYOUT)
        place = (pl.ds(tile.i, n_i), 0) if q else (0, pl.ds(tile.j, n_j))
        return self.along(ref.at[(*lead, *place)], size, queries=q)

    def along(self, ref, size, *, queries: bool):
        """A vector in memory with a number per query or per key, over the tile."""
        down = queries != self.flip
        return (column if down else row)(load(ref, LAYOUT.reduce(1 if down else 0)), size)

    def distance(self, tile: Tile, size):
        """ALiBi's distance of each query from each key."""
        i, j = self.positions(tile, size)
        return jnp.abs(i + self.view(self.prepared.offset, tile, size) - j).astype(jnp.float32)

    def cap(self, s):
        """Soft cap of a product: its share of the cap, between -1 and 1, or None without one."""
        if self.setting.soft_cap is None:
            return None
        # tanh's own approximation errs by 5e-4, which the cap would multiply.
        return 1.0 - 2.0 / (1.0 + jnp.exp2(s * (2.0 * LOG2E * self.setting.scale / self.setting.soft_cap)))

    def logits(self, s, share, tile: Tile):
        """(x, factor): the logits without the mask, times log2(e), are `factor x`."""
        prepared, factor = self.prepared, self.setting.scale * LOG2E
        if share is not None and self.setting.soft_cap is not None:
            s, factor = share, self.setting.soft_cap * LOG2E
        if prepared.slopes is None and prepared.bias is None:
            return s, factor
        if prepared.slopes is not None:
            add = -self.view(prepared.slopes, tile, s.shape) * self.distance(tile, s.shape)
        else:
            add = self.view(prepared.bias, tile, s.shape)
            add = add.astype(jnp.float32)
        return s * factor + add * LOG2E, 1.0

    def allowed(self, tile: Tile, size):
        """The pairs of the tile that the mask allows and that exist."""
        i, j = self.positions(tile, size)
        allowed = j < self.shape.kv_seq
        if self.prepared.mask is not None:
            allowed = allowed & self.prepared.mask.allowed(
                i, j, *(self.view(slot, tile, size) for slot in self.prepared.views)
            )
        return allowed

    def where_allowed(self, x, other: float, tile: Tile, flag):
        """`x`, and `other` where the mask forbids the pair; the mask is evaluated where the flag says that this tile
        needs it.
        """
        return jax.lax.cond(flag == 1, lambda x: jnp.where(self.allowed(tile, x.shape), x, other), lambda x: x, x)

    def kept(self, tile: Tile, size):
        """Where dropout keeps a weight, or None."""
        if self.prepared.seeds is None:
            return None
        i, j = self.positions(tile, size)
        first, second = (self.view(slot, tile, size) for slot in self.prepared.seeds)
        return _dropout.keep(first, second, i, j, self.setting.dropout_rate)
