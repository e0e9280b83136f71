"""Lookup-free quantisation (Yu et al. 2023, MAGVIT-v2, arXiv:2310.05737, section 3.1): the signs of the entries."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.quantize.estimator import straight_through
from eqxgen.nn.quantize.quantized import Quantized, flat, soft_assignment, squared_distances


class LFQ(eqx.Module):
    """Each entry becomes 1 where it is positive and -1 elsewhere; the id is the binary number of these signs, the first
    entry highest.

    The layer has no parameters. `distance` is `commitment |z - sg(e)|²`. Soft assignments are over all codes, as in
    `VectorQuantizer`, so that `mean(entropy) - entropy_of(assignment)` is the entropy penalty of the paper; they need
    memory for `2**bits` numbers per vector.

    Args:
        bits: size of the vectors; the number of codes is `2**bits`.
        commitment: weight of the encoder's loss.
        temperature: of the soft assignments.
    """

    bits: int = eqx.field(static=True)
    commitment: float = eqx.field(static=True)
    temperature: float = eqx.field(static=True)

    def __init__(
        self, bits: int, *, commitment: float = 0.25, temperature: float = 0.01, key: PRNGKeyArray | None = None
    ):
        _check.positive(bits=bits)
        if bits > 30:
            raise ValueError(f"bits must be at most 30, which an int32 holds: got {bits}")
        _check.above_zero(temperature=temperature)
        self.bits, self.commitment, self.temperature = bits, commitment, temperature

    @property
    def codes(self) -> int:
        return 2**self.bits

    @property
    def dim(self) -> int:
        return self.bits

    def __call__(self, z: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None) -> Quantized:
        ids = self.nearest(z)
        signs = 2 * (z > 0).astype(jnp.float32) - 1
        distance = self.commitment * jnp.mean((z.astype(jnp.float32) - signs) ** 2, axis=-1)
        entropy, assignment = soft_assignment(
            squared_distances(flat(z), self.lookup(jnp.arange(self.codes))), self.temperature
        )
        vectors = straight_through(z, signs.astype(z.dtype))
        return Quantized(vectors, ids, distance, entropy.reshape(ids.shape), assignment)

    def nearest(self, z: Float[Array, "*leading dim"]) -> Int[Array, "*leading"]:
        """The ids only."""
        _check.last_axis(z, "dim", self.dim)
        return jnp.sum((z > 0).astype(jnp.int32) << self._shifts(z.ndim), axis=-1)

    def lookup(self, ids: _check.Ids) -> Float[Array, "*leading dim"]:
        """The computed codes of some ids; ids out of range are an error, or NaN inside a compiled program."""
        ids = _check.ids(ids, self.codes, "ids", "codes")
        bits = (ids[..., None].astype(jnp.int32) >> self._shifts(ids.ndim + 1)) & 1
        known = (ids >= 0) & (ids < self.codes)
        return jnp.where(known[..., None], 2.0 * bits - 1, jnp.nan)

    def _shifts(self, rank: int) -> Int[Array, "*ones dim"]:
        return jnp.arange(self.bits - 1, -1, -1, dtype=jnp.int32).reshape((1,) * (rank - 1) + (-1,))
