"""Codebooks: usage, initialisation from data, restart of unused codes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn.quantize.quantized import find_nearest
from eqxgen.nn.quantize.vector import VectorQuantizer


def entropy_of(distribution: Float[Array, " codes"]) -> Float[Array, ""]:
    """Entropy in nats."""
    return -jnp.sum(distribution * jnp.log(distribution + 1e-10))


def usage(counts: Float[Array, " codes"]) -> Float[Array, ""]:
    """Share of the codes with a count above zero."""
    return jnp.mean((counts > 0).astype(jnp.float32))


def perplexity(counts: Float[Array, " codes"]) -> Float[Array, ""]:
    """exp of the entropy of the codes' frequencies: from 1 (one code) to `codes` (all equally often)."""
    return jnp.exp(entropy_of(counts / jnp.maximum(jnp.sum(counts), 1)))


def count_codes(ids: Int[Array, "*leading"], codes: int) -> Float[Array, " codes"]:
    """Number of occurrences of each code."""
    zero = (jnp.sum(ids) * 0).astype(jnp.float32)  # on the mesh of the ids, where it has explicit axes
    return (jnp.zeros(codes) + zero).at[ids.reshape(-1)].add(1.0)


def drawn(z: Float[Array, "n dim"], count: int, *, key: PRNGKeyArray) -> Float[Array, "count dim"]:
    """Vectors drawn from `z`, without repetition where `z` has enough."""
    return z[jr.choice(key, len(z), (count,), replace=len(z) < count)].astype(jnp.float32)


def kmeans(
    z: Float[Array, "n dim"], codes: int, *, iterations: int = 10, key: PRNGKeyArray
) -> Float[Array, "codes dim"]:
    """Centres of `z` by Lloyd's algorithm, initialised by `codes` vectors of `z`. A centre without vectors does not
    move.
    """

    def lloyd(centres, _):
        ids = find_nearest(z, centres)
        counts = count_codes(ids, codes)[:, None]
        sums = jnp.zeros_like(centres).at[ids].add(z)
        return jnp.where(counts > 0, sums / jnp.maximum(counts, 1), centres), None

    return jax.lax.scan(lloyd, drawn(z, codes, key=key), length=iterations)[0]


def data_start(
    quantizer: VectorQuantizer, z: Float[Array, "n dim"], *, iterations: int = 10, key: PRNGKeyArray
) -> VectorQuantizer:
    """The codebook set by `kmeans` on encoder outputs (Łańcucki et al. 2020, arXiv:2005.08520, section 3.3).

    Codes that remain unused are moved by `restart_dead_codes`.
    """
    return eqx.tree_at(lambda q: q.codebook, quantizer, kmeans(z, quantizer.codes, iterations=iterations, key=key))


def restart_dead_codes(quantizer: VectorQuantizer, z: Float[Array, "n dim"], *, key: PRNGKeyArray) -> VectorQuantizer:
    """Set every code that is nearest to no vector of `z` to one of these vectors at random (Dhariwal et al. 2020,
    arXiv:2005.00341).

    Codes in use do not move.
    """
    alive = count_codes(quantizer.nearest(z), quantizer.codes) > 0
    codebook = jnp.where(alive[:, None], quantizer.codebook, drawn(z, quantizer.codes, key=key))
    return eqx.tree_at(lambda q: q.codebook, quantizer, codebook)
