"""Rotary positions: queries and keys rotated by angles proportional to their positions."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.nn import _check, _split

LARGEST = 1 << 19
"""Largest number of constant cosines in a program: 2 MiB, as many as 8,192 positions of a head of 128 have."""


@dataclasses.dataclass(frozen=True)
class RoPEScaling:
    """Slower rotation of the long wavelengths, for sequences longer than those of the training: LLaMA 3.1's.

    Wavelengths longer than `original / low` are `factor` times as long, those shorter than `original / high` as they
    are, and in between the rates are interpolated over `original / wavelength`.

    Attributes:
        factor: of the lengths, at least 1.
        original: tokens that the model was trained on. None scales every wavelength (position interpolation, Chen et
            al. 2023, arXiv:2306.15595).
        low, high: bounds in wavelengths of the original length; low < high.

    Raises:
        ValueError: a number violates its constraint.
    """

    factor: float
    original: int | None = None
    low: float = 1.0
    high: float = 4.0

    def __post_init__(self):
        _check.above_zero(factor=self.factor, low=self.low, high=self.high)
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1: got {self.factor}")
        if self.original is not None:
            _check.positive(original=self.original)
        if not self.low < self.high:
            raise ValueError(f"low must be less than high: got low={self.low}, high={self.high}")

    def __call__(self, rates: np.ndarray) -> np.ndarray:
        """The rates in radians per token, scaled."""
        if self.original is None:
            return rates / self.factor
        turns = self.original * rates / (2 * np.pi)
        kept = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return kept * rates + (1 - kept) * rates / self.factor


class RoPE(eqx.Module):
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864, equation 34): pair i is rotated by `position *
    base^(-2i/head_dim)`.

    Args:
        head_dim: size of a head, even; all entries are rotated.
        base: of the wavelengths.
        interleaved: pair i is the entries 2i and 2i + 1, as in the paper and GPT-J; otherwise i and i + head_dim/2, as
            in LLaMA's published weights in Hugging Face's layout. The two differ by a permutation of the weights.
        scaling: of the wavelengths.
        key: not used; every layer takes one.
    """

    head_dim: int = eqx.field(static=True)
    base: float = eqx.field(static=True)
    interleaved: bool = eqx.field(static=True)
    scaling: RoPEScaling | None = eqx.field(static=True)

    def __init__(
        self,
        head_dim: int,
        *,
        base: float = 10_000.0,
        interleaved: bool = False,
        scaling: RoPEScaling | None = None,
        key: PRNGKeyArray | None = None,
    ):
        _check.positive(head_dim=head_dim)
        _check.even(head_dim=head_dim)
        _check_base(base)
        self.head_dim, self.base, self.interleaved, self.scaling = head_dim, float(base), interleaved, scaling

    def __call__(
        self,
        x: Float[Array, "seq heads head_dim"],
        positions: _check.Ids | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "seq heads head_dim"]:
        """Queries or keys at `positions`, 0, 1, ... by default."""
        at = _positions(x, positions, self.head_dim, table=True)
        return turn(x, _angles(at, self.head_dim, self.base, self.scaling), interleaved=self.interleaved)


