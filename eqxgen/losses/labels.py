"""Cross-entropy of labels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eqxgen._widen import widen
from eqxgen.losses.tokens import cross_entropy
from eqxgen.nn import _check


def smoothed_cross_entropy(
    logits: Float[Array, "*leading classes"], labels: Int[Array, "*leading"], smoothing: float = 0.1
) -> Float[Array, "*leading"]:
    """Cross-entropy in nats to a target that mixes the label with the uniform distribution (Szegedy et al. 2016,
    arXiv:1512.00567, section 7), in float32 at least; a label outside [0, classes) gives NaN.

    Args:
        smoothing: weight of the uniform distribution, in [0, 1).

    Raises:
        ValueError: the smoothing is out of range, or there is not a label for each row of logits.
    """
    _check.rate(smoothing=smoothing)
    wide = widen(logits)
    uniform = jax.nn.logsumexp(wide, axis=-1) - jnp.mean(wide, axis=-1)
    return (1 - smoothing) * cross_entropy(logits, labels) + smoothing * uniform


def soft_cross_entropy(
    logits: Float[Array, "*leading classes"], targets: Float[Array, "*leading classes"], smoothing: float = 0.0
) -> Float[Array, "*leading"]:
    """Cross-entropy in nats to weights of classes that sum to 1, in float32 at least.

    Args:
        smoothing: weight of the uniform distribution, with which the targets are mixed; in [0, 1).

    Raises:
        ValueError: the smoothing is out of range, or logits and targets have two shapes.
    """
    _check.rate(smoothing=smoothing)
    _check.same_shape(logits=logits, targets=targets)
    wide = widen(logits)
    mixed = (1 - smoothing) * targets + smoothing / logits.shape[-1]
    return jax.nn.logsumexp(wide, axis=-1) - jnp.sum(mixed.astype(wide.dtype) * wide, axis=-1)
