"""A call of attention in the form that every backend receives."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from ..masks import BlockSparse, Dense
from ..masks.base import parts


@functools.partial(jax.tree_util.register_dataclass, data_fields=("slopes", "offset"), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class ALiBi:
    """Attention with linear biases: `-slopes[head] * |i + offset - j|` is added to the logit of query i and key j.

    `slopes` is `(heads,)`; `offset`, a scalar, is the position of the first query among the keys, for decoding against
    a cache. Gradients flow to `slopes`.

    Source: Press et al. 2022, "Train Short, Test Long". Under a causal mask this is the paper's bias; without one it is
        symmetric.
    """

    slopes: Any
    offset: Any = 0

    @classmethod
    def geometric(cls, heads: int) -> "ALiBi":
        """The paper's slopes for a power of two of heads: 2^(-8/heads), its square, its cube, ..."""
        if heads < 1:
            raise ValueError(f"ALiBi: heads must be positive: got {heads}")
        return cls(2.0 ** (-8.0 * jnp.arange(1, heads + 1, dtype=jnp.float32) / heads))


@dataclasses.dataclass(frozen=True)
class Setting:
    """The static numbers of a call."""

    scale: float
    soft_cap: float | None = None
    dropout_rate: float = 0.0


@dataclasses.dataclass(frozen=True)
class Extras:
    """The arrays of a call beside query, key and value. `b` below is the batch or 1.

    Attributes:
        bias: (b, h, q, k), each axis full or 1, or an `ALiBi` with slopes (b, h) and offset (b,), or None.
        mask: a `Mask` bound to the call, so that its arrays have the axes its class names, or None.
        seeds: of dropout, (b, heads, 2) int32, or None.
    """

    bias: Any = None
    mask: Any = None
    seeds: Any = None

    @property
    def plain(self) -> bool:
        """True if neither bias nor mask holds a number for each pair or block of pairs."""
        return not self._paired_mask and (self.bias is None or isinstance(self.bias, ALiBi))

    @property
    def narrow(self) -> bool:
        """True if the only numbers for each pair, if any, are a bias of bfloat16."""
        return self.plain or (not self._paired_mask and self.bias.dtype == jnp.bfloat16)

    @property
    def _paired_mask(self) -> bool:
        return any(isinstance(x, (BlockSparse, Dense)) for x in parts(self.mask))


jax.tree_util.register_dataclass(Extras, data_fields=("bias", "mask", "seeds"), meta_fields=())


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a call; a backend may pad the head_dims."""

    batch: int
    heads: int
    kv_heads: int
    q_seq: int
    kv_seq: int
    dim: int
    v_dim: int

    @property
    def repeat(self) -> int:
        """Query heads of a key head."""
        return self.heads // self.kv_heads


def shape_of(q, k, v) -> Shape:
    """The sizes of (batch, q_seq, heads, dim), (batch, kv_seq, kv_heads, dim) and (batch, kv_seq, kv_heads, v_dim)."""
    batch, q_seq, heads, dim = q.shape
    return Shape(batch, heads, k.shape[2], q_seq, k.shape[1], dim, v.shape[3])


@dataclasses.dataclass(frozen=True)
class Blocked(Shape):
    """Sizes of a pass that divides the queries and the keys into blocks."""

    q_block: int
    kv_block: int

    @property
    def q_blocks(self) -> int:
        return -(-self.q_seq // self.q_block)

    @property
    def kv_blocks(self) -> int:
        return -(-self.kv_seq // self.kv_block)


def blocked(shape: Shape, q_block: int, kv_block: int) -> Blocked:
    """These sizes with blocks of so many queries and keys."""
    return Blocked(**vars(shape), q_block=q_block, kv_block=kv_block)


def accumulator(dtype) -> Any:
    """The dtype of statistics and sums: float32, or float64 for float64."""
    return jax.numpy.promote_types(dtype, jax.numpy.float32)


def unsqueeze(x, axes: str, order: str = "bhqk") -> Any:
    """An array with `axes` (some of `order`) as one that broadcasts against all of `order`; a static integer as it
    is.
    """
    if isinstance(x, int):
        return x
    return x.reshape(tuple(x.shape[axes.index(a)] if a in axes else 1 for a in order))


def row_sums(dout, out):
    """delta of the backward pass, rowsum(dout out), as (batch, heads, q_seq)."""
    dtype = accumulator(out.dtype)
    return jnp.swapaxes(jnp.sum(dout.astype(dtype) * out.astype(dtype), -1), 1, 2)


def quarantine(q, k, v, extras: Extras):
    """Query and key rows with NaN for a number that is not finite, in k or v, and finite v, if there is a mask.

    One NaN makes NaN of all logits of a row, so every query that sees such a key becomes NaN, and no other. Without a
    mask every query sees every key.
    """
    if extras.mask is None:
        return q, k, v
    nan_only = lambda x: jnp.where(jnp.isfinite(x), x, jnp.nan)
    good_v = jnp.isfinite(v)
    return nan_only(q), jnp.where(jnp.isfinite(k) & good_v.all(-1, keepdims=True), k, jnp.nan), jnp.where(good_v, v, 0)
