"""Convolutional autoencoders of taming transformers (Esser et al. 2021, arXiv:2012.09841) and latent diffusion (Rombach
et al. 2022, arXiv:2112.10752).

One encoder and one decoder: residual blocks with group norm of epsilon 1e-6 and swish, one head of attention over the
pixels, halving by a convolution with stride 2 whose input is padded by one row and column at the far border alone,
doubling by repetition and a convolution. `KLAutoencoder` has a Gaussian of latents between them, `VQAutoencoder` a
codebook.
"""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.configs import AutoencoderConfig
from eqxgen.nn import Convolution, GroupNorm, ResidualBlock, VectorQuantizer, _check, upsample
from eqxgen.nn.attention.pixels import PixelAttention
from eqxgen.nn.distributions import DiagonalGaussian
from eqxgen.nn.quantize import Quantized
from eqxgen.rng import RNG

EPSILON = 1e-6


class Level(eqx.Module):
    """Residual blocks at one size, each with attention after it where there is any."""

    blocks: tuple[ResidualBlock, ...]
    attention: tuple[PixelAttention, ...]
    remat: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        channels: int,
        count: int,
        *,
        groups: int,
        attention: bool,
        remat: bool = False,
        key: PRNGKeyArray,
    ):
        self.remat = remat
        keys = RNG(key)
        self.blocks = tuple(
            ResidualBlock(channels if i else in_channels, channels, groups=groups, bias=True, key=next(keys))
            for i in range(count)
        )
        self.attention = tuple(
            PixelAttention(channels, groups=groups, key=next(keys)) for _ in range(count if attention else 0)
        )

    def __call__(self, x: Float[Array, "height width in_channels"]) -> Float[Array, "height width channels"]:
        for i, block in enumerate(self.blocks):
            x = eqx.filter_checkpoint(block)(x) if self.remat else block(x)
            x = self.attention[i](x) if self.attention else x
        return x


class Middle(eqx.Module):
    """Two residual blocks at the smallest size, attention between them."""

    blocks: tuple[ResidualBlock, ResidualBlock]
    attention: PixelAttention | None

    def __init__(self, channels: int, config: AutoencoderConfig, *, key: PRNGKeyArray):
        first, second, third = jr.split(key, 3)
        block = lambda key: ResidualBlock(channels, channels, groups=config.groups, bias=True, key=key)
        self.blocks = block(first), block(second)
        self.attention = PixelAttention(channels, groups=config.groups, key=third) if config.middle_attention else None

    def __call__(self, x: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
        x = self.blocks[0](x)
        return self.blocks[1](x if self.attention is None else self.attention(x))


class Encoder(eqx.Module):
    """Image to a grid of `out_channels`, `config.factor` times smaller along each side."""

    stem: Convolution
    levels: tuple[Level, ...]
    downs: tuple[Convolution, ...]
    middle: Middle
    norm: GroupNorm
    head: Convolution

    def __init__(self, channels: int, out_channels: int, config: AutoencoderConfig, *, key: PRNGKeyArray):
        keys = RNG(key)
        widths = config.widths
        self.stem = Convolution(channels, widths[0], key=next(keys))
        self.levels = tuple(
            Level(
                old,
                new,
                config.blocks,
                groups=config.groups,
                attention=i in config.attention,
                remat=config.remat,
                key=next(keys),
            )
            for i, (old, new) in enumerate(zip([widths[0], *widths], widths))
        )
        self.downs = tuple(Convolution(width, width, stride=2, padding=0, key=next(keys)) for width in widths[:-1])
        self.middle = Middle(widths[-1], config, key=next(keys))
        self.norm = GroupNorm(widths[-1], config.groups, epsilon=EPSILON)
        self.head = Convolution(widths[-1], out_channels, key=next(keys))

    def __call__(self, image: Float[Array, "height width channels"]) -> Float[Array, "rows columns out_channels"]:
        x = self.stem(image)
        for i, level in enumerate(self.levels):
            x = self.downs[i - 1](jnp.pad(x, ((0, 1), (0, 1), (0, 0)))) if i else x
            x = level(x)
        return self.head(self.norm(self.middle(x), activation="silu"))


class Decoder(eqx.Module):
    """Grid of latents to an image; levels from the smallest size to the largest."""

    stem: Convolution
    middle: Middle
    levels: tuple[Level, ...]
    ups: tuple[Convolution, ...]
    norm: GroupNorm
    head: Convolution

    def __init__(self, channels: int, config: AutoencoderConfig, *, key: PRNGKeyArray):
        keys, last = RNG(key), len(config.widths) - 1
        widths = config.widths[::-1]
        self.stem = Convolution(config.latent_dim, widths[0], key=next(keys))
        self.middle = Middle(widths[0], config, key=next(keys))
        self.levels = tuple(
            Level(
                old,
                new,
                config.blocks + 1,
                groups=config.groups,
                attention=last - i in config.attention,
                remat=config.remat,
                key=next(keys),
            )
            for i, (old, new) in enumerate(zip([widths[0], *widths], widths))
        )
        self.ups = tuple(Convolution(width, width, key=next(keys)) for width in widths[:-1])
        self.norm = GroupNorm(widths[-1], config.groups, epsilon=EPSILON)
        self.head = Convolution(widths[-1], channels, key=next(keys))

    def __call__(self, latents: Float[Array, "rows columns latent_dim"]) -> Float[Array, "height width channels"]:
        return self.head(self.features(latents))

    def features(self, latents: Float[Array, "rows columns latent_dim"]) -> Float[Array, "height width width_"]:
        """Input of the last layer."""
        x = self.middle(self.stem(latents))
        for i, level in enumerate(self.levels):
            x = self.ups[i - 1](upsample(x)) if i else x
            x = level(x)
        return self.norm(x, activation="silu")


class KLAutoencoder(eqx.Module):
    """Autoencoder with a Gaussian of latents (Rombach et al. 2022, section 3.1), as in Stable Diffusion.

    Latents are those of the net itself: the factor 0.18215 that diffusion models of Stable Diffusion multiply them
    with is the caller's.

    Args:
        channels: of the images.
        config: the sizes.
    """

    encoder: Encoder
    after: Convolution | None  # of the moments
    before: Convolution | None  # of the latents
    decoder: Decoder
    channels: int = eqx.field(static=True)
    latent_dim: int = eqx.field(static=True)
    factor: int = eqx.field(static=True)

    def __init__(self, channels: int, config: AutoencoderConfig, *, key: PRNGKeyArray):
        _check.positive(channels=channels)
        keys, dim = RNG(key), config.latent_dim
        self.encoder = Encoder(channels, 2 * dim, config, key=next(keys))
        self.after = _pointwise(2 * dim, config.projected, key=next(keys))
        self.before = _pointwise(dim, config.projected, key=next(keys))
        self.decoder = Decoder(channels, config, key=next(keys))
        self.channels, self.latent_dim, self.factor = channels, dim, config.factor

    def encode(self, image: Float[Array, "height width channels"]) -> DiagonalGaussian:
        """Posterior of the latents (height / factor, width / factor, latent_dim) of an image in [-1, 1], its
        log-variance within `eqxgen.nn.distributions.LOG_VARIANCE`.

        Raises:
            ValueError: the image has another number of channels, or a side that the factor does not divide.
        """
        _check_image(image, self.channels, self.factor)
        return DiagonalGaussian.of(_through(self.after, self.encoder(image)))

    def decode(self, latents: Float[Array, "rows columns latent_dim"]) -> Float[Array, "height width channels"]:
        """Image of some latents; not clipped to [-1, 1]."""
        return self.decoder.head(self.features(latents))

    def features(self, latents: Float[Array, "rows columns latent_dim"]) -> Float[Array, "height width width_"]:
        """Input of the decoder's last layer, for some latents."""
        _check.image(latents, latent_dim=self.latent_dim)
        return self.decoder.features(_through(self.before, latents))

    def __call__(
        self, image: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "height width channels"], DiagonalGaussian]:
        """Reconstruction of an image in [-1, 1] from a draw of its latents, and their posterior.

        Args:
            key: of the draw; without one the mean is decoded.
        """
        posterior = self.encode(image)
        return self.decode(posterior.mean if key is None else posterior.sample(key=key)), posterior


