"""Taming transformers' VQGAN (Esser et al. 2021, arXiv:2012.09841) as a tokenizer of images of one shape.

The nets are those of `eqxgen.models.autoencoder`: attention at the smallest size, halving with a pad of one row and
column at the far border, 1x1 convolutions around the codes. `published` gives the same parts as a `VQAutoencoder`,
which `eqxgen.pretrained.autoencoder_vq` writes and reads.
"""

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.configs import QuantizerConfig, TamingConfig
from eqxgen.models import autoencoder
from eqxgen.models.tokenizers.base import ImageTokenizer, grid_of
from eqxgen.models.tokenizers.quantizers import chosen
from eqxgen.nn import Convolution, VectorQuantizer


class Encoder(eqx.Module):
    """Image to latents of the codes' size."""

    net: autoencoder.Encoder
    after: Convolution

    def __init__(self, channels: int, config: TamingConfig, *, key: PRNGKeyArray):
        first, second = jr.split(key)
        self.net = autoencoder.Encoder(channels, config.latent_dim, config, key=first)
        self.after = Convolution(config.latent_dim, config.code_dim, kernel=1, key=second)

    def __call__(self, image: Float[Array, "height width channels"]) -> Float[Array, "rows columns code_dim"]:
        return self.after(self.net(image))


class Decoder(eqx.Module):
    """Codes to an image."""

    before: Convolution
    net: autoencoder.Decoder

    def __init__(self, channels: int, config: TamingConfig, *, key: PRNGKeyArray):
        first, second = jr.split(key)
        self.before = Convolution(config.code_dim, config.latent_dim, kernel=1, key=first)
        self.net = autoencoder.Decoder(channels, config, key=second)

    @property
    def head(self) -> Convolution:
        """The last layer."""
        return self.net.head

    def __call__(self, latents: Float[Array, "rows columns code_dim"]) -> Float[Array, "height width channels"]:
        return self.head(self.features(latents))

    def features(self, latents: Float[Array, "rows columns code_dim"]) -> Float[Array, "height width width_"]:
        """Input of the last layer."""
        return self.net.features(self.before(latents))


class Taming(ImageTokenizer):
    """The tokenizer.

    Args:
        height, width, channels: of the images; both sides must be multiples of `config.factor`.
        config: the sizes.
        quantizer: another one than a learned codebook; its codes and dim are those of the sizes.
        laplace: see `ImageTokenizer`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        channels: int,
        config: TamingConfig,
        *,
        quantizer: QuantizerConfig | None = None,
        laplace: bool = False,
        key: PRNGKeyArray,
    ):
        grid = grid_of(height, width, channels, config.factor)
        first, second, third = jr.split(key, 3)
        super().__init__(
            Encoder(channels, config, key=first),
            chosen(quantizer or QuantizerConfig("vq", config.codes, config.code_dim), key=second),
            Decoder(channels * (1 + laplace), config, key=third),
            (height, width, channels),
            grid,
            laplace=laplace,
        )


def published(tokenizer: Taming, config: TamingConfig) -> autoencoder.VQAutoencoder:
    """The parts of a tokenizer as the published model, of images of any size.

    Raises:
        ValueError: the quantiser is no learned codebook.
    """
    if not isinstance(tokenizer.quantizer, VectorQuantizer):
        raise ValueError(f"quantizer must be a learned codebook, vq: got {type(tokenizer.quantizer).__name__}")
    make = lambda key: autoencoder.VQAutoencoder(
        tokenizer.channels, tokenizer.codes, config, code_dim=config.code_dim, key=key
    )
    shapes = eqx.filter_eval_shape(make, jr.key(0))
    encoder, decoder = tokenizer.encoder, tokenizer.decoder
    parts = (encoder.net, encoder.after, tokenizer.quantizer, decoder.before, decoder.net)
    return eqx.tree_at(lambda m: (m.encoder, m.after, m.quantizer, m.before, m.decoder), shapes, parts)
