"""Score modification of a tile: soft cap, bias, mask and dropout, as operands of a kernel and inside it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import tpu as pltpu

from ... import _dropout
from ..._blocks import pad
from ..problem import ALiBi, Blocked, Extras, Setting, unsqueeze
from . import pattern
from .tiling import Operand, Tile

LOW = -0.7 * float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Slot:
    """The index `at` of an array among a kernel's operands, and its `kind`; `many`: it has a row for each example.

    An "int" is `at` itself. A "scalar" is one of the prefetched numbers, the others are among the operands: a "tile" is
    stored as the kernel's tile is, a "transposed" one is not, "numbers" are a table over examples and heads, "pattern"
    the words of a `pattern.Bits`.
    """

    kind: str
    at: int
    many: bool = False


class ScoreOperands:
    """The operands that the extras add to a kernel, and the slots in which `Scores` finds them.

    With `flip` the kernel's tiles are (keys, queries), else (queries, keys).
    """

    def __init__(self, extras: Extras, shape: Blocked, flip: bool):
        self._shape, self._flip = shape, flip
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
            self.bias = self._tile(extras.bias.astype(jnp.float32), "bhqk")
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

    def _operand(self, operand: Operand, kind: str, many: bool) -> Slot:
        self.operands.append(operand)
        return Slot(kind, len(self.operands) - 1, many)

    def _tile(self, x, axes: str) -> Slot:
        """An array over some of the axes, any of which may be 1. With `flip` a vector is swapped here, a matrix in the
        kernel.
        """
        x = unsqueeze(x, axes)
        has_q, has_k = "q" in axes and x.shape[2] > 1, "k" in axes and x.shape[3] > 1
        x = pad(x, 2, self._shape.q_block) if has_q else x
        x = pad(x, 3, self._shape.kv_block) if has_k else x
        if not (has_q and has_k) and x.dtype == jnp.int8:
            x = x.astype(jnp.int32)
        many, heads = x.shape[0] > 1, x.shape[1] > 1
        block = (1, 1, self._shape.q_block if has_q else 1, self._shape.kv_block if has_k else 1)
        place = lambda t: (t.b if many else 0, t.h if heads else 0, t.q if has_q else 0, t.k if has_k else 0)
        if not self._flip:
            return self._operand(Operand(x, block, place), "tile", many)
        if has_q and has_k:
            return self._operand(Operand(x, block, place), "transposed", many)
        swapped = lambda t: tuple(place(t)[axis] for axis in (0, 1, 3, 2))
        return self._operand(Operand(x.swapaxes(2, 3), (1, 1, block[3], block[2]), swapped), "tile", many)


class Scores:
    """Score modification of a kernel's tiles; `flip` as in `ScoreOperands`."""

    def __init__(self, prepared: ScoreOperands, setting: Setting, shape: Blocked, flip: bool, scalars, operands):
        self.prepared, self.setting, self.shape, self.flip = prepared, setting, shape, flip
        self.scalars, self.operands = scalars, operands

    def positions(self, tile: Tile):
        """The positions of the queries and of the keys, each along its axis of the tile."""
        rows, columns = (1, self.shape.q_block), (self.shape.kv_block, 1)
        if not self.flip:
            rows, columns = rows[::-1], columns[::-1]
        i = tile.q * self.shape.q_block + jax.lax.broadcasted_iota(jnp.int32, rows, 1 if self.flip else 0)
        j = tile.k * self.shape.kv_block + jax.lax.broadcasted_iota(jnp.int32, columns, 0 if self.flip else 1)
        return i, j

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
        x = self.operands[slot.at][0, 0]
        x = x.astype(jnp.int32) if x.dtype == jnp.int8 else x
        return x.T if slot.kind == "transposed" else x

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
        if self.shape.q_seq % self.shape.q_block:
            allowed = allowed & (i < self.shape.q_seq)  # padding may equal an id
        if self.prepared.mask is not None:
            arrays = (self.view(slot, tile) for slot in self.prepared.views)
            allowed = allowed & self.prepared.mask.allowed(i, j, *arrays)
        allowed = jnp.broadcast_to(allowed, s.shape)
        return jnp.where(allowed, s, LOW), capped, allowed

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


def nan_to_zero(x, masked: bool):
    """`x` with 0 for NaN: the logits of such a row are NaN for the queries that see it, and its weight is 0 for all
    others.
    """
    if not masked:
        return x
    y = x.astype(jnp.float32)
    return jnp.where(y == y, y, 0.0).astype(x.dtype)


def score_gradients(scores: Scores, tile: Tile, masked: bool, q, k, v, dout, lse, delta):
    """A tile of the backward pass, (keys, queries): (p with dropout, ds of the capped product, ds of the bias)."""
    setting = scores.setting
    s, capped, allowed = scores.logits(dot(k, q, (1, 1)) * setting.scale, tile, masked)
    # At most 1 in exact arithmetic; rounding of huge logits must not overflow.
    p = jnp.exp(jnp.minimum(s - lse, 0.0))
    if allowed is not None:
        p = jnp.where(allowed, p, 0.0)
    dp = dot(v, dout, (1, 1))
    dropped = p
    kept = scores.kept(tile)
    if kept is not None:
        inverse = 1.0 / (1.0 - setting.dropout_rate)
        dropped, dp = jnp.where(kept, p * inverse, 0.0), jnp.where(kept, dp * inverse, 0.0)
    ds = p * (dp - delta)
    if allowed is not None:
        ds = jnp.where(allowed, ds, 0.0)
    inner = ds
    if setting.soft_cap is not None:
        inner = ds * (1.0 - jnp.square(capped / setting.soft_cap))
        inner = jnp.where(allowed, inner, 0.0) if allowed is not None else inner
    return dropped, inner, ds
