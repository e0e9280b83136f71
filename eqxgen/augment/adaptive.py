"""Augmentation of StyleGAN2-ADA (Karras et al. 2020, arXiv:2006.06676, appendix B), written from the paper. Each
transformation is made with probability p, an array, so that moving p compiles nothing; at p = 0 the image is unchanged.

    part       transformations                                                                    in the paper
    blit       mirrored left to right; turned by 90, 180 or 270 degrees; moved by whole pixels,
               up to 1/8 of a side                                                                pixel blitting
    geometry   scale 2^(0.2 n); rotation, before and after anisotropy 2^(0.2 n); moved by 1/8 n    general
    color      brightness + 0.2 n; contrast × 2^(0.5 n); luma flipped; hue turned by any angle;
               saturation × 2^n                                                                   color
    noise      0.1 |n| times normal noise                                                         corruptions
    cutout     a square of half the side set to zero, its centre anywhere                         corruptions

n is normal. The geometric maps are composed into one matrix, whose inverse is sampled once at twice the resolution,
between the wavelet sym6 as an upsampling filter and its mirror image as a downsampling one. Images go on mirrored
beyond their borders.

Differences: no filter bank of image frequencies; beyond 6 pixels outside a border it is the upsampled image that is
mirrored, where the original pads by as much as the batch needs.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.augment.geometry import rotation, scaling, translation
from eqxgen.nn import _check
from eqxgen.nn.conv.resample import upfirdn
from eqxgen.rng import RNG

PARTS = ("blit", "geometry", "color", "noise", "cutout")
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""The wavelet sym6 (Daubechies 1992), of length 1: orthogonal to itself shifted by twos."""
SPREAD, SHIFT = 0.2, 0.125
PAD = 6  # pixels beyond the borders that are upsampled as they are


def ada_augment(
    image: Float[Array, "height width channels"],
    p: Float[Array, ""],
    parts: Sequence[str] = ("blit", "geometry", "color"),
    *,
    key: PRNGKeyArray,
) -> Float[Array, "height width channels"]:
    """One image, augmented.

    Args:
        p: probability of each transformation, in [0, 1].
        parts: names of parts.
        key: of the draws.

    Raises:
        ValueError: a part is unknown; the image is no image of floating-point numbers; p is no scalar, or a known
            number out of [0, 1].
    """
    _check.image(image)
    _check.inexact(image, "image")
    if jnp.ndim(p):
        raise ValueError(f"p must be a scalar: got shape {jnp.shape(p)}")
    if not isinstance(p, Tracer):
        _check.probability(p=float(p))
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"parts must be of {', '.join(PARTS)}: got {part!r}")
    keys = RNG(key)
    blit, geometry, color, noise, cutout = (next(keys) for _ in range(5))
    height, width, _ = image.shape
    forward = jnp.eye(3)
    if "blit" in parts:
        forward = blitting(height, width, p, key=blit) @ forward
    if "geometry" in parts:
        forward = moving(height, width, p, key=geometry) @ forward
    if "blit" in parts or "geometry" in parts:
        image = resampled(image, forward)
    if "color" in parts:
        image = colored(image, coloring(p, key=color, hue=image.shape[-1] > 1))
    if "noise" in parts:
        keys = jr.split(noise, 3)
        strength = kept(0.1 * jnp.abs(jr.normal(keys[0])), 0.0, p, keys[1])
        image = image + strength.astype(image.dtype) * jr.normal(keys[2], image.shape, image.dtype)
    if "cutout" in parts:
        image = _cut(image, p, cutout)
    return image


def kept(value: Array, neutral: float, p: Array, key: PRNGKeyArray) -> Array:
    """The value with probability p, or the neutral one."""
    return jnp.where(jr.uniform(key) < p, value, neutral)


def blitting(height: int, width: int, p: Float[Array, ""], *, key: PRNGKeyArray) -> Float[Array, "3 3"]:
    """Map of the pixel blitting."""
    keys = RNG(key)
    mirror = kept(jr.bernoulli(next(keys)).astype(jnp.float32), 0.0, p, next(keys))
    quarter = kept(jr.randint(next(keys), (), 0, 4).astype(jnp.float32), 0.0, p, next(keys))
    share = jr.uniform(next(keys), (2,), minval=-SHIFT, maxval=SHIFT)
    move = kept(jnp.round(share * jnp.asarray([width, height])), 0.0, p, next(keys))
    # Exact numbers for quarter turns, so that whole pixels stay whole.
    cos, sin = (jnp.asarray(values)[quarter.astype(int)] for values in ([1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]))
    turn = jnp.eye(3).at[0, 0].set(cos).at[1, 1].set(cos).at[0, 1].set(-sin).at[1, 0].set(sin)
    return translation(move[0], move[1]) @ turn @ scaling(1 - 2 * mirror, jnp.ones_like(mirror))


def moving(height: int, width: int, p: Float[Array, ""], *, key: PRNGKeyArray) -> Float[Array, "3 3"]:
    """Map of the general geometric transformations.

    A rotation is made twice, each with probability 1 - sqrt(1 - p), so that one of both is with p.
    """
    keys = RNG(key)
    once = 1 - jnp.sqrt(jnp.clip(1 - p, 0, 1))
    angle = lambda: kept(jr.uniform(next(keys), minval=-math.pi, maxval=math.pi), 0.0, once, next(keys))
    size = kept(jnp.exp2(SPREAD * jr.normal(next(keys))), 1.0, p, next(keys))
    first = rotation(angle())
    stretch = kept(jnp.exp2(SPREAD * jr.normal(next(keys))), 1.0, p, next(keys))
    second = rotation(angle())
    move = kept(SHIFT * jr.normal(next(keys), (2,)), 0.0, p, next(keys))
    return (
        translation(move[0] * width, move[1] * height)
        @ second
        @ scaling(stretch, 1 / stretch)
        @ first
        @ scaling(size, size)
    )


