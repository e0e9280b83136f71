"""Positions and diffusion times as sines and cosines."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, DTypeLike, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.linear import Initializer, Projection, torch_uniform
from eqxgen.rng import RNG


class SinusoidalEmbedding(eqx.Module):
    """A scalar, such as a position or a time, as `dim / 2` sines, then as many cosines (Vaswani et al. 2017, section
    3.5, without its interleaving).

    Feature i is `sin(x * period^(-i / (dim/2 - shift)))`. The wavelengths are from 2 pi to 2 pi * period.

    Args:
        dim: number of features; even.
        period: of the slowest wave, over 2 pi.
        flip: puts the cosines first, as in ADM and DiT; otherwise the sines, as in DDPM, MAE and Transformers.
        shift: 1 makes the last wavelength exactly the period, as in DDPM; 0 in the paper, ADM and DiT.
        key: not used; every layer takes one.

    Raises:
        ValueError: `dim` is odd, or too small for `shift`.
    """

    dim: int = eqx.field(static=True)
    period: float = eqx.field(static=True)
    flip: bool = eqx.field(static=True)
    shift: int = eqx.field(static=True)

    def __init__(
        self, dim: int, *, period: float = 10_000.0, flip: bool = False, shift: int = 0, key: PRNGKeyArray | None = None
    ):
        _check.positive(dim=dim)
        _check.even(dim=dim)
        if not period > 1:
            raise ValueError(f"period must be greater than 1: got {period}")
        if not 0 <= shift < dim // 2:
            raise ValueError(f"shift must be in [0, dim / 2 = {dim // 2}): got {shift}")
        self.dim, self.period, self.flip, self.shift = dim, float(period), flip, shift

    def __call__(
        self, x: Float[ArrayLike, "*leading"] | Int[ArrayLike, "*leading"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*leading dim"]:
        """Computed in float32, returned in x's dtype, or float32 for integers."""
        x = jnp.asarray(x)
        half = self.dim // 2
        rates = jnp.exp(-math.log(self.period) / (half - self.shift) * jnp.arange(half, dtype=jnp.float32))
        angles = x.astype(jnp.float32)[..., None] * rates.reshape(*(1,) * x.ndim, half)
        parts = [jnp.cos(angles), jnp.sin(angles)] if self.flip else [jnp.sin(angles), jnp.cos(angles)]
        return jnp.concatenate(parts, -1).astype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32)


class TimestepEmbedding(eqx.Module):
    """A diffusion time as a vector: sines and cosines, then two projections with SiLU between (Ho et al. 2020, appendix
    B).

    The defaults are those of DiT and ADM: 256 features, cosines first. DDPM has `flip=False, shift=1` and as many
    features as the network has channels.

    Args:
        dim: size of the vector, and between the two projections.
        features: number of sines and cosines; even.
        flip, shift, period: as in `SinusoidalEmbedding`.
        init: initializer of the weights; DiT's is normal with deviation 0.02.
    """

    waves: SinusoidalEmbedding
    up: Projection
    down: Projection

    def __init__(
        self,
        dim: int,
        *,
        features: int = 256,
        flip: bool = True,
        shift: int = 0,
        period: float = 10_000.0,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        keys = RNG(key)
        self.waves = SinusoidalEmbedding(features, period=period, flip=flip, shift=shift)
        self.up = Projection(features, dim, init=init, key=next(keys))
        self.down = Projection(dim, dim, init=init, key=next(keys))

    def __call__(
        self,
        time: Float[ArrayLike, "*leading"] | Int[ArrayLike, "*leading"],
        *,
        dtype: DTypeLike | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*leading dim"]:
        """Returned in `dtype`, by default that of the time. Pass times in float32: bfloat16 cannot represent 999."""
        waves = self.waves(time)
        return self.down(jax.nn.silu(self.up(waves if dtype is None else waves.astype(dtype))))


def sincos_table(size: Sequence[int], dim: int) -> Float[Array, "*size dim"]:
    """Fixed positions of a sequence (one size) or a grid (two or more), for addition to its tokens.

    Each axis has an equal share of the features, the last axis first, each share sines and then cosines. For images
    this is the layout of MAE (He et al. 2022, arXiv:2111.06377) and DiT: columns in the first half, rows in the second.

    Raises:
        ValueError: twice the number of axes does not divide `dim`.
    """
    _check.positive(dim=dim, **{f"size[{i}]": n for i, n in enumerate(size)})
    if not size or dim % (2 * len(size)):
        raise ValueError(f"dim must be a multiple of twice the number of axes: got dim={dim}, size={size}")
    waves = SinusoidalEmbedding(dim // len(size))
    return jnp.concatenate([waves(axis) for axis in jnp.indices(tuple(size))[::-1]], -1)
