"""Residual quantisation over scales: token maps from 1 x 1 to the grid (Tian et al. 2024, VAR, arXiv:2404.02905,
algorithms 1 and 2).
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.conv.convolution import Convolution
from eqxgen.nn.quantize.estimator import Estimator, straight_through
from eqxgen.nn.quantize.quantized import Quantized

CUBIC = -0.75
"""Coefficient of torch's bicubic interpolation."""


class MultiScaleVQ(eqx.Module):
    """A map of vectors as the sum of maps of codes of several scales, all of one codebook.

    Scale s averages what the scales before it leave over `scales[s]` x `scales[s]` areas and takes the nearest codes.
    Their map is enlarged to the grid by bicubic interpolation, and a convolution phi smooths it:
    `(1 - mix) h + mix conv(h)`. The ids of an image are one row, scale by scale, each row by row.

    `distance` is of each place of the grid: the mean over scales of `|sg(z) - f|² + commitment |z - sg(f)|²`, where f
    is the sum up to the scale. Its gradient reaches the codebook and phi. `entropy` has one entry for each id.

    Difference: the last scale ends at the grid, as published, and grids are squares.

    Args:
        quantizer: a `VectorQuantizer`, or a `CosineQuantizer` of one.
        scales: sides of the maps, increasing; the last is the side of the grid. The paper's, for a side of 16: 1, 2, 3,
            4, 5, 6, 8, 10, 13, 16.
        mix: share of the convolution in phi; 0.5 in the published code.
        phis: number of convolutions, each shared by neighbouring scales; 4 in the published code.
        commitment: weight of the encoder's part of the distance; 0.25 in the published code.
        estimator: gradient estimator from the sum to the vectors.

    Raises:
        ValueError: the scales do not increase from at least 1, `mix` is not in [0, 1], or the vectors are not of the
            grid.
    """

    quantizer: Any
    phi: tuple[Convolution, ...]
    scales: tuple[int, ...] = eqx.field(static=True)
    mix: float = eqx.field(static=True)
    commitment: float = eqx.field(static=True)
    estimator: Estimator = eqx.field(static=True)

    def __init__(
        self,
        quantizer: Any,
        scales: Sequence[int],
        *,
        mix: float = 0.5,
        phis: int = 4,
        commitment: float = 0.25,
        estimator: Estimator = straight_through,
        key: PRNGKeyArray,
    ):
        _check.positive(phis=phis)
        if not 0 <= mix <= 1:
            raise ValueError(f"mix must be in [0, 1]: got {mix}")
        dim = quantizer.dim
        self.quantizer, self.scales, self.mix = quantizer, _check.increasing("scales", scales), float(mix)
        self.phi = tuple(Convolution(dim, dim, kernel=3, key=own) for own in jr.split(key, phis))
        self.commitment, self.estimator = commitment, estimator

    @property
    def codes(self) -> int:
        return self.quantizer.codes

    @property
    def dim(self) -> int:
        return self.quantizer.dim

    @property
    def side(self) -> int:
        """Side of the grid."""
        return self.scales[-1]

    @property
    def tokens(self) -> int:
        """Ids of one image."""
        return sum(side * side for side in self.scales)

    def __call__(self, z: Float[Array, "rows columns dim"], *, key: PRNGKeyArray | None = None) -> Quantized:
        self._check_map(z)
        wide = z.astype(jnp.promote_types(z.dtype, jnp.float32))
        sg, total, found = jax.lax.stop_gradient, jnp.zeros_like(wide), []
        distance = jnp.zeros_like(wide[..., 0])
        for scale in range(len(self.scales)):
            quantized = self.quantizer(sg(self.reduced(wide - total, scale)))
            found.append(quantized)
            total = self.added(total, quantized.ids, scale)
            errors = (sg(wide) - total) ** 2 + self.commitment * (wide - sg(total)) ** 2
            distance = distance + jnp.mean(errors, axis=-1) / len(self.scales)
        flat = lambda name: jnp.concatenate([getattr(each, name).reshape(-1) for each in found])
        shares = [side * side / self.tokens for side in self.scales]
        assignment = jnp.tensordot(jnp.asarray(shares), jnp.stack([each.assignment for each in found]), 1)
        return Quantized(self.estimator(z, total.astype(z.dtype)), flat("ids"), distance, flat("entropy"), assignment)

    def nearest(self, z: Float[Array, "rows columns dim"]) -> Int[Array, " tokens"]:
        """The ids only."""
        self._check_map(z)
        total, ids = jnp.zeros_like(z), []
        for scale in range(len(self.scales)):
            ids.append(self.quantizer.nearest(self.reduced(z - total, scale)))
            total = self.added(total, ids[-1], scale).astype(z.dtype)
        return jnp.concatenate([each.reshape(-1) for each in ids])

    def lookup(self, ids: _check.Ids) -> Float[Array, "rows columns dim"]:
        """The sum of the maps of the ids of an image; ids out of range are an error, or NaN inside a compiled
        program.
        """
        ids = _check.ids(ids, self.codes, "ids", "codes")
        total = self.empty()
        for scale, part in enumerate(self.parts(ids)):
            total = self.added(total, part, scale)
        return total

    def parts(self, ids: Int[Array, " tokens"]) -> list[Int[Array, "side side"]]:
        """The maps of the ids of an image, scale by scale."""
        _check.example(ids, name="ids", tokens=self.tokens)
        ends = np.cumsum([side * side for side in self.scales])
        return [part.reshape(side, side) for side, part in zip(self.scales, jnp.split(ids, ends[:-1]))]

    def empty(self) -> Float[Array, "rows columns dim"]:
        """The sum of no scale."""
        return jnp.zeros((self.side, self.side, self.dim))

    def added(
        self, total: Float[Array, "rows columns dim"], ids: Int[Array, "side side"], scale: int
    ) -> Float[Array, "rows columns dim"]:
        """The sum with the codes of one scale."""
        h = resized(self.quantizer.lookup(ids), enlargement(self.scales[scale], self.side)).astype(total.dtype)
        phi = self.phi[_shared(scale, len(self.scales), len(self.phi))]
        return total + (1 - self.mix) * h + self.mix * phi(h)

    def reduced(self, x: Float[Array, "rows columns dim"], scale: int) -> Float[Array, "side side dim"]:
        """Means of a map over the areas of one scale."""
        return resized(x, areas(self.side, self.scales[scale]))

    def inputs(self, ids: Int[Array, " tokens"]) -> list[Float[Array, "side side dim"]]:
        """The sum of the scales before each scale but the first, reduced to it: what predicts it (algorithm 2 of the
        paper, and equation 6).
        """
        total, found = self.empty(), []
        for scale, part in enumerate(self.parts(ids)[:-1]):
            total = self.added(total, part, scale)
            found.append(self.reduced(total, scale + 1))
        return found

    def reaching(self, z: Float[Array, "rows columns dim"], *, exact: bool = False) -> Float[Array, "tokens dim"]:
        """The vectors that look for their codes in the codebook.

        Args:
            exact: as if each had a code of its own, for a codebook that is not placed yet.
        """
        found, total = [], jnp.zeros_like(z)
        for scale, side in enumerate(self.scales):
            found.append(self.reduced(z - total, scale))
            if exact:
                total = total + resized(found[-1], enlargement(side, self.side))
            else:
                total = self.added(total, self.quantizer.nearest(found[-1]), scale).astype(z.dtype)
        return jnp.concatenate([each.reshape(-1, self.dim) for each in found])

    def _check_map(self, z: Array) -> None:
        _check.inexact(z, "z")
        if z.ndim > 3:
            _check.example(z, name="z", side=self.side, width=self.side, dim=self.dim)
        if z.shape != (self.side, self.side, self.dim):
            raise ValueError(
                f"z must have shape (side, side, dim) = {(self.side, self.side, self.dim)}, whose side the last of "
                f"scales={self.scales} is: got {z.shape}"
            )


