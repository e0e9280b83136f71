"""EDM2's U-Net, whose activations, weights and updates keep their magnitude (Karras et al. 2024, arXiv:2312.02696,
configuration G, appendix B).

Every weight is `MagnitudePreserving`, without a bias: a channel of ones beside the image replaces them. Sums and
concatenations are weighted so that the result has magnitude 1; the condition scales the features by 1 plus a projection
whose gain starts at zero, and so does the gain of the last convolution. `eqxgen.nn.force_weight_norm` after each step
of the optimiser is the paper's forced weight normalisation; `train` runs it.
"""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen import ops
from eqxgen._widen import widen
from eqxgen.configs import EDM2Config
from eqxgen.models.denoisers.unet import check_image, split
from eqxgen.nn import Convolution, Dropout, MagnitudePreserving, Projection, _check, mp_cat, mp_silu, mp_sum
from eqxgen.nn.attention.self_attention import join_heads
from eqxgen.nn.conv.conditioned import resampled
from eqxgen.nn.norm.magnitude import to_magnitude_one
from eqxgen.rng import RNG

_normal = jax.nn.initializers.normal(1.0)
FEATURES = 128
"""Waves of the noise level for its uncertainty."""


class Waves(eqx.Module):
    """A number as `sqrt(2) cos(f x + p)` at random frequencies and phases, which are not trained (equation 75)."""

    frequencies: Float[Array, " features"]
    phases: Float[Array, " features"]

    def __init__(self, features: int, *, key: PRNGKeyArray):
        first, second = jr.split(key)
        self.frequencies = 2 * math.pi * jr.normal(first, (features,))
        self.phases = 2 * math.pi * jr.uniform(second, (features,))

    def __call__(self, x: Float[Array, ""]) -> Float[Array, " features"]:
        """In float32."""
        frequencies, phases = (jax.lax.stop_gradient(a).astype(jnp.float32) for a in (self.frequencies, self.phases))
        return math.sqrt(2) * jnp.cos(x.astype(jnp.float32) * frequencies + phases)


class EDM2Block(eqx.Module):
    """A block on the way down, which normalises its input over the channels, or up, which does not (figure 21)."""

    convs: tuple[MagnitudePreserving, MagnitudePreserving]
    modulation: MagnitudePreserving
    shortcut: MagnitudePreserving | None
    qkv: MagnitudePreserving | None  # outputs: heads, queries then keys then values, channels of a head
    out: MagnitudePreserving | None
    dropout: Dropout
    up: bool = eqx.field(static=True)
    resample: str | None = eqx.field(static=True)
    config: EDM2Config = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        channels: int,
        config: EDM2Config,
        *,
        up: bool,
        attention: bool = False,
        resample: str | None = None,
        key: PRNGKeyArray,
    ):
        keys = RNG(key)
        first = in_channels if up else channels
        self.convs = conv(first, channels, key=next(keys)), conv(channels, channels, key=next(keys))
        self.modulation = linear(max(config.widths), channels, gain=0.0, key=next(keys))
        self.shortcut = conv(in_channels, channels, kernel=1, key=next(keys)) if in_channels != channels else None
        self.qkv = linear(channels, 3 * channels, key=next(keys)) if attention else None
        self.out = linear(channels, channels, key=next(keys)) if attention else None
        self.dropout, self.up, self.resample, self.config = Dropout(config.dropout), up, resample, config

    def __call__(
        self,
        x: Float[Array, "height width in_channels"],
        condition: Float[Array, " condition_dim"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "out_height out_width channels"]:
        config = self.config
        x = resampled(x, self.resample, (1, 1))
        if not self.up:
            x = to_magnitude_one(x if self.shortcut is None else self.shortcut(x))
        h = self.convs[0](mp_silu(x))
        h = mp_silu(h * (1 + self.modulation(condition)).astype(h.dtype)[None, None])
        h = self.convs[1](self.dropout(h, key=key, inference=inference))
        if self.up and self.shortcut is not None:
            x = self.shortcut(x)
        x = mp_sum(x, h, config.block_balance)
        if self.qkv is not None:
            x = mp_sum(x, self._attended(x), config.attention_balance)
        return jnp.clip(x, -config.clip, config.clip)

    def _attended(self, x: Array) -> Array:
        assert self.qkv is not None
        assert self.out is not None
        y = rearrange(self.qkv(x), "h w (heads parts d) -> (h w) heads parts d", parts=3, d=self.config.head_dim)
        q, k, v = (part[:, :, 0] for part in jnp.split(to_magnitude_one(y), 3, axis=2))
        return self.out(join_heads(ops.dot_product_attention(q, k, v))).reshape(x.shape)


class EDM2UNet(eqx.Module):
    """A prediction for a noised image: F of EDM's preconditioning.

    Args:
        channels: of the images.
        classes: number of labels; None for a net without classes.
        config: the sizes.
        uncertainty: adds `log_variance`, of the paper's loss (section 4.2, figure 20b).
    """

    waves: Waves
    time: MagnitudePreserving
    labels: MagnitudePreserving | None
    stem: MagnitudePreserving
    downs: tuple[tuple[EDM2Block, ...], ...]
    middle: tuple[EDM2Block, EDM2Block]
    ups: tuple[tuple[EDM2Block, ...], ...]
    head: MagnitudePreserving
    uncertainty_waves: Waves | None
    uncertainty_head: MagnitudePreserving | None
    channels: int = eqx.field(static=True)
    classes: int | None = eqx.field(static=True)
    config: EDM2Config = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        classes: int | None,
        config: EDM2Config,
        *,
        uncertainty: bool = True,
        key: PRNGKeyArray,
    ):
        _check.positive(channels=channels, classes=1 if classes is None else classes)
        keys, widths, dim = RNG(key), config.widths, max(config.widths)
        self.waves = Waves(widths[0], key=next(keys))
        self.time = linear(widths[0], dim, key=next(keys))
        self.labels = None if classes is None else linear(classes, dim, key=next(keys))
        self.stem = conv(channels + 1, widths[0], key=next(keys))
        self.downs, kept = _descent(config, next(keys))
        block = functools.partial(EDM2Block, widths[-1], widths[-1], config, up=True)
        self.middle = block(attention=True, key=next(keys)), block(key=next(keys))
        self.ups = _ascent(config, kept, next(keys))
        self.head = conv(widths[0], channels, gain=0.0, key=next(keys))
        self.uncertainty_waves = Waves(FEATURES, key=next(keys)) if uncertainty else None
        self.uncertainty_head = linear(FEATURES, 1, key=next(keys)) if uncertainty else None
        self.channels, self.classes, self.config = channels, classes, config

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
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "height width channels"]:
        """In float32 at least.

        Args:
            x: the noised image.
            time: the noise level, EDM's c_noise.
            label: in [0, classes), or `null_label`; None for a net without classes.
            key: of the dropout; required in training with dropout.
            inference: disables dropout.

        Raises:
            ValueError: x has another number of channels or a side that `config.factor` does not divide; a label is
                missing, superfluous or out of range (inside a compiled program it gives NaN instead).
        """
        check_image(x, self.channels, self.config.factor)
        condition = self._condition(time, label).astype(x.dtype)
        h = self.stem(jnp.pad(x, ((0, 0), (0, 0), (0, 1)), constant_values=1))
        skips, blocks = [h], [block for level in self.downs for block in level]
        run = functools.partial(_run, remat=self.config.remat, condition=condition, inference=inference)
        keys = iter(split(key, len(blocks) + 2 + sum(map(len, self.ups))))
        for block in blocks:
            h = run(block, h, next(keys))
            skips.append(h)
        for block in self.middle:
            h = run(block, h, next(keys))
        for block in (block for level in self.ups for block in level):
            if block.resample is None:
                h = mp_cat(h, skips.pop(), self.config.concat_balance)
            h = run(block, h, next(keys))
        y = self.head(h)
        return widen(y)

    def log_variance(self, time: Float[Array, ""]) -> Float[Array, ""]:
        """Logarithm of the loss' uncertainty at a noise level, c_noise, in float32 at least.

        Raises:
            ValueError: the net was made without it.
        """
        if self.uncertainty_waves is None or self.uncertainty_head is None:
            raise ValueError("log_variance needs a net of uncertainty=True: got False")
        y = self.uncertainty_head(self.uncertainty_waves(time))[0]
        return widen(y)

    def _condition(self, time: Array, label: Any) -> Array:
        if (label is None) != (self.labels is None):
            wanted = "given" if label is None else "None"
            raise ValueError(f"label must be {wanted}: the net has classes={self.classes}")
        y = self.time(self.waves(time))
        if self.labels is not None and self.classes is not None:
            label = _check.label(label, self.classes)
            hot = jax.nn.one_hot(label, self.classes) * math.sqrt(self.classes)
            hot = jnp.where((label < 0) | (label > self.classes), jnp.nan, hot)
            y = mp_sum(y, self.labels(hot), self.config.label_balance)
        return mp_silu(y)


