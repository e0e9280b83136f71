"""Trivial tokenizer: each channel of each pixel is a token, its quantised level the code."""

import equinox as eqx
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from eqxgen.nn import _check
from eqxgen.nn.linear import check_ids


class PixelTokenizer(eqx.Module):
    """Rounds each channel of each pixel to one of `codes` evenly spaced levels from -1 to 1.

    Args:
        height, width, channels: of the images.
        codes: number of levels, at least 2.
    """

    height: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    codes: int = eqx.field(static=True)

    def __init__(self, height: int, width: int, channels: int, codes: int):
        _check.positive(height=height, width=width, channels=channels)
        if codes < 2:
            raise ValueError(f"codes must be at least 2: got {codes}")
        self.height, self.width, self.channels, self.codes = height, width, channels, codes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.height, self.width, self.channels

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.height * self.width * self.channels

    def encode(self, image: Float[Array, "height width channels"]) -> Int[Array, " tokens"]:
        """Ids of an image in [-1, 1], row by row; values outside take the nearest level."""
        _check.example(image, height=self.height, width=self.width, channels=self.channels, name="image")
        levels = jnp.round((image.astype(jnp.float32) + 1) / 2 * (self.codes - 1))
        return rearrange(jnp.clip(levels, 0, self.codes - 1).astype(jnp.int32), "h w c -> (h w c)")

    def decode(self, ids: _check.Ids) -> Float[Array, "height width channels"]:
        """The image of the ids (tokens,), in [-1, 1]."""
        ids = check_ids(ids, self.codes, "ids", "codes")
        _check.example(ids, name="ids", tokens=self.tokens)
        image = rearrange(ids, "(h w c) -> h w c", h=self.height, w=self.width)
        return image.astype(jnp.float32) / (self.codes - 1) * 2 - 1
