"""VQGAN: images as a grid of codes (Esser et al. 2021, arXiv:2012.09841), in the form of the MaskGIT paper
(arXiv:2202.04200).

No attention and no biased convolution, group norm with epsilon 1e-6 and swish, average pooling down, nearest neighbour
and a convolution up.

The loss is `eqxgen.losses.reconstruction`.

Difference: the codebook may start on data by k-means, and dead codes restart on encoder outputs, which the paper does
not need at its batch size.

`config.form="published"` is the net of the published weights: biases of the convolutions at both ends of the decoder,
after each doubling and after the encoder; where a block's channels change, the 1x1 convolution is of its branch; the
net's own images are in [0, 1], while those of the model stay in [-1, 1].
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.configs import VQGANConfig
from eqxgen.nn import Convolution, EMAQuantizer, GroupNorm, ResidualBlock, VectorQuantizer, _check, downsample, upsample
from eqxgen.nn.quantize import Averages, Quantized
from eqxgen.rng import RNG


class Encoder(eqx.Module):
    """Image to a grid of latent vectors, `factor` times smaller along each side."""

    stem: Convolution
    levels: tuple[tuple[ResidualBlock, ...], ...]
    middle: tuple[ResidualBlock, ...]
    norm: GroupNorm
    head: Convolution

    def __init__(self, channels: int, config: VQGANConfig, *, key: PRNGKeyArray):
        keys = RNG(key)
        widths = [config.width * m for m in config.multipliers]
        self.stem = Convolution(channels, config.width, bias=False, key=next(keys))
        self.levels = tuple(_blocks(old, new, config, keys) for old, new in zip([config.width, *widths], widths))
        self.middle = _blocks(widths[-1], widths[-1], config, keys)
        self.norm = GroupNorm(widths[-1], min(32, widths[-1]), epsilon=1e-6)
        self.head = Convolution(widths[-1], config.latent_dim, kernel=1, bias=_published(config), key=next(keys))

    def __call__(self, image: Float[Array, "height width channels"]) -> Float[Array, "rows columns latent_dim"]:
        x = self.stem(image)
        for i, level in enumerate(self.levels):
            x = downsample(x) if i else x
            x = _run(level, x)
        return self.head(self.norm(_run(self.middle, x), activation="silu"))


class Decoder(eqx.Module):
    """Grid of codes to an image; the mirror of `Encoder`."""

    stem: Convolution
    middle: tuple[ResidualBlock, ...]
    levels: tuple[tuple[ResidualBlock, ...], ...]
    ups: tuple[Convolution, ...]
    norm: GroupNorm
    head: Convolution

    def __init__(self, channels: int, config: VQGANConfig, *, key: PRNGKeyArray):
        keys = RNG(key)
        widths = [config.width * m for m in reversed(config.multipliers)]
        bias = _published(config)
        self.stem = Convolution(config.latent_dim, widths[0], bias=bias, key=next(keys))
        self.middle = _blocks(widths[0], widths[0], config, keys)
        self.levels = tuple(_blocks(old, new, config, keys) for old, new in zip([widths[0], *widths], widths))
        self.ups = tuple(Convolution(width, width, bias=bias, key=next(keys)) for width in widths[:-1])
        self.norm = GroupNorm(widths[-1], min(32, widths[-1]), epsilon=1e-6)
        self.head = Convolution(widths[-1], channels, bias=bias, key=next(keys))

    def __call__(self, latents: Float[Array, "rows columns latent_dim"]) -> Float[Array, "height width channels"]:
        x = _run(self.middle, self.stem(latents))
        for i, level in enumerate(self.levels):
            x = self.ups[i - 1](upsample(x)) if i else x
            x = _run(level, x)
        return self.head(self.norm(x, activation="silu"))


class VQGAN(eqx.Module):
    """The tokenizer: encoder, codebook, decoder.

    Args:
        height, width, channels: of the images; both sides must be multiples of `config.factor`.
        config: the sizes.
    """

    encoder: Encoder
    quantizer: VectorQuantizer | EMAQuantizer
    decoder: Decoder
    height: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    factor: int = eqx.field(static=True)
    form: str = eqx.field(static=True)

    def __init__(self, height: int, width: int, channels: int, config: VQGANConfig, *, key: PRNGKeyArray):
        _check.positive(height=height, width=width, channels=channels)
        _check.divides(factor=config.factor, height=height)
        _check.divides(factor=config.factor, width=width)
        keys = RNG(key)
        self.encoder = Encoder(channels, config, key=next(keys))
        options: dict[str, Any] = {"commitment": config.commitment, "temperature": config.temperature}
        if config.codebook == "ema":
            options |= {"decay": config.codebook_decay, "axis_name": "batch"}
        kind = EMAQuantizer if config.codebook == "ema" else VectorQuantizer
        self.quantizer = kind(config.codes, config.latent_dim, key=next(keys), **options)
        self.decoder = Decoder(channels, config, key=next(keys))
        self.height, self.width, self.channels, self.factor = height, width, channels, config.factor
        self.form = config.form

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.height, self.width, self.channels

    @property
    def codes(self) -> int:
        """Number of codes."""
        return self.quantizer.codes

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return (self.height // self.factor) * (self.width // self.factor)

    def __call__(
        self, image: Float[Array, "height width channels"]
    ) -> tuple[Float[Array, "height width channels"], Quantized]:
        """The reconstruction of an image in [-1, 1], and its quantised latents; of a learned codebook."""
        return self.reconstruct(image)[:2]

    def init_state(self) -> Averages | None:
        """Averages of a moving codebook; None for a learned one."""
        return self.quantizer.init_state() if isinstance(self.quantizer, EMAQuantizer) else None

    def reconstruct(
        self,
        image: Float[Array, "height width channels"],
        state: Averages | None = None,
        *,
        weight: Float[Array, ""] | None = None,
    ) -> tuple[Float[Array, "height width channels"], Quantized, Averages | None]:
        """The reconstruction of an image in [-1, 1], its quantised latents, and the averages of a moving codebook after
        it. The batch of a moving codebook is the axis `batch` of `jax.vmap`.

        Args:
            state: of a moving codebook, as `init_state` gives it.
            weight: of the image in the averages: 0 for padding, else 1.
        """
        latents = self._latents(image)
        if isinstance(self.quantizer, EMAQuantizer):
            if state is None:
                raise ValueError("state must be given for codebook=ema: call model.reconstruct(image, state)")
            quantized, state = self.quantizer(latents, state, weight=weight)
        else:
            quantized = self.quantizer(latents)
        return self._image(quantized.vectors), quantized, state

    def settled(self, state: Averages | None) -> "VQGAN":
        """The tokenizer with the codes of a moving codebook as a learned one, which needs no state."""
        if not isinstance(self.quantizer, EMAQuantizer) or state is None:
            return self
        old = self.quantizer
        learned = VectorQuantizer(
            old.codes, old.dim, commitment=old.commitment, temperature=old.temperature, key=jr.key(0)
        )
        learned = eqx.tree_at(lambda q: q.codebook, learned, state.codebook(old.epsilon))
        return eqx.tree_at(lambda model: model.quantizer, self, learned)

    @property
    def _learned(self) -> VectorQuantizer:
        if isinstance(self.quantizer, EMAQuantizer):
            raise ValueError("codebook=ema must be settled first: call model.settled(state), and encode by the result")
        return self.quantizer

    def encode(self, image: Float[Array, "height width channels"]) -> Int[Array, " tokens"]:
        """Ids of an image in [-1, 1], row by row."""
        return rearrange(self._learned.nearest(self._latents(image)), "h w -> (h w)")

    def decode(self, ids: _check.Ids) -> Float[Array, "height width channels"]:
        """The image of the ids (tokens,), clipped to [-1, 1]."""
        ids = jnp.asarray(_check.integers(ids, "ids"))
        _check.example(ids, name="ids", tokens=self.tokens)
        latents = rearrange(self._learned.lookup(ids), "(h w) c -> h w c", h=self.height // self.factor)
        return jnp.clip(self._image(latents), -1, 1)

    def _latents(self, image: Float[Array, "height width channels"]) -> Float[Array, "rows columns latent_dim"]:
        return self.encoder((image + 1) / 2 if self.form == "published" else image)

    def _image(self, latents: Float[Array, "rows columns latent_dim"]) -> Float[Array, "height width channels"]:
        image = self.decoder(latents)
        return 2 * image - 1 if self.form == "published" else image


def _published(config: VQGANConfig) -> bool:
    return config.form == "published"


def _blocks(in_channels: int, out_channels: int, config: VQGANConfig, keys: RNG) -> tuple[ResidualBlock, ...]:
    return tuple(
        ResidualBlock(in_channels if i == 0 else out_channels, out_channels, branch=_published(config), key=next(keys))
        for i in range(config.blocks)
    )


def _run(blocks: tuple[ResidualBlock, ...], x: Array) -> Array:
    for block in blocks:
        x = block(x)
    return x
