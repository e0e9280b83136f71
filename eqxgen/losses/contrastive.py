"""Contrastive losses: of two views of each example of a batch (Chen et al. 2020, arXiv:2002.05709), and of images and
texts, by softmax (Radford et al. 2021, arXiv:2103.00020) or by sigmoid (Zhai et al. 2023, arXiv:2303.15343).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eqxgen._widen import widen
from eqxgen.nn import _check

LARGEST_SCALE = math.log(100.0)
"""Of the logarithm of the scale that multiplies cosines, to which CLIP is clamped after each update (section 2.5)."""


def info_nce(
    first: Float[Array, "batch dim"],
    second: Float[Array, "batch dim"],
    *,
    temperature: float = 0.2,
    weight: Float[Array, " batch"] | None = None,
    axes: tuple[str, ...] = (),
) -> Float[Array, " batch"]:
    """InfoNCE of each example (equation 1), the mean of its two views: the other view is the likely one of all vectors
    of the batch but itself, by cosine similarities over the temperature, in float32 at least.

    Args:
        first, second: vectors of the two views, of any length above zero.
        temperature: divides the similarities.
        weight: 0 for examples that are no negatives of others, such as padding; by default 1. Where all are 0, so is
            the loss.
        axes: of a mesh over which the batch is split, inside `jax.shard_map`: the negatives are those of every device,
            with their gradients.

    Raises:
        ValueError: the temperature is not positive and finite, or an argument is of another shape.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite: got {temperature}")
    _, weight = _pairs(first, second, None, weight, axes, names=("first", "second"))
    batch, views = len(first), jnp.concatenate([_unit(first), _unit(second)])
    others, counted = (_gathered(x, axes) for x in (views, jnp.concatenate([weight, weight])))
    scores = views @ others.T / temperature
    start = jax.lax.axis_index(axes) * 2 * batch if axes else 0
    own = start + jnp.arange(2 * batch)
    self_ = own[:, None] == jnp.arange(len(others))[None, :]
    negatives = jnp.where(self_ | (counted[None, :] == 0), jnp.finfo(scores.dtype).min, scores)
    likely = jnp.sum(views * jnp.roll(views, batch, axis=0), axis=-1) / temperature
    each = jax.nn.logsumexp(negatives, axis=-1) - likely
    return jnp.where(jnp.any(counted != 0), (each[:batch] + each[batch:]) / 2, 0)


def image_text_nce(
    images: Float[Array, "batch dim"],
    texts: Float[Array, "batch dim"],
    log_scale: Float[Array, ""],
    *,
    group: Int[Array, " batch"] | None = None,
    weight: Float[Array, " batch"] | None = None,
    axes: tuple[str, ...] = (),
) -> Float[Array, " batch"]:
    """InfoNCE of each pair of an image and a text (Radford et al. 2021, figure 3): the mean of the cross-entropies of
    its text among all texts of the batch and of its image among all images, in float32 at least.

    Args:
        images, texts: features, of any length above zero.
        log_scale: logarithm of what multiplies the cosines, the inverse of a temperature.
        group: number of what a pair shows or says. Pairs of one number are no negatives of each other: they share the
            target evenly, so the least loss is the logarithm of their count. By default each pair has its own.
        weight: 0 for pairs that are no negatives of others, such as padding; by default 1. Where all are 0, so is the
            loss.
        axes: of a mesh over which the batch is split, inside `jax.shard_map`: features of every device are gathered,
            with their gradients.

    Raises:
        ValueError: an argument is of another shape.
    """
    group, weight = _pairs(images, texts, group, weight, axes)
    images, texts, scale = _unit(images), _unit(texts), jnp.exp(widen(log_scale))
    every_image, every_text, groups, counted = (_gathered(x, axes) for x in (images, texts, group, weight))
    right = (group[:, None] == groups[None, :]) & (counted[None, :] != 0)
    share = right / jnp.maximum(jnp.sum(right, axis=1, keepdims=True), 1)

    def one_way(own: Array, others: Array) -> Array:
        scores = scale * _cosines(own, others)
        scores = jnp.where(counted[None, :] == 0, jnp.finfo(scores.dtype).min, scores)
        return jax.nn.logsumexp(scores, axis=-1) - jnp.sum(jnp.where(right, share * scores, 0), axis=-1)

    losses = (one_way(images, every_text) + one_way(texts, every_image)) / 2
    return jnp.where(jnp.any(counted != 0), losses, 0)


