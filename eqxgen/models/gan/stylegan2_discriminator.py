"""Discriminator of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, appendix B), written from the papers."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.configs import StyleGAN2Config
from eqxgen.models.gan.dcgan import check_label, label_array
from eqxgen.models.gan.deviation import with_deviation
from eqxgen.models.gan.equalised import TAPS, EqualisedConvolution, EqualisedEmbedding, EqualisedProjection
from eqxgen.models.gan.stylegan2 import Mapping
from eqxgen.nn import _check, blur
from eqxgen.nn._batch import OverBatch
from eqxgen.rng import RNG

MAPPING = 8
"""Layers of the mapping of classes."""


class Level(eqx.Module):
    """Two convolutions at one resolution, the second of which halves the image."""

    stem: EqualisedConvolution | None
    convs: tuple[EqualisedConvolution, EqualisedConvolution]
    shortcut: EqualisedConvolution | None

    def __init__(self, channels: int, old: int, new: int, *, image: bool, residual: bool, key: PRNGKeyArray):
        keys = RNG(key)
        self.stem = EqualisedConvolution(channels, old, kernel=1, key=next(keys)) if image else None
        self.convs = (
            EqualisedConvolution(old, old, key=next(keys)),
            EqualisedConvolution(old, new, resample="down", key=next(keys)),
        )
        self.shortcut = (
            EqualisedConvolution(old, new, kernel=1, resample="down", linear=True, bias=False, key=next(keys))
            if residual
            else None
        )

    def __call__(self, x: Array, *, clamp: float) -> Array:
        h = self.convs[0](x, clamp=clamp)
        if self.shortcut is None:
            return self.convs[1](h, clamp=clamp)
        half = math.sqrt(0.5)
        return self.convs[1](h, gain=half, clamp=clamp) + self.shortcut(x, gain=half)


class StyleGAN2Discriminator(eqx.Module, OverBatch):
    """Logits of a batch of images, positive for real: the minibatch deviation belongs to the batch, and after
    `eqxgen.nn.synchronised` to that of all devices.

    The form `residual` has shortcuts; `skip` adds features of the image at each resolution; `plain` has neither. With
    classes, the logit is the product of the last features and of a mapping of the class, over the root of its size.

    Args:
        size: side of the image, a power of two.
        channels: of the image.
        classes: number of labels; None for a model without.
        config: the sizes.

    Raises:
        ValueError: the size is no power of two; labels are given to a model without classes, or are lacking.
    """

    levels: tuple[Level, ...]
    stem: EqualisedConvolution | None  # of the image of 4 pixels
    last: EqualisedConvolution
    hidden: EqualisedProjection
    head: EqualisedProjection
    label_embedding: EqualisedEmbedding | None
    mapping: Mapping | None
    config: StyleGAN2Config = eqx.field(static=True)
    size: int = eqx.field(static=True)
    axis_name: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, size: int, channels: int, classes: int | None, config: StyleGAN2Config, *, key: PRNGKeyArray):
        _check.positive(size=size, channels=channels)
        keys, sides = RNG(key), config.sides(size)[::-1]
        skip, residual = config.discriminator == "skip", config.discriminator == "residual"
        self.levels = tuple(
            Level(
                channels,
                config.channels(side),
                config.channels(side // 2),
                image=skip or side == size,
                residual=residual,
                key=next(keys),
            )
            for side in sides[:-1]
        )
        width = config.channels(4)
        image = skip or size == 4
        self.stem = EqualisedConvolution(channels, width, kernel=1, key=next(keys)) if image else None
        maps = config.deviations if config.group else 0
        self.last = EqualisedConvolution(width + maps, width, key=next(keys))
        self.hidden = EqualisedProjection(16 * width, width, key=next(keys))
        outputs = 1 if classes is None else width
        self.head = EqualisedProjection(width, outputs, linear=True, key=next(keys))
        self.label_embedding = None if classes is None else EqualisedEmbedding(classes, width, key=next(keys))
        self.mapping = None if classes is None else Mapping(width, width, MAPPING, key=next(keys))
        self.config, self.size, self.axis_name = config, size, ()

    def init_state(self) -> None:
        """No state."""

    def features(self, image: Float[Array, "size size channels"]) -> Float[Array, "4 4 width"]:
        """The last feature map of one image, before the deviation."""
        stem = self.levels[0].stem if self.levels else self.stem
        assert stem is not None
        _check.example(image, name="image", height=self.size, width=self.size, channels=stem.weight.shape[2])
        x, clamp = None, self.config.clamp
        for level in self.levels:
            x, image = self._seen(x, level.stem, image)
            x = level(x, clamp=clamp)
        return self._seen(x, self.stem, image)[0]

    def _seen(self, x: Array | None, stem: EqualisedConvolution | None, image: Array) -> tuple[Array, Array]:
        """Features with those of the image, and the image of the next resolution."""
        if stem is None:
            assert x is not None
            return x, image
        y = stem(image, clamp=self.config.clamp)
        smaller = blur(image, TAPS, stride=2) if self.config.discriminator == "skip" and image.shape[0] > 4 else image
        return y if x is None else x + y, smaller

    def __call__(
        self, images: Float[Array, "batch size size channels"], labels: Int[Array, " batch"] | None = None
    ) -> Float[Array, " batch"]:
        labels = label_array(labels)
        if labels is not None and labels.shape != images.shape[:1]:
            raise ValueError(f"labels must be one for each of {len(images)} images: got shape {labels.shape}")
        _check.positive(images=len(images))
        x = jax.vmap(self.features)(images)
        if self.config.group:
            x = with_deviation(x, self.config.group, self.config.deviations, axes=self.axis_name)
        return jax.vmap(self._logit)(x, labels)

    def _logit(self, x: Float[Array, "4 4 width"], label: Int[Array, ""] | None) -> Float[Array, ""]:
        check_label(self.label_embedding, label)
        x = self.hidden(self.last(x, clamp=self.config.clamp).reshape(-1))
        features = self.head(x).astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.label_embedding is None or self.mapping is None or label is None:
            return features[0]
        vector = self.mapping(self.label_embedding(label)).astype(features.dtype)
        return jnp.sum(features * vector) / math.sqrt(len(vector))

    def batch(
        self,
        images: Float[Array, "batch size size channels"],
        labels: Int[Array, " batch"] | None,
        state: None = None,
        *,
        weight: Float[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, " batch"], None]:
        """Logits of a batch in training."""
        return self(images, labels), None
