"""Score modification of a tile: soft cap, bias, mask and dropout, as operands of a kernel and inside it."""

import dataclasses
import math
from typing import Any

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp

from ... import _dropout
from ..._blocks import pad
from ..problem import ALiBi, Extras, Setting, Shape, unsqueeze
from . import pattern
from .products import column, load, row
from .tiling import SIDE, Tile

LOG2E = math.log2(math.e)
LAYOUT = plgpu.Layout.WGMMA


@dataclasses.dataclass(frozen=True)
class Slot:
    """The index `at` of an array over (b, h, q, k) among a kernel's operands, and `has`: the axes with a size above 1.

    An "int" is `at` itself.
    """

    kind: str
    at: int
    has: tuple[bool, bool, bool, bool] = (False, False, False, False)


class ScoreOperands:
    """The operands that the extras add to a kernel, and the slots in which `Scores` finds them.

    With `flip` the kernel's tiles are (keys, queries), else (queries, keys).
    """

    def __init__(self, extras: Extras, flip: bool):
        self._flip = flip
        self.operands: list[Any] = []
        self.mask = pattern.in_kernel(extras.mask)
        self.views = (
            [self._view(x, axes) for x, axes in zip(self.mask.arrays(), self.mask.axes)]
            if self.mask is not None
            else []
        )
        self.bias: Any = None
        self.slopes: Any = None
        self.offset: Any = None
        self.seeds: Any = None
        if isinstance(extras.bias, ALiBi):
            self.offset, self.slopes = (
                self._view(extras.bias.offset, "b"),
                self._view(extras.bias.slopes.astype(jnp.float32), "bh"),
            )
        elif extras.bias is not None:
            self.bias = self._view(extras.bias, "bhqk")
        if extras.seeds is not None:
            self.seeds = [self._view(extras.seeds[..., n], "bh") for n in range(2)]

    @property
    def heavy(self) -> bool:
        """True if a tile needs many registers beside its products, for a bias or the rows of a pattern."""
        return self.bias is not None or pattern.holds_pattern(self.mask)

    def _view(self, x, axes: str) -> Slot:
        if isinstance(x, int):
            return Slot("int", x)
        if axes == "pattern":
            self.operands.append(x)
            return Slot("pattern", len(self.operands) - 1)
        x = unsqueeze(x, axes)
        if x.dtype == bool:
            x = x.astype(jnp.int8)
        has = tuple(size > 1 for size in x.shape)
        # A tile beyond the last query or key reads this padding; its pairs are masked.
        x = pad(x, 2, SIDE) if has[2] else x
        x = pad(x, 3, SIDE) if has[3] else x
        if has[2] and has[3] and self._flip:
            x = jnp.swapaxes(x, 2, 3)
        self.operands.append(x)
        return Slot("array", len(self.operands) - 1, has)


class Scores:
    """Score modification of a kernel's tiles; `flip` as in `ScoreOperands`."""

    def __init__(self, prepared: ScoreOperands, setting: Setting, shape: Shape, flip: bool, operands):
        self.prepared, self.setting, self.shape, self.flip, self.operands = prepared, setting, shape, flip, operands

    def positions(self, tile: Tile, size):
        """The positions of the queries and of the keys, over a tile of this size."""
        i, j = (
            plgpu.broadcasted_iota(jnp.int32, size, axis, layout=LAYOUT) for axis in ((1, 0) if self.flip else (0, 1))
        )
        return i + tile.i, j + tile.j

    def view(self, slot: Slot, tile: Tile, size) -> Any:
        """The content of a slot for a tile: a number, or an array of the tile's size."""
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
        """A vector in memory, one number per query or per key, broadcast over the tile."""
        down = queries != self.flip
        return (column if down else row)(load(ref, LAYOUT.reduce(1 if down else 0)), size)

    def distance(self, tile: Tile, size):
        """ALiBi's distance of each query from each key."""
        i, j = self.positions(tile, size)
        return jnp.abs(i + self.view(self.prepared.offset, tile, size) - j).astype(jnp.float32)

    def cap(self, s):
        """tanh of the soft cap of a product, or None without a cap."""
        if self.setting.soft_cap is None:
            return None
        # The hardware's tanh has an error of 5e-4, which the cap would multiply.
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
        """The pairs of the tile that exist and that the mask allows."""
        i, j = self.positions(tile, size)
        allowed = j < self.shape.kv_seq
        if self.shape.q_seq % SIDE:
            allowed = allowed & (i < self.shape.q_seq)  # padding may equal an id
        if self.prepared.mask is not None:
            allowed = allowed & self.prepared.mask.allowed(
                i, j, *(self.view(slot, tile, size) for slot in self.prepared.views)
            )
        return allowed

    def where_allowed(self, x, other: float, tile: Tile, flag):
        """`x`, and `other` for masked pairs. The mask is evaluated if `flag` is 1, in partial tiles."""
        return jax.lax.cond(flag == 1, lambda x: jnp.where(self.allowed(tile, x.shape), x, other), lambda x: x, x)

    def kept(self, tile: Tile, size):
        """The weights that dropout keeps, or None."""
        if self.prepared.seeds is None:
            return None
        i, j = self.positions(tile, size)
        first, second = (self.view(slot, tile, size) for slot in self.prepared.seeds)
        return _dropout.keep(first, second, i, j, self.setting.dropout_rate)


def finite(x, extras: Extras):
    """`x` with 0 for what is not finite, if there is a mask. In the backward pass the logsumexp alone is NaN for the
    queries that see such a number.
    """
    return x if extras.mask is None else jnp.where(jnp.isfinite(x), x, 0)


def weights(scores: Scores, tile: Tile, flag, s, lse):
    """(p without dropout, tanh of the soft cap) from the product q k^T; `lse`, in powers of two, is broadcast over the
    tile.
    """
    share = scores.cap(s)
    x, factor = scores.logits(s, share, tile)
    # At most 1 in exact arithmetic; rounding of huge logits must not overflow.
    p = jnp.exp2(jnp.minimum(x * factor - lse, 0.0))
    return scores.where_allowed(p, 0.0, tile, flag), share


def score_gradients(scores: Scores, tile: Tile, p, share, dp, delta):
    """(p with dropout, ds of the bias, ds of the capped product) from `weights` and the product dout v^T; `delta` is
    broadcast over the tile.
    """
    dropped, kept = p, scores.kept(tile, p.shape)
    if kept is not None:
        inverse = 1.0 / (1.0 - scores.setting.dropout_rate)
        dropped, dp = jnp.where(kept, p * inverse, 0.0), jnp.where(kept, dp * inverse, 0.0)
    ds = p * (dp - delta)
    return dropped, ds, ds if share is None else ds * (1.0 - share * share)
