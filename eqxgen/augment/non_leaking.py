"""Geometric augmentations of EDM, which do not leak into samples, as the network is given their parameters and samples
are drawn with zeros for them (Karras et al. 2022, arXiv:2206.00364, appendix F.2, table 6).

    parameter          drawn as                                     label
    flip of x          always, w of 0 or 1                          w
    flip of y          w of 0 or 1                                  w
    scale              2^(0.2 w), w normal                          w
    rotation           w uniform in (-π, π)                         cos w - 1, sin w
    anisotropy         2^(0.2 w), w normal, along an angle r        w cos r, w sin r
    translation        0.125 of the side, w normal, both axes       w of x, w of y

Each but the first is made with a probability, and otherwise w is 0. Difference: pixels are interpolated linearly, where
the paper resamples by a wavelet at twice the size.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.augment.geometry import rotation, scaling, translation, warped
from eqxgen.rng import RNG

LABELS = 9
"""Number of labels."""
SPREAD = 0.2
"""Deviation of the logarithm to base 2 of scale and anisotropy."""
SHIFT = 0.125
"""Deviation of a translation, as a share of the side."""


class Augmented(NamedTuple):
    """An augmented image, and the labels of its augmentations."""

    image: Float[Array, "height width channels"]
    labels: Float[Array, "9"]


def augment(image: Float[Array, "height width channels"], probability: float, *, key: PRNGKeyArray) -> Augmented:
    """One example, augmented.

    Args:
        probability: of each augmentation but the flip of x; 0.12 for CIFAR-10 and 0.15 for FFHQ in the paper.
        key: of the draws.
    """
    keys = RNG(key)

    def kept(w: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.where(jr.uniform(next(keys)) < probability, w, 0.0)

    mirror, over = jr.bernoulli(next(keys)).astype(jnp.float32), kept(jr.bernoulli(next(keys)).astype(jnp.float32))
    scale, turn = kept(jr.normal(next(keys))), kept(jr.uniform(next(keys), minval=-math.pi, maxval=math.pi))
    stretch = kept(jr.normal(next(keys)))
    angle = jnp.where(jr.bernoulli(next(keys)), jr.uniform(next(keys), minval=-math.pi, maxval=math.pi), 0.0)
    move = kept(jr.normal(next(keys), (2,)))
    labels = jnp.stack(
        [
            mirror,
            over,
            scale,
            jnp.cos(turn) - 1,
            jnp.sin(turn),
            stretch * jnp.cos(angle),
            stretch * jnp.sin(angle),
            *move,
        ]
    )
    height, width, _ = image.shape
    size = jnp.exp2(SPREAD * stretch)
    forward = (
        translation(move[0] * SHIFT * width, move[1] * SHIFT * height)
        @ rotation(angle)
        @ scaling(size, 1 / size)
        @ rotation(-angle)
        @ rotation(turn)
        @ scaling(jnp.exp2(SPREAD * scale), jnp.exp2(SPREAD * scale))
        @ scaling(1 - 2 * mirror, 1 - 2 * over)
    )
    return Augmented(warped(image, forward), labels)
