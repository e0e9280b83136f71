"""Losses of pixels with classes."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eqxgen._widen import widen
from eqxgen.losses.tokens import cross_entropy
from eqxgen.nn import _check


def dice_loss(
    logits: Float[Array, "height width classes"], labels: Int[Array, "height width"], smooth: float = 1.0
) -> Float[Array, ""]:
    """One less the mean over the classes of the soft Dice coefficient of an image (Milletari et al. 2016,
    arXiv:1606.04797, section 3, with probabilities in the denominator in place of their squares), in [0, 1).

        1 - mean over c of (2 Σ p_c y_c + smooth) / (Σ p_c + Σ y_c + smooth)

    Args:
        logits: of each pixel.
        labels: class of each pixel; one outside [0, classes) counts as none.
        smooth: pixels added to both counts, at least 0, by which a class that is absent has a gradient too.

    Raises:
        ValueError: the smoothing is negative or not finite, or there is not a label for each pixel of one image.
    """
    _check.image(logits)
    _check.example(labels, name="labels", height=logits.shape[0], width=logits.shape[1])
    if not 0 <= smooth < math.inf:
        raise ValueError(f"smooth must be at least 0 and finite: got {smooth}")
    shares = jax.nn.softmax(widen(logits), axis=-1)
    true = jax.nn.one_hot(labels, logits.shape[-1], dtype=shares.dtype)
    shared = jnp.sum(shares * true, axis=(0, 1))
    pixels = jnp.sum(shares, axis=(0, 1)) + jnp.sum(true, axis=(0, 1))
    return 1 - jnp.mean((2 * shared + smooth) / (pixels + smooth))


def pixel_cross_entropy(
    logits: Float[Array, "height width classes"], labels: Int[Array, "height width"]
) -> Float[Array, ""]:
    """Mean over the pixels of -log softmax(logits)[label], in nats; NaN with a label outside [0, classes).

    Raises:
        ValueError: there is not a label for each pixel of one image.
    """
    _check.image(logits)
    return jnp.mean(cross_entropy(logits, labels))
