"""Score modification of a tile: soft cap, bias, mask and dropout, as operands of a kernel and inside it."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ... import _dropout
from ..._blocks import div, pad
from ..problem import ALiBi, Extras, Setting, unsqueeze
from . import pattern
from .tiling import Operand, Tile, Tiled

# Moved to `pltpu` in jax 0.12.
RECIPROCAL: Any = getattr(pltpu, "reciprocal", None) or pl.reciprocal
LOG2E = math.log2(math.e)
LOW = -0.7 * float(np.finfo(np.float32).max)  # the least maximum of a row: a masked logit then has the weight 0


@dataclasses.dataclass(frozen=True)
class Slot:
    """The index `at` of an array among a kernel's operands, and its `kind`; `many`: it has a row for each example.

    An "int" is `at` itself. A "scalar" is one of the prefetched numbers, the others are among the operands: a "tile" is
    stored as the kernel's tile is, a "transposed" one is not, "numbers" are a table over examples and heads, "pattern"
    the words of a `pattern.Bits`. `queries` and `keys`: the axes over which a tile extends; `heads`: it has numbers of
    its own for each head.
    """

    kind: str
    at: int
    many: bool = False
    queries: bool = False
    keys: bool = False
    heads: bool = False


class ScoreOperands:
    """The operands that the extras add to a kernel, and the slots in which `Scores` finds them.

    With `flip` the kernel's tiles are (keys, queries), else (queries, keys). A step of the grid has `heads` heads.
    """

    def __init__(self, extras: Extras, shape: Tiled, flip: bool, heads: int = 1):
        self._shape, self._flip, self._heads = shape, flip, heads
        self.scalars: list[Any] = []
        self.operands: list[Operand] = []
        self.mask = pattern.in_kernel(extras.mask, shape)
        self.views = (
            [self._view(x, axes) for x, axes in zip(self.mask.arrays(), self.mask.axes)]
            if self.mask is not None
            else []
        )
        self.bias = self.slopes = self.offset = self.seeds = None
        if isinstance(extras.bias, ALiBi):
            self.offset = self._scalar(extras.bias.offset)
            self.slopes = self._numbers(extras.bias.slopes.astype(jnp.float32))
        elif extras.bias is not None:
            self.bias = self._tile(extras.bias, "bhqk")
        if extras.seeds is not None:
            self.seeds = dataclasses.replace(self._scalar(extras.seeds.reshape(-1)), many=extras.seeds.shape[0] > 1)

    def _view(self, x, axes: str) -> Slot:
        if isinstance(x, int):
            return Slot("int", x)
        if axes == "pattern":
            block = (1, *x.shape[1:])
            return self._operand(Operand(jnp.asarray(x), block, lambda t: (t.q, 0, 0), pltpu.SMEM), axes, False)
        if axes == "b":
            return self._scalar(x)
        return self._tile(x.astype(jnp.int8) if x.dtype == bool else x, axes)

    def _scalar(self, x) -> Slot:
        self.scalars.append(x)
        return Slot("scalar", len(self.scalars) - 1, x.shape[0] > 1)

    def _numbers(self, x) -> Slot:
        return self._operand(Operand(x, memory=pltpu.SMEM), "numbers", x.shape[0] > 1)

    def _operand(self, operand: Operand, kind: str, *slot: bool) -> Slot:
        self.operands.append(operand)
        return Slot(kind, len(self.operands) - 1, *slot)

    def _tile(self, x, axes: str) -> Slot:
        """An array over some of the axes, any of which may be 1. With `flip` a vector is swapped here, a matrix in the
        kernel.
        """
        x = unsqueeze(x, axes)
        has_q, has_k = "q" in axes and x.shape[2] > 1, "k" in axes and x.shape[3] > 1
        x = pad(x, 2, self._shape.q_block) if has_q else x
        x = pad(x, 3, self._shape.kv_block) if has_k else x
        if not (has_q and has_k and x.dtype in (jnp.int8, jnp.bfloat16)):
            # A vector has no whole tile of a narrow dtype.
            x = x.astype(jnp.float32 if jnp.issubdtype(x.dtype, jnp.floating) else jnp.int32)
        many, heads = x.shape[0] > 1, x.shape[1] > 1
        sides = self._shape.q_block if has_q else 1, self._shape.kv_block if has_k else 1
        block = (1, self._heads if heads else 1, *sides)
        head = lambda t: div(t.h, self._heads) if heads else 0
        place = lambda t: (t.b if many else 0, head(t), t.q if has_q else 0, t.k if has_k else 0)
        own = many, has_q, has_k, heads
        if not self._flip:
            return self._operand(Operand(x, block, place), "tile", *own)
        if has_q and has_k:
            return self._operand(Operand(x, block, place), "transposed", *own)
        swapped = lambda t: tuple(place(t)[axis] for axis in (0, 1, 3, 2))
        return self._operand(Operand(x.swapaxes(2, 3), (*block[:2], block[3], block[2]), swapped), "tile", *own)


class Scores:
    """Score modification of a kernel's tiles; `flip` as in `ScoreOperands`."""

    def __init__(self, prepared: ScoreOperands, setting: Setting, shape: Tiled, flip: bool, scalars, operands):
        self.prepared, self.setting, self.shape, self.flip = prepared, setting, shape, flip
        self.scalars, self.operands = scalars, operands

    def positions(self, tile: Tile):
        """The positions of the queries and of the keys, each along its axis of the tile."""
        shape, (first, count) = self.shape, (0, self.shape.q_block)
        if tile.rows is not None:
            first, count = tile.rows.start, tile.rows.size
        sides = (count, 1), (1, shape.part)
        i, j = (
            jax.lax.broadcasted_iota(jnp.int32, side[::-1] if self.flip else side, axis ^ self.flip)
            for axis, side in enumerate(sides)
        )
        return i + (tile.q * shape.q_block + first), j + (tile.k * shape.parts + tile.part) * shape.part

    def view(self, slot: Slot, tile: Tile) -> Any:
        """The content of a slot for a tile."""
        example = tile.b if slot.many else 0
        if slot.kind == "int":
            return slot.at
        if slot.kind == "scalar":
            return self.scalars[slot.at][example]
        if slot.kind == "numbers":
            return self.operands[slot.at][example, tile.h]
        if slot.kind == "pattern":
            return self.operands[slot.at], tile
        rows = tile.rows if slot.queries and tile.rows is not None else slice(None)
        keys = self.shape.keys(tile.part) if slot.keys else slice(None)
        head = tile.turn if slot.heads else 0
        x = self.operands[slot.at][(0, head, *((keys, rows) if self.flip and slot.kind == "tile" else (rows, keys)))]
        x = x.astype({"int8": jnp.int32, "bfloat16": jnp.float32}.get(x.dtype.name, x.dtype))
        return x.T if slot.kind == "transposed" else x

    def distance(self, tile: Tile):
        """ALiBi's distance of each query from each key."""
        assert self.prepared.offset is not None
        i, j = self.positions(tile)
        return jnp.abs((i + self.view(self.prepared.offset, tile)).astype(jnp.float32) - j.astype(jnp.float32))

    def logits(self, product, tile: Tile):
        """Soft cap and bias of `q k^T`: (logits in powers of two, the cap's tanh or None)."""
        cap, scale, bent = self.setting.soft_cap, self.setting.scale, None
        if cap is not None:
            bent = jnp.tanh(product * (scale / cap))
            product, scale = bent, cap
        s = product * (scale * LOG2E)
        if self.prepared.slopes is not None:
            s = s - (self.view(self.prepared.slopes, tile) * LOG2E) * self.distance(tile)
        elif self.prepared.bias is not None:
            s = s + self.view(self.prepared.bias, tile) * LOG2E
        return s, bent

    def allowed(self, tile: Tile, shape: tuple[int, ...]):
        """The pairs of a tile that the mask allows, without padding."""
        i, j = self.positions(tile)
        allowed = j < self.shape.kv_seq if self.shape.kv_seq % self.shape.part else True
        if self.shape.q_seq % self.shape.q_block:
            allowed = allowed & (i < self.shape.q_seq)  # padding may equal an id
        if self.prepared.mask is not None:
            arrays = (self.view(slot, tile) for slot in self.prepared.views)
            allowed = allowed & self.prepared.mask.allowed(i, j, *arrays)
        return jnp.broadcast_to(allowed, shape)

    def masked(self, s, marked, tile: Tile):
        """Logits with minus infinity for the pairs that are masked; `marked` as from `marks`, or None."""
        s = s if marked is None else s + marked
        return jnp.where(self.allowed(tile, s.shape), s, -jnp.inf)

    def dropped(self, p, tile: Tile):
        """Weights after dropout."""
        kept = self.kept(tile)
        return p if kept is None else jnp.where(kept, p * (1.0 / (1.0 - self.setting.dropout_rate)), 0.0)

    def kept(self, tile: Tile):
        """The weights that dropout keeps, or None."""
        if self.prepared.seeds is None:
            return None
        i, j = self.positions(tile)
        seeds = self.scalars[self.prepared.seeds.at]
        at = 2 * ((tile.b if self.prepared.seeds.many else 0) * self.shape.heads + tile.h)
        return _dropout.keep(seeds[at], seeds[at + 1], i, j, self.setting.dropout_rate)


