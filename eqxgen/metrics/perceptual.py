"""Perceptual distance of two images by the feature maps of a network, and the length of paths by it."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_NORM = 1e-10


def perceptual_distance(
    first: Sequence[Float[Array, "_ _ _"]],
    second: Sequence[Float[Array, "_ _ _"]],
    heads: Sequence[Float[Array, " _"]],
) -> Float[Array, ""]:
    """Sum over layers of the spatial mean of head · (a / |a| - b / |b|)², in at least float32.

    It is LPIPS with the maps and heads of that package alone; with any others, name them: `Features.score("lpips")`.

    Args:
        first: maps (height, width, channels) of one image, layer by layer.
        second: of the other.
        heads: weights of each layer's channels, not negative in the published ones.

    Raises:
        ValueError: other numbers of layers, or shapes that do not belong together.

    Source: Zhang et al. 2018 (arXiv:1801.03924, equation 1), with x / (|x| + 1e-10) as in lpips 0.1.4.
    """
    if not first or not len(first) == len(second) == len(heads):
        counts = f"{len(first)}, {len(second)} and {len(heads)}"
        raise ValueError(f"first, second and heads must have as many layers each, at least 1: got {counts}")
    for layer, (a, b, head) in enumerate(zip(first, second, heads)):
        if a.shape != b.shape or head.shape != a.shape[-1:]:
            shapes = f"{a.shape}, {b.shape} and {head.shape}"
            raise ValueError(f"maps and head of layer {layer} must be (h, w, c), (h, w, c), (c,): got {shapes}")
    return sum((_layer(a, b, head) for a, b, head in zip(first, second, heads)), jnp.zeros(()))


def _layer(a: Array, b: Array, head: Array) -> Float[Array, ""]:
    dtype = jnp.promote_types(jnp.result_type(a, b, head), jnp.float32)
    one, two = _unit(a.astype(dtype)), _unit(b.astype(dtype))
    return jnp.mean((one - two) ** 2 @ head.astype(dtype))


def _unit(x: Array) -> Array:
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    # The root's gradient at 0 would be infinite.
    norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return x / (norm + _NORM)


class PathLength(NamedTuple):
    """Mean and standard deviation of the lengths that are kept, and how many these are."""

    value: float
    deviation: float
    kept: int


def path_length(distances: Float[np.ndarray, " n"], epsilon: float = 1e-4, trim: float = 0.01) -> PathLength:
    """Perceptual path length of Karras et al. 2019 (arXiv:1812.04948, equation 2): the mean of d / epsilon².

    Args:
        distances: perceptual, of the images of `path_points` each.
        epsilon: step along the path.
        trim: share of the smallest and of the largest lengths that is left out, 1 % in the authors' code.

    Raises:
        ValueError: distances that are negative or not finite, an epsilon that is not above 0, a trim outside [0, 0.5).
    """
    values = np.asarray(distances, np.float64)
    if values.size == 0 or not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("distances must be finite, at least 0, and of at least one path")
    if not (epsilon > 0 and 0 <= trim < 0.5):
        raise ValueError(f"epsilon must be above 0 and trim in [0, 0.5): got {epsilon} and {trim}")
    lengths = values / epsilon**2
    low = np.quantile(lengths, trim, method="lower")
    high = np.quantile(lengths, 1 - trim, method="higher")
    kept = lengths[(lengths >= low) & (lengths <= high)]
    return PathLength(float(np.mean(kept)), float(np.std(kept)), len(kept))


def path_points(
    first: Float[Array, "*n dim"],
    second: Float[Array, "*n dim"],
    t: Float[Array, "*n"],
    epsilon: float | Float[Array, ""] = 1e-4,
    *,
    spherical: bool = True,
) -> tuple[Float[Array, "*n dim"], Float[Array, "*n dim"]]:
    """Latents at t and t + epsilon of the path between two.

    Args:
        t: uniform in [0, 1], or 0 for the lengths at the ends.
        spherical: along the great circle of unit vectors, for normal latents; else along the line, for styles.
    """
    at = lambda t: _great_circle(first, second, t) if spherical else first + (second - first) * t[..., None]
    return at(t), at(t + epsilon)


def _great_circle(first: Array, second: Array, t: Array) -> Array:
    # Two latents of one direction have no normal, whose 0 is right.
    unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), jnp.finfo(x.dtype).tiny)
    a, b = unit(first), unit(second)
    cosine = jnp.sum(a * b, axis=-1, keepdims=True)
    angle = t[..., None] * jnp.arccos(jnp.clip(cosine, -1, 1))
    return unit(a * jnp.cos(angle) + unit(b - cosine * a) * jnp.sin(angle))
