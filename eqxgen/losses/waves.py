"""Losses of samples of sound, in nats each and float32 at least."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eqxgen._widen import widen
from eqxgen.losses.tokens import cross_entropy

LOG_SCALE = -7.0
"""Least logarithm of a logistic distribution's scale (Salimans et al. 2017, arXiv:1701.05517)."""


def dual_cross_entropy(logits: Float[Array, "*samples 512"], codes: Int[Array, "*samples"]) -> Float[Array, "*samples"]:
    """-log p of 16-bit samples by two softmaxes (Kalchbrenner et al. 2018, arXiv:1802.08435, section 2).

    Args:
        logits: of the coarse byte, and of the fine byte given the coarse one.
        codes: in [0, 65536).
    """
    return cross_entropy(logits[..., :256], codes >> 8) + cross_entropy(logits[..., 256:], codes & 255)


def logistics_loss(
    parts: Float[Array, "*samples parts"], codes: Int[Array, "*samples"], levels: int = 2**16
) -> Float[Array, "*samples"]:
    """-log p of levels in a mixture of discretised logistic distributions (Salimans et al. 2017, arXiv:1701.05517,
    equation 2): each level has the mass of its step, the outer ones that of all beyond them too.

    Args:
        parts: for each distribution the logit of its share, then all means, then all logarithms of scales, which count
            as at least `LOG_SCALE`; samples in [-1, 1].
        codes: in [0, levels).
        levels: at even steps from -1 to 1.
    """
    shares, means, log_scales = split_logistics(parts)
    x = (codes.astype(means.dtype) * (2.0 / (levels - 1)) - 1.0)[..., None]
    slope, half = jnp.exp(-log_scales), 1.0 / (levels - 1)
    upper, lower = slope * (x + half - means), slope * (x - half - means)
    # σ(u) - σ(l) = σ(u) σ(-l) (1 - exp(l - u)), without a difference of almost equal numbers.
    inside = jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + jnp.log(-jnp.expm1(-2.0 * half * slope))
    code = codes[..., None]
    log_p = jnp.where(
        code == 0, jax.nn.log_sigmoid(upper), jnp.where(code == levels - 1, jax.nn.log_sigmoid(-lower), inside)
    )
    return -jax.nn.logsumexp(jax.nn.log_softmax(shares) + log_p, axis=-1)


def split_logistics(
    parts: Float[Array, "*samples parts"],
) -> tuple[Float[Array, "*samples k"], Float[Array, "*samples k"], Float[Array, "*samples k"]]:
    """Logits of the shares, means and logarithms of the scales."""
    shares, means, log_scales = jnp.split(widen(parts), 3, axis=-1)
    return shares, means, jnp.maximum(log_scales, LOG_SCALE)
