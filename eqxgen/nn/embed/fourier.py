"""Coordinates and noise levels as Fourier features."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.linear import Initializer, Projection, torch_uniform


class FourierEmbedding(eqx.Module):
    """Positions in a grid as sines and cosines of evenly spaced frequencies (Perceiver; Jaegle et al. 2021,
    arXiv:2103.03206, section 3.2).

    Along an axis of n cells, a coordinate c in [-1, 1] has the features sin(pi f c) and cos(pi f c) at `bands`
    frequencies f from 1 to the Nyquist frequency n/2. The features are the coordinates, the sines of all axes, then the
    cosines: axes * (2 * bands + 1) numbers, which are projected to `dim`.

    Args:
        dim: features of a position.
        size: cells along each axis, such as height and width.
        bands: frequencies of each axis.
        project: projects the features. False returns the features of the paper, for concatenation with the inputs;
            `dim` must then be their number.
        init: initializer of the projection's weights.

    Raises:
        ValueError: without projection, `dim` is not the number of features.
    """

    projection: Projection | None
    dim: int = eqx.field(static=True)
    size: tuple[int, ...] = eqx.field(static=True)
    bands: int = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        size: Sequence[int],
        *,
        bands: int = 64,
        project: bool = True,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        _check.positive(dim=dim, bands=bands, **{f"size[{i}]": n for i, n in enumerate(size)})
        features = len(size) * (2 * bands + 1)
        if not project and dim != features:
            raise ValueError(f"without a projection dim must be axes * (2 * bands + 1) = {features}: got dim={dim}")
        self.projection = Projection(features, dim, init=init, key=key) if project else None
        self.dim, self.size, self.bands = dim, tuple(size), bands

    def __call__(
        self, positions: Float[Array, "*leading axes"] | None = None, *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "..."]:
        """Features of positions in [-1, 1], `(*leading, dim)`; by default those of all cells, `(*size, dim)`."""
        positions = self.grid() if positions is None else positions
        if positions.shape[-1] != len(self.size):
            raise ValueError(
                f"the last axis of positions must have one entry for each of {len(self.size)} axes: got shape "
                f"{positions.shape}"
            )
        y = self._features(positions.astype(jnp.float32)).astype(positions.dtype)
        return y if self.projection is None else self.projection(y)

    def grid(self) -> Float[Array, "*size axes"]:
        """The coordinates of all cells, from -1 to 1 along each axis."""
        return jnp.stack(jnp.meshgrid(*(jnp.linspace(-1.0, 1.0, n) for n in self.size), indexing="ij"), -1)

    def _features(self, x: Array) -> Array:
        frequencies = jnp.stack([jnp.linspace(1.0, n / 2, self.bands) for n in self.size])
        angles = math.pi * x[..., None] * frequencies.reshape(*(1,) * (x.ndim - 1), *frequencies.shape)
        angles = angles.reshape(*x.shape[:-1], -1)
        return jnp.concatenate([x, jnp.sin(angles), jnp.cos(angles)], -1)


class RandomFourier(eqx.Module):
    """A scalar as cosines and sines at random frequencies, which are not trained (Tancik et al. 2020,
    arXiv:2006.10739).

    `cos(2 pi f x)` for `dim / 2` normal frequencies f of deviation `scale`, then `sin(2 pi f x)`: the noise embedding
    of NCSN++ (Song et al. 2021, arXiv:2011.13456) and EDM, with x = ln(sigma) or ln(sigma) / 4 and scale 16. In NCSN++
    the sines are first.

    Args:
        dim: number of features; even.
        scale: deviation of the frequencies.
        flip: puts the cosines first.
    """

    frequencies: Float[Array, " half"]
    flip: bool = eqx.field(static=True)

    def __init__(self, dim: int, *, scale: float = 16.0, flip: bool = True, key: PRNGKeyArray):
        _check.positive(dim=dim)
        _check.even(dim=dim)
        _check.above_zero(scale=scale)
        self.frequencies = scale * jr.normal(key, (dim // 2,))
        self.flip = flip

    def __call__(
        self, x: Float[ArrayLike, "*leading"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*leading dim"]:
        """Computed in float32, returned in x's dtype."""
        x = jnp.asarray(x)
        frequencies = jax.lax.stop_gradient(self.frequencies).astype(jnp.float32)
        angles = 2 * math.pi * x.astype(jnp.float32)[..., None] * frequencies.reshape(*(1,) * x.ndim, -1)
        parts = [jnp.cos(angles), jnp.sin(angles)]
        return jnp.concatenate(parts if self.flip else parts[::-1], -1).astype(x.dtype)
