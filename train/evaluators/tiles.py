"""Prediction of images of any size by overlapping tiles (Ronneberger et al. 2015, arXiv:1505.04597, figure 2).

The image is mirrored beyond its borders and cut into tiles of one size, so that one compiled program serves all images.
Where tiles overlap, their probabilities are blended by weights that fall linearly to the border of a tile, where a
convolution knows least of what is outside. Equal to the paper's for an overlap as wide as the net's reach.
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from .examples import Examples
from .stream import Stream

BATCH = 4
"""Tiles at a time."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Tiles of an image.

    Args:
        tile: side, a multiple of the net's factor.
        overlap: pixels that neighbours share; half of them are mirrored around the image.

    Raises:
        ValueError: the overlap is not in [0, tile).
    """

    tile: int
    overlap: int

    def __post_init__(self):
        if not 0 <= self.overlap < self.tile:
            raise ValueError(f"overlap must be in [0, tile): got overlap={self.overlap}, tile={self.tile}")

    def corners(self, side: int) -> Int[np.ndarray, " tiles"]:
        """First pixel of each tile along a side, in the image with `overlap // 2` pixels around it."""
        stride = self.tile - self.overlap
        more = max(side + 2 * (self.overlap // 2) - self.tile, 0)
        return np.arange(math.ceil(more / stride) + 1) * stride

    def weights(self) -> Float32[np.ndarray, "tile tile"]:
        """Weight of each pixel of a tile, above 0."""
        border = np.arange(self.tile) + 0.5
        ramp = np.minimum(np.minimum(border, border[::-1]) / max(self.overlap, 1), 1).astype(np.float32)
        return ramp[:, None] * ramp

    def cut(
        self, image: Float32[np.ndarray, "height width channels"]
    ) -> tuple[Float32[np.ndarray, "tiles tile tile channels"], list[tuple[int, int]]]:
        """The tiles of an image, and the corner of each in the mirrored image."""
        corners = [self.corners(side) for side in image.shape[:2]]
        before = self.overlap // 2
        after = [int(found[-1]) + self.tile - before - side for found, side in zip(corners, image.shape)]
        larger = np.pad(image, ((before, after[0]), (before, after[1]), (0, 0)), mode="reflect")
        places = [(int(top), int(left)) for top in corners[0] for left in corners[1]]
        cut = [larger[top : top + self.tile, left : left + self.tile] for top, left in places]
        return np.stack(cut), places

    def blend(
        self,
        tiles: Float[np.ndarray, "tiles tile tile classes"],
        places: list[tuple[int, int]],
        shape: tuple[int, int],
    ) -> Float32[np.ndarray, "height width classes"]:
        """The weighted mean of tiles, of an image of that height and width."""
        bottom, right = (max(corner) + self.tile for corner in zip(*places))
        total = np.zeros((bottom, right, tiles.shape[-1]), np.float32)
        weight, weights = np.zeros((bottom, right, 1), np.float32), self.weights()[..., None]
        for tile, (top, left) in zip(tiles, places):
            window = slice(top, top + self.tile), slice(left, left + self.tile)
            total[window] += weights * tile
            weight[window] += weights
        first = self.overlap // 2
        window = slice(first, first + shape[0]), slice(first, first + shape[1])
        return total[window] / weight[window]


def shares_of(
    model: Any, image: Float32[np.ndarray, "height width channels"], tiling: Tiling, stream: Stream
) -> Float32[np.ndarray, "height width classes"]:
    """Probability of each class at each pixel of an image in [-1, 1] of any size. Every process makes the call."""
    tiles, places = tiling.cut(image)
    found = stream.gather(_shares, model, Examples.of(BATCH, image=tiles))
    return tiling.blend(found, places, (image.shape[0], image.shape[1]))


def _shares(model: Any, example: dict[str, Array]) -> Float[Array, "height width classes"]:
    return jax.nn.softmax(model(example["image"]).astype("float32"), axis=-1)
