"""Flash attention in plain XLA for any platform, with memory linear in the sequence lengths; on the CPU it is the product.

    s = cap(scale q k^T) + bias;  p = exp(s - lse);  out = p v
    dv = p^T dout;  ds = p (dout v^T - delta), delta = rowsum(dout out) - dlse;  dbias = ds;  dq = scale ds k;  dk = scale ds^T q

One key head at a time, with the query heads that read it stacked into rows, so that a tile stays in the cache. A row of blocks visits
first the blocks that the mask fills, without evaluating it, then those it cuts; empty ones are never visited. The backward pass makes
five products: it walks the queries of one block of keys and adds to the gradient of the queries in place.

Source: Rabe and Staats 2021 for chunks in plain JAX; Dao 2023 (FlashAttention-2) for the backward pass.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _dropout
from . import blocks
from .bias import ALiBi
from .problem import Extras, Setting, accumulator, unsqueeze

# The sides of a tile, (rows, keys), under a mask and without one. A small tile wastes less along a mask's edge; a large one keeps two cores
# busy in one product.
FORWARD_TILE, FORWARD_TILE_OPEN = (256, 256), (1024, 1024)
BACKWARD_TILE, BACKWARD_TILE_OPEN = (256, 256), (512, 512)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Sizes of one pass. `q_block` counts queries of one head; a tile has `repeat` times as many rows."""

    batch: int
    kv_heads: int
    repeat: int
    q_seq: int
    kv_seq: int
    q_block: int
    kv_block: int


