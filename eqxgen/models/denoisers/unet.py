"""U-Net of diffusion models: DDPM (Ho et al. 2020, arXiv:2006.11239), DDPM++ and NCSN++ (Song et al. 2021,
arXiv:2011.13456), ADM (Dhariwal and Nichol 2021, arXiv:2105.05233), and what EDM makes of them (Karras et al. 2022,
arXiv:2206.00364).

Residual blocks at levels of falling size, conditioned on noise level and class, then at levels of rising size: each
block on the way up gets the result of its twin on the way down, concatenated. `eqxgen.configs.UNetConfig` has the
switches in which the published nets differ, as presets.

Difference: the label of no class, with which labels are dropped for guidance, adds nothing to the condition in every
preset.
"""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.configs import UNetConfig
from eqxgen.nn import Convolution, GroupNorm, _check, upsample
from eqxgen.nn.activation import Activation
from eqxgen.nn.attention.pixels import PixelAttention
from eqxgen.nn.conv.conditioned import ConditionedBlock, activated
from eqxgen.nn.conv.convolution import conv_uniform, convolve
from eqxgen.nn.conv.resample import upfirdn
from eqxgen.nn.embed.noise import NoiseEmbedding
from eqxgen.nn.linear import Initializer, torch_uniform
from eqxgen.rng import RNG

_zeros = jax.nn.initializers.zeros


class Level(eqx.Module):
    """Residual blocks at one size, each with attention after it where there is any, and the step to the next size."""

    blocks: tuple[ConditionedBlock, ...]
    attention: tuple[PixelAttention | None, ...]
    step: Convolution | ConditionedBlock | None
    image: Convolution | None  # of the halved input
    up: bool = eqx.field(static=True)
    far_padding: bool = eqx.field(static=True)
    taps: tuple[int | float, ...] = eqx.field(static=True)
    remat: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: tuple[int, ...],
        channels: int,
        config: UNetConfig,
        *,
        attention: tuple[bool, ...],
        step: bool,
        up: bool,
        image_channels: int = 0,
        key: PRNGKeyArray,
    ):
        keys = RNG(key)
        self.blocks = tuple(block(width, channels, config, key=next(keys)) for width in in_channels)
        self.attention = tuple(pixel_attention(channels, config, key=next(keys)) if a else None for a in attention)
        self.step = None
        if step and config.resample == "block":
            self.step = block(channels, channels, config, resample="up" if up else "down", key=next(keys))
        elif step:
            stride, padding = (1, 1) if up else (2, 0 if config.far_padding else 1)
            self.step = Convolution(
                channels, channels, stride=stride, padding=padding, init=conv_init(config), key=next(keys)
            )
        self.image = (
            Convolution(image_channels, channels, init=conv_init(config), key=next(keys)) if image_channels else None
        )
        self.up, self.far_padding, self.taps, self.remat = up, config.far_padding, config.taps, config.remat

    def descend(
        self, x: Array, aux: Array, condition: Array, key: PRNGKeyArray | None, inference: bool | None
    ) -> tuple[Array, Array, list[Array]]:
        """The image at the next size, the input at that size, and the results of all blocks."""
        keys, results = split(key, len(self.blocks) + 1), []
        for i in range(len(self.blocks)):
            x = self._block(i, x, condition, keys[i], inference)
            results.append(x)
        if self.step is not None:
            x = self._step(x, condition, keys[-1], inference)
            if self.image is not None:
                x = aux = (x + halved(self.image, aux, self.taps)) * math.sqrt(0.5)
            results.append(x)
        return x, aux, results

    def ascend(
        self, x: Array, skips: list[Array], condition: Array, key: PRNGKeyArray | None, inference: bool | None
    ) -> Array:
        """The image at the next size; the last skips are taken."""
        keys = split(key, len(self.blocks) + 1)
        for i in range(len(self.blocks)):
            x = self._block(i, jnp.concatenate([x, skips.pop()], -1), condition, keys[i], inference)
        return x if self.step is None else self._step(x, condition, keys[-1], inference)

    def _block(self, i: int, x: Array, condition: Array, key: PRNGKeyArray | None, inference: bool | None) -> Array:
        def both(block: ConditionedBlock, attention: PixelAttention | None, x: Array, condition: Array) -> Array:
            x = block(x, condition, key=key, inference=inference)
            return x if attention is None else attention(x)

        function = eqx.filter_checkpoint(both) if self.remat else both
        return function(self.blocks[i], self.attention[i], x, condition)

    def _step(self, x: Array, condition: Array, key: PRNGKeyArray | None, inference: bool | None) -> Array:
        step: Any = self.step
        if isinstance(step, ConditionedBlock):
            return step(x, condition, key=key, inference=inference)
        if self.up:
            return step(upsample(x))
        return step(jnp.pad(x, ((0, 1), (0, 1), (0, 0))) if self.far_padding else x)


