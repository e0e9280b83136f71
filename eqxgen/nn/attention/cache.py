"""Keys and values kept between the steps of decoding."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray

from eqxgen.nn import _check


class KVCache(eqx.Module):
    """The keys and values of the tokens seen so far, in arrays of constant shapes: one compiled step serves every
    position.

    An ordinary cache holds `length` tokens, token p in row p. A ring holds the last `length` tokens, token p in row p %
    length, and never runs out of room: it is the cache of a sliding window. Keys are stored after rotation.

    Args:
        length: rows.
        kv_heads, head_dim: of the keys, and of the values.
        v_head_dim: of the values, where it differs. 0 stores none: the values are part of the keys, as in
            `LatentAttention`.
        dtype: of both arrays.
        ring: the newest tokens overwrite the oldest.
        key: not used; every layer takes one.
    """

    k: Float[Array, "length kv_heads head_dim"]
    v: Float[Array, "length kv_heads v_head_dim"]
    count: Int[Array, ""]  # tokens seen so far; more than `length` after an overflow
    ring: bool = eqx.field(static=True)

    def __init__(
        self,
        length: int,
        kv_heads: int,
        head_dim: int,
        *,
        v_head_dim: int | None = None,
        dtype: DTypeLike = jnp.float32,
        ring: bool = False,
        key: PRNGKeyArray | None = None,
    ):
        v_head_dim = head_dim if v_head_dim is None else v_head_dim
        _check.positive(
            length=length, kv_heads=kv_heads, head_dim=head_dim, **({"v_head_dim": v_head_dim} if v_head_dim else {})
        )
        self.k = jnp.zeros((length, kv_heads, head_dim), dtype)
        self.v = jnp.zeros((length, kv_heads, v_head_dim), dtype)
        self.count = jnp.zeros((), jnp.int32)
        self.ring = ring

    @property
    def length(self) -> int:
        return self.k.shape[0]

    def positions(self) -> Int[Array, " length"]:
        """The position of the token in each row, -1 in rows not yet written."""
        row, last = jnp.arange(self.length, dtype=jnp.int32), self.count - 1
        newest = last - (last - row) % self.length if self.ring else jnp.where(row <= last, row, -1)
        return jnp.maximum(newest, -1)

    def append(
        self,
        k: Float[Array, "new kv_heads head_dim"],
        v: Float[Array, "new kv_heads v_head_dim"],
        count: int | Int[Array, ""] | None = None,
    ) -> "KVCache":
        """The cache with the new rows after the old ones.

        Args:
            k, v: rows of the next tokens, cast to the cache's dtype.
            count: number of real tokens; the padding after them is not written. By default all.

        Raises:
            ValueError: shapes differ from the cache's; `count` is not in [0, new]; or there is no room. Inside a
                compiled program the last two are not known: rows that do not fit are dropped, and `cached.attend`
                gives NaN.
        """
        for name, rows, kept in (("k", k, self.k), ("v", v, self.v)):
            if rows.ndim != 3 or rows.shape[1:] != kept.shape[1:] or rows.shape[0] != k.shape[0]:
                raise ValueError(
                    f"{name} must have the cache's shape {('new', *kept.shape[1:])}: got {rows.shape}, with "
                    f"{k.shape[0]} rows in k"
                )
        new = k.shape[0]
        real = jnp.asarray(new if count is None else count, jnp.int32)
        after = eqx.tree_at(lambda cache: cache.count, self, self.count + real)
        _check_room(self, real, new)
        if new == 1:
            row = self.count % self.length if self.ring else self.count
            write = lambda kept, rows: _write_row(kept, rows, row, real > 0)
        else:
            source = after.positions() - self.count
            write = lambda kept, rows: _write_rows(kept, rows, source)
        return eqx.tree_at(lambda cache: (cache.k, cache.v), after, (write(self.k, k), write(self.v, v)))


def _write_row(kept: Array, rows: Array, row: Array, real: Array) -> Array:
    inside = real & (row < kept.shape[0])
    old = jax.lax.dynamic_slice_in_dim(kept, row, 1)
    return jax.lax.dynamic_update_slice_in_dim(kept, jnp.where(inside, rows.astype(kept.dtype), old), row, 0)


def _write_rows(kept: Array, rows: Array, source: Array) -> Array:
    """Row i of the result is `rows[source[i]]`, or the old one where the source is negative."""
    fresh = rows.at[jnp.maximum(source, 0)].get(mode="clip").astype(kept.dtype)
    return jnp.where((source >= 0)[:, None, None], fresh, kept)


def _check_room(cache: KVCache, real: Array, new: int) -> None:
    if isinstance(real, Tracer):
        return
    if not 0 <= int(real) <= new:
        raise ValueError(f"count must be in [0, {new}], the number of new rows: got {int(real)}")
    if cache.ring or isinstance(cache.count, Tracer):
        return
    if int(cache.count) + int(real) > cache.length:
        raise ValueError(
            f"the cache must have room for {int(real)} more tokens: it holds {int(cache.count)} of at most "
            f"length={cache.length}; "
            "make a longer one, or a ring with a window"
        )