def conv(
    in_channels: int, out_channels: int, *, kernel: int = 3, gain: float | None = None, key: PRNGKeyArray
) -> MagnitudePreserving:
    """A convolution that keeps the magnitude."""
    layer = Convolution(in_channels, out_channels, kernel=kernel, bias=False, init=_normal, key=key)
    return MagnitudePreserving(layer, gain=gain)


def linear(in_dim: int, out_dim: int, *, gain: float | None = None, key: PRNGKeyArray) -> MagnitudePreserving:
    """A projection that keeps the magnitude."""
    return MagnitudePreserving(Projection(in_dim, out_dim, bias=False, init=_normal, key=key), gain=gain)


def _run(
    block: EDM2Block, x: Array, key: PRNGKeyArray | None, *, remat: bool, condition: Array, inference: bool | None
) -> Array:
    function = lambda block, x, condition: block(x, condition, key=key, inference=inference)
    return (eqx.filter_checkpoint(function) if remat else function)(block, x, condition)


def _descent(config: EDM2Config, key: PRNGKeyArray) -> tuple[tuple[tuple[EDM2Block, ...], ...], list[int]]:
    """The levels on the way down, and the channels of every result that is kept."""
    keys, levels, old, kept = RNG(key), [], config.widths[0], [config.widths[0]]
    for i, width in enumerate(config.widths):
        make = functools.partial(EDM2Block, config=config, up=False)
        level = [make(old, old, resample="down", key=next(keys))] if i else []
        kept += [old] * len(level)
        for j in range(config.blocks):
            level.append(make(width if j else old, width, attention=i in config.attention, key=next(keys)))
        kept += [width] * config.blocks
        levels.append(tuple(level))
        old = width
    return tuple(levels), kept


def _ascent(config: EDM2Config, kept: list[int], key: PRNGKeyArray) -> tuple[tuple[EDM2Block, ...], ...]:
    """The levels on the way up, whose blocks take what was kept."""
    keys, levels, kept, old = RNG(key), [], [*kept], config.widths[-1]
    for i in reversed(range(len(config.widths))):
        make = functools.partial(EDM2Block, config=config, up=True)
        level = [make(old, old, resample="up", key=next(keys))] if i < len(config.widths) - 1 else []
        width = config.widths[i]
        for _ in range(config.blocks + 1):
            level.append(make(old + kept.pop(), width, attention=i in config.attention, key=next(keys)))
            old = width
        levels.append(tuple(level))
    return tuple(levels)