class AxialRoPE(eqx.Module):
    """Rotary positions on a grid: the first half of the pairs is rotated by the row, the second by the column (Heo et
    al. 2024, arXiv:2403.13298).

    Args:
        head_dim: size of a head, a multiple of 4.
        size: height and width of the grid; token p is at row p // width and column p % width.
        base, interleaved: as in `RoPE`. The paper uses base 100 for images.
        prefix: tokens before the grid, such as a class; they are at its origin.
        blank_prefix: queries and keys of the prefix are zero, as in LlamaGen's published code.
        key: not used; every layer takes one.
    """

    head_dim: int = eqx.field(static=True)
    size: tuple[int, int] = eqx.field(static=True)
    base: float = eqx.field(static=True)
    interleaved: bool = eqx.field(static=True)
    prefix: int = eqx.field(static=True)
    blank_prefix: bool = eqx.field(static=True)

    def __init__(
        self,
        head_dim: int,
        size: Sequence[int],
        *,
        base: float = 100.0,
        interleaved: bool = True,
        prefix: int = 0,
        blank_prefix: bool = False,
        key: PRNGKeyArray | None = None,
    ):
        height, width = size
        _check.positive(head_dim=head_dim, height=height, width=width)
        if head_dim % 4:
            raise ValueError(
                f"head_dim must be a multiple of 4, for half of the pairs by row and half by column: got {head_dim}"
            )
        _check_base(base)
        if prefix < 0:
            raise ValueError(f"prefix must be at least 0: got {prefix}")
        self.head_dim, self.size, self.base, self.interleaved = head_dim, (height, width), float(base), interleaved
        self.prefix, self.blank_prefix = prefix, blank_prefix

    def __call__(
        self,
        x: Float[Array, "seq heads head_dim"],
        positions: _check.Ids | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "seq heads head_dim"]:
        """Queries or keys at `positions`: the prefix, then the grid row by row; 0, 1, ... by default."""
        at = _positions(x, positions, self.head_dim)
        inside = at >= self.prefix
        at = (at - self.prefix) * inside if self.prefix else at
        angles = [_angles(part, self.head_dim // 2, self.base) for part in (at // self.size[1], at % self.size[1])]
        join = np.concatenate if isinstance(at, np.ndarray) else jnp.concatenate
        y = turn(x, join(angles, -1), interleaved=self.interleaved)
        return jnp.where(inside[:, None, None], y, 0) if self.blank_prefix else y


def turn(
    x: Float[Array, "seq heads head_dim"], angles: Float[Array | np.ndarray, "whole pairs"], *, interleaved: bool
) -> Float[Array, "seq heads head_dim"]:
    """Every pair of x rotated by its angle, in float32. Of a part of a sequence the angles may be those of the whole
    one.
    """
    wide = widen(x)
    table = _table(angles) if angles.shape[0] == x.shape[0] else map(_split.own_tokens, _table(angles))
    cos, sin = (part.astype(wide.dtype)[:, None] for part in table)
    a, b = (wide[..., ::2], wide[..., 1::2]) if interleaved else jnp.split(wide, 2, axis=-1)
    a, b = a * cos - b * sin, b * cos + a * sin
    y = jnp.stack([a, b], -1).reshape(x.shape) if interleaved else jnp.concatenate([a, b], -1)
    return y.astype(x.dtype)


def _table(angles: Array | np.ndarray) -> tuple[Array, Array]:
    """Cosines and sines of the angles, as constants where the angles are known: a compiled program may compute them
    again for every example and head.

    A table of more than `LARGEST` numbers is computed in the program, which a constant would make too large.
    """
    if isinstance(angles, np.ndarray) and angles.size <= LARGEST:
        exact = angles.astype(np.float64)
        return jnp.asarray(np.cos(exact), jnp.float32), jnp.asarray(np.sin(exact), jnp.float32)
    return jnp.cos(jnp.asarray(angles)), jnp.sin(jnp.asarray(angles))


def _angles(
    positions: Array | np.ndarray, dim: int, base: float, scaling: RoPEScaling | None = None
) -> Float[Array | np.ndarray, "seq pairs"]:
    rates = base ** (-np.arange(0, dim, 2) / dim)
    rates = (rates if scaling is None else scaling(rates)).astype(np.float32)
    return positions.astype(np.float32)[:, None] * rates[None]


def _positions(x: Array, positions: _check.Ids | None, head_dim: int, *, table: bool = False) -> Array | np.ndarray:
    """Positions of the tokens. Of a part of a sequence those of the whole one, if its `table` may be a constant, else
    those of the part.
    """
    _check.example(x, "seq", "heads", head_dim=head_dim)
    if positions is not None:
        return _check.integers(positions, "positions")
    whole = x.shape[0] * _split.devices()
    # A symbolic length of jax.export has no constant positions.
    if not isinstance(whole, int):
        return jnp.arange(whole)
    return (
        np.arange(whole)
        if whole == x.shape[0] or (table and whole * head_dim <= 2 * LARGEST)
        else _split.own_places(x.shape[0])
    )


def _check_base(base: float) -> None:
    if not base > 1:
        raise ValueError(f"base must be greater than 1: got {base}")


def check_rope(rope: RoPE | AxialRoPE | None, head_dim: int) -> None:
    """The heads of a layer must have the size of its rotary positions."""
    if rope is not None and rope.head_dim != head_dim:
        raise ValueError(f"rope must have the layer's head_dim = {head_dim}: got rope.head_dim={rope.head_dim}")
