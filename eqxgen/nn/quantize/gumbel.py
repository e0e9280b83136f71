"""Quantisation by the Gumbel softmax (Jang et al. 2016, arXiv:1611.01144; Ramesh et al. 2021, DALL-E, arXiv:2102.12092,
section 2.1).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.linear import Projection
from eqxgen.nn.quantize.estimator import straight_through
from eqxgen.nn.quantize.quantized import Quantized, rows
from eqxgen.rng import RNG


class GumbelQuantizer(eqx.Module):
    """Logits over codes by a projection; a code is drawn in training, and the most likely one is used in inference.

    The forward pass returns the vector of one code; the backward pass is that of the mixture of all codes by the Gumbel
    softmax. `distance` is the divergence of the logits' softmax from the uniform distribution, in nats: its weight in
    the loss is the paper's beta.

    Args:
        codes: number of codes.
        dim: size of the vectors and the codes.
        temperature: of the Gumbel softmax; an argument of the call overrides it, as both papers lower it in training.
    """

    logits: Projection
    codebook: Float[Array, "codes dim"]
    inference: bool
    temperature: float = eqx.field(static=True)

    def __init__(self, codes: int, dim: int, *, temperature: float = 1.0, inference: bool = False, key: PRNGKeyArray):
        _check.positive(codes=codes, dim=dim)
        _check.above_zero(temperature=temperature)
        keys = RNG(key)
        self.logits = Projection(dim, codes, key=next(keys))
        self.codebook = jr.normal(next(keys), (codes, dim))
        self.temperature, self.inference = temperature, inference

    @property
    def codes(self) -> int:
        return self.codebook.shape[0]

    @property
    def dim(self) -> int:
        return self.codebook.shape[1]

    def __call__(
        self,
        z: Float[Array, "*leading dim"],
        *,
        temperature: "float | Float[Array, ''] | None" = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Quantized:
        logits = self.logits(z).astype(jnp.float32)
        log_soft = jax.nn.log_softmax(logits, axis=-1)
        soft = jnp.exp(log_soft)
        if self.inference if inference is None else inference:
            mixture = soft
            ids = jnp.argmax(logits, axis=-1)
        elif key is None:
            raise ValueError("GumbelQuantizer needs key=... in training: pass one, or inference=True")
        else:
            noisy = logits + jr.gumbel(key, logits.shape)
            mixture = jax.nn.softmax(noisy / (self.temperature if temperature is None else temperature), axis=-1)
            ids = jnp.argmax(noisy, axis=-1)
        chosen = straight_through(mixture, jax.nn.one_hot(ids, self.codes))
        entropy = -jnp.sum(soft * log_soft, axis=-1)
        vectors = (chosen @ self.codebook.astype(jnp.float32)).astype(z.dtype)
        assignment = jnp.mean(soft.reshape(-1, self.codes), axis=0)
        return Quantized(vectors, ids, jnp.log(float(self.codes)) - entropy, entropy, assignment)

    def nearest(self, z: Float[Array, "*leading dim"]) -> Int[Array, "*leading"]:
        """The ids of the most likely codes."""
        return jnp.argmax(self.logits(z), axis=-1)

    def lookup(self, ids: _check.Ids) -> Float[Array, "*leading dim"]:
        """The codes of some ids; ids out of range are an error, or NaN inside a compiled program."""
        return rows(self.codebook, ids)
