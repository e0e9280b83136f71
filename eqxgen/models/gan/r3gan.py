"""R3GAN (Huang et al. 2024, arXiv:2501.05441, section 4): residual stages without norms, of blocks with a grouped 3x3
convolution inside an inverted bottleneck. Its loss is `eqxgen.losses.adversarial`'s relativistic one with R1 and R2.

Each block adds conv1x1(act(conv3x3(act(conv1x1(x) + b)) + b)) to x, act a leaky ReLU. Weights are normal with variance
gain² / fan-in, gain² = 2 / (1 + 0.2²) and, within blocks, times blocks^(-1/2) of all stages together; the last
convolution of a block is zero. Classes: an embedding beside the latent; in the discriminator the product of the class's
embedding with the last features.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.configs import R3GANConfig
from eqxgen.models.gan.dcgan import check_label, joined, label_array
from eqxgen.nn import Convolution, Embedding, Projection, _check, upfirdn
from eqxgen.rng import RNG

SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))


def scaled_normal(gain: float, *, outputs_first: bool = False) -> Callable[..., Array]:
    """Normal with deviation gain / sqrt(fan-in), of kernels `(*kernel, in, out)` or weights `(out, in)`."""

    def init(key: PRNGKeyArray, shape: Any, dtype: Any = jnp.float32) -> Array:
        fan = math.prod(shape[1:] if outputs_first else shape[:-1])
        return gain / math.sqrt(fan) * jr.normal(key, shape, dtype)

    return init


class Block(eqx.Module):
    """An inverted bottleneck with a grouped 3x3 convolution, added to its input."""

    convs: tuple[Convolution, Convolution, Convolution]
    biases: tuple[Float[Array, " inner"], Float[Array, " inner"]]

    def __init__(self, width: int, groups: int, expansion: int, gain: float, *, key: PRNGKeyArray):
        keys, inner = RNG(key), width * expansion
        init = scaled_normal(gain)
        self.convs = (
            Convolution(width, inner, kernel=1, bias=False, init=init, key=next(keys)),
            Convolution(inner, inner, groups=groups, bias=False, init=init, key=next(keys)),
            Convolution(inner, width, kernel=1, bias=False, init=jax.nn.initializers.zeros, key=next(keys)),
        )
        self.biases = (jnp.zeros(inner), jnp.zeros(inner))

    def __call__(self, x: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
        h = x
        for conv, bias in zip(self.convs, self.biases):
            h = jax.nn.leaky_relu(conv(h) + bias.astype(x.dtype)[None, None], SLOPE)
        return x + self.convs[2](h)


class Stages(eqx.Module):
    """Residual blocks of each stage, and the 1x1 convolutions between stages of other widths."""

    levels: tuple[tuple[Block, ...], ...]
    convs: tuple[Convolution | None, ...]

    def __init__(self, config: R3GANConfig, order: list[int], *, key: PRNGKeyArray):
        keys, gain = RNG(key), GAIN * sum(config.blocks) ** -0.25
        self.levels = tuple(
            tuple(
                Block(config.widths[place], config.groups[place], config.expansion, gain, key=next(keys))
                for _ in range(config.blocks[place])
            )
            for place in order
        )
        widths = [config.widths[place] for place in order]
        init = scaled_normal(1.0)
        self.convs = tuple(
            None if old == new else Convolution(old, new, kernel=1, bias=False, init=init, key=next(keys))
            for old, new in itertools.pairwise(widths)
        )


class R3GANGenerator(eqx.Module):
    """Image of a latent, about [-1, 1].

    Args:
        size: side of the image, halved evenly by the stages.
        channels: of the image.
        classes: number of labels; None for a model without.
        config: the sizes.

    Raises:
        ValueError: the stages do not halve the size evenly; a label is given to a model without classes, or is lacking.
    """

    basis: Float[Array, "base base width"]
    stem: Projection
    stages: Stages
    head: Convolution
    label_embedding: Embedding | None
    config: R3GANConfig = eqx.field(static=True)

    def __init__(self, size: int, channels: int, classes: int | None, config: R3GANConfig, *, key: PRNGKeyArray):
        _check.positive(size=size, channels=channels)
        keys, base, width = RNG(key), config.base(size), config.widths[0]
        dim = config.latent_dim + (0 if classes is None else config.label_dim)
        self.basis = jr.normal(next(keys), (base, base, width))
        self.stem = Projection(dim, width, bias=False, init=scaled_normal(1.0, outputs_first=True), key=next(keys))
        self.stages = Stages(config, list(range(len(config.widths))), key=next(keys))
        self.head = Convolution(
            config.widths[-1], channels, kernel=1, bias=False, init=scaled_normal(1.0), key=next(keys)
        )
        # A linear map of one-hot classes: its fan-in is their number.
        init = jax.nn.initializers.normal(1 / math.sqrt(classes or 1))
        self.label_embedding = (
            None if classes is None else Embedding(classes, config.label_dim, init=init, key=next(keys))
        )
        self.config = config

    def init_state(self) -> None:
        """No state."""

    def __call__(
        self,
        latent: Float[Array, " latent"],
        label: Int[Array, ""] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "size size channels"]:
        _check.example(latent, name="latent", latent_dim=self.config.latent_dim)
        vector = self.stem(joined(self.label_embedding, latent, label))
        x = self.basis.astype(vector.dtype) * vector[None, None]
        for place, blocks in enumerate(self.stages.levels):
            if place:
                conv = self.stages.convs[place - 1]
                x = x if conv is None else conv(x)
                x = _resized(x, self.config.taps, up=True)
            for block in blocks:
                x = block(x)
        return self.head(x)

    def batch(
        self,
        latents: Float[Array, "batch latent"],
        labels: Int[Array, " batch"] | None,
        state: None = None,
        *,
        weight: Float[Array, " batch"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "batch size size channels"], None]:
        """Images of a batch."""
        return jax.vmap(self)(latents, label_array(labels)), None

    def sample(
        self, latent: Float[Array, " latent"], label: Int[Array, ""] | None, state: Any, *, key: PRNGKeyArray
    ) -> Float[Array, "size size channels"]:
        """Image of one latent."""
        return self(latent, label)


class R3GANDiscriminator(eqx.Module):
    """Logit of an image, positive for real. Arguments as those of `R3GANGenerator`."""

    stem: Convolution
    stages: Stages
    basis: Float[Array, "base base width"]
    head: Projection
    label_embedding: Embedding | None
    config: R3GANConfig = eqx.field(static=True)

    def __init__(self, size: int, channels: int, classes: int | None, config: R3GANConfig, *, key: PRNGKeyArray):
        _check.positive(size=size, channels=channels)
        keys, base, width = RNG(key), config.base(size), config.widths[0]
        self.stem = Convolution(
            channels, config.widths[-1], kernel=1, bias=False, init=scaled_normal(1.0), key=next(keys)
        )
        self.stages = Stages(config, list(range(len(config.widths)))[::-1], key=next(keys))
        self.basis = jr.normal(next(keys), (base, base, width)) / base  # a depthwise kernel: its fan-in is base²
        outputs = 1 if classes is None else config.label_dim
        self.head = Projection(width, outputs, bias=False, init=scaled_normal(1.0, outputs_first=True), key=next(keys))
        init = jax.nn.initializers.normal(1 / math.sqrt(outputs * (classes or 1)))
        self.label_embedding = (
            None if classes is None else Embedding(classes, config.label_dim, init=init, key=next(keys))
        )
        self.config = config

    def init_state(self) -> None:
        """No state."""

    def __call__(
        self,
        image: Float[Array, "size size channels"],
        label: Int[Array, ""] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, ""]:
        check_label(self.label_embedding, label)
        side = len(self.basis) * 2 ** (len(self.config.widths) - 1)
        _check.example(image, name="image", height=side, width=side, channels=self.stem.weight.shape[2])
        x = self.stem(image)
        for place, blocks in enumerate(self.stages.levels):
            if place:
                x = _resized(x, self.config.taps, up=False)
                conv = self.stages.convs[place - 1]
                x = x if conv is None else conv(x)
            for block in blocks:
                x = block(x)
        features = widen(self.head(jnp.sum(x * self.basis.astype(x.dtype), axis=(0, 1))))
        if self.label_embedding is None or label is None:
            return features[0]
        return jnp.sum(features * self.label_embedding(label).astype(features.dtype))

    def batch(
        self,
        images: Float[Array, "batch size size channels"],
        labels: Int[Array, " batch"] | None,
        state: None = None,
        *,
        weight: Float[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, " batch"], None]:
        """Logits of a batch."""
        return jax.vmap(self)(images, label_array(labels)), None


def _resized(x: Array, taps: tuple[int, ...], *, up: bool) -> Array:
    """Twice or half the side, by a filter; the padding is that of StyleGAN2's resampling for any number of taps."""
    total, count = sum(taps), len(taps)
    scaled = [tap / total for tap in taps]
    if up:
        return upfirdn(x, scaled, up=2, padding=((count + 1) // 2, (count - 2) // 2), gain=4.0)
    return upfirdn(x, scaled, down=2, padding=((count - 1) // 2, (count - 2) // 2))
