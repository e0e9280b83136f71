"""State-space duality: the scan of Mamba-2 in chunks, and one step of it.

For each head, with a state h of (head_dim, state_dim),

    h_t = exp(dt_t a) h_{t-1} + dt_t x_t b_t^T,     y_t = h_t c_t

(Dao and Gu 2024, arXiv:2405.21060, section 6). Within a chunk the outputs are masked products, as in attention; a scan
over the chunks carries the state. Everything is float32 at least.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen._widen import widen
from eqxgen.nn import _check
from eqxgen.nn._mesh import varying

State = Float[Array, "heads head_dim state_dim"]


def ssd(
    x: Float[Array, "seq heads head_dim"],
    dt: Float[Array, "seq heads"],
    a: Float[Array, " heads"],
    b: Float[Array, "seq groups state_dim"],
    c: Float[Array, "seq groups state_dim"],
    *,
    state: State | None = None,
    chunk: int = 64,
) -> tuple[Float[Array, "seq heads head_dim"], State]:
    """Outputs of a sequence, and the state after it.

    The work is linear in the length: products of `chunk` rows with `chunk` columns, and one state for each chunk.

    Args:
        x: inputs of each head.
        dt: time steps, positive; a step of 0 changes nothing.
        a: decay rates, negative.
        b, c: input and output maps, each shared by heads / groups neighbouring heads.
        state: before the first entry; zeros by default.
        chunk: entries at a time; the result does not depend on it but by rounding.

    Raises:
        ValueError: an array has another shape, x is not of a floating-point type, groups does not divide heads, or
            chunk is below 1.
    """
    _check.positive(chunk=chunk)
    _check.example(x, "seq", "heads", "head_dim")
    _check.example(b, "seq", "groups", "state_dim", name="b")
    seq, heads, width = x.shape
    groups, size = b.shape[1:]
    _check_arrays(x, dt, a, b, c, state, seq=seq)
    kind, (x, dt, a, b, c) = x.dtype, map(widen, (x, dt, a, b, c))
    count = (seq + chunk - 1) // chunk
    short = count * chunk - seq
    cut = lambda v: jnp.pad(v, ((0, short), *((0, 0),) * (v.ndim - 1))).reshape(count, chunk, *v.shape[1:])
    of_heads = lambda v: v.reshape(*v.shape[:2], groups, heads // groups, *v.shape[3:])
    x, dt, b, c = cut(x), cut(dt), cut(b), cut(c)
    decay = of_heads(jnp.cumsum(dt * a[None, None], axis=1))  # (chunks, chunk, groups, share), logarithms
    x = of_heads(x * dt[..., None])
    # Outputs from the entries of the same chunk.
    apart = decay[:, :, None] - decay[:, None]
    places = jnp.arange(chunk)
    mask = (places[:, None] >= places[None])[None, :, :, None, None]
    kept = jnp.where(mask, jnp.exp(jnp.where(mask, apart, 0)), 0)
    y = jnp.einsum("zlgn,zsgn,zlsgr,zsgrp->zlgrp", c, b, kept, x, optimize=[(0, 1), (0, 2), (0, 1)])
    # What each chunk adds to the state, and the state before each chunk.
    added = jnp.einsum("zsgn,zsgr,zsgrp->zgrpn", b, jnp.exp(decay[:, -1:] - decay), x, optimize=[(1, 2), (0, 1)])
    first = jnp.zeros((heads, width, size), x.dtype) if state is None else state.astype(x.dtype)
    first = varying(first.reshape(groups, heads // groups, width, size), x, dt, a, b, c)

    def advance(state: Array, part: tuple[Array, Array]) -> tuple[Array, Array]:
        factor, added = part
        return factor[..., None, None] * state + added, state

    last, before = jax.lax.scan(advance, first, (jnp.exp(decay[:, -1]), added))
    y = y + jnp.einsum("zlgn,zgrpn,zlgr->zlgrp", c, before, jnp.exp(decay), optimize=[(0, 1), (0, 1)])
    y = y.reshape(count * chunk, heads, width)[:seq]
    return y.astype(kind), last.reshape(heads, width, size)


def ssd_step(
    x: Float[Array, "heads head_dim"],
    dt: Float[Array, " heads"],
    a: Float[Array, " heads"],
    b: Float[Array, "groups state_dim"],
    c: Float[Array, "groups state_dim"],
    state: State,
) -> tuple[Float[Array, "heads head_dim"], State]:
    """The output of the next entry and the state after it; arguments and errors are those of `ssd`."""
    _check.example(x, "heads", "head_dim")
    _check.example(b, "groups", "state_dim", name="b")
    _check_arrays(x, dt, a, b, c, state)
    kind, (x, dt, a, b, c) = x.dtype, map(widen, (x, dt, a, b, c))
    share = x.shape[0] // b.shape[0]
    b, c = (jnp.repeat(part, share, axis=0) for part in (b, c))
    state = jnp.exp(dt * a)[:, None, None] * state + (dt[:, None] * x)[:, :, None] * b[:, None]
    return jnp.einsum("hpn,hn->hp", state, c).astype(kind), state


def _check_arrays(x: Array, dt: Array, a: Array, b: Array, c: Array, state: Array | None, **seq: int) -> None:
    """Raises for an array that does not go with x and b: nothing is broadcast."""
    (heads, width), (groups, size) = x.shape[-2:], b.shape[-2:]
    _check.inexact(x, "x")
    _check.divides(groups=groups, heads=heads)
    _check.example(dt, name="dt", **seq, heads=heads)
    _check.example(a, name="a", heads=heads)
    for name, maps in (("b", b), ("c", c)):
        _check.example(maps, name=name, **seq, groups=groups, state_dim=size)
    if state is not None:
        _check.example(state, name="state", heads=heads, head_dim=width, state_dim=size)