class VQAutoencoder(eqx.Module):
    """Autoencoder with a codebook (Esser et al. 2021, section 3.1).

    Args:
        channels: of the images.
        codes: number of codes.
        config: the sizes.
        code_dim: size of a code; `config.latent_dim` by default.
        commitment: weight of the encoder's part of the quantisation loss.
    """

    encoder: Encoder
    after: Convolution
    quantizer: VectorQuantizer
    before: Convolution
    decoder: Decoder
    channels: int = eqx.field(static=True)
    factor: int = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        codes: int,
        config: AutoencoderConfig,
        *,
        code_dim: int | None = None,
        commitment: float = 0.25,
        key: PRNGKeyArray,
    ):
        dim = config.latent_dim if code_dim is None else code_dim
        _check.positive(channels=channels, codes=codes, code_dim=dim)
        if not config.projected:
            raise ValueError("projected must be True: a codebook lies between two 1x1 convolutions")
        keys = RNG(key)
        self.encoder = Encoder(channels, config.latent_dim, config, key=next(keys))
        self.after = Convolution(config.latent_dim, dim, kernel=1, key=next(keys))
        self.quantizer = VectorQuantizer(codes, dim, commitment=commitment, key=next(keys))
        self.before = Convolution(dim, config.latent_dim, kernel=1, key=next(keys))
        self.decoder = Decoder(channels, config, key=next(keys))
        self.channels, self.factor = channels, config.factor

    @property
    def codes(self) -> int:
        """Number of codes."""
        return self.quantizer.codes

    def latents(self, image: Float[Array, "height width channels"]) -> Float[Array, "rows columns code_dim"]:
        """Latents of an image in [-1, 1] before they are quantised.

        Raises:
            ValueError: the image has another number of channels, or a side that the factor does not divide.
        """
        _check_image(image, self.channels, self.factor)
        return self.after(self.encoder(image))

    def encode(self, image: Float[Array, "height width channels"]) -> Int[Array, "rows columns"]:
        """Ids of an image in [-1, 1]."""
        return self.quantizer.nearest(self.latents(image))

    def decode(self, ids: _check.Ids) -> Float[Array, "height width channels"]:
        """Image of the ids (rows, columns); not clipped to [-1, 1]."""
        ids = jnp.asarray(_check.integers(ids, "ids"))
        _check.example(ids, "rows", "columns", name="ids")
        return self.decoder(self.before(self.quantizer.lookup(ids)))

    def __call__(
        self, image: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "height width channels"], Quantized]:
        """Reconstruction of an image in [-1, 1], and its quantised latents.

        Args:
            key: not used; every model has it.
        """
        quantized = self.quantizer(self.latents(image))
        return self.decoder(self.before(quantized.vectors)), quantized


def _pointwise(channels: int, present: bool, *, key: PRNGKeyArray) -> Convolution | None:
    return Convolution(channels, channels, kernel=1, key=key) if present else None


def _through(layer: Convolution | None, x: Array) -> Array:
    return x if layer is None else layer(x)


def _check_image(image: Array, channels: int, factor: int) -> None:
    _check.image(image, channels=channels)
    for name, side in zip(("height", "width"), image.shape):
        _check.divides(factor=factor, **{name: side})
