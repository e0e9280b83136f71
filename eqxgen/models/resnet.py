"""ResNet: a convolutional classifier with batch norm (He et al. 2016, arXiv:1512.03385), in the form for small images
(section 4.2).

Where we differ: where the shape changes, the shortcut is a 1x1 convolution with batch norm (option B) instead of
padding with zeros.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.configs import ResNetConfig
from eqxgen.nn import BatchNorm, BatchNormState, Convolution, Dropout, Projection, _check
from eqxgen.rng import RNG

States = tuple[BatchNormState, ...]
"""Of the batch norms, in the order in which they run."""


class Normed(eqx.Module):
    """A convolution without bias, and its batch norm."""

    conv: Convolution
    norm: BatchNorm

    def __init__(self, in_channels: int, out_channels: int, *, key: PRNGKeyArray, **options: Any):
        self.conv = Convolution(in_channels, out_channels, bias=False, key=key, **options)
        self.norm = BatchNorm(out_channels)


class BasicBlock(eqx.Module):
    """Two convolutions with batch norm, added to the input or its projection (figure 2)."""

    first: Normed
    second: Normed
    shortcut: Normed | None

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, key: PRNGKeyArray):
        keys = RNG(key)
        self.first = Normed(in_channels, out_channels, stride=stride, key=next(keys))
        self.second = Normed(out_channels, out_channels, key=next(keys))
        same = stride == 1 and in_channels == out_channels
        project = lambda: Normed(in_channels, out_channels, kernel=1, stride=stride, key=next(keys))
        self.shortcut = None if same else project()


class ResNet(eqx.Module):
    """Logits of an image.

    The batch is the axis `batch` of `jax.vmap`, over which batch norm takes its statistics:

        logits, states = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(images, states)

    Args:
        channels: of the image.
        classes: number of labels.
        config: the sizes.
    """

    stem: Normed
    levels: tuple[tuple[BasicBlock, ...], ...]
    head: Projection
    dropout: Dropout

    def __init__(self, channels: int, classes: int, config: ResNetConfig, *, key: PRNGKeyArray):
        _check.positive(channels=channels, classes=classes)
        keys = RNG(key)
        widths = [config.width * m for m in config.multipliers]
        self.stem = Normed(channels, widths[0], key=next(keys))
        self.levels = tuple(
            tuple(
                BasicBlock(new if i else old, new, 2 if level and not i else 1, key=next(keys))
                for i in range(config.blocks)
            )
            for level, (old, new) in enumerate(zip([widths[0], *widths], widths))
        )
        self.head = Projection(widths[-1], classes, key=next(keys))
        self.dropout = Dropout(config.dropout)

    def init_state(self) -> States:
        """The state of each batch norm before the first batch."""
        is_norm = lambda node: isinstance(node, Normed)
        return tuple(x.norm.init_state() for x in jax.tree.leaves(self, is_leaf=is_norm) if isinstance(x, Normed))

    def __call__(
        self,
        image: Float[Array, "height width channels"],
        states: States,
        *,
        weight: Float[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, " classes"], States]:
        """Logits of an image in [-1, 1], and the states after its batch.

        Args:
            weight: of the image in the statistics: 0 for padding, else 1.
        """
        old, new = iter(states), []

        def run(layer: Normed, x: Array) -> Array:
            y, state = layer.norm(layer.conv(x), next(old), weight=weight, inference=inference)
            new.append(state)
            return y

        x = jax.nn.relu(run(self.stem, image))
        for block in (block for level in self.levels for block in level):
            h = run(block.second, jax.nn.relu(run(block.first, x)))
            x = jax.nn.relu(h + (x if block.shortcut is None else run(block.shortcut, x)))
        return self.head(self.dropout(jnp.mean(x, axis=(0, 1)), key=key, inference=inference)), tuple(new)
