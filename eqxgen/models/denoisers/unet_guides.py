"""The upsampler and the classifier of ADM (Dhariwal and Nichol 2021, arXiv:2105.05233, sections 4 and D): nets of
`eqxgen.models.denoisers.unet`'s parts beside the denoiser.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen import ops
from eqxgen._widen import widen
from eqxgen.configs import UNetConfig
from eqxgen.models.denoisers.unet import (
    Level,
    Middle,
    UNet,
    check_image,
    conv_init,
    descent,
    down,
    noise_embedding,
    norm,
    split,
)
from eqxgen.nn import Convolution, GroupNorm, Projection, _check
from eqxgen.nn.activation import Activation
from eqxgen.nn.attention.self_attention import join_heads, split_heads
from eqxgen.nn.conv.conditioned import activated
from eqxgen.nn.embed.noise import NoiseEmbedding
from eqxgen.rng import RNG

_zeros = jax.nn.initializers.zeros
POOLS = ("attention", "mean")


class LowResolution(NamedTuple):
    """The condition of an `Upsampler`.

    Attributes:
        image: of low resolution, in [-1, 1].
        label: in [0, classes), or `null_label`; None for a net without classes.
    """

    image: Float[Array, "low_height low_width channels"]
    label: _check.Ids | None = None


class Upsampler(eqx.Module):
    """A `UNet` of images of high resolution given those of low resolution, which it sees enlarged by interpolation
    beside the noised image.

    Args:
        channels, classes, config: as `UNet`'s.
    """

    net: UNet

    def __init__(self, channels: int, classes: int | None, config: UNetConfig, *, key: PRNGKeyArray):
        self.net = UNet(channels, classes, config, extra=channels, key=key)

    @property
    def null_label(self) -> int | None:
        """The label of no class; None for a net without classes."""
        return self.net.null_label

    def __call__(
        self,
        x: Float[Array, "height width channels"],
        time: Float[Array, ""],
        condition: LowResolution,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "height width out_channels"]:
        """As `UNet`'s call, in float32 at least.

        Raises:
            ValueError: the image of low resolution has another number of channels.
        """
        channels, low = self.net.channels, condition.image
        check_image(x, channels, self.net.config.factor)
        _check.example(low, "low_height", "low_width", name="condition.image", channels=channels)
        large = jax.image.resize(low.astype(x.dtype), x.shape, "bilinear")
        joined = jnp.concatenate([x, large], -1)
        return self.net(joined, time, condition.label, key=key, inference=inference)


class UNetClassifier(eqx.Module):
    """Logits of the class of a noised image, whose gradient guides a denoiser: the way down of a `UNet`, then a pool.

    Args:
        height, width, channels: of the images.
        classes: number of labels.
        config: the sizes.
        pool: "attention", by a query that is the mean, as published, or "mean".

    Raises:
        ValueError: groups or heads do not divide some level's channels, or the factor does not divide a side.
    """

    time: NoiseEmbedding
    stem: Convolution
    downs: tuple[Level, ...]
    middle: Middle
    norm: GroupNorm
    positions: Float[Array, "tokens dim"] | None
    qkv: Projection | None
    head: Projection
    activation: Activation
    channels: int = eqx.field(static=True)
    config: UNetConfig = eqx.field(static=True)

    def __init__(
        self,
        height: int,
        width: int,
        channels: int,
        classes: int,
        config: UNetConfig,
        *,
        pool: str = "attention",
        key: PRNGKeyArray,
    ):
        _check.positive(height=height, width=width, channels=channels, classes=classes)
        _check.one_of("pool", pool, POOLS)
        _check.divides(factor=config.factor, height=height)
        _check.divides(factor=config.factor, width=width)
        keys, dim = RNG(key), config.widths[-1]
        self.time = noise_embedding(None, config, key=next(keys))
        self.stem = Convolution(channels, config.widths[0], init=conv_init(config), key=next(keys))
        self.downs, _ = descent(channels, config, key=next(keys))
        self.middle = Middle(dim, config, key=next(keys))
        self.norm = norm(dim, config)
        tokens = (height // config.factor) * (width // config.factor) + 1
        attended = pool == "attention"
        self.positions = jr.normal(next(keys), (tokens, dim)) / dim**0.5 if attended else None
        self.qkv = Projection(dim, 3 * dim, key=next(keys)) if attended else None
        head_key = next(keys)
        self.head = (
            Projection(dim, classes, key=head_key) if attended else Projection(dim, classes, init=_zeros, key=head_key)
        )
        self.activation, self.channels, self.config = Activation(config.activation), channels, config

    def __call__(
        self,
        x: Float[Array, "height width channels"],
        time: Float[Array, ""],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, " classes"]:
        """Logits, in float32 at least; the arguments are those of `UNet`.

        Raises:
            ValueError: x has another number of channels or, with attention, another size than at construction.
        """
        check_image(x, self.channels, self.config.factor)
        keys = split(key, 2)
        condition = self.time(time, dtype=x.dtype)
        h, _ = down(self.stem, self.downs, x, condition, keys[0], inference)
        h = activated(self.norm, self.middle(h, condition, keys[1], inference), self.activation)
        tokens = h.reshape(-1, h.shape[-1])
        y = self.head(self._attended(tokens) if self.qkv is not None else jnp.mean(tokens, 0))
        return widen(y)

    def _attended(self, tokens: Float[Array, "seq dim"]) -> Float[Array, " dim"]:
        assert self.qkv is not None
        assert self.positions is not None
        tokens = jnp.concatenate([jnp.mean(tokens, 0, keepdims=True), tokens])
        if tokens.shape != self.positions.shape:
            raise ValueError(
                f"x must have {self.positions.shape[0] - 1} pixels at the smallest size: got {tokens.shape[0] - 1}"
            )
        dim = tokens.shape[-1]
        heads = self.config.heads_of(dim)
        q, k, v = split_heads(self.qkv(tokens + self.positions.astype(tokens.dtype)), heads, dim // heads)
        return join_heads(ops.dot_product_attention(q[:1], k, v))[0]
