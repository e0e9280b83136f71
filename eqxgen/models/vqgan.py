"""VQGAN: images as a grid of codes (Esser et al. 2021, arXiv:2012.09841), in the form of the MaskGIT paper
(arXiv:2202.04200).

No attention and no biased convolution, group norm with epsilon 1e-6 and swish, average pooling down, nearest neighbour
and a convolution up.

The losses are in `eqxgen.losses.reconstruction`.

Difference: the codebook may start on data by k-means, and dead codes restart on encoder outputs, which the paper does
not need at its batch size.

`config.form="published"` is the net of the published weights: biases of the convolutions at both ends of the decoder,
after each doubling and after the encoder; where a block's channels change, the 1x1 convolution is of its branch; the
net's own images are in [0, 1], while those of the model stay in [-1, 1].
"""

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.configs import QuantizerConfig, VQGANConfig
from eqxgen.models.tokenizers.base import ImageTokenizer, grid_of
from eqxgen.models.tokenizers.quantizers import chosen
from eqxgen.nn import Convolution, GroupNorm, ResidualBlock, downsample, upsample
from eqxgen.rng import RNG


class Encoder(eqx.Module):
    """Image to a grid of latent vectors, `factor` times smaller along each side."""

    stem: Convolution
    levels: tuple[tuple[ResidualBlock, ...], ...]
    middle: tuple[ResidualBlock, ...]
    norm: GroupNorm
    head: Convolution
    remat: bool = eqx.field(static=True)

    def __init__(self, channels: int, config: VQGANConfig, *, key: PRNGKeyArray):
        self.remat = config.remat
        keys = RNG(key)
        widths = [config.width * m for m in config.multipliers]
        self.stem = Convolution(channels, config.width, bias=False, key=next(keys))
        self.levels = tuple(_blocks(old, new, config, keys) for old, new in zip([config.width, *widths], widths))
        self.middle = _blocks(widths[-1], widths[-1], config, keys)
        self.norm = GroupNorm(widths[-1], config.groups_of(widths[-1]), epsilon=1e-6)
        self.head = Convolution(widths[-1], config.latent_dim, kernel=1, bias=_published(config), key=next(keys))

    def __call__(self, image: Float[Array, "height width channels"]) -> Float[Array, "rows columns latent_dim"]:
        x = self.stem(image)
        for i, level in enumerate(self.levels):
            x = downsample(x) if i else x
            x = _run(level, x, self.remat)
        return self.head(self.norm(_run(self.middle, x, self.remat), activation="silu"))


class Decoder(eqx.Module):
    """Grid of codes to an image; the mirror of `Encoder`."""

    stem: Convolution
    middle: tuple[ResidualBlock, ...]
    levels: tuple[tuple[ResidualBlock, ...], ...]
    ups: tuple[Convolution, ...]
    norm: GroupNorm
    head: Convolution
    remat: bool = eqx.field(static=True)

    def __init__(self, channels: int, config: VQGANConfig, *, key: PRNGKeyArray):
        self.remat = config.remat
        keys = RNG(key)
        widths = [config.width * m for m in reversed(config.multipliers)]
        bias = _published(config)
        self.stem = Convolution(config.latent_dim, widths[0], bias=bias, key=next(keys))
        self.middle = _blocks(widths[0], widths[0], config, keys)
        self.levels = tuple(_blocks(old, new, config, keys) for old, new in zip([widths[0], *widths], widths))
        self.ups = tuple(Convolution(width, width, bias=bias, key=next(keys)) for width in widths[:-1])
        self.norm = GroupNorm(widths[-1], config.groups_of(widths[-1]), epsilon=1e-6)
        self.head = Convolution(widths[-1], channels, bias=bias, key=next(keys))

    def __call__(self, latents: Float[Array, "rows columns latent_dim"]) -> Float[Array, "height width channels"]:
        return self.head(self.features(latents))

    def features(self, latents: Float[Array, "rows columns latent_dim"]) -> Float[Array, "height width width_"]:
        """Input of the last layer."""
        x = _run(self.middle, self.stem(latents), self.remat)
        for i, level in enumerate(self.levels):
            x = self.ups[i - 1](upsample(x)) if i else x
            x = _run(level, x, self.remat)
        return self.norm(x, activation="silu")


class VQGAN(ImageTokenizer):
    """The tokenizer: encoder, codebook, decoder.

    Args:
        height, width, channels: of the images; both sides must be multiples of `config.factor`.
        config: the sizes.
        quantizer: another quantiser than the codebook of the sizes; its codes and dim are theirs.
        laplace: see `ImageTokenizer`.
    """

    form: str = eqx.field(static=True)

    def __init__(
        self,
        height: int,
        width: int,
        channels: int,
        config: VQGANConfig,
        *,
        quantizer: QuantizerConfig | None = None,
        laplace: bool = False,
        key: PRNGKeyArray,
    ):
        grid = grid_of(height, width, channels, config.factor)
        keys = RNG(key)
        encoder = Encoder(channels, config, key=next(keys))
        codes = chosen(config.quantizer if quantizer is None else quantizer, key=next(keys))
        decoder = Decoder(channels * (1 + laplace), config, key=next(keys))
        super().__init__(
            encoder, codes, decoder, (height, width, channels), grid, unit=_published(config), laplace=laplace
        )
        self.form = config.form


def _published(config: VQGANConfig) -> bool:
    return config.form == "published"


def _blocks(in_channels: int, out_channels: int, config: VQGANConfig, keys: RNG) -> tuple[ResidualBlock, ...]:
    return tuple(
        ResidualBlock(
            in_channels if i == 0 else out_channels,
            out_channels,
            group_width=config.group_width,
            branch=_published(config),
            key=next(keys),
        )
        for i in range(config.blocks)
    )


def _run(blocks: tuple[ResidualBlock, ...], x: Array, remat: bool) -> Array:
    for block in blocks:
        x = eqx.filter_checkpoint(block)(x) if remat else block(x)
    return x
