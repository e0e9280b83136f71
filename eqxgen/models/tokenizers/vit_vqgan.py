"""ViT-VQGAN: images as codes of patches, by transformers (Yu et al. 2022, arXiv:2110.04627, section 3).

Pre-norm blocks with a tanh in the feed-forward and no bias of queries, keys and values; fixed sines and cosines as
positions, the columns first; a projection down to the codes and one up again; each patch by a transposed convolution.
The published quantiser is `QuantizerConfig(kind="cosine", past_norm=True)`: codes and latents of length 1.

The published code passes gradients past the norm of the latents, and has images in [0, 1] inside: `config.unit`.
"""

import equinox as eqx
import jax.nn.initializers as init
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.configs import QuantizerConfig, ViTVQGANConfig
from eqxgen.models.tokenizers.base import ImageTokenizer, grid_of
from eqxgen.models.tokenizers.quantizers import chosen
from eqxgen.nn import (
    MLP,
    ConvolutionTranspose,
    LayerNorm,
    PatchEmbed,
    Projection,
    SelfAttention,
    Stack,
    TransformerBlock,
    sincos_table,
)

EPSILON = 1e-5
xavier = init.glorot_uniform(in_axis=-1, out_axis=-2)
pixels = init.variance_scaling(2.0, "fan_avg", "uniform", in_axis=-2, out_axis=(-1, 0, 1))


class Encoder(eqx.Module):
    """Image to a latent of each patch."""

    patches: PatchEmbed
    stack: Stack
    norm: LayerNorm
    down: Projection

    def __init__(self, channels: int, config: ViTVQGANConfig, *, key: PRNGKeyArray):
        first, second, third = jr.split(key, 3)
        dim = config.dim
        self.patches = PatchEmbed(channels, dim, patch=config.patch, init=xavier, key=first)
        self.stack = blocks(*config.encoder, head_dim=config.head_dim, remat=config.remat, key=second)
        self.norm = LayerNorm(dim, epsilon=EPSILON)
        self.down = Projection(dim, config.code_dim, init=xavier, key=third)

    def __call__(self, image: Float[Array, "height width channels"]) -> Float[Array, "rows columns code_dim"]:
        x, patch = self.patches(image), self.patches.patch
        grid = (image.shape[0] // patch, image.shape[1] // patch)
        x = x + sincos_table(grid, x.shape[-1]).reshape(x.shape).astype(x.dtype)
        return self.down(self.norm(self.stack(x))).reshape(*grid, -1)


class Decoder(eqx.Module):
    """Latents to an image; the mirror of `Encoder`."""

    up: Projection
    stack: Stack
    norm: LayerNorm
    head: ConvolutionTranspose

    def __init__(self, channels: int, config: ViTVQGANConfig, *, key: PRNGKeyArray):
        first, second, third = jr.split(key, 3)
        dim, patch = config.decoder[0], config.patch
        self.up = Projection(config.code_dim, dim, init=xavier, key=first)
        self.stack = blocks(*config.decoder, head_dim=config.head_dim, remat=config.remat, key=second)
        self.norm = LayerNorm(dim, epsilon=EPSILON)
        self.head = ConvolutionTranspose(dim, channels, kernel=patch, stride=patch, padding=0, init=pixels, key=third)

    def __call__(self, latents: Float[Array, "rows columns code_dim"]) -> Float[Array, "height width channels"]:
        return self.head(self.features(latents))

    def features(self, latents: Float[Array, "rows columns code_dim"]) -> Float[Array, "rows columns dim"]:
        """Input of the last layer."""
        x = self.up(latents)
        x = x + sincos_table(x.shape[:2], x.shape[-1]).astype(x.dtype)
        return self.norm(self.stack(x.reshape(-1, x.shape[-1]))).reshape(x.shape)


class ViTVQGAN(ImageTokenizer):
    """The tokenizer.

    Args:
        height, width, channels: of the images; the patch divides the first two.
        config: the sizes.
        quantizer: another one than the published: its codes and dim are those of the sizes.
        laplace: see `ImageTokenizer`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        channels: int,
        config: ViTVQGANConfig,
        *,
        quantizer: QuantizerConfig | None = None,
        laplace: bool = False,
        key: PRNGKeyArray,
    ):
        grid = grid_of(height, width, channels, config.patch)
        first, second, third = jr.split(key, 3)
        quantizer = quantizer or QuantizerConfig("cosine", config.codes, config.code_dim, past_norm=True)
        super().__init__(
            Encoder(channels, config, key=first),
            chosen(quantizer, key=second),
            Decoder(channels * (1 + laplace), config, key=third),
            (height, width, channels),
            grid,
            unit=config.unit,
            laplace=laplace,
        )


def blocks(
    dim: int,
    depth: int,
    heads: int,
    hidden_dim: int,
    *,
    head_dim: int | None = None,
    remat: str = "none",
    key: PRNGKeyArray,
) -> Stack:
    """The published blocks of one half."""

    def block(key: PRNGKeyArray) -> TransformerBlock:
        attention_key, mlp_key = jr.split(key)
        attention = SelfAttention(dim, heads, head_dim=head_dim, init=xavier, key=attention_key)
        attention = eqx.tree_at(lambda a: a.qkv.bias, attention, None)
        return TransformerBlock(
            attention,
            MLP(dim, hidden_dim, activation="tanh", init=xavier, key=mlp_key),
            attention_norm=LayerNorm(dim, epsilon=EPSILON),
            mlp_norm=LayerNorm(dim, epsilon=EPSILON),
        )

    return Stack(block, depth, remat=remat, key=key)
