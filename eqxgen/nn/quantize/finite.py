"""Finite scalar quantisation (Mentzer et al. 2023, arXiv:2309.15505): a grid in place of a codebook."""

import math
from collections.abc import Sequence
from numbers import Integral

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.quantize.codebook import count_codes
from eqxgen.nn.quantize.estimator import straight_through
from eqxgen.nn.quantize.quantized import Quantized


class FSQ(eqx.Module):
    """Each entry is bounded by a tanh and rounded to one of its levels; the codes are all combinations, from -1 to 1 in
    each dimension.

    The layer has no parameters and needs no loss: `distance` and `entropy` are zero, and `assignment` is the share of
    each code, without a gradient. The gradient passes straight through the rounding, and through the tanh exactly. Even
    numbers of levels are at multiples of `2 / levels` from -1 up, odd ones around 0. An id is the sum of each level's
    number times the product of the levels before it.

    The paper's listing shifts even levels by the tangent of `offset / reach`, with a reach narrower by the margin.
    Here, as in vector-quantize-pytorch, the shift is by the inverse of the tanh, which puts zero in the middle of a
    level, and the reach is wider.

    Args:
        levels: number of levels of each dimension, such as (8, 5, 5, 5) for about 2**10 codes (table 1).
        margin: relative distance of the tanh's bounds from the outer levels.

    Raises:
        ValueError: there are no levels, one is below 2, or the number of codes exceeds an int32.
    """

    levels: tuple[int, ...] = eqx.field(static=True)
    margin: float = eqx.field(static=True)

    def __init__(self, levels: Sequence[int], *, margin: float = 1e-3, key: PRNGKeyArray | None = None):
        if not levels or any(not isinstance(level, Integral) or int(level) < 2 for level in levels):
            raise ValueError(f"levels must be one or more integers of at least 2: got {levels!r}")
        if math.prod(levels) >= 2**31:
            raise ValueError(f"levels must multiply to less than 2**31 codes: got {tuple(levels)}")
        _check.above_zero(margin=margin)
        self.levels, self.margin = tuple(levels), margin

    @property
    def codes(self) -> int:
        return math.prod(self.levels)

    @property
    def dim(self) -> int:
        return len(self.levels)

    def __call__(self, z: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None) -> Quantized:
        numbers, bounded = self._numbers(z)
        ids = self._ids(numbers)
        nothing = jnp.zeros(ids.shape)
        grid = straight_through(bounded, jnp.round(bounded)) / _row(self._half(), ids)
        return Quantized(grid.astype(z.dtype), ids, nothing, nothing, count_codes(ids, self.codes) / ids.size)

    def nearest(self, z: Float[Array, "*leading dim"]) -> Int[Array, "*leading"]:
        """The ids only."""
        return self._ids(self._numbers(z)[0])

    def lookup(self, ids: _check.Ids) -> Float[Array, "*leading dim"]:
        """The computed codes of some ids; ids out of range are an error, or NaN inside a compiled program."""
        ids = _check.ids(ids, self.codes, "ids", "codes")
        numbers = ids[..., None] // _row(self._basis(), ids) % _row(np.asarray(self.levels), ids)
        codes = (numbers - _row(self._half(), ids)) / _row(self._half(), ids)
        known = (ids >= 0) & (ids < self.codes)
        return jnp.where(known[..., None], codes, jnp.nan)

    def _numbers(
        self, z: Float[Array, "*leading dim"]
    ) -> tuple[Int[Array, "*leading dim"], Float[Array, "*leading dim"]]:
        """Number of each entry's level, from 0, and the bounded entries; rounded, these are the numbers minus half the
        levels.
        """
        _check.last_axis(z, "dim", self.dim)
        levels = np.asarray(self.levels)
        reach = (levels - 1) * (1 + self.margin) / 2
        offset = np.where(levels % 2 == 0, 0.5, 0.0)
        shift = np.arctanh(offset / reach)
        bounded = jnp.tanh(z.astype(jnp.float32) + _row(shift, z[..., 0])) * _row(reach, z[..., 0]) - _row(
            offset, z[..., 0]
        )
        return jnp.round(bounded).astype(jnp.int32) + _row(levels // 2, z[..., 0]), bounded

    def _ids(self, numbers: Int[Array, "*leading dim"]) -> Int[Array, "*leading"]:
        return jnp.sum(numbers * _row(self._basis(), numbers[..., 0]), axis=-1)

    def _basis(self) -> np.ndarray:
        return np.cumprod([1, *self.levels[:-1]])

    def _half(self) -> np.ndarray:
        return np.asarray(self.levels) // 2


def _row(values: np.ndarray, like: Array) -> Array:
    """Values of each dimension, broadcast over vectors with the leading axes of `like`."""
    return jnp.asarray(values, jnp.int32 if values.dtype.kind == "i" else jnp.float32).reshape((1,) * like.ndim + (-1,))
