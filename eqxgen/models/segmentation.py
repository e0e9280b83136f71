"""U-Net that gives each pixel a class (Ronneberger et al. 2015, arXiv:1505.04597, figure 1), by
`eqxgen.configs.SegmentationConfig`.

Where we differ: convolutions pad with zeros, so that the output has the size of the input and skips are not cropped; a
norm follows each 3x3 convolution, which has no bias.
"""

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.configs import SegmentationConfig
from eqxgen.nn import (
    BatchNorm,
    BatchNormState,
    Convolution,
    ConvolutionTranspose,
    Dropout,
    GroupNorm,
    MaxPool,
    _check,
)
from eqxgen.rng import RNG

States = tuple[BatchNormState, ...]
"""Of the batch norms, in the order in which they run; empty with group norms."""


class DoubleConvolution(eqx.Module):
    """Two 3x3 convolutions, each with a norm and a rectifier."""

    convs: tuple[Convolution, ...]
    norms: tuple[BatchNorm | GroupNorm, ...]

    def __init__(self, in_channels: int, out_channels: int, config: SegmentationConfig, *, key: PRNGKeyArray):
        keys = RNG(key)
        sizes = (in_channels, out_channels), (out_channels, out_channels)
        self.convs = tuple(Convolution(old, new, bias=False, key=next(keys)) for old, new in sizes)
        batch = config.norm == "batch"
        norm = lambda: BatchNorm(out_channels) if batch else GroupNorm(out_channels, config.groups)
        self.norms = norm(), norm()

    def __call__(
        self,
        x: Float[Array, "height width in_channels"],
        states: Iterator[BatchNormState],
        *,
        weight: Float[Array, ""] | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "height width out_channels"], States]:
        """The features, and the states of its batch norms after the batch; it takes the old ones from `states`."""
        after = []
        for conv, norm in zip(self.convs, self.norms):
            x = conv(x)
            if isinstance(norm, BatchNorm):
                x, state = norm(x, next(states), weight=weight, inference=inference)
                after.append(state)
            else:
                x = norm(x)
            x = jax.nn.relu(x)
        return x, tuple(after)


class SegmentationUNet(eqx.Module):
    """Logits of each pixel of an image.

    The batch is the axis `batch` of `jax.vmap`, over which batch norm takes its statistics:

        logits, states = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(images, states)

    Args:
        channels: of the image.
        classes: of a pixel.
        config: the sizes.
    """

    downs: tuple[DoubleConvolution, ...]
    ups: tuple[ConvolutionTranspose, ...]
    after: tuple[DoubleConvolution, ...]
    head: Convolution
    pool: MaxPool
    dropout: Dropout
    config: SegmentationConfig = eqx.field(static=True)

    def __init__(self, channels: int, classes: int, config: SegmentationConfig, *, key: PRNGKeyArray):
        _check.positive(channels=channels, classes=classes)
        keys, widths = RNG(key), config.widths
        pairs = list(zip((channels, *widths), widths))
        self.downs = tuple(DoubleConvolution(old, new, config, key=next(keys)) for old, new in pairs)
        above = pairs[:0:-1]  # (narrow, wide) from the lowest level up
        up = lambda wide, narrow: ConvolutionTranspose(wide, narrow, kernel=2, stride=2, padding=0, key=next(keys))
        self.ups = tuple(up(wide, narrow) for narrow, wide in above)
        self.after = tuple(DoubleConvolution(2 * narrow, narrow, config, key=next(keys)) for narrow, _ in above)
        self.head = Convolution(widths[0], classes, kernel=1, key=next(keys))
        self.pool, self.dropout, self.config = MaxPool(2), Dropout(config.dropout), config

    def init_state(self) -> States:
        """The state of each batch norm before the first batch."""
        norms = [norm for block in (*self.downs, *self.after) for norm in block.norms]
        return tuple(norm.init_state() for norm in norms if isinstance(norm, BatchNorm))

    def __call__(
        self,
        image: Float[Array, "height width channels"],
        states: States = (),
        *,
        weight: Float[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "height width classes"], States]:
        """Logits of an image in [-1, 1], and the states after its batch.

        Args:
            weight: of the image in the statistics: 0 for padding, else 1.

        Raises:
            ValueError: `config.factor` does not divide a side.
        """
        height, width, _ = image.shape
        if height % self.config.factor or width % self.config.factor:
            raise ValueError(
                f"the sides of the image must be multiples of {self.config.factor}: got {height} x {width}"
            )
        old, new, skips, x = iter(states), (), [], image
        run = lambda block, x: block(x, old, weight=weight, inference=inference)
        for level, block in enumerate(self.downs):
            x, found = run(block, self.pool(x) if level else x)
            skips, new = [*skips, x], (*new, *found)
        x = self.dropout(x, key=key, inference=inference)
        for up, block, skip in zip(self.ups, self.after, skips[-2::-1]):
            x, found = run(block, jnp.concatenate([skip, up(x)], axis=-1))
            new = (*new, *found)
        return self.head(x), new
