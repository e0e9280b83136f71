"""U-ViT: a transformer that denoises, with skips as in a U-Net (Bao et al. 2023, arXiv:2209.12152).

The tokens are one of the class, one of the time and the patches of the image, with learned positions. Block i of the
second half gets the result of its twin in the first, concatenated and projected. A convolution over the assembled image
ends it. Weights are truncated normal with deviation 0.02, norms have epsilon 1e-5.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.configs import UViTConfig
from eqxgen.nn import (
    MLP,
    Convolution,
    Embedding,
    LayerNorm,
    LongSkipStack,
    PatchEmbed,
    SelfAttention,
    SinusoidalEmbedding,
    TransformerBlock,
    Unpatch,
    _check,
)
from eqxgen.rng import RNG

_small = jax.nn.initializers.truncated_normal(0.02)
EPSILON = 1e-5


class UViT(eqx.Module):
    """A prediction for a noised image or latent, of its shape.

    Args:
        height, width, channels: of the image; the patch size divides the first two.
        classes: number of labels; None for a net without classes.
        config: the sizes.
    """

    patches: PatchEmbed
    time: MLP | None
    labels: Embedding | None
    positions: Float[Array, "tokens dim"]
    stack: LongSkipStack
    norm: LayerNorm
    out: Unpatch
    last: Convolution | None
    height: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    classes: int | None = eqx.field(static=True)
    config: UViTConfig = eqx.field(static=True)

    def __init__(
        self, height: int, width: int, channels: int, classes: int | None, config: UViTConfig, *, key: PRNGKeyArray
    ):
        _check.positive(
            height=height, width=width, channels=channels, **({} if classes is None else {"classes": classes})
        )
        _check.divides(patch=config.patch, height=height)
        _check.divides(patch=config.patch, width=width)
        keys, dim = RNG(key), config.dim
        self.patches = PatchEmbed(channels, dim, patch=config.patch, init=_small, key=next(keys))
        self.time = MLP(dim, activation="swish", init=_small, key=next(keys)) if config.time_mlp else None
        rows = None if classes is None else classes + config.null
        self.labels = (
            None if rows is None else Embedding(rows, dim, init=jax.nn.initializers.normal(1.0), key=next(keys))
        )
        tokens = (height // config.patch) * (width // config.patch) + 1 + (classes is not None)
        self.positions = _small(next(keys), (tokens, dim), jnp.float32)
        self.stack = LongSkipStack(
            lambda key: _block(config, key), config.depth, dim=dim, remat=config.remat, init=_small, key=next(keys)
        )
        self.norm = LayerNorm(dim, epsilon=EPSILON)
        self.out = Unpatch(dim, channels, patch=config.patch, init=_small, key=next(keys))
        self.last = Convolution(channels, channels, key=next(keys)) if config.convolution else None
        self.height, self.width, self.channels, self.classes, self.config = height, width, channels, classes, config

    @property
    def null_label(self) -> int | None:
        """The label of no class; None for a net without classes or without a row for it."""
        return self.classes if self.config.null else None

    def __call__(
        self,
        x: Float[Array, "height width channels"],
        time: Float[Array, ""],
        label: _check.Ids | None = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "height width channels"]:
        """In float32 at least.

        Args:
            x: the noised image.
            time: how far the noise has come, in steps from 0 to 1,000 in the paper.
            label: in [0, classes), or `null_label`; None for a net without classes.
            key, inference: not used; every model has them.

        Raises:
            ValueError: x has another shape, or a label is missing, superfluous or out of range (inside a compiled
                program it gives NaN instead).
        """
        _check.example(x, height=self.height, width=self.width, channels=self.channels)
        if (label is None) != (self.labels is None):
            raise ValueError(
                f"label must be {'given' if label is None else 'None'}: the net has classes={self.classes}"
            )
        waves = SinusoidalEmbedding(self.config.dim, flip=True)(time).astype(x.dtype)[None]
        tokens = [waves if self.time is None else self.time(waves), self.patches(x)]
        if self.labels is not None and label is not None:
            label = _check.label(label, self.labels.vocab - self.config.null, self.config.null)
            tokens.insert(0, self.labels(label)[None].astype(x.dtype))
        h = jnp.concatenate(tokens) + self.positions.astype(x.dtype)
        h = self.norm(self.stack(h, inference=inference))[len(tokens) - 1 :]
        y = self.out(h, rows=self.height // self.config.patch)
        y = y if self.last is None else self.last(y)
        return widen(y)


def _block(config: UViTConfig, key: PRNGKeyArray) -> TransformerBlock:
    attention_key, mlp_key = jr.split(key)
    attention = SelfAttention(config.dim, config.heads, init=_small, key=attention_key)
    if not config.qkv_bias:
        attention = eqx.tree_at(lambda layer: layer.qkv.bias, attention, None)
    return TransformerBlock(
        attention,
        MLP(config.dim, config.hidden_dim, init=_small, key=mlp_key),
        attention_norm=LayerNorm(config.dim, epsilon=EPSILON),
        mlp_norm=LayerNorm(config.dim, epsilon=EPSILON),
    )
