"""Wrappers of quantisers: on the unit sphere, and in fewer dimensions."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.linear import Projection
from eqxgen.nn.quantize.estimator import straight_through
from eqxgen.nn.quantize.quantized import Quantized
from eqxgen.nn.quantize.vector import VectorQuantizer
from eqxgen.rng import RNG


class CosineQuantizer(eqx.Module):
    """Vectors and codes normalised to length 1, so that the nearest code has the smallest angle (Yu et al. 2021,
    ViT-VQGAN, arXiv:2110.04627).

    Args:
        quantizer: the quantiser of unit vectors; its codebook is normalised at each call. The codes have length 1.
        past_norm: the gradient of the codes is that of the vectors before they are normalised, as in the code
            enhancing-transformers; the loss goes through the norm all the same.
    """

    quantizer: VectorQuantizer
    past_norm: bool = eqx.field(static=True)

    def __init__(self, quantizer: VectorQuantizer, *, past_norm: bool = False, key: PRNGKeyArray | None = None):
        self.quantizer, self.past_norm = quantizer, past_norm

    @property
    def codes(self) -> int:
        return self.quantizer.codes

    @property
    def dim(self) -> int:
        return self.quantizer.dim

    def __call__(self, z: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None) -> Quantized:
        quantized = self._unit()(to_unit(z), key=key)
        return quantized._replace(vectors=straight_through(z, quantized.vectors)) if self.past_norm else quantized

    def nearest(self, z: Float[Array, "*leading dim"]) -> Int[Array, "*leading"]:
        """The ids only."""
        return self._unit().nearest(to_unit(z))

    def lookup(self, ids: _check.Ids) -> Float[Array, "*leading dim"]:
        """The codes of some ids, at length 1."""
        return self._unit().lookup(ids)

    def _unit(self) -> VectorQuantizer:
        return eqx.tree_at(lambda quantizer: quantizer.codebook, self.quantizer, replace_fn=to_unit)


class FactorisedQuantizer(eqx.Module):
    """A projection down, a quantiser of few dimensions, and a projection up (Yu et al. 2021, ViT-VQGAN,
    arXiv:2110.04627, section 3.2).

    The distance is measured in the inner dimensions. Around an `FSQ` or `LFQ` it maps their fixed number of dimensions
    to that of the encoder.

    Args:
        quantizer: a quantiser of this package without a state.
        dim: size of the outer vectors.
        bias: adds biases to the projections.
    """

    down: Projection
    up: Projection
    quantizer: Any

    def __init__(self, quantizer: Any, dim: int, *, bias: bool = True, key: PRNGKeyArray):
        keys = RNG(key)
        self.down = Projection(dim, quantizer.dim, bias=bias, key=next(keys))
        self.up = Projection(quantizer.dim, dim, bias=bias, key=next(keys))
        self.quantizer = quantizer

    @property
    def codes(self) -> int:
        return self.quantizer.codes

    @property
    def dim(self) -> int:
        return self.down.in_dim

    def __call__(self, z: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None) -> Quantized:
        _check.last_axis(z, "dim", self.dim)
        quantized = self.quantizer(self.down(z), key=key)
        return quantized._replace(vectors=self.up(quantized.vectors))

    def nearest(self, z: Float[Array, "*leading dim"]) -> Int[Array, "*ids"]:
        """The ids only."""
        return self.quantizer.nearest(self.down(z))

    def lookup(self, ids: _check.Ids) -> Float[Array, "*leading dim"]:
        """The codes of some ids, projected up."""
        return self.up(self.quantizer.lookup(ids))


def to_unit(x: Float[Array, "*leading dim"]) -> Float[Array, "*leading dim"]:
    """x normalised to length 1, in its dtype; zero remains zero."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.maximum(jnp.sum(wide**2, axis=-1, keepdims=True), 1e-12))).astype(x.dtype)
