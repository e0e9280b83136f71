"""The result of quantisers, and their shared computations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eqxgen.nn import _check
from eqxgen.nn._mesh import take_rows
from eqxgen.nn.quantize.estimator import Estimator


class Quantized(NamedTuple):
    """The result of a quantiser.

    Attributes:
        vectors: the chosen codes; the gradient passes to the input by the quantiser's estimator.
        ids: of the chosen codes.
        distance: the loss of each vector: squared distance to its code, mean over `dim`, with the gradient of the
            codebook and commitment terms. Quantisers without a learned codebook document their own.
        entropy: of each vector's soft assignment, in nats; zero for quantisers without one.
        assignment: mean soft assignment over all vectors, a distribution over codes. Average it over the batch before
            `entropy_of`.
    """

    vectors: Float[Array, "*leading dim"]
    ids: Int[Array, "*leading"]
    distance: Float[Array, "*leading"]
    entropy: Float[Array, "*leading"]
    assignment: Float[Array, " codes"]


def squared_distances(z: Float[Array, "n dim"], codebook: Float[Array, "codes dim"]) -> Float[Array, "n codes"]:
    """|z - e|² for every pair, as |z|² - 2 z·e + |e|²: one matrix product.

    Vectors and codes are first shifted by the mean of the codebook: far from zero, the three terms would cancel all but
    a few digits of float32.
    """
    centre = jax.lax.stop_gradient(jnp.mean(codebook, axis=0, keepdims=True))
    z, codebook = z - centre, codebook - centre
    products = jnp.matmul(z, codebook.T, precision="highest")
    return jnp.sum(z**2, axis=1, keepdims=True) - 2 * products + jnp.sum(codebook**2, axis=1)[None]


def find_nearest(z: Float[Array, "*leading dim"], codebook: Float[Array, "codes dim"]) -> Int[Array, "*leading"]:
    """Ids of the codes at the smallest distance."""
    return jnp.argmin(squared_distances(flat(z), codebook), axis=-1).reshape(z.shape[:-1])


def rows(codebook: Float[Array, "codes dim"], ids: _check.Ids) -> Float[Array, "*leading dim"]:
    """The codes of some ids; ids out of range are an error, or NaN inside a compiled program."""
    return take_rows(codebook, _check.ids(ids, len(codebook), "ids", "codes"))


def flat(z: Float[Array, "*leading dim"]) -> Float[Array, "n dim"]:
    """All vectors in float32 at least, along one axis."""
    return z.reshape(-1, z.shape[-1]).astype(jnp.promote_types(z.dtype, jnp.float32))


def soft_assignment(
    distances: Float[Array, "n codes"], temperature: float
) -> tuple[Float[Array, " n"], Float[Array, " codes"]]:
    """Entropy of the softmax of `-distances / temperature` of each vector, and the mean of those softmaxes."""
    log_soft = jax.nn.log_softmax(-distances / temperature, axis=-1)
    soft = jnp.exp(log_soft)
    return -jnp.sum(soft * log_soft, axis=-1), jnp.mean(soft, axis=0)


def quantise(
    z: Float[Array, "*leading dim"],
    codebook: Float[Array, "codes dim"],
    *,
    learn: float,
    commitment: float,
    temperature: float,
    estimator: Estimator,
) -> Quantized:
    """Each vector to its nearest code. `distance` is `learn |sg(z) - e|² + commitment |z - sg(e)|²`."""
    sg = jax.lax.stop_gradient
    vectors = flat(z)
    distances = squared_distances(vectors, codebook)
    ids = jnp.argmin(distances, axis=-1)
    codes = take_rows(codebook, ids)
    distance = commitment * (vectors - sg(codes)) ** 2
    distance = distance if learn == 0 else learn * (sg(vectors) - codes) ** 2 + distance
    entropy, assignment = soft_assignment(distances, temperature)
    return Quantized(
        vectors=estimator(z, codes.reshape(z.shape).astype(z.dtype)),
        ids=ids.reshape(z.shape[:-1]),
        distance=jnp.mean(distance, axis=-1).reshape(z.shape[:-1]),
        entropy=entropy.reshape(z.shape[:-1]),
        assignment=assignment,
    )
