"""What a kernel does to the logits of one tile."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import _dropout
from ..problem import Setting
from .extras import Prepared, Slot
from .tiling import Shape, Tile

LOW = -0.7 * float(np.finfo(np.float32).max)


class Reader:
    """Reads a kernel's extra operands for one tile and applies them. With `flip` a tile is (keys, queries), else
    (queries, keys).
    """

    def __init__(self, prepared: Prepared, setting: Setting, shape: Shape, flip: bool, scalars, operands):
        self.prepared, self.setting, self.shape, self.flip = prepared, setting, shape, flip
        self.scalars, self.operands = scalars, operands

    def positions(self, tile: Tile):
        """The queries' and the keys' numbers, each along its axis of the tile."""
        rows, columns = (1, self.shape.q_block), (self.shape.kv_block, 1)
        if not self.flip:
            rows, columns = rows[::-1], columns[::-1]
        i = tile.q * self.shape.q_block + jax.lax.broadcasted_iota(jnp.int32, rows, 1 if self.flip else 0)
        j = tile.k * self.shape.kv_block + jax.lax.broadcasted_iota(jnp.int32, columns, 0 if self.flip else 1)
        return i, j

    def view(self, slot: Slot, tile: Tile) -> Any:
        """What a slot holds for this tile."""
        example = tile.b if slot.many else 0
        if slot.kind == "int":
            return slot.at
        if slot.kind == "scalar":
            return self.scalars[slot.at][example]
        if slot.kind == "numbers":
            return self.operands[slot.at][example, tile.h]
        if slot.kind == "pattern":
            return self.operands[slot.at], tile
        x = self.operands[slot.at][0, 0]
        x = x.astype(jnp.int32) if x.dtype == jnp.int8 else x
        return x.T if slot.kind == "turned" else x

    def distance(self, tile: Tile):
        """ALiBi's distance of each query from each key."""
        assert self.prepared.offset is not None
        i, j = self.positions(tile)
        return jnp.abs(i + self.view(self.prepared.offset, tile) - j).astype(jnp.float32)

    def logits(self, s, tile: Tile, masked: bool):
        """Soft cap, bias and mask of a product: (logits, capped product, allowed or None)."""
        if self.setting.soft_cap is not None:
            s = self.setting.soft_cap * jnp.tanh(s / self.setting.soft_cap)
        capped = s
        if self.prepared.slopes is not None:
            s = s - self.view(self.prepared.slopes, tile) * self.distance(tile)
        elif self.prepared.bias is not None:
            s = s + self.view(self.prepared.bias, tile)
        if not masked:
            return s, capped, None
        i, j = self.positions(tile)
        allowed = j < self.shape.kv_seq
        if self.prepared.mask is not None:
            allowed = allowed & self.prepared.mask.allowed(
                i, j, *(self.view(slot, tile) for slot in self.prepared.views)
            )
        allowed = jnp.broadcast_to(allowed, s.shape)
        return jnp.where(allowed, s, LOW), capped, allowed

    def kept(self, tile: Tile):
        """Where dropout keeps a weight, or None."""
        if self.prepared.seeds is None:
            return None
        i, j = self.positions(tile)
        seeds = self.scalars[self.prepared.seeds.at]
        at = 2 * ((tile.b if self.prepared.seeds.many else 0) * self.shape.heads + tile.h)
        return _dropout.keep(seeds[at], seeds[at + 1], i, j, self.setting.dropout_rate)
