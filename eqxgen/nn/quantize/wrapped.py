"""Quantisers around another: on the unit sphere, and in fewer dimensions than the vectors have."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.linear import Projection
from eqxgen.nn.quantize.quantized import Quantized
from eqxgen.nn.quantize.vector import VectorQuantizer
from eqxgen.rng import RNG


class CosineQuantizer(eqx.Module):
    """Vectors and codes at length 1, so that the nearest code is that of the smallest angle (Yu et al. 2021, ViT-VQGAN,
    arXiv:2110.04627).

    Args:
        quantizer: whose codebook is taken at length 1. What comes out are codes of length 1.
    """

    quantizer: VectorQuantizer

    def __init__(self, quantizer: VectorQuantizer, *, key: PRNGKeyArray | None = None):
        self.quantizer = quantizer

    @property
    def codes(self) -> int:
        return self.quantizer.codes

    @property
    def dim(self) -> int:
        return self.quantizer.dim

    def __call__(self, z: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None) -> Quantized:
        return self._unit()(to_unit(z), key=key)

    def nearest(self, z: Float[Array, "*leading dim"]) -> Int[Array, "*leading"]:
        """The ids alone."""
        return self._unit().nearest(to_unit(z))

    def lookup(self, ids: Int[Array, "*leading"]) -> Float[Array, "*leading dim"]:
        """The codes of some ids, at length 1."""
        return self._unit().lookup(ids)

    def _unit(self) -> VectorQuantizer:
        return eqx.tree_at(lambda quantizer: quantizer.codebook, self.quantizer, replace_fn=to_unit)


class FactorisedQuantizer(eqx.Module):
    """A projection down, a quantiser of few dimensions, and a projection up (Yu et al. 2021, ViT-VQGAN,
    arXiv:2110.04627, section 3.2).

    The distance is measured between the few. Around an `FSQ` or `LFQ` it fits their fixed number of dimensions to the
    encoder's.

    Args:
        quantizer: any of this package without a state.
        dim: size of the vectors outside.
        bias: whether the projections have biases.
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
        """The ids alone."""
        return self.quantizer.nearest(self.down(z))

    def lookup(self, ids: Int[Array, "*ids"]) -> Float[Array, "*leading dim"]:
        """The codes of some ids, projected up."""
        return self.up(self.quantizer.lookup(ids))


def to_unit(x: Float[Array, "*leading dim"]) -> Float[Array, "*leading dim"]:
    """x at length 1, in its own type; zero stays zero."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.maximum(jnp.sum(wide**2, axis=-1, keepdims=True), 1e-12))).astype(x.dtype)