def resized(x: Float[Array, "old old dim"], weights: np.ndarray) -> Float[Array, "new new dim"]:
    """A map by weights (new, old) along both axes, in x's dtype."""
    if weights.shape[0] == weights.shape[1]:
        return x
    matrix = jnp.asarray(weights, x.dtype)
    rows = jnp.einsum("ih,hwc->iwc", matrix, x, precision="highest")
    return jnp.einsum("jw,iwc->ijc", matrix, rows, precision="highest")


def areas(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Weights of means over areas: entry i is the mean from floor(i old / new) to ceil((i + 1) old / new), as torch's
    `interpolate(mode="area")`.
    """
    found = np.zeros((new, old))
    for i in range(new):
        begin, end = i * old // new, -(-(i + 1) * old // new)
        found[i, begin:end] = 1 / (end - begin)
    return found


def enlargement(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Weights of cubic interpolation between the centres of pixels, the border repeated, as torch's
    `interpolate(mode="bicubic")` (Keys 1981, equation 8, with coefficient -0.75).
    """
    found = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        first = int(np.floor(centre))
        for tap in range(first - 1, first + 3):
            found[i, min(max(tap, 0), old - 1)] += _cubic(abs(centre - tap))
    return found


def _cubic(x: float) -> float:
    if x <= 1:
        return (CUBIC + 2) * x**3 - (CUBIC + 3) * x**2 + 1
    return CUBIC * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def _shared(scale: int, scales: int, phis: int) -> int:
    """The convolution of a scale: the one whose tick is nearest to its place in [0, 1]. The ticks of the published code
    are the middles of as many parts, those of four 1/12 from both ends.
    """
    margin = 1 / (3 * phis) if phis == 4 else 1 / (2 * phis)
    place = scale / max(scales - 1, 1)
    return int(np.argmin(np.abs(np.linspace(margin, 1 - margin, phis) - place)))