def sigmoid_pairs(
    images: Float[Array, "batch dim"],
    texts: Float[Array, "batch dim"],
    log_scale: Float[Array, ""],
    bias: Float[Array, ""],
    *,
    group: Int[Array, " batch"] | None = None,
    weight: Float[Array, " batch"] | None = None,
    axes: tuple[str, ...] = (),
) -> Float[Array, " batch"]:
    """SigLIP's loss of each image (Zhai et al. 2023, algorithm 1): the sum over all texts of the batch of the
    cross-entropy of being a pair or none, in float32 at least. The loss of a batch is the mean over its images.

    Args:
        images, texts: features, of any length above zero.
        log_scale: logarithm of what multiplies the cosines.
        bias: added to the logits; see `sigmoid_bias`.
        group: as in `image_text_nce`: pairs of one number count as pairs of each other.
        weight: 0 for texts that are left out, such as padding; by default 1.
        axes: of a mesh over which the batch is split, inside `jax.shard_map`: the texts are handed on in a ring
            (section 3.3), so that a device holds those of one other at a time.

    Raises:
        ValueError: an argument is of another shape.
    """
    group, weight = _pairs(images, texts, group, weight, axes)
    images, texts, scale = _unit(images), _unit(texts), jnp.exp(widen(log_scale))
    devices = jax.lax.axis_size(axes) if axes else 1
    ring = [(device, (device + 1) % devices) for device in range(devices)]

    def losses(texts: Array, groups: Array, counted: Array) -> Array:
        logits = scale * _cosines(images, texts) + widen(bias)
        sign = jnp.where(group[:, None] == groups[None, :], 1.0, -1.0)
        return -jnp.sum(jax.nn.log_sigmoid(sign * logits) * counted[None, :], axis=-1)

    passed = texts, group, weight
    total = losses(*passed)
    for _ in range(devices - 1):
        passed = jax.lax.ppermute(passed, axes, ring)
        total += losses(*passed)
    return total


def sigmoid_bias(batch: int) -> float:
    """First bias of SigLIP's logits: `ln(p / (1 - p))` of the share p = 1 / batch of the pairs among all. The paper's
    -10 is that of a batch of 22,027.

    Raises:
        ValueError: the batch is below 2, where every pair is one.
    """
    if batch < 2:
        raise ValueError(f"batch must be at least 2, as there are negatives: got {batch}")
    return -math.log(batch - 1)


def _pairs(
    first: Array,
    second: Array,
    group: Array | None,
    weight: Array | None,
    axes: tuple[str, ...],
    names: tuple[str, str] = ("images", "texts"),
) -> tuple[Int[Array, " batch"], Float[Array, " batch"]]:
    """Groups and weights of two sets of vectors, by default each pair's own number, and 1; nothing is broadcast."""
    _check.same_shape(**dict(zip(names, (first, second))))
    batch, dim = first.shape if first.ndim == 2 else (0, 0)
    _check.example(first, "batch", name=names[0], dim=dim)
    for name, values in {"group": group, "weight": weight}.items():
        if values is not None:
            _check.example(values, name=name, batch=batch)
    start = jax.lax.axis_index(axes) * batch if axes else 0
    group = start + jnp.arange(batch) if group is None else group
    return group, jnp.ones(batch) if weight is None else weight


def _unit(x: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
    return widen(x) / jnp.maximum(jnp.linalg.norm(widen(x), axis=-1, keepdims=True), 1e-12)


def _cosines(first: Float[Array, "n dim"], second: Float[Array, "m dim"]) -> Float[Array, "n m"]:
    return jnp.matmul(first, second.T, precision=jax.lax.Precision.HIGHEST)


def _gathered(x: Array, axes: tuple[str, ...]) -> Array:
    return jax.lax.all_gather(x, axes, tiled=True) if axes else x
