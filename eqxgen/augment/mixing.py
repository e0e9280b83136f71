"""Examples mixed with each other: mixup (Zhang et al. 2017, arXiv:1710.09412) and CutMix (Yun et al. 2019,
arXiv:1905.04899).

Each example is mixed with its mirror place in the batch, the first with the last, so one share and one window serve a
whole batch. Targets are weights of classes that sum to 1. The functions take a whole batch, before it is split over
devices or into micro-batches.
"""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check

Images = Float[Array, "batch height width channels"]
Targets = Float[Array, "batch classes"]


def mixup(images: Images, targets: Targets, share: Float[Array, ""] | float) -> tuple[Images, Targets]:
    """`share` of each example and the rest of its partner, in pixels and in targets.

    Raises:
        ValueError: the share is outside [0, 1], images or targets are no floating-point numbers, or there are not as
            many.
    """
    _checked(images, targets, share)
    blend = lambda x: (share * x + (1 - share) * x[::-1]).astype(x.dtype)
    return blend(images), blend(targets)


def cutmix(
    images: Images, targets: Targets, share: Float[Array, ""] | float, centre: Float[Array, "2"]
) -> tuple[Images, Targets]:
    """Each example with a window of its partner: of `1 - share` of the area, around `centre` in [0, 1), cut off at the
    border. Targets are mixed by the area that the window then has.

    Raises:
        ValueError: as `mixup`.
    """
    _checked(images, targets, share)
    sides = jnp.asarray(images.shape[1:3], jnp.float32)
    middle, half = jnp.floor(centre * sides), jnp.sqrt(1 - jnp.asarray(share, jnp.float32)) * sides / 2
    low, high = jnp.maximum(jnp.rint(middle - half), 0), jnp.minimum(jnp.rint(middle + half), sides)
    inside = [
        (jnp.arange(side) >= start) & (jnp.arange(side) < stop)
        for side, start, stop in zip(images.shape[1:], low, high)
    ]
    window = (inside[0][:, None] & inside[1][None])[None, :, :, None]
    kept = 1 - jnp.prod(high - low) / jnp.prod(sides)
    mixed = (kept * targets + (1 - kept) * targets[::-1]).astype(targets.dtype)
    return jnp.where(window, images[::-1], images), mixed


def mixed(
    images: Images, targets: Targets, mixup_alpha: float, cutmix_alpha: float, *, key: PRNGKeyArray
) -> tuple[Images, Targets]:
    """A batch mixed by one share of Beta(alpha, alpha): by mixup, or by CutMix, or by either with probability 1/2 where
    both alphas are above 0.

    Raises:
        ValueError: an alpha is negative or not finite, both are 0, or as in `mixup`.
    """
    alphas = mixup_alpha, cutmix_alpha
    if not all(0 <= alpha < math.inf for alpha in alphas) or not any(alphas):
        raise ValueError(
            f"mixup_alpha and cutmix_alpha must be at least 0 and finite, and one above 0: got {mixup_alpha} and "
            f"{cutmix_alpha}"
        )
    share_key, centre_key, choice_key = jr.split(key, 3)
    share = lambda alpha: jr.beta(share_key, alpha, alpha)
    blended = lambda: mixup(images, targets, share(mixup_alpha))
    cut = lambda: cutmix(images, targets, share(cutmix_alpha), jr.uniform(centre_key, (2,)))
    if mixup_alpha and cutmix_alpha:
        return jax.lax.cond(jr.bernoulli(choice_key), blended, cut)
    return blended() if mixup_alpha else cut()


def _checked(images: Array, targets: Array, share: Array | float) -> None:
    """Raises `ValueError`, see `mixup`."""
    _check.inexact(images, "images")
    _check.inexact(targets, "targets")
    if images.ndim != 4 or targets.ndim != 2 or len(images) != len(targets):
        raise ValueError(
            "images must be (batch, height, width, channels) and targets (batch, classes), as many: got shapes "
            f"{images.shape} and {targets.shape}"
        )
    if not isinstance(share, Tracer):
        _check.probability(share=float(share))
