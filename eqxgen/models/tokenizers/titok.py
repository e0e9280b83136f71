"""TiTok: an image as a short row of tokens, without a grid (Yu et al. 2024, arXiv:2406.07550, section 3.1).

The encoder is a transformer over the patches and a few latent tokens, of which the latter are kept; the decoder is one
over the quantised tokens and a mask token at the place of each patch, of which the latter become pixels. Latents and
codes have length 1 by default.

Where we differ: one stage of training on pixels, where the paper begins on the codes of another tokenizer; the head is
that of ViT-VQGAN.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.configs import QuantizerConfig, TiTokConfig
from eqxgen.models.tokenizers.base import ImageTokenizer, grid_of
from eqxgen.models.tokenizers.quantizers import chosen
from eqxgen.models.tokenizers.vit_vqgan import pixels
from eqxgen.models.vit import encoder
from eqxgen.nn import ConvolutionTranspose, LayerNorm, PatchEmbed, Projection, Stack
from eqxgen.rng import RNG

normal = jax.nn.initializers.truncated_normal(0.02)


class Encoder(eqx.Module):
    """Image to latent tokens."""

    patches: PatchEmbed
    latents: Float[Array, "latents dim"]
    positions: Float[Array, "tokens dim"]
    stack: Stack
    norm: LayerNorm
    down: Projection

    def __init__(self, patches: int, channels: int, config: TiTokConfig, *, key: PRNGKeyArray):
        keys, dim = RNG(key), config.dim
        self.patches = PatchEmbed(channels, dim, patch=config.patch, init=normal, key=next(keys))
        self.latents = normal(next(keys), (config.latents, dim), jnp.float32)
        self.positions = normal(next(keys), (patches + config.latents, dim), jnp.float32)
        self.stack = _stack(config, next(keys))
        self.norm = LayerNorm(dim)
        self.down = Projection(dim, config.code_dim, init=normal, key=next(keys))

    def __call__(self, image: Float[Array, "height width channels"]) -> Float[Array, "latents code_dim"]:
        x = self.patches(image)
        x = jnp.concatenate([x, self.latents.astype(x.dtype)]) + self.positions.astype(x.dtype)
        return self.down(self.norm(self.stack(x))[-len(self.latents) :])


class Decoder(eqx.Module):
    """Latent tokens to an image."""

    up: Projection
    mask: Float[Array, "1 dim"]
    positions: Float[Array, "tokens dim"]
    stack: Stack
    norm: LayerNorm
    head: ConvolutionTranspose
    rows: int = eqx.field(static=True)

    def __init__(self, grid: tuple[int, int], channels: int, config: TiTokConfig, *, key: PRNGKeyArray):
        keys, dim, patch = RNG(key), config.dim, config.patch
        self.up = Projection(config.code_dim, dim, init=normal, key=next(keys))
        self.mask = normal(next(keys), (1, dim), jnp.float32)
        self.positions = normal(next(keys), (grid[0] * grid[1] + config.latents, dim), jnp.float32)
        self.stack = _stack(config, next(keys))
        self.norm = LayerNorm(dim)
        self.head = ConvolutionTranspose(
            dim, channels, kernel=patch, stride=patch, padding=0, init=pixels, key=next(keys)
        )
        self.rows = grid[0]

    def __call__(self, latents: Float[Array, "latents code_dim"]) -> Float[Array, "height width channels"]:
        return self.head(self.features(latents))

    def features(self, latents: Float[Array, "latents code_dim"]) -> Float[Array, "rows columns dim"]:
        """Input of the last layer."""
        x = self.up(latents)
        patches = len(self.positions) - len(x)
        masks = jnp.broadcast_to(self.mask.astype(x.dtype), (patches, x.shape[-1]))
        x = self.norm(self.stack(jnp.concatenate([masks, x]) + self.positions.astype(x.dtype)))
        return x[:patches].reshape(self.rows, -1, x.shape[-1])


class TiTok(ImageTokenizer):
    """The tokenizer.

    Args:
        height, width, channels: of the images; the patch divides the first two.
        config: the sizes.
        quantizer: another one than cosine; its codes and dim are those of the sizes.
        laplace: see `ImageTokenizer`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        channels: int,
        config: TiTokConfig,
        *,
        quantizer: QuantizerConfig | None = None,
        laplace: bool = False,
        key: PRNGKeyArray,
    ):
        grid = grid_of(height, width, channels, config.patch)
        first, second, third = jr.split(key, 3)
        quantizer = quantizer or QuantizerConfig("cosine", config.codes, config.code_dim)
        super().__init__(
            Encoder(grid[0] * grid[1], channels, config, key=first),
            chosen(quantizer, key=second),
            Decoder(grid, channels * (1 + laplace), config, key=third),
            (height, width, channels),
            (config.latents,),
            laplace=laplace,
        )


def _stack(config: TiTokConfig, key: PRNGKeyArray) -> Stack:
    return encoder(config.dim, config.depth, config.heads, hidden_dim=config.hidden_dim, remat=config.remat, key=key)