def resampled(
    image: Float[Array, "height width channels"], forward: Float[Array, "3 3"]
) -> Float[Array, "height width channels"]:
    """The image moved by a map of (x, y, 1) about its centre, in pixels: sampled at twice the resolution."""
    height, width, _ = image.shape
    wide = jnp.promote_types(image.dtype, jnp.float32)
    taps = [tap / math.sqrt(2) for tap in SYM6]  # sum 1
    padded = jnp.pad(image.astype(wide), ((PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect")
    large = upfirdn(padded, taps, up=2, padding=(6, 5), gain=4.0)
    border = len(SYM6) // 4
    rows, columns = 2 * (height + 2 * border), 2 * (width + 2 * border)
    x, y = jnp.meshgrid((jnp.arange(columns) - (columns - 1) / 2) / 2, (jnp.arange(rows) - (rows - 1) / 2) / 2)
    source = jnp.einsum("ij,jhw->ihw", jnp.linalg.inv(forward)[:2], jnp.stack([x, y, jnp.ones_like(x)]))
    column, row = (
        _inside(2 * at + (2 * side - 1) / 2, side) + 2 * PAD for at, side in zip(source, (width, height), strict=True)
    )
    one = lambda channel: jax.scipy.ndimage.map_coordinates(channel, [row, column], order=1, mode="nearest")
    sampled = jax.vmap(one, -1, -1)(large)
    # The mirror image of the taps, of which border 2 x 3 entries are cropped at each side.
    return upfirdn(sampled, taps[::-1], down=2, padding=(5 - 2 * border, 5 - 2 * border)).astype(image.dtype)


def _inside(at: Array, side: int) -> Array:
    """Positions in the upsampled image, mirrored about the outermost pixels where they are beyond what was padded.

    Whole positions stay whole, so that the map that is no move keeps the pixels.
    """
    near = jnp.round(at)
    at = jnp.where(jnp.abs(at - near) < 1e-4, near, at)
    first, last = 0.5, 2 * side - 1.5
    period = 2 * (last - first) if side > 1 else 1.0
    folded = jnp.abs(jnp.mod(at - first + period / 2, period) - period / 2) + first
    outside = (at < 1 - PAD) | (at > 2 * side - 2 + PAD)
    return jnp.where(outside, folded, at)


def coloring(p: Float[Array, ""], *, key: PRNGKeyArray, hue: bool = True) -> Float[Array, "4 4"]:
    """Map of (red, green, blue, 1).

    Args:
        hue: turns the hue and scales the saturation too, of which a grey image has none.
    """
    keys = RNG(key)
    grey = jnp.full((3, 3), 1 / 3)  # projection on the axis of luma

    def square(part: Array, move: Array | float = 0.0) -> Array:
        return jnp.eye(4).at[:3, :3].set(part).at[:3, 3].set(move)

    brightness = kept(0.2 * jr.normal(next(keys)), 0.0, p, next(keys))
    contrast = kept(jnp.exp2(0.5 * jr.normal(next(keys))), 1.0, p, next(keys))
    flip = kept(jr.bernoulli(next(keys)).astype(jnp.float32), 0.0, p, next(keys))
    angle = kept(jr.uniform(next(keys), minval=-math.pi, maxval=math.pi), 0.0, p, next(keys))
    saturation = kept(jnp.exp2(jr.normal(next(keys))), 1.0, p, next(keys))
    found = square(jnp.eye(3) - 2 * flip * grey) @ square(contrast * jnp.eye(3)) @ square(jnp.eye(3), brightness)
    if not hue:
        return found
    axis = 1 / math.sqrt(3)
    cross = jnp.asarray([[0.0, -axis, axis], [axis, 0.0, -axis], [-axis, axis, 0.0]])
    turn = grey + jnp.cos(angle) * (jnp.eye(3) - grey) + jnp.sin(angle) * cross
    return square(grey + saturation * (jnp.eye(3) - grey)) @ square(turn) @ found


def colored(
    image: Float[Array, "height width channels"], matrix: Float[Array, "4 4"]
) -> Float[Array, "height width channels"]:
    """The image after a map of its colors; a grey image by the mean of the map's rows.

    Raises:
        ValueError: the image has neither 1 nor 3 channels.
    """
    matrix, channels = matrix.astype(image.dtype), image.shape[-1]
    if channels == 1:
        mean = jnp.mean(matrix[:3], axis=0)
        return image * jnp.sum(mean[:3]) + mean[3]
    if channels != 3:
        raise ValueError(f"image must have 1 or 3 channels for the part color: got {channels}")
    return image @ matrix[:3, :3].T + matrix[:3, 3][None, None]


def _cut(image: Array, p: Array, key: PRNGKeyArray) -> Array:
    keys = jr.split(key)
    size = kept(jnp.float32(0.5), 0.0, p, keys[0])
    centre = jr.uniform(keys[1], (2,))
    rows, columns = (
        jnp.abs((jnp.arange(side) + 0.5) / side - at) < size / 2 for side, at in zip(image.shape[:2], centre)
    )
    return jnp.where((rows[:, None] & columns[None])[:, :, None], jnp.zeros((), image.dtype), image)
