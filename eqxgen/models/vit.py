"""ViT: a transformer over the patches of an image (Dosovitskiy et al. 2021, arXiv:2010.11929).

One net for the classifier, DINOv2 (Oquab et al. 2023, arXiv:2304.07193), and the image towers of ViT-MAE, CLIP and
SigLIP, by `eqxgen.configs.ViTConfig`. Pre-norm blocks over a class token, registers and patches with learned or fixed
positions, then a norm. Weights are drawn from a truncated normal of deviation 0.02, biases start at zero.

Where we differ: images are channels-last; the rate of `drop_path` is the same in every block. Published models expect
images normalised by the mean and deviation of their data, which is left to the caller.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.configs import ViTConfig
from eqxgen.nn import (
    GLU,
    MLP,
    AttentionPool,
    ClassToken,
    Dropout,
    LayerNorm,
    LayerScale,
    PatchEmbed,
    Projection,
    Registers,
    SelfAttention,
    Stack,
    TransformerBlock,
    _check,
    resized_positions,
    sincos_table,
)
from eqxgen.rng import RNG

normal = jax.nn.initializers.truncated_normal(0.02)


class ViT(eqx.Module):
    """Logits of an image's classes, or its features.

    Args:
        height, width, channels: of the image; the patch divides the first two.
        classes: number of labels; `None` gives the features without a classifier.
        config: the sizes.
    """

    patches: PatchEmbed
    class_token: ClassToken | None
    registers: Registers | None
    mask_token: Float[Array, "1 dim"] | None
    positions: Float[Array, "tokens dim"]
    embedding_norm: LayerNorm | None
    dropout: Dropout
    stack: Stack
    norm: LayerNorm
    pool: AttentionPool | None
    pooler: Projection | None
    head: Projection | None
    height: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    config: ViTConfig = eqx.field(static=True)

    def __init__(
        self, height: int, width: int, channels: int, classes: int | None, config: ViTConfig, *, key: PRNGKeyArray
    ):
        _check.positive(
            height=height, width=width, channels=channels, **({} if classes is None else {"classes": classes})
        )
        _check.divides(patch=config.patch, height=height)
        _check.divides(patch=config.patch, width=width)
        keys, dim = RNG(key), config.dim
        self.patches = PatchEmbed(
            channels, dim, patch=config.patch, bias=config.patch_bias, init=normal, key=next(keys)
        )
        self.class_token = ClassToken(dim, init=normal, key=next(keys)) if config.class_token else None
        self.registers = Registers(dim, config.registers, key=next(keys)) if config.registers else None
        self.mask_token = jnp.zeros((1, dim)) if config.mask_token else None
        grid = height // config.patch, width // config.patch
        self.positions = normal(next(keys), (grid[0] * grid[1] + config.class_token, dim), jnp.float32)
        if config.positions == "sincos":
            table = sincos_table(grid, dim).reshape(-1, dim)
            self.positions = jnp.concatenate([jnp.zeros((int(config.class_token), dim)), table])
        self.embedding_norm = LayerNorm(dim, epsilon=config.epsilon) if config.embedding_norm else None
        self.dropout = Dropout(config.dropout)
        self.stack = _encoder(config, next(keys))
        self.norm = LayerNorm(dim, epsilon=config.epsilon)
        self.pool = _attention_pool(config, next(keys)) if config.pool == "attention" else None
        features = dim * (2 if config.pool == "class+mean" else 1)
        self.pooler = Projection(features, features, init=normal, key=next(keys)) if config.pooler else None
        self.head = None if classes is None else Projection(features, classes, init=normal, key=next(keys))
        self.height, self.width, self.config = height, width, config

    def __call__(
        self,
        image: Float[Array, "height width channels"],
        *,
        mask: Bool[Array, " patches"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, " features"]:
        """Logits, in float32 at least; features of width `dim`, or twice that with pool "class+mean", without a
        classifier.

        Args:
            image: of the model's size; with `config.resize` of any that the patch divides.
            mask: true for the patches, row by row, that are replaced by the mask token.
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.

        Raises:
            ValueError: the image has another shape, or a mask is given to a model without mask token.
        """
        y = self.pooled(self.tokens(image, mask=mask, key=key, inference=inference))
        y = y if self.head is None else self.head(y)
        return widen(y)

    def tokens(
        self,
        image: Float[Array, "height width channels"],
        *,
        mask: Bool[Array, " patches"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "tokens dim"]:
        """Class token, registers and patches row by row, as far as there are any, after the last norm; the arguments
        are those of a call.
        """
        return self.encoded(self.embedded(image, mask), key=key, inference=inference)

    def embedded(
        self, image: Float[Array, "height width channels"], mask: Bool[Array, " patches"] | None = None
    ) -> Float[Array, "patches dim"]:
        """Patches with their positions, before the first block."""
        sides = {} if self.config.resize else {"height": self.height, "width": self.width}
        names = ("height", "width") if self.config.resize else ()
        _check.example(image, *names, name="image", **sides, channels=self.patches.channels)
        x = self.patches(image)
        if mask is not None:
            if self.mask_token is None:
                raise ValueError("mask needs a model of config.mask_token=True: got False")
            _check.example(mask, name="mask", patches=len(x))
            x = jnp.where(mask[:, None], self.mask_token.astype(x.dtype), x)
        grid = image.shape[0] // self.config.patch, image.shape[1] // self.config.patch
        return x + self._positions(*grid).astype(x.dtype)

    def encoded(
        self, patches: Float[Array, "patches dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "tokens dim"]:
        """Tokens after the last norm of some embedded patches, which may be fewer than an image's."""
        embed_key, stack_key = (None, None) if key is None else jr.split(key)
        x = self.dropout(self._sequence(patches), key=embed_key, inference=inference)
        return self.norm(self.stack(x, key=stack_key, inference=inference))

    def attention(self, image: Float[Array, "height width channels"]) -> Float[Array, "depth heads rows columns"]:
        """Attention probabilities of every block to the patches of an image: of the class token where it is pooled,
        otherwise the mean of those of all tokens. They sum to 1 with those to class token and registers.
        """
        x = self._sequence(self.embedded(image))
        rows, columns = (side // self.config.patch for side in image.shape[:2])

        def step(block: Any, x: Array, other: None) -> tuple[Array, Array]:
            q, k, _ = block.attention._heads(block.attention_norm(x), None)
            logits = jnp.einsum("qhd,khd->hqk", widen(q), widen(k)) * q.shape[-1] ** -0.5
            probabilities = jax.nn.softmax(logits)
            asked = probabilities[:, 0] if "class" in self.config.pool else jnp.mean(probabilities, axis=1)
            return block(x, inference=True), asked[:, -rows * columns :].reshape(-1, rows, columns)

        return self.stack.scan(step, x, None)[1]

    def pooled(self, tokens: Float[Array, "tokens dim"]) -> Float[Array, " features"]:
        """Feature of an image from its tokens."""
        y = self._pooled(tokens)
        return y if self.pooler is None else jnp.tanh(self.pooler(y))

    def resized(self, height: int, width: int) -> "ViT":
        """The same model for images of another size, with its positions resized.

        Raises:
            ValueError: the patch does not divide a side.
        """
        classes = None if self.head is None else self.head.out_dim
        make = lambda: ViT(height, width, self.patches.channels, classes, self.config, key=jr.key(0))
        other = jax.tree.structure(eqx.filter_eval_shape(make))
        patches = self._positions(height // self.config.patch, width // self.config.patch)
        table = jnp.concatenate([self.positions[: self.config.class_token], patches])
        return jax.tree.unflatten(other, jax.tree.leaves(eqx.tree_at(lambda m: m.positions, self, table)))

    def _positions(self, rows: int, columns: int) -> Float[Array, "patches dim"]:
        dim, patch = self.config.dim, self.config.patch
        table = self._table()[self.config.class_token :].reshape(self.height // patch, self.width // patch, dim)
        return resized_positions(table, rows, columns, antialias=self.config.antialias).reshape(rows * columns, dim)

    def _sequence(self, patches: Float[Array, "patches dim"]) -> Float[Array, "tokens dim"]:
        """Class token, registers and patches before the first block."""
        x = patches if self.registers is None else self.registers(patches)
        if self.class_token is not None:
            first = self.class_token.tokens + self._table()[:1]
            x = jnp.concatenate([first.astype(x.dtype), x])
        return x if self.embedding_norm is None else self.embedding_norm(x)

    def _table(self) -> Float[Array, "tokens dim"]:
        return self.positions if self.config.positions == "learned" else jax.lax.stop_gradient(self.positions)

    def _pooled(self, tokens: Array) -> Array:
        if self.pool is not None:
            return self.pool(tokens)
        if self.config.pool == "class":
            return tokens[0]
        mean = jnp.mean(tokens[self.config.class_token + self.config.registers :], axis=0)
        return mean if self.config.pool == "mean" else jnp.concatenate([tokens[0], mean])


def encoder(
    dim: int,
    depth: int,
    heads: int,
    *,
    hidden_dim: int | None = None,
    activation: str = "gelu",
    gated: bool = False,
    epsilon: float = 1e-6,
    layer_scale: float | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    remat: str = "none",
    key: PRNGKeyArray,
) -> Stack:
    """Pre-norm blocks, also of the towers and decoders around a ViT; the arguments are fields of `ViTConfig`."""

    def block(key: PRNGKeyArray) -> TransformerBlock:
        attention_key, mlp_key = jr.split(key)
        options: dict[str, Any] = {"dropout": dropout, "bias": True, "init": normal}
        norm = lambda: LayerNorm(dim, epsilon=epsilon)
        end = lambda: None if layer_scale is None else LayerScale(dim, layer_scale)
        return TransformerBlock(
            SelfAttention(dim, heads, causal=causal, probs_dropout=attention_dropout, **options, key=attention_key),
            (GLU if gated else MLP)(
                dim, hidden_dim, activation="swish" if gated else activation, **options, key=mlp_key
            ),
            attention_norm=norm(),
            mlp_norm=norm(),
            attention_out_norm=end(),
            mlp_out_norm=end(),
            placement="pre" if layer_scale is None else "sandwich",
            drop_path=drop_path,
        )

    return Stack(block, depth, remat=remat, key=key)


def _encoder(config: ViTConfig, key: PRNGKeyArray) -> Stack:
    names = [
        "hidden_dim",
        "activation",
        "gated",
        "epsilon",
        "layer_scale",
        "dropout",
        "attention_dropout",
        "drop_path",
        "remat",
    ]
    options: dict[str, Any] = {name: getattr(config, name) for name in names}
    return encoder(config.dim, config.depth, config.heads, **options, key=key)


def _attention_pool(config: ViTConfig, key: PRNGKeyArray) -> AttentionPool:
    sizes: dict[str, Any] = {"hidden_dim": config.hidden_dim, "activation": config.activation}
    return AttentionPool(config.dim, config.heads, **sizes, epsilon=config.epsilon, init=normal, key=key)
