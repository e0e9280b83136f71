"""Discriminator of the tokenizer: StyleGAN2's residual one (Karras et al. 2020, arXiv:1912.04958, appendix B) with a
4-tap blur.

Differences: no equalised learning rate and no minibatch deviation, as in MaskGIT's tokenizer.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import Convolution, Projection, _check, blur
from eqxgen.rng import RNG


class Discriminator(eqx.Module):
    """One logit for an image: positive for real.

    Args:
        size: side of the square image; halved until it is at most 4.
        channels: of the image.
        width: channels of the first level; doubled at each, up to `max_width`.
    """

    stem: Convolution
    levels: tuple[tuple[Convolution, Convolution, Convolution], ...]
    last: Convolution
    hidden: Projection
    head: Projection

    def __init__(self, size: int, channels: int, *, width: int = 64, max_width: int = 512, key: PRNGKeyArray):
        _check.positive(size=size, channels=channels, width=width, max_width=max_width)
        keys = RNG(key)
        self.stem = Convolution(channels, width, key=next(keys))
        levels = []
        while size > 4:
            new = min(2 * width, max_width)
            levels.append(
                (
                    Convolution(width, width, key=next(keys)),
                    Convolution(width, new, key=next(keys)),
                    Convolution(width, new, kernel=1, bias=False, key=next(keys)),
                )
            )
            size, width = (size + 1) // 2, new
        self.levels = tuple(levels)
        self.last = Convolution(width, width, key=next(keys))
        self.hidden = Projection(size * size * width, width, key=next(keys))
        self.head = Projection(width, 1, key=next(keys))

    def __call__(self, image: Float[Array, "size size channels"]) -> Float[Array, ""]:
        act = lambda x: jax.nn.leaky_relu(x, 0.2)
        x = act(self.stem(image))
        for first, second, skip in self.levels:
            h = act(second(blur(act(first(x)), stride=2)))
            x = (h + skip(blur(x, stride=2))) / math.sqrt(2)
        x = act(self.hidden(act(self.last(x)).reshape(-1)))
        return self.head(x)[0].astype(jnp.float32)
