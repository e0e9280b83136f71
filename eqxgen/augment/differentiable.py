"""DiffAugment (Zhao et al. 2020, arXiv:2006.10738): augmentation that is differentiated through, of real and generated
images alike, in the discriminator's losses and in the generator's.

    part           what it does to an image of one example                               source
    color          brightness + U(-0.5, 0.5); saturation × U(0, 2); contrast × U(0.5, 1.5)     section 4.1
    translation    moved by up to 1/8 of each side, zeros from outside
    cutout         a square of half the side set to zero, its centre anywhere
    affine         rotated by up to 15 degrees, scaled by up to 1.2 and moved by up to 1/8; not in the paper
    flip_x         mirrored left to right, with probability 1/2; not in the paper
    flip_y         mirrored top to bottom, with probability 1/2; not in the paper

Parts are made in the order in which they are given. `DrawnParts` are their random numbers, so that the same
augmentation can be made again, or compared with another library's.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.augment.geometry import rotation, scaling, translation, warped
from eqxgen.nn import _check

PARTS = ("color", "translation", "cutout", "affine", "flip_x", "flip_y")
SHIFT, CUTOUT = 1 / 8, 1 / 2
TURN, SIZE = math.radians(15), 1.2


class DrawnParts(NamedTuple):
    """Random numbers of all parts for one image.

    Attributes:
        color: brightness, saturation and contrast: in [-0.5, 0.5], [0, 2] and [0.5, 1.5].
        shift: rows and columns that the image moves up and left.
        hole: row and column of the cutout's centre.
        affine: angle, logarithm of the scale, shares of the width and the height of the move.
        flips: 1 where the image is mirrored left to right, and top to bottom.
    """

    color: Float[Array, "3"]
    shift: Int[Array, "2"]
    hole: Int[Array, "2"]
    affine: Float[Array, "4"]
    flips: Int[Array, "2"]

    @classmethod
    def draw(cls, height: int, width: int, *, key: PRNGKeyArray) -> "DrawnParts":
        """The numbers of one image."""
        color, shift, hole, affine, flips = jr.split(key, 5)
        low, high = jnp.asarray([-0.5, 0.0, 0.5]), jnp.asarray([0.5, 2.0, 1.5])
        reach = jnp.asarray([int(height * SHIFT + 0.5), int(width * SHIFT + 0.5)])
        # The centre of an even cutout may be at the far edge.
        sides = jnp.asarray([side + (1 - int(side * CUTOUT + 0.5) % 2) for side in (height, width)])
        ranges = jnp.asarray([TURN, math.log(SIZE), SHIFT, SHIFT])
        return cls(
            jr.uniform(color, (3,), minval=low, maxval=high),
            jr.randint(shift, (2,), -reach, reach + 1),
            jr.randint(hole, (2,), jnp.zeros(2, int), sides),
            jr.uniform(affine, (4,), minval=-ranges, maxval=ranges),
            jr.bernoulli(flips, shape=(2,)).astype(jnp.int32),
        )


def diff_augment(
    image: Float[Array, "height width channels"],
    parts: Sequence[str] = ("color", "translation", "cutout"),
    *,
    drawn: DrawnParts | None = None,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "height width channels"]:
    """One image, augmented by each part in turn.

    Args:
        parts: names of parts.
        drawn: random numbers; by default drawn by the key.
        key: of the numbers.

    Raises:
        ValueError: a part is unknown, neither numbers nor a key are given, or the image is no image of floating-point
            numbers.
    """
    _check.image(image)
    _check.inexact(image, "image")
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"parts must be of {', '.join(PARTS)}: got {part!r}")
    if drawn is None:
        if key is None:
            raise ValueError("key must be given for the random numbers, or drawn: got neither")
        drawn = DrawnParts.draw(*image.shape[:2], key=key)
    for part in parts:
        image = _MADE[part](image, drawn)
    return image


def coin_flip(
    image: Float[Array, "height width channels"],
    augment: Callable[..., Array],
    *,
    probability: float | Float[Array, ""] = 0.5,
    key: PRNGKeyArray,
) -> Float[Array, "height width channels"]:
    """One image, augmented with a probability and otherwise unchanged.

    Args:
        augment: (image, key=) -> the image augmented, of the same shape.
        probability: in [0, 1]; as an array it may change without another compilation.

    Raises:
        ValueError: the probability is a number out of [0, 1].
    """
    if isinstance(probability, int | float) and not 0 <= probability <= 1:
        raise ValueError(f"probability must be in [0, 1]: got {probability}")
    flip_key, key = jr.split(key)
    return jnp.where(jr.bernoulli(flip_key, probability), augment(image, key=key), image)


def _color(image: Array, drawn: DrawnParts) -> Array:
    brightness, saturation, contrast = drawn.color.astype(image.dtype)
    image = image + brightness
    grey = jnp.mean(image, axis=-1, keepdims=True)
    image = (image - grey) * saturation + grey
    mean = jnp.mean(image, keepdims=True)
    return (image - mean) * contrast + mean


def _translation(image: Array, drawn: DrawnParts) -> Array:
    height, width, channels = image.shape
    top, left = int(height * SHIFT + 0.5), int(width * SHIFT + 0.5)
    padded = jnp.pad(image, ((top, top), (left, left), (0, 0)))
    start = jnp.asarray([top, left]) + drawn.shift
    return jax.lax.dynamic_slice(padded, (start[0], start[1], jnp.zeros_like(start[0])), (height, width, channels))


def _cutout(image: Array, drawn: DrawnParts) -> Array:
    inside = []
    for side, centre in zip(image.shape[:2], drawn.hole):
        length = int(side * CUTOUT + 0.5)
        first = jnp.clip(centre - length // 2, 0, side - 1)
        last = jnp.clip(centre - length // 2 + length - 1, 0, side - 1)
        place = jnp.arange(side)
        inside.append((place >= first) & (place <= last))
    return jnp.where((inside[0][:, None] & inside[1][None])[:, :, None], jnp.zeros((), image.dtype), image)


def _affine(image: Array, drawn: DrawnParts) -> Array:
    height, width, _ = image.shape
    angle, size, x, y = drawn.affine
    factor = jnp.exp(size)
    forward = translation(x * width, y * height) @ rotation(angle) @ scaling(factor, factor)
    return warped(image, forward)


def _flip_x(image: Array, drawn: DrawnParts) -> Array:
    return jnp.where(drawn.flips[0] > 0, image[:, ::-1], image)


def _flip_y(image: Array, drawn: DrawnParts) -> Array:
    return jnp.where(drawn.flips[1] > 0, image[::-1], image)


_MADE = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
    "affine": _affine,
    "flip_x": _flip_x,
    "flip_y": _flip_y,
}