def dot(a, b, contract: tuple[int, int]):
    """The product of two tiles over one axis of each, summed in float32."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jax.lax.dot_general(
        a, b, (((contract[0],), (contract[1],)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )


def finite(x):
    """`x` with 0 for numbers that are not finite: their pairs are either masked, or NaN by way of the logits."""
    return jnp.where(jnp.abs(x.astype(jnp.float32)) < jnp.inf, x, jnp.zeros_like(x))


def flag(x):
    """`x` with NaN for numbers that are not finite."""
    wide = x.astype(jnp.float32)
    return (wide + wide * 0.0).astype(x.dtype)


def marks(*blocks):
    """(1, keys): NaN for the keys of which some block, (keys, dim), has a number that is not finite, else 0.

    By the matrix units, since a sum along lanes fills the slots that the softmax needs. A factor so small that no
    finite number overflows is no zero that the compiler would fold.
    """
    small = lambda x: jnp.full((8, x.shape[1]), 2.0**-100, x.dtype)
    return sum(dot(small(x), x, (1, 1))[0:1] for x in blocks) * 0.0


def inverse(x, dtype):
    """`1 / x` of positive normal numbers, for results of this dtype."""
    if dtype == jnp.float32:
        return 1.0 / x
    near = RECIPROCAL(x, approx=True)
    return near * (2.0 - x * near)


def score_gradients(scores: Scores, tile: Tile, masked: bool, product, dp, lse, delta):
    """A tile of the backward pass, (keys, queries): (p with dropout, ds of the capped product, ds of the bias).

    Args:
        product: `k q^T`.
        dp: `v dout^T`.
        lse: in powers of two.
    """
    s, bent = scores.logits(product, tile)
    allowed = scores.allowed(tile, s.shape) if masked else None
    only = lambda x: x if allowed is None else jnp.where(allowed, x, 0.0)
    # At most 1 in exact arithmetic; rounding of huge logits must not overflow.
    p = only(jnp.exp2(jnp.minimum(s - (lse + delta * 0.0 if masked else lse), 0.0)))
    dropped = p
    kept = scores.kept(tile)
    if kept is not None:
        inverse = 1.0 / (1.0 - scores.setting.dropout_rate)
        dropped, dp = jnp.where(kept, p * inverse, 0.0), jnp.where(kept, dp * inverse, 0.0)
    ds = only(p * (dp - delta))
    inner = ds if bent is None else only(ds * (1.0 - jnp.square(bent)))
    return dropped, inner, ds
