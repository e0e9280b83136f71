"""One random transform for an image and its mask: crop, mirror images, rotation, elastic deformation.

The transform is drawn once as the place in the image of each pixel of the crop. The image is read there by linear
interpolation, the mask at the nearest pixel; both are mirrored beyond their borders. A transform that moves pixels onto
pixels, such as a mirror image, changes none of them.

Source: Ronneberger et al. 2015, arXiv:1505.04597, section 3.1: displacements drawn at a coarse grid of control points
and interpolated smoothly, here by cubic B-splines.
"""

import math

import numpy as np
from jaxtyping import Float64, UInt8

from ...config.pairs import WarpConfig

SPANS = 3
"""Distances between control points along a side of the crop."""
_POINTS = SPANS + 3  # control points along a side
DRAWS = 5 + 4 * _POINTS**2
"""Numbers in [0, 1) that decide a transform."""

Places = Float64[np.ndarray, "2 rows columns"]


def drawn_places(shape: tuple[int, int], crop: int, config: WarpConfig, draws: Float64[np.ndarray, " draws"]) -> Places:
    """Row and column in an image of each pixel of a crop.

    Args:
        shape: height and width of the image.
        crop: side of the crop.
        config: the changes.
        draws: `DRAWS` numbers in [0, 1).
    """
    steps = np.arange(crop) - (crop - 1) / 2
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    if config.elastic:
        push = config.elastic * _normals(draws[5:]).reshape(2, _POINTS, _POINTS)
        spline = _spline(crop)
        rows, columns = (x + spline @ moved @ spline.T for x, moved in zip((rows, columns), push))
    if config.rotate:
        angle = math.radians(config.rotate) * (2 * draws[4] - 1)
        cos, sin = math.cos(angle), math.sin(angle)
        rows, columns = cos * rows - sin * columns, sin * rows + cos * columns
    if config.flip:
        rows, columns = (x if draw < 0.5 else -x for x, draw in zip((rows, columns), draws[2:4]))
    corners = [math.floor(draw * max(side - crop + 1, 1)) for draw, side in zip(draws, shape)]
    return np.stack([x + corner + (crop - 1) / 2 for x, corner in zip((rows, columns), corners)])


def linear(
    image: UInt8[np.ndarray, "height width channels"], places: Places
) -> UInt8[np.ndarray, "rows columns channels"]:
    """The image at some places, by linear interpolation, to the nearest level."""
    low = np.floor(places)
    share = (places - low).astype(np.float32)[..., None]
    low = low.astype(np.int64)
    (top, bottom), (left, right) = ((_mirrored(x, side), _mirrored(x + 1, side)) for x, side in zip(low, image.shape))
    above = image[top, left] * (1 - share[1]) + image[top, right] * share[1]
    below = image[bottom, left] * (1 - share[1]) + image[bottom, right] * share[1]
    return np.rint(above * (1 - share[0]) + below * share[0]).astype(np.uint8)


def nearest(mask: UInt8[np.ndarray, "height width"], places: Places) -> UInt8[np.ndarray, "rows columns"]:
    """The mask at the pixels nearest to some places."""
    near = np.floor(places + 0.5).astype(np.int64)
    return mask[_mirrored(near[0], mask.shape[0]), _mirrored(near[1], mask.shape[1])]


def _mirrored(index: np.ndarray, side: int) -> np.ndarray:
    """Indices within [0, side) of those of an image mirrored at its first and last pixel, again and again."""
    period = max(2 * (side - 1), 1)
    within = np.mod(index, period)
    return np.minimum(within, period - within) if side > 1 else np.zeros_like(index)


def _spline(crop: int) -> Float64[np.ndarray, "crop points"]:
    """Weight of each control point at each pixel, of uniform cubic B-splines."""
    at = (np.arange(crop) + 0.5) / crop * SPANS
    distance = np.abs(at[:, None] + 1 - np.arange(_POINTS))
    near = 2 / 3 - distance**2 + distance**3 / 2
    return np.where(distance < 1, near, np.maximum(2 - distance, 0) ** 3 / 6)


def _normals(uniform: np.ndarray) -> np.ndarray:
    """Standard normal numbers, half as many as uniform ones in [0, 1) (Box and Muller 1958)."""
    radius, turn = np.split(uniform, 2)
    return np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * turn)