class Middle(eqx.Module):
    """Two residual blocks at the smallest size, attention between them."""

    blocks: tuple[ConditionedBlock, ConditionedBlock]
    attention: PixelAttention | None

    def __init__(self, channels: int, config: UNetConfig, *, key: PRNGKeyArray):
        keys = RNG(key)
        self.blocks = (
            block(channels, channels, config, key=next(keys)),
            block(channels, channels, config, key=next(keys)),
        )
        self.attention = pixel_attention(channels, config, key=next(keys)) if config.middle_attention else None

    def __call__(self, x: Array, condition: Array, key: PRNGKeyArray | None, inference: bool | None) -> Array:
        keys = split(key, 2)
        x = self.blocks[0](x, condition, key=keys[0], inference=inference)
        x = x if self.attention is None else self.attention(x)
        return self.blocks[1](x, condition, key=keys[1], inference=inference)


class UNet(eqx.Module):
    """A prediction for a noised image, followed with `learn_variance` by as many channels for its variance.

    Args:
        channels: of the images.
        classes: number of labels; None for a net without classes.
        config: the sizes.
        extra: channels of a picture of the same size that the caller concatenates after the image, such as an image
            of low resolution.

    Raises:
        ValueError: groups or heads do not divide some level's channels.
    """

    time: NoiseEmbedding
    stem: Convolution
    downs: tuple[Level, ...]
    middle: Middle
    ups: tuple[Level, ...]
    norm: GroupNorm
    head: Convolution
    activation: Activation
    channels: int = eqx.field(static=True)
    extra: int = eqx.field(static=True)
    classes: int | None = eqx.field(static=True)
    config: UNetConfig = eqx.field(static=True)

    def __init__(self, channels: int, classes: int | None, config: UNetConfig, *, extra: int = 0, key: PRNGKeyArray):
        _check.positive(channels=channels, **({} if classes is None else {"classes": classes}))
        _check.not_negative(extra=extra)
        keys = RNG(key)
        self.time = noise_embedding(classes, config, key=next(keys))
        self.stem = Convolution(channels + extra, config.widths[0], init=conv_init(config), key=next(keys))
        self.downs, skips = descent(channels + extra, config, key=next(keys))
        self.middle = Middle(config.widths[-1], config, key=next(keys))
        self.ups = ascent(skips, config, key=next(keys))
        self.norm = norm(config.widths[0], config)
        out_channels = channels * (2 if config.learn_variance else 1)
        self.head = Convolution(config.widths[0], out_channels, init=_zeros, key=next(keys))
        self.activation = Activation(config.activation)
        self.channels, self.extra, self.classes, self.config = channels, extra, classes, config

    @property
    def null_label(self) -> int | None:
        """The label of no class; None for a net without classes."""
        return self.classes

    def __call__(
        self,
        x: Float[Array, "height width channels"],
        time: Float[Array, ""],
        label: _check.Ids | None = None,
        *,
        augment: Float[Array, " augment"] | None = None,
        span: Float[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "height width out_channels"]:
        """In float32 at least.

        Args:
            x: the noised image, followed by `extra` channels.
            time: the noise level, in the numbers of the preset: steps from 0 to 1,000 for DDPM and ADM, EDM's c_noise.
            label: in [0, classes), or `null_label`; None for a net without classes.
            augment: labels of the augmentation; zeros by default.
            span: with two times, the interval down to the second, in the unit of the time.
            key: of the dropout; required in training with dropout.
            inference: disables dropout.

        Raises:
            ValueError: x has another number of channels or a side that `config.factor` does not divide; a label is
                missing, superfluous or out of range (inside a compiled program it gives NaN instead).
        """
        check_image(x, self.channels + self.extra, self.config.factor)
        keys = split(key, 3)
        condition = self.time(time, label, augment, span=span, dtype=x.dtype)
        h, skips = down(self.stem, self.downs, x, condition, keys[0], inference)
        h = self.middle(h, condition, keys[1], inference)
        for level, each in zip(self.ups, split(keys[2], len(self.ups))):
            h = level.ascend(h, skips, condition, each, inference)
        y = self.head(activated(self.norm, h, self.activation))
        return widen(y)


def descent(channels: int, config: UNetConfig, *, key: PRNGKeyArray) -> tuple[tuple[Level, ...], list[int]]:
    """The levels on the way down, and the channels of every result that is kept."""
    levels, widths, last = [], config.widths, len(config.widths) - 1
    kept, old = [widths[0]], widths[0]
    for i, (width, each) in enumerate(zip(widths, jr.split(key, last + 1))):
        image = (channels if i == 0 else widths[i - 1]) if config.residual_input and i < last else 0
        levels.append(
            Level(
                (old, *(width,) * (config.blocks - 1)),
                width,
                config,
                attention=(i in config.attention,) * config.blocks,
                step=i < last,
                up=False,
                image_channels=image,
                key=each,
            )
        )
        kept += [width] * (config.blocks + (i < last))
        old = width
    return tuple(levels), kept


def ascent(kept: list[int], config: UNetConfig, *, key: PRNGKeyArray) -> tuple[Level, ...]:
    """The levels on the way up, whose blocks take what was kept."""
    levels, kept, old = [], [*kept], config.widths[-1]
    count = config.blocks + 1
    for i, each in zip(reversed(range(len(config.widths))), jr.split(key, len(config.widths))):
        width = config.widths[i]
        before = [old, *(width,) * (count - 1)]
        attended = tuple(i in config.attention and (j == count - 1 or not config.last_attention) for j in range(count))
        levels.append(
            Level(
                tuple(b + kept.pop() for b in before),
                width,
                config,
                attention=attended,
                step=i > 0,
                up=True,
                key=each,
            )
        )
        old = width
    return tuple(levels)


def down(
    stem: Convolution,
    levels: tuple[Level, ...],
    x: Array,
    condition: Array,
    key: PRNGKeyArray | None,
    inference: bool | None,
) -> tuple[Array, list[Array]]:
    """The way down: the image at the smallest size, and every result that is kept."""
    h, aux = stem(x), x
    skips = [h]
    for level, each in zip(levels, split(key, len(levels))):
        h, aux, results = level.descend(h, aux, condition, each, inference)
        skips += results
    return h, skips


def noise_embedding(classes: int | None, config: UNetConfig, *, key: PRNGKeyArray) -> NoiseEmbedding:
    """The condition of a U-Net."""
    return NoiseEmbedding(
        config.width * config.noise_width,
        config.width * config.embedding,
        classes=classes or 0,
        augment=config.augment,
        times=config.times,
        fourier=config.fourier,
        flip=config.flip,
        shift=config.shift,
        late=config.late_label,
        scaled=config.scaled_label,
        bias=config.label_bias,
        activation=config.activation,
        init=linear_init(config),
        key=key,
    )


def norm(channels: int, config: UNetConfig) -> GroupNorm:
    """A norm of the preset."""
    return GroupNorm(channels, config.groups_of(channels), epsilon=config.epsilon)


def block(
    in_channels: int, channels: int, config: UNetConfig, *, resample: str | None = None, key: PRNGKeyArray
) -> ConditionedBlock:
    """A residual block of the preset."""
    return ConditionedBlock(
        in_channels,
        channels,
        config.width * config.embedding,
        norm=functools.partial(norm, config=config),
        activation=config.activation,
        scaled=config.scaled,
        dropout=config.dropout,
        resample=resample,
        taps=config.taps,
        project=config.project,
        skip_scale=config.skip_scale,
        init=conv_init(config),
        key=key,
    )


def pixel_attention(channels: int, config: UNetConfig, *, key: PRNGKeyArray) -> PixelAttention:
    """An attention of the preset, whose last projection is zero at initialisation."""
    return PixelAttention(
        channels,
        config.heads_of(channels),
        groups=config.groups_of(channels),
        epsilon=config.epsilon,
        linear=config.linear_attention,
        skip_scale=config.skip_scale,
        init=linear_init(config),
        out_init=_zeros,
        key=key,
    )


def conv_init(config: UNetConfig) -> Initializer:
    """The initializer of kernels."""
    return conv_uniform if config.init == "torch" else jax.nn.initializers.glorot_uniform()


def linear_init(config: UNetConfig) -> Initializer:
    """The initializer of projections."""
    glorot = jax.nn.initializers.glorot_uniform(in_axis=-1, out_axis=-2)
    return torch_uniform if config.init == "torch" else glorot


def halved(conv: Convolution, x: Array, taps: tuple[int | float, ...]) -> Array:
    """Convolution, filter and halving, with zeros around the image alone and not around the convolution's result."""
    padding = conv.padding + (len(taps) - 1) // 2
    y = convolve(x, conv.weight, padding=(padding, padding))
    y = y if conv.bias is None else y + conv.bias.astype(y.dtype)[None, None]
    return upfirdn(y, [tap / sum(taps) for tap in taps], down=2)


def check_image(x: Array, channels: int, factor: int) -> None:
    """Raises `ValueError` unless x is one image of that many channels that can be halved to the smallest size."""
    _check.image(x, channels=channels)
    for name, side in zip(("height", "width"), x.shape):
        _check.divides(factor=factor, **{name: side})


def split(key: PRNGKeyArray | None, count: int) -> Any:
    """As many keys, or as many times none."""
    return (None,) * count if key is None else jr.split(key, count)