def _plan(q, k, tile: tuple[int, int]) -> _Plan:
    repeat = q.shape[1] // k.shape[1]

    def block(seq: int, most: int) -> int:
        count = -(-seq // most)
        size = -(-seq // count)
        return size if count == 1 else -(-size // 16) * 16

    return _Plan(
        q.shape[0], k.shape[1], repeat, q.shape[2], k.shape[2], block(q.shape[2], max(16, tile[0] // repeat)), block(k.shape[2], tile[1])
    )


def _pad(x, axis: int, block: int):
    missing = -x.shape[axis] % block
    if not missing:
        return x
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, missing)
    return jnp.pad(x, pad)


def _varying(x, like):
    """`x` varying over the manual axes of `like`, as the carry of a loop must."""
    axes = jax.typeof(like).manual_axis_type.varying - jax.typeof(x).manual_axis_type.varying
    return jax.lax.pcast(x, tuple(axes), to="varying")


def _dot(a, b, contract: tuple[int, int]):
    dtype = accumulator(a.dtype)
    precision = "highest" if a.dtype == dtype else "default"
    return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=dtype, precision=precision)


class _Tiles:
    """The bias, mask and dropout of a problem, cut to a tile with axes (heads of the group, queries, keys)."""

    def __init__(self, extras: Extras, setting: Setting, plan: _Plan):
        self.extras, self.setting, self.plan = extras, setting, plan
        sizes = {"q": (plan.q_seq, plan.q_block), "k": (plan.kv_seq, plan.kv_block)}

        def prepare(x, axes):
            if isinstance(x, int):
                return x
            x = unsqueeze(x, axes)
            for axis, name in ((2, "q"), (3, "k")):
                if name in axes and x.shape[axis] > 1:
                    x = _pad(x, axis, sizes[name][1])
            return x

        mask, bias = extras.mask, extras.bias
        self.masks = [prepare(x, axes) for axes, x in zip(mask.axes, mask.arrays())] if mask is not None else []
        self.bias: Any = prepare(bias, "bhqk") if bias is not None and not isinstance(bias, ALiBi) else None
        if isinstance(bias, ALiBi):
            self.slopes, self.offset = unsqueeze(bias.slopes, "bh"), unsqueeze(bias.offset, "b")

    def cut(self, x, at) -> Any:
        """(heads or 1, queries or 1, keys or 1) of a prepared array for the tile `at` = (example, group, first query, first key)."""
        if isinstance(x, int):
            return x
        b, g, i0, j0 = at
        plan = self.plan
        start = (
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
        """Soft cap, bias and mask of a product: (logits, capped product, allowed or None). `turn` brings a cut into the tile's axes."""
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
        return jnp.where(allowed, s, jnp.finfo(s.dtype).min / 2), capped, allowed

    def kept(self, at, turn):
        """Where dropout keeps a weight, or None."""
        seeds = self.extras.seeds
        if seeds is None:
            return None
        i, j = self.positions(at)
        start = (at[0] if seeds.shape[0] > 1 else 0, at[1] * self.plan.repeat, 0)
        seed = jax.lax.dynamic_slice(seeds, start, (1, self.plan.repeat, 2))[0][:, None, None]
        return turn(_dropout.keep(seed[..., 0], seed[..., 1], i, j, self.setting.dropout_rate))


def _visits(extras: Extras, plan: _Plan, turned: bool):
    """The columns that each row of blocks visits, filled blocks first: (columns (b, g, rows, steps), how many filled, how many in all).

    A row is a block of queries, or of keys with `turned`.
    """
    some: Any
    every: Any
    some, every = blocks.spread(extras.mask, plan.q_seq, plan.kv_seq, plan.q_block, plan.kv_block)
    lib: Any = np if isinstance(some, np.ndarray) else jnp
    if some.shape[1] > 1:
        split = (some.shape[0], plan.kv_heads, plan.repeat, *some.shape[2:])
        some, every = some.reshape(split).any(2), every.reshape(split).all(2)
    if turned:
        some, every = some.swapaxes(2, 3), every.swapaxes(2, 3)
    every = some & every
    order = lib.argsort(2 - some.astype(np.int8) - every.astype(np.int8), axis=-1, stable=True).astype(np.int32)
    filled, count = every.sum(-1).astype(np.int32), some.sum(-1).astype(np.int32)
    return order, filled, count


def _walk(visits, at_row, step, carry):
    """Run `step(masked, column, carry)` over a row's visits; loops that no row needs are left out."""
    order, filled, count = visits
    row = lambda x: jnp.asarray(x)[tuple(0 if size == 1 else index for size, index in zip(x.shape, at_row))]
    columns = row(order)
    known = isinstance(order, np.ndarray)
    if not known or filled.max() > 0:
        end = int(filled.max()) if known and filled.min() == filled.max() else row(filled)
        carry = jax.lax.fori_loop(0, end, lambda n, c: step(False, columns[n], c), carry)
    if not known or (count > filled).any():
        carry = jax.lax.fori_loop(row(filled), row(count), lambda n, c: step(True, columns[n], c), carry)
    return carry


def _scaled(q, scale: float):
    """The query with the scale inside, and what is left of the scale: a bfloat16 takes only a power of two without rounding."""
    if q.dtype in (jnp.float32, jnp.float64) or math.frexp(scale)[0] == 0.5:
        return q * jnp.asarray(scale, q.dtype), 1.0
    return q, scale


def _quarantine(q, k, v, extras: Extras):
    """Rows of q and k that hold a number that is not finite, in k or v, become NaN; v becomes finite."""
    if extras.mask is None:
        return q, k, v
    bad_q = ~jnp.isfinite(q).all(-1, keepdims=True)
    bad_k = ~(jnp.isfinite(k).all(-1, keepdims=True) & jnp.isfinite(v).all(-1, keepdims=True))
    return jnp.where(bad_q, jnp.nan, q), jnp.where(bad_k, jnp.nan, k), jnp.where(jnp.isfinite(v), v, 0)


def _grouped(x, plan: _Plan):
    """(batch, heads, seq, ...) as (batch * kv_heads, repeat, seq, ...), padded to whole blocks of queries."""
    x = _pad(x, 2, plan.q_block)
    return x.reshape(plan.batch * plan.kv_heads, plan.repeat, *x.shape[2:])


def _slice(x, start, size: int, axis: int):
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def attend(q, k, v, extras: Extras, setting: Setting):
    """`reference.attend`, one tile at a time."""
    plan = _plan(q, k, FORWARD_TILE_OPEN if extras.mask is None else FORWARD_TILE)
    dtype, v_dim = q.dtype, v.shape[-1]
    wide = accumulator(dtype)
    q, k, v = _quarantine(q, k, v, extras)
    q, left = _scaled(q, setting.scale)
    visits = _visits(extras, plan, turned=False)
    tiles = _Tiles(extras, setting, plan)
    q = _grouped(q, plan)
    k, v = (_pad(x, 2, plan.kv_block).reshape(-1, *_pad(x, 2, plan.kv_block).shape[2:]) for x in (k, v))
    shape = (plan.repeat, plan.q_block, plan.kv_block)
    rows = plan.repeat * plan.q_block

    def group(index_q_k_v):
        index, q, k, v = index_q_k_v
        b, g = index // plan.kv_heads, index % plan.kv_heads

        def row(qi):
            q_tile = _slice(q, qi * plan.q_block, plan.q_block, 1).reshape(rows, -1)

            def step(masked, kj, carry):
                top, total, acc = carry
                at = (b, g, qi * plan.q_block, kj * plan.kv_block)
                k_tile, v_tile = (_slice(x, at[3], plan.kv_block, 0) for x in (k, v))
                s = _dot(q_tile, k_tile, (1, 1))
                s = s if left == 1.0 else s * left
                s, _, allowed = tiles.logits(s.reshape(shape), at, masked, lambda x: x)
                now = jnp.maximum(top, s.max(-1))
                p = jnp.exp(s - now[..., None])
                if allowed is not None:
                    p = jnp.where(allowed, p, 0)
                shrink = jnp.exp(top - now)
                total = total * shrink + p.sum(-1)
                kept = tiles.kept(at, lambda x: x)
                if kept is not None:
                    p = jnp.where(kept, p * (1.0 / (1.0 - setting.dropout_rate)), 0)
                acc = acc * shrink.reshape(rows, 1) + _dot(p.astype(v.dtype).reshape(rows, -1), v_tile, (1, 0))
                return now, total, acc

            start = (
                jnp.full(shape[:2], jnp.finfo(wide).min / 2, wide),
                jnp.zeros(shape[:2], wide),
                jnp.zeros((rows, v_dim), wide),
            )
            top, total, acc = _walk(visits, (b, g, qi), step, tuple(_varying(x, q) for x in start))
            empty = total == 0
            total = jnp.where(empty, 1, total)
            out = (acc.reshape(*shape[:2], v_dim) / total[..., None]).astype(dtype)
            return out, jnp.where(empty, -jnp.inf, top + jnp.log(total))

        out, lse = jax.lax.map(row, jnp.arange(q.shape[1] // plan.q_block, dtype=jnp.int32))
        join = lambda x: jnp.moveaxis(x, 0, 1).reshape(plan.repeat, -1, *x.shape[3:])
        return join(out), join(lse)

    out, lse = jax.lax.map(group, (jnp.arange(plan.batch * plan.kv_heads, dtype=jnp.int32), q, k, v))
    whole = lambda x: x.reshape(plan.batch, plan.kv_heads * plan.repeat, *x.shape[2:])[:, :, : plan.q_seq]
    return whole(out), whole(lse)


def backward(q, k, v, extras: Extras, setting: Setting, out, lse, dout, dlse, *, with_bias: bool):
    """Cotangents of q, k, v and, with `with_bias`, of the bias."""
    plan = _plan(q, k, BACKWARD_TILE_OPEN if extras.mask is None else BACKWARD_TILE)
    dtypes, wide = (q.dtype, k.dtype, v.dtype), accumulator(q.dtype)
    empty = lse == -jnp.inf
    delta = jnp.sum(dout.astype(wide) * out.astype(wide), -1) - dlse
    lse, delta = jnp.where(empty, 0, lse), jnp.where(empty, 0, delta)
    dout = jnp.where(empty[..., None], 0, dout) if extras.mask is not None else dout
    q, k, v = _quarantine(q, k, v, extras)
    # NaN marks a row for its logits; the products below must not spread it to those who do not see it.
    clean = (lambda x: jnp.where(jnp.isnan(x), 0, x)) if extras.mask is not None else (lambda x: x)
    q, left = _scaled(q, setting.scale)
    visits = _visits(extras, plan, turned=True)
    tiles = _Tiles(extras, setting, plan)
    q, dout, lse, delta = (_grouped(x, plan) for x in (q, dout, lse, delta))
    k, v = (_pad(x, 2, plan.kv_block).reshape(-1, *_pad(x, 2, plan.kv_block).shape[2:]) for x in (k, v))
    rows, shape = plan.repeat * plan.q_block, (plan.kv_block, plan.repeat, plan.q_block)
    turn = lambda x: jnp.moveaxis(x, -1, 0)
    inverse = 1.0 / (1.0 - setting.dropout_rate)

    def group(dbias, operands):
        index, q, k, v, dout, lse, delta = operands
        b, g = index // plan.kv_heads, index % plan.kv_heads

        def column(carry, kj):
            k_tile, v_tile = (_slice(x, kj * plan.kv_block, plan.kv_block, 0) for x in (k, v))

            def step(masked, qi, carry):
                dq, dk, dv, dbias = carry
                at = (b, g, qi * plan.q_block, kj * plan.kv_block)
                cut = lambda x: _slice(x, at[2], plan.q_block, 1)
                q_tile, dout_tile = cut(q).reshape(rows, -1), cut(dout).reshape(rows, -1)
                s = _dot(k_tile, q_tile, (1, 1))
                s = s if left == 1.0 else s * left
                s, capped, allowed = tiles.logits(s.reshape(shape), at, masked, turn)
                p = jnp.exp(jnp.minimum(s - cut(lse)[None], 0))
                if allowed is not None:
                    p = jnp.where(allowed, p, 0)
                dp = _dot(v_tile, dout_tile, (1, 1)).reshape(shape)
                dropped, kept = p, tiles.kept(at, turn)
                if kept is not None:
                    dropped, dp = jnp.where(kept, p * inverse, 0), jnp.where(kept, dp * inverse, 0)
                ds = p * (dp - cut(delta)[None])
                ds = jnp.where(allowed, ds, 0) if allowed is not None else ds
                if with_bias:
                    dbias = _add_bias(dbias, ds, at, extras, tiles)
                if setting.soft_cap is not None:
                    ds = ds * (1 - jnp.square(capped / setting.soft_cap))
                    ds = jnp.where(allowed, ds, 0) if allowed is not None else ds
                flat = lambda x: x.astype(q.dtype).reshape(plan.kv_block, rows)
                dv = dv + _dot(flat(dropped), dout_tile, (1, 0))
                dk = dk + _dot(flat(ds), clean(q_tile), (1, 0))
                more = _dot(flat(ds), clean(k_tile), (0, 0)).reshape(plan.repeat, plan.q_block, -1)
                dq = jax.lax.dynamic_update_slice_in_dim(dq, cut(dq) + more, at[2], 1)
                return dq, dk, dv, dbias

            zeros = tuple(_varying(jnp.zeros(x.shape, wide), q) for x in (k_tile, v_tile))
            dq, dk, dv, dbias = _walk(visits, (b, g, kj), step, (carry[0], *zeros, carry[1]))
            return (dq, dbias), ((dk * left).astype(dtypes[1]), dv.astype(dtypes[2]))

        start = _varying(jnp.zeros(q.shape, wide), q), dbias
        (dq, dbias), (dk, dv) = jax.lax.scan(column, start, jnp.arange(k.shape[0] // plan.kv_block, dtype=jnp.int32))
        join = lambda x: x.reshape(-1, x.shape[-1])[: plan.kv_seq]
        return dbias, ((dq * setting.scale).astype(dtypes[0])[:, : plan.q_seq], join(dk), join(dv))

    groups = jnp.arange(plan.batch * plan.kv_heads, dtype=jnp.int32)
    start = _bias_start(extras, tiles, wide) if with_bias else ()
    start = jax.tree.map(lambda x: _varying(x, q), start)
    dbias, (dq, dk, dv) = jax.lax.scan(group, start, (groups, q, k, v, dout, lse, delta))
    dq = dq.reshape(plan.batch, -1, *dq.shape[2:])
    dk, dv = (x.reshape(plan.batch, plan.kv_heads, *x.shape[1:]) for x in (dk, dv))
    return (dq, dk, dv, _bias_end(dbias, extras)) if with_bias else (dq, dk, dv)


def _bias_start(extras: Extras, tiles: _Tiles, dtype) -> Any:
    bias = tiles.slopes if isinstance(extras.bias, ALiBi) else tiles.bias
    assert bias is not None
    return jnp.zeros(bias.shape, dtype)


def _add_bias(dbias, ds, at, extras: Extras, tiles: _Tiles):
    """Add a tile's share, summed over the axes along which the bias broadcasts."""
    plan = tiles.plan
    ds = jnp.moveaxis(ds, 0, -1)
    if isinstance(extras.bias, ALiBi):
        ds = -ds * tiles.distance(at).astype(ds.dtype)
    ds = ds.sum(tuple(axis for axis in range(3) if dbias.shape[axis + 1] == 1), keepdims=True)
    start = (at[0], at[1] * plan.repeat, at[2], at[3])
    start = tuple(0 if size == 1 else index for index, size in zip(start, dbias.shape))
    here = jax.lax.dynamic_slice(dbias, start, (1, *ds.shape))
    return jax.lax.dynamic_update_slice(dbias, here + ds[None], start)


def _bias_end(dbias, extras: Extras):
    if isinstance(extras.bias, ALiBi):
        return dbias.reshape(extras.bias.slopes.shape).astype(extras.bias.slopes.dtype)
    _, _, q_seq, kv_seq = extras.bias.shape
    return dbias[:, :, :q_seq, :kv_seq].astype(extras.bias.dtype)
