"""A learned codebook (van den Oord et al. 2017, arXiv:1711.00937)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.quantize.estimator import Estimator, straight_through
from eqxgen.nn.quantize.quantized import Quantized, find_nearest, quantise, rows


class VectorQuantizer(eqx.Module):
    """Replace each vector by the nearest row of a learned codebook.

    `distance` holds `|sg(z) - e|² + commitment |z - sg(e)|²`, which trains the codebook with weight 1 and the encoder
    with weight `commitment` (equation 3 of the paper). Soft assignments are the softmax of `-|z -
    e|² / temperature` over codes; low entropy of each and high entropy of their mean is the entropy loss of MaskGIT's
    tokenizer.

    Args:
        codes: number of codes.
        dim: size of each.
        commitment: weight of the encoder's part of the loss; 0.25 in the paper.
        temperature: of the soft assignments; 0.01 in MaskGIT.
        estimator: gradient estimator from codes to vectors: `straight_through` or `rotate`.
        legacy: `commitment |sg(z) - e|² + |z - sg(e)|²`: the weight is of the other term, as the default of taming
            transformers' `VectorQuantizer2` has it.
    """

    codebook: Float[Array, "codes dim"]
    commitment: float = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    estimator: Estimator = eqx.field(static=True)
    legacy: bool = eqx.field(static=True)

    def __init__(
        self,
        codes: int,
        dim: int,
        *,
        commitment: float = 0.25,
        temperature: float = 0.01,
        estimator: Estimator = straight_through,
        legacy: bool = False,
        key: PRNGKeyArray,
    ):
        _check.positive(codes=codes, dim=dim)
        _check.above_zero(temperature=temperature)
        self.codebook = draw_codebook(codes, dim, key=key)
        self.commitment, self.temperature, self.estimator = commitment, temperature, estimator
        self.legacy = legacy

    @property
    def codes(self) -> int:
        return self.codebook.shape[0]

    @property
    def dim(self) -> int:
        return self.codebook.shape[1]

    def __call__(self, z: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None) -> Quantized:
        _check.last_axis(z, "dim", self.dim)
        return quantise(
            z,
            self.codebook,
            learn=self.commitment if self.legacy else 1.0,
            commitment=1.0 if self.legacy else self.commitment,
            temperature=self.temperature,
            estimator=self.estimator,
        )

    def nearest(self, z: Float[Array, "*leading dim"]) -> Int[Array, "*leading"]:
        """The ids only."""
        _check.last_axis(z, "dim", self.dim)
        return find_nearest(z, self.codebook)

    def lookup(self, ids: _check.Ids) -> Float[Array, "*leading dim"]:
        """The codes of some ids; ids out of range are an error, or NaN inside a compiled program."""
        return rows(self.codebook, ids)


def draw_codebook(codes: int, dim: int, *, key: PRNGKeyArray) -> Float[Array, "codes dim"]:
    """The initialisation of MaskGIT: variance_scaling(1, fan_in, uniform) over the code axis."""
    return jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")(key, (codes, dim), jnp.float32)
