"""ResNet: a convolutional classifier with batch norm (He et al. 2016, arXiv:1512.03385), in the form for small images
(section 4.2), and in that of ImageNet with 18 to 152 layers (table 1), by `eqxgen.configs.ResNetConfig`.

Where we differ: where the shape changes, the shortcut is a 1x1 convolution with batch norm (option B), also for small
images; a bottleneck has its stride in the 3x3 unless `stride_first`, as published weights.
`eqxgen.pretrained.resnet` reads and writes them.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.configs import ResNetConfig
from eqxgen.nn import BatchNorm, BatchNormState, Convolution, Dropout, MaxPool, Projection, _check
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
        self.shortcut = _shortcut(in_channels, out_channels, stride, next(keys))

    @property
    def branch(self) -> tuple[Normed, ...]:
        """Layers of the residual branch."""
        return self.first, self.second


class Bottleneck(eqx.Module):
    """Convolutions 1x1 to a fourth of the channels, 3x3, and 1x1 back, with batch norm (figure 5)."""

    first: Normed
    second: Normed
    third: Normed
    shortcut: Normed | None

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, stride_first: bool = False, key: PRNGKeyArray
    ):
        keys, inner = RNG(key), out_channels // 4
        strides = (stride, 1) if stride_first else (1, stride)
        self.first = Normed(in_channels, inner, kernel=1, stride=strides[0], key=next(keys))
        self.second = Normed(inner, inner, stride=strides[1], key=next(keys))
        self.third = Normed(inner, out_channels, kernel=1, key=next(keys))
        self.shortcut = _shortcut(in_channels, out_channels, stride, next(keys))

    @property
    def branch(self) -> tuple[Normed, ...]:
        """Layers of the residual branch."""
        return self.first, self.second, self.third


def _shortcut(in_channels: int, out_channels: int, stride: int, key: PRNGKeyArray) -> Normed | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return Normed(in_channels, out_channels, kernel=1, stride=stride, key=key)


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
    pool: MaxPool | None
    levels: tuple[tuple[BasicBlock | Bottleneck, ...], ...]
    head: Projection
    dropout: Dropout
    config: ResNetConfig = eqx.field(static=True)

    def __init__(self, channels: int, classes: int, config: ResNetConfig, *, key: PRNGKeyArray):
        _check.positive(channels=channels, classes=classes)
        keys = RNG(key)
        widths, large = config.widths, config.stem > 0
        start = config.stem or widths[0]
        self.stem = Normed(channels, start, **({"kernel": 7, "stride": 2} if large else {}), key=next(keys))
        self.pool = MaxPool(3, stride=2, padding=1) if large else None

        def block(level: int, place: int, old: int, new: int) -> BasicBlock | Bottleneck:
            stride = 2 if not place and (level or config.halve_first) else 1
            if config.block == "basic":
                return BasicBlock(old, new, stride, key=next(keys))
            return Bottleneck(old, new, stride, stride_first=config.stride_first, key=next(keys))

        self.levels = tuple(
            tuple(block(level, place, new if place else old, new) for place in range(count))
            for level, (old, new, count) in enumerate(zip((start, *widths), widths, config.counts))
        )
        self.head = Projection(widths[-1], classes, key=next(keys))
        self.dropout, self.config = Dropout(config.dropout), config

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
        x = x if self.pool is None else self.pool(x)
        for block in (block for level in self.levels for block in level):
            h = x
            for layer in block.branch[:-1]:
                h = jax.nn.relu(run(layer, h))
            h = run(block.branch[-1], h)
            x = jax.nn.relu(h + (x if block.shortcut is None else run(block.shortcut, x)))
        return self.head(self.dropout(jnp.mean(x, axis=(0, 1)), key=key, inference=inference)), tuple(new)
