"""Generator of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, and arXiv:2006.06676 for the sizes), written from the
papers.

Differences: noise is drawn by key and never stored; labels, latents and style cut-offs belong to one example, where the
original draws one cut-off for a batch; in half precision the whole synthesis is, not its largest resolutions alone.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.configs import StyleGAN2Config
from eqxgen.models.gan.dcgan import check_label, label_array
from eqxgen.models.gan.equalised import (
    TAPS,
    EqualisedConvolution,
    EqualisedEmbedding,
    EqualisedProjection,
    activated,
)
from eqxgen.models.gan.modulated import modulated_convolution
from eqxgen.nn import _check, enlarge
from eqxgen.rng import RNG

RATE = 0.01
"""Learning rate of the mapping, as a multiple of that of the synthesis."""
Noise = tuple[Float[Array, "_ _"], ...]
"""Of each styled convolution, from 4 pixels on."""


def normalised(x: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """x / sqrt(mean x² + 1e-8), in float32 at least."""
    wide = widen(x)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2) + 1e-8)).astype(x.dtype)


class Mapping(eqx.Module):
    """Dense layers of vectors normalised to mean square 1.

    Args:
        in_dim: size of the input.
        dim: size of a style vector.
        layers: number of layers.
    """

    layers: tuple[EqualisedProjection, ...]

    def __init__(self, in_dim: int, dim: int, layers: int, *, key: PRNGKeyArray):
        keys = RNG(key)
        self.layers = tuple(
            EqualisedProjection(dim if place else in_dim, dim, rate=RATE, key=next(keys)) for place in range(layers)
        )

    def __call__(self, *parts: Float[Array, " _"]) -> Float[Array, " dim"]:
        x = jnp.concatenate([normalised(part) for part in parts])
        for layer in self.layers:
            x = layer(x)
        return x


class StyledConvolution(eqx.Module):
    """A modulated 3x3 convolution, noise of a learned strength, bias and activation."""

    weight: Float[Array, "kernel kernel in_channels out_channels"]
    bias: Float[Array, " out_channels"]
    strength: Float[Array, ""]
    modulation: EqualisedProjection
    resample: str | None = eqx.field(static=True)

    def __init__(self, in_channels: int, out_channels: int, dim: int, *, up: bool = False, key: PRNGKeyArray):
        keys = RNG(key)
        self.weight = jr.normal(next(keys), (3, 3, in_channels, out_channels))
        self.bias, self.strength = jnp.zeros(out_channels), jnp.zeros(())
        self.modulation = EqualisedProjection(dim, in_channels, linear=True, start=1.0, key=next(keys))
        self.resample = "up" if up else None

    def __call__(
        self,
        x: Float[Array, "height width in_channels"],
        style: Float[Array, " dim"],
        noise: Float[Array, "side side"],
        *,
        gain: float = 1.0,
        clamp: float = 0.0,
    ) -> Float[Array, "side side out_channels"]:
        y = modulated_convolution(x, self.weight, self.modulation(style), resample=self.resample)
        y = y + (noise.astype(y.dtype) * self.strength.astype(y.dtype))[:, :, None]
        return activated(y, self.bias, gain=gain, clamp=clamp)


class ToImage(eqx.Module):
    """A modulated 1x1 convolution without demodulation, to the channels of the image."""

    weight: Float[Array, "one one in_channels channels"]
    bias: Float[Array, " channels"]
    modulation: EqualisedProjection

    def __init__(self, in_channels: int, channels: int, dim: int, *, key: PRNGKeyArray):
        keys = RNG(key)
        self.weight, self.bias = jr.normal(next(keys), (1, 1, in_channels, channels)), jnp.zeros(channels)
        self.modulation = EqualisedProjection(dim, in_channels, linear=True, start=1.0, key=next(keys))

    def __call__(
        self, x: Float[Array, "side side in_channels"], style: Float[Array, " dim"], *, clamp: float = 0.0
    ) -> Float[Array, "side side channels"]:
        scale = self.modulation(style) / math.sqrt(self.weight.shape[2])
        y = modulated_convolution(x, self.weight, scale, demodulate=False)
        return activated(y, self.bias, linear=True, clamp=clamp)


class Level(eqx.Module):
    """The layers of one resolution: one styled convolution at 4 pixels, two at others; see `StyleGAN2Generator`."""

    convs: tuple[StyledConvolution, ...]
    to_image: ToImage | None
    shortcut: EqualisedConvolution | None

    def __init__(self, old: int, new: int, channels: int, dim: int, *, image: bool, residual: bool, key: PRNGKeyArray):
        keys = RNG(key)
        first = () if old == 0 else (StyledConvolution(old, new, dim, up=True, key=next(keys)),)
        self.convs = (*first, StyledConvolution(new, new, dim, key=next(keys)))
        self.to_image = ToImage(new, channels, dim, key=next(keys)) if image else None
        self.shortcut = (
            EqualisedConvolution(old, new, kernel=1, resample="up", linear=True, bias=False, key=next(keys))
            if residual and old
            else None
        )

    def __call__(
        self, x: Array, styles: Float[Array, "layers dim"], noise: Noise, *, clamp: float
    ) -> Float[Array, "side side new"]:
        gains = (1.0,) * len(self.convs) if self.shortcut is None else (1.0, math.sqrt(0.5))
        h = x
        for conv, style, own, gain in zip(self.convs, styles, noise, gains):
            h = conv(h, style, own, gain=gain, clamp=clamp)
        return h if self.shortcut is None else h + self.shortcut(x, gain=math.sqrt(0.5))


class StyleGAN2Generator(eqx.Module):
    """Image of a latent, about [-1, 1]: a mapping to a style vector, and a synthesis by one style vector a layer.

    In the form `skip` the image is a sum of images of all resolutions; in the form `residual` each resolution has a
    shortcut, and the last one gives the image. The model state is the mean style vector, towards which `truncated`
    moves a style vector.

    Args:
        size: side of the image, a power of two.
        channels: of the image.
        classes: number of labels; None for a model without.
        config: the sizes.

    Raises:
        ValueError: the size is no power of two; a label is given to a model without classes, or is lacking.
    """

    mapping: Mapping
    label_embedding: EqualisedEmbedding | None
    const: Float[Array, "4 4 width"]
    levels: tuple[Level, ...]
    config: StyleGAN2Config = eqx.field(static=True)

    def __init__(self, size: int, channels: int, classes: int | None, config: StyleGAN2Config, *, key: PRNGKeyArray):
        _check.positive(size=size, channels=channels)
        keys, sides, dim = RNG(key), config.sides(size), config.latent_dim
        self.mapping = Mapping(dim if classes is None else 2 * dim, dim, config.mapping, key=next(keys))
        self.label_embedding = None if classes is None else EqualisedEmbedding(classes, dim, key=next(keys))
        widths = [config.channels(side) for side in sides]
        self.const = jr.normal(next(keys), (4, 4, widths[0]))
        residual = config.generator == "residual"
        self.levels = tuple(
            Level(
                old,
                new,
                channels,
                dim,
                image=not residual or side == size,
                residual=residual,
                key=next(keys),
            )
            for side, old, new in zip(sides, (0, *widths), widths)
        )
        self.config = config

    @property
    def layers(self) -> int:
        """Number of style vectors: one for each styled convolution, and one for the image."""
        return 2 * len(self.levels)

    def init_state(self) -> Float[Array, " dim"]:
        """The mean style vector before the first batch."""
        return jnp.zeros(self.config.latent_dim)

    def style(self, latent: Float[Array, " latent"], label: Int[Array, ""] | None = None) -> Float[Array, " dim"]:
        """The style vector of a latent and its label."""
        check_label(self.label_embedding, label)
        _check.example(latent, name="latent", latent_dim=self.config.latent_dim)
        if self.label_embedding is None or label is None:
            return self.mapping(latent)
        return self.mapping(latent, self.label_embedding(label).astype(latent.dtype))

    def truncated(
        self, style: Float[Array, " dim"], mean: Float[Array, " dim"], truncation: float | Float[Array, ""]
    ) -> Float[Array, " dim"]:
        """mean + truncation · (style - mean) (Karras et al. 2019, arXiv:1812.04948, appendix B).

        Raises:
            ValueError: there is no mean, it is of another shape, or the truncation is not finite.
        """
        if mean is None:
            raise ValueError("mean must be the mean style vector for a truncation, the model's state: got None")
        _check.same_shape(mean=mean, style=style)
        if isinstance(truncation, int | float) and not math.isfinite(truncation):
            raise ValueError(f"truncation must be finite: got {truncation}")
        return mean + truncation * (style - mean)

    def noise(self, key: PRNGKeyArray) -> Noise:
        """Normal noise of each styled convolution."""
        keys = RNG(key)
        return tuple(jr.normal(next(keys), (side, side)) for side in self._sides())

    def _sides(self) -> list[int]:
        """Sides of the feature maps of the styled convolutions."""
        return [4 * 2**place for place, level in enumerate(self.levels) for _ in level.convs]

    def synthesis(
        self, styles: Float[Array, "layers dim"], *, noise: Noise | None = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "size size channels"]:
        """Image of style vectors.

        Args:
            styles: of each layer; a level's image has the vector of the next level's first convolution.
            noise: of each styled convolution; by default drawn by the key.
            key: of the noise.

        Raises:
            ValueError: neither noise nor a key is given, it has other shapes, or there are not `layers` style vectors.
        """
        _check.example(styles, name="styles", layers=self.layers, latent_dim=self.config.latent_dim)
        if noise is None:
            if key is None:
                raise ValueError("key must be given for the noise of the synthesis, or noise: got neither")
            noise = self.noise(key)
        sides = self._sides()
        if [jnp.shape(own) for own in noise] != [(side, side) for side in sides]:
            raise ValueError(f"noise must be squares of {sides} pixels: got {[jnp.shape(own) for own in noise]}")
        clamp, kind = self.config.clamp, self.const.dtype
        x, image, at = self.const, None, 0
        for level in self.levels:
            count = len(level.convs)
            x = level(x, styles[at : at + count].astype(kind), noise[at : at + count], clamp=clamp)
            at += count
            if level.to_image is not None:
                more = level.to_image(x, styles[at].astype(kind), clamp=clamp)
                more = more.astype(jnp.promote_types(kind, jnp.float32))
                image = more if image is None else enlarge(image, TAPS) + more
        assert image is not None
        return image

    def __call__(
        self, latent: Float[Array, " latent"], label: Int[Array, ""] | None = None, *, key: PRNGKeyArray
    ) -> Float[Array, "size size channels"]:
        """Image of a latent; the key is that of the noise."""
        style = self.style(latent, label)
        return self.synthesis(jnp.broadcast_to(style, (self.layers, *style.shape)), key=key)

    def styles(
        self,
        latents: Float[Array, "batch latent"],
        labels: Int[Array, " batch"] | None,
        *,
        mixing: float | Float[Array, ""] = 0.0,
        keys: Key[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, "batch layers dim"], Float[Array, "batch dim"]]:
        """Style vectors of each layer of a batch, and those before mixing.

        Args:
            mixing: probability that the layers from a random one on have the style vector of another latent.
            keys: of the mixing, one for each example.

        Raises:
            ValueError: the probability is out of [0, 1], or needs keys that are not given.
        """
        labels = label_array(labels)
        if isinstance(mixing, int | float):
            _check.probability(mixing=mixing)
        first = jax.vmap(self.style)(latents, labels)
        styles = jnp.broadcast_to(first[:, None], (len(first), self.layers, first.shape[1]))
        if isinstance(mixing, int | float) and not mixing:
            return styles, first
        if keys is None:
            raise ValueError("keys must be given for mixing, one for each example: got None")
        others, cut = jax.vmap(lambda key: self._mixed(latents.shape[1], mixing, key))(keys)
        second = jax.vmap(self.style)(others, labels)
        kept = (jnp.arange(self.layers)[None] < cut[:, None])[:, :, None]
        return jnp.where(kept, styles, second[:, None]), first

    def _mixed(self, dim: int, mixing: float | Float[Array, ""], key: PRNGKeyArray) -> tuple[Array, Array]:
        latent_key, cut_key, key = jr.split(key, 3)
        cut = jr.randint(cut_key, (), 1, self.layers)
        return jr.normal(latent_key, (dim,)), jnp.where(jr.uniform(key) < mixing, cut, self.layers)

    def batch(
        self,
        latents: Float[Array, "batch latent"],
        labels: Int[Array, " batch"] | None,
        *,
        mixing: float | Float[Array, ""] = 0.0,
        keys: Key[Array, " batch"],
    ) -> tuple[Float[Array, "batch size size channels"], Float[Array, "batch dim"]]:
        """Images of a batch in training, with style mixing, and the style vectors before it."""
        mix, draw = (jax.vmap(lambda key, number=number: jr.fold_in(key, number))(keys) for number in (7, 8))
        styles, first = self.styles(latents, labels, mixing=mixing, keys=mix)
        return jax.vmap(lambda styles, key: self.synthesis(styles, key=key))(styles, draw), first

    def sample(
        self,
        latent: Float[Array, " latent"],
        label: Int[Array, ""] | None,
        state: Float[Array, " dim"],
        *,
        truncation: float | Float[Array, ""] = 1.0,
        key: PRNGKeyArray,
    ) -> Float[Array, "size size channels"]:
        """Image of one latent, its style vector truncated towards the mean one."""
        style = self.truncated(self.style(latent, label), state, truncation)
        return self.synthesis(jnp.broadcast_to(style, (self.layers, *style.shape)), key=key)
