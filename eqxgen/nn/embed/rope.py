"""Rotary positions: queries and keys turned by angles that grow with their position, so that logits tell distances."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check

LARGEST = 1 << 19
"""Cosines of a program's own, at most: 2 MiB, as many as of 8,192 positions of a head of 128."""


class RoPE(eqx.Module):
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864, equation 34): pair i is turned by `position *
    base^(-2i/head_dim)`.

    Args:
        head_dim: even; all of it is turned.
        base: of the wavelengths.
        interleaved: whether pair i is the entries 2i and 2i + 1, as in the paper (and GPT-J); otherwise i and i +
            head_dim/2, as in LLaMA's published weights in Hugging Face's layout. The two are a permutation of the
            weights apart.
        key: not used; every layer takes one.
    """

    head_dim: int = eqx.field(static=True)
    base: float = eqx.field(static=True)
    interleaved: bool = eqx.field(static=True)

    def __init__(
        self, head_dim: int, *, base: float = 10_000.0, interleaved: bool = False, key: PRNGKeyArray | None = None
    ):
        _check.positive(head_dim=head_dim)
        _check.even(head_dim=head_dim)
        _check_base(base)
        self.head_dim, self.base, self.interleaved = head_dim, float(base), interleaved

    def __call__(
        self,
        x: Float[Array, "seq heads head_dim"],
        positions: Int[Array, " seq"] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "seq heads head_dim"]:
        """Queries or keys at `positions`, 0, 1, ... by default."""
        at = _positions(x, positions, self.head_dim)
        return turn(x, _angles(at, self.head_dim, self.base), interleaved=self.interleaved)


class AxialRoPE(eqx.Module):
    """Rotary positions on a grid: the first half of the pairs tells the row, the second the column (Heo et al. 2024,
    arXiv:2403.13298).

    Args:
        head_dim: a multiple of 4.
        size: height and width of the grid; token p lies at row p // width and column p % width.
        base, interleaved: as `RoPE`'s. The paper takes base 100 for images.
        key: not used; every layer takes one.
    """

    head_dim: int = eqx.field(static=True)
    size: tuple[int, int] = eqx.field(static=True)
    base: float = eqx.field(static=True)
    interleaved: bool = eqx.field(static=True)

    def __init__(
        self,
        head_dim: int,
        size: tuple[int, int],
        *,
        base: float = 100.0,
        interleaved: bool = True,
        key: PRNGKeyArray | None = None,
    ):
        height, width = size
        _check.positive(head_dim=head_dim, height=height, width=width)
        if head_dim % 4:
            raise ValueError(
                f"head_dim must be a multiple of 4, as half of the pairs tells rows and half columns: got {head_dim}"
            )
        _check_base(base)
        self.head_dim, self.size, self.base, self.interleaved = head_dim, (height, width), float(base), interleaved

    def __call__(
        self,
        x: Float[Array, "seq heads head_dim"],
        positions: Int[Array, " seq"] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "seq heads head_dim"]:
        """Queries or keys at `positions` on the grid, counted row by row; 0, 1, ... by default."""
        at = _positions(x, positions, self.head_dim)
        angles = [_angles(part, self.head_dim // 2, self.base) for part in (at // self.size[1], at % self.size[1])]
        join = np.concatenate if isinstance(at, np.ndarray) else jnp.concatenate
        return turn(x, join(angles, -1), interleaved=self.interleaved)


def turn(
    x: Float[Array, "seq heads head_dim"], angles: Float[Array | np.ndarray, "seq pairs"], *, interleaved: bool
) -> Float[Array, "seq heads head_dim"]:
    """Every pair of x turned by its angle, in float32."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    cos, sin = (part.astype(wide.dtype)[:, None] for part in _table(angles))
    a, b = (wide[..., ::2], wide[..., 1::2]) if interleaved else jnp.split(wide, 2, axis=-1)
    a, b = a * cos - b * sin, b * cos + a * sin
    y = jnp.stack([a, b], -1).reshape(x.shape) if interleaved else jnp.concatenate([a, b], -1)
    return y.astype(x.dtype)


def _table(angles: Array | np.ndarray) -> tuple[Array, Array]:
    """Their cosines and sines: made here and now where they are known, for a compiled program may make them again for
    every example and head.

    A table of more than `LARGEST` numbers is left to the program, as it would make that too large.
    """
    if isinstance(angles, np.ndarray) and angles.size <= LARGEST:
        exact = angles.astype(np.float64)
        return jnp.asarray(np.cos(exact), jnp.float32), jnp.asarray(np.sin(exact), jnp.float32)
    return jnp.cos(jnp.asarray(angles)), jnp.sin(jnp.asarray(angles))


def _angles(positions: Array | np.ndarray, dim: int, base: float) -> Float[Array | np.ndarray, "seq pairs"]:
    rates = (base ** (-np.arange(0, dim, 2) / dim)).astype(np.float32)
    return positions.astype(np.float32)[:, None] * rates[None]


def _positions(x: Array, positions: Array | None, head_dim: int) -> Array | np.ndarray:
    if x.ndim != 3 or x.shape[-1] != head_dim:
        raise ValueError(f"x must have shape (seq, heads, head_dim={head_dim}): got {x.shape}")
    return np.arange(x.shape[0]) if positions is None else positions


def _check_base(base: float) -> None:
    if not base > 1:
        raise ValueError(f"base must be greater than 1: got {base}")


def check_rope(rope: RoPE | AxialRoPE | None, head_dim: int) -> None:
    """An error where a layer's heads have another size than its rotary positions turn."""
    if rope is not None and rope.head_dim != head_dim:
        raise ValueError(
            f"rope must turn head_dim = dim / heads = {head_dim} entries: got rope.head_dim={rope.head_dim}"
        )
