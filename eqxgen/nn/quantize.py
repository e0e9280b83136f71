"""Vector quantisation (van den Oord et al. 2017, arXiv:1711.00937)."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.linear import check_ids


class Quantized(NamedTuple):
    """What `VectorQuantizer` says of some vectors.

    Attributes:
        vectors: the nearest codes; the gradient passes straight through to the input.
        ids: which codes.
        distance: squared distance of each vector to its code with the gradient of the codebook and commitment terms, mean over `dim`.
        entropy: of each vector's soft assignment, in nats.
        assignment: mean soft assignment over all vectors: a distribution over codes. Average it over the batch, then take `entropy_of`.
    """

    vectors: Float[Array, "*leading dim"]
    ids: Int[Array, "*leading"]
    distance: Float[Array, "*leading"]
    entropy: Float[Array, "*leading"]
    assignment: Float[Array, " codes"]


class VectorQuantizer(eqx.Module):
    """Replaces each vector by the nearest row of a learned codebook.

    `distance` holds `|sg(z) - e|² + commitment |z - sg(e)|²`, so the codebook follows the encoder with weight 1 and the encoder the codebook
    with weight `commitment` (equation 3 of the paper). Soft assignments are the softmax of `-|z - e|² / temperature` over codes; low
    entropy of each and high entropy of their mean is the entropy loss of MaskGIT's tokenizer.

    Args:
        codes: number of codes.
        dim: size of each.
        commitment: weight of the encoder's part of the loss; 0.25 in the paper.
        temperature: of the soft assignments; 0.01 in MaskGIT.
    """

    codebook: Float[Array, "codes dim"]
    commitment: float = eqx.field(static=True)
    temperature: float = eqx.field(static=True)

    def __init__(self, codes: int, dim: int, *, commitment: float = 0.25, temperature: float = 0.01, key: PRNGKeyArray):
        _check.positive(codes=codes, dim=dim)
        # MaskGIT's: variance_scaling(1, fan_in, uniform) over the code axis. `data_start` replaces it by data before training.
        self.codebook = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")(key, (codes, dim), jnp.float32)
        self.commitment, self.temperature = commitment, temperature

    def __call__(self, z: Float[Array, "*leading dim"]) -> Quantized:
        flat = z.reshape(-1, z.shape[-1]).astype(jnp.float32)
        distances = squared_distances(flat, self.codebook)
        ids = jnp.argmin(distances, axis=-1)
        codes = self.codebook[ids]
        sg = jax.lax.stop_gradient
        distance = jnp.mean((sg(flat) - codes) ** 2 + self.commitment * (flat - sg(codes)) ** 2, axis=-1)
        log_soft = jax.nn.log_softmax(-distances / self.temperature, axis=-1)
        soft = jnp.exp(log_soft)
        leading = z.shape[:-1]
        return Quantized(
            vectors=z + sg(codes.reshape(z.shape).astype(z.dtype) - z),
            ids=ids.reshape(leading),
            distance=distance.reshape(leading),
            entropy=-jnp.sum(soft * log_soft, axis=-1).reshape(leading),
            assignment=jnp.mean(soft, axis=0),
        )

    def nearest(self, z: Float[Array, "*leading dim"]) -> Int[Array, "*leading"]:
        """The ids alone."""
        return jnp.argmin(squared_distances(z.reshape(-1, z.shape[-1]).astype(jnp.float32), self.codebook), axis=-1).reshape(z.shape[:-1])

    def lookup(self, ids: Int[Array, "*leading"]) -> Float[Array, "*leading dim"]:
        """The codes of some ids; as `Embedding`, ids out of range are an error, or NaN inside a compiled program."""
        check_ids(ids, len(self.codebook), "ids", "codes")
        return self.codebook.at[ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def squared_distances(z: Float[Array, "n dim"], codebook: Float[Array, "codes dim"]) -> Float[Array, "n codes"]:
    """|z - e|² for every pair, as |z|² - 2 z·e + |e|²: one matrix product."""
    return jnp.sum(z**2, axis=1, keepdims=True) - 2 * z @ codebook.T + jnp.sum(codebook**2, axis=1)[None]


def entropy_of(distribution: Float[Array, " codes"]) -> Float[Array, ""]:
    """Entropy in nats."""
    return -jnp.sum(distribution * jnp.log(distribution + 1e-10))


def usage(counts: Float[Array, " codes"]) -> Float[Array, ""]:
    """Share of the codes that were used at all, from how often each was."""
    return jnp.mean((counts > 0).astype(jnp.float32))


def perplexity(counts: Float[Array, " codes"]) -> Float[Array, ""]:
    """exp of the entropy of the codes' frequencies: from 1 (one code) to `codes` (all alike)."""
    return jnp.exp(entropy_of(counts / jnp.maximum(jnp.sum(counts), 1)))


def count_codes(ids: Int[Array, "*leading"], codes: int) -> Float[Array, " codes"]:
    """How often each code occurs."""
    return jnp.zeros(codes).at[ids.reshape(-1)].add(1.0)


def data_start(quantizer: VectorQuantizer, z: Float[Array, "n dim"], *, iterations: int = 10, key: PRNGKeyArray) -> VectorQuantizer:
    """The codebook placed by k-means on encoder outputs (Łańcucki et al. 2020, arXiv:2005.08520, section 3.3).

    Starts from `codes` vectors drawn from `z` and runs Lloyd's algorithm; a centre that loses all its vectors stays where it is, for
    `restart_dead_codes` to find.
    """
    codes = len(quantizer.codebook)
    start = z[jr.choice(key, len(z), (codes,), replace=len(z) < codes)]

    def lloyd(centres, _):
        ids = jnp.argmin(squared_distances(z, centres), axis=-1)
        counts = count_codes(ids, codes)[:, None]
        sums = jnp.zeros_like(centres).at[ids].add(z)
        return jnp.where(counts > 0, sums / jnp.maximum(counts, 1), centres), None

    codebook, _ = jax.lax.scan(lloyd, start, length=iterations)
    return eqx.tree_at(lambda q: q.codebook, quantizer, codebook)


def restart_dead_codes(quantizer: VectorQuantizer, z: Float[Array, "n dim"], *, key: PRNGKeyArray) -> VectorQuantizer:
    """Moves every code that no vector of `z` chooses onto one of the vectors, drawn at random (Dhariwal et al. 2020, arXiv:2005.00341).

    Codes in use do not move.
    """
    codes = len(quantizer.codebook)
    alive = count_codes(quantizer.nearest(z), codes) > 0
    drawn = z[jr.choice(key, len(z), (codes,), replace=len(z) < codes)].astype(jnp.float32)
    return eqx.tree_at(lambda q: q.codebook, quantizer, jnp.where(alive[:, None], quantizer.codebook, drawn))
